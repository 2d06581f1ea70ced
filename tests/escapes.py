"""Small programs that try to get out of a sandbox, to see what is outside, or to take more than their share; and what an escape looks like.

Each ends with a line `HELD why` or `REACHED what`, or is ended by a limit. The same table serves every backend that isolates.
Past 400 lines because it is one table.
"""

# ruff: noqa: E501  # a program on its line keeps it a table

from __future__ import annotations

import textwrap
from dataclasses import dataclass

__all__ = ["PROBES", "Probe", "program"]


@dataclass(frozen=True)
class Probe:
    """`ends`: how it may end: "held", or the code of a failure. `control`: without a sandbox it reaches, and does no harm doing so."""

    name: str
    code: str
    ends: tuple[str, ...] = ("held",)
    control: bool = False
    seconds: float = 20.0
    only: str = ""  # a backend that promises more than others


PRELUDE = r"""
import ctypes, errno, glob, json, mmap, os, platform, resource, signal, socket, stat, struct, subprocess, sys, threading, time
given = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
OUT = os.environ.get("TRADESKILL_OUTPUT", "/nowhere")
def held(why): print("HELD", str(why)[:200], flush=True); os._exit(0)
def reached(what): print("REACHED", str(what)[:200], flush=True); os._exit(0)
def call(x86, arm, *arguments):
    number = x86 if platform.machine() == "x86_64" else arm
    words = [ctypes.c_void_p(word) if isinstance(word, int) else word for word in arguments]
    ctypes.set_errno(0)
    answer = libc.syscall(ctypes.c_long(number), *words)
    if answer < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
def attempt(*actions):
    reasons = []
    for action in actions:
        try: answer = action()
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error: reasons.append(f"{type(error).__name__} {error}"); continue
        if answer is not None and answer is not False: reached(repr(answer))
        reasons.append(repr(answer))
    held("; ".join(reasons))
def refused(action):
    try: answer = action()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS): held(error)
        reached(f'no refusal, but {error}')
    reached(repr(answer))
def read(path): return open(path, "rb").read(200000)
def seen(path):
    data = read(path)
    return data if given["canary"].encode() in data else None
def wrote(path, data=b"x"):
    with open(path, "r+b", buffering=0) as opened: opened.write(data)
    return path
"""


def program(probe: Probe) -> tuple[str, ...]:
    return ("python", "-I", "-S", "-c", PRELUDE + textwrap.dedent(probe.code))


def _reads(name: str, code: str, control: bool = True) -> Probe:
    return Probe(f"reads {name}", code, control=control)


def _calls(name: str, code: str, control: bool = False, only: str = "") -> Probe:
    return Probe(name, f"attempt(lambda: {code})", control=control, only=only)


def _refused(name: str, code: str, control: bool = False, only: str = "") -> Probe:
    """Any answer but a refusal says that the kernel looked at the call."""
    return Probe(name, f"refused(lambda: {code})", control=control, only=only)


FILES = [
    _reads("the seed", "attempt(lambda: seen(given['seed']))"),
    _reads("the identity", "attempt(lambda: seen(given['identity']))"),
    _reads("the journal", "attempt(lambda: seen(given['journal']))"),
    _reads("the configuration", "attempt(lambda: seen(given['config']))"),
    _reads("the profile's list of files", "attempt(lambda: 'journal.db' in os.listdir(given['profile']) or None)"),
    _reads("a file in the user's home", "attempt(lambda: seen(given['private']))"),
    _reads("another job's input", "attempt(lambda: seen(given['other'] + '/stdin'))"),
    _reads("another job's output", "attempt(lambda: seen(given['other'] + '/output/result.txt'))"),
    _reads("the list of executions", "attempt(lambda: os.listdir(given['executions']) or None)"),
    _reads("/root", "attempt(lambda: os.listdir('/root') and [name for name in os.listdir('/root') if name not in given['shown']] or None)", control=False),
    _reads("/home", "attempt(lambda: os.listdir('/home') or None)", control=False),
    _reads("/etc/shadow", "attempt(lambda: read('/etc/shadow'))", control=False),
    _reads("ssh keys", "attempt(lambda: glob.glob(os.path.join('/root', '.ssh', '*')) + glob.glob('/home/*/.ssh/*') or None)", control=False),
    _reads("/run", "attempt(*[lambda path=path: [name for name in os.listdir(path) if (name, given['container']) != ('podman-init', True)] or None for path in ('/run', '/var/run')])", control=False),
    _reads("/var/log", "attempt(lambda: os.listdir('/var/log') or None)", control=False),
    _reads("/sys", "attempt(lambda: None if given['container'] else os.listdir('/sys') or None)", control=False),
    _reads("the environment of its parents", "attempt(lambda: seen(f'/proc/{os.getppid()}/environ'), lambda: seen('/proc/1/environ'))", control=False),
    _reads("its own environment", "attempt(lambda: given['canary'] in repr(os.environ) or None)", control=False),
    _reads("every environment in /proc", """
        for path in glob.glob('/proc/[0-9]*/environ'):
            try:
                if seen(path): reached(path)
            except OSError: continue
        held('none of them')
        """),
    _reads("every command line in /proc", """
        for path in glob.glob('/proc/[0-9]*/cmdline'):
            try:
                if given['victim_word'].encode() in read(path): reached(path)
            except OSError: continue
        held('none of them')
        """),
    _reads("the seed through /proc/*/root", "attempt(*[lambda path=path: seen(path + given['seed']) for path in glob.glob('/proc/[0-9]*/root')])"),
    _reads("the seed through /proc/*/cwd", "attempt(*[lambda path=path: seen(path + '/../..' * 9 + given['seed']) for path in glob.glob('/proc/[0-9]*/cwd')])"),
    _reads("what other processes have open", """
        for path in glob.glob('/proc/[0-9]*/fd/*'):
            try:
                if os.path.isfile(path) and not os.path.samestat(os.stat(path), os.fstat(0)) and seen(path): reached(path)
            except OSError: continue
        held('none of them')
        """),
    _reads("the memory of another process", """
        def look():
            for line in open(f"/proc/{given['victim']}/maps"):
                start, end = (int(word, 16) for word in line.split()[0].split('-'))
                if '[stack]' in line:
                    memory = open(f"/proc/{given['victim']}/mem", 'rb', 0); memory.seek(start)
                    return given['canary'].encode() in memory.read(end - start) or None
        attempt(look)
        """),
    _reads("more than three inherited descriptors", """
        kept = []
        for number in range(3, 256):
            try: os.fstat(number)
            except OSError: continue
            kept.append(os.readlink(f'/proc/self/fd/{number}'))
        attempt(lambda: kept or None)
        """, control=False),
    _reads("a file by its handle", """
        def look():
            for mount in ('/', '/usr', '/job/program', '/tmp'):
                handle = ctypes.create_string_buffer(struct.pack('IiQ', 8, 1, 2), 128)
                where = os.open(mount, os.O_RDONLY)
                try: return call(304, 265, where, handle, os.O_RDONLY)
                except OSError as error: last = error
            raise last
        attempt(look)
        """, control=False),
    _reads("kernel memory", "attempt(lambda: read('/proc/kcore')[:4], lambda: open('/dev/mem', 'rb').read(16), lambda: open('/dev/kmem', 'rb').read(16))", control=False),
    _reads("the kernel's log", "attempt(lambda: os.read(os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK), 100), lambda: call(103, 116, 3, ctypes.create_string_buffer(100), 100) or None)", control=False),
    _reads("kernel symbols", "attempt(lambda: any(int(line.split()[0], 16) for line in open('/proc/kallsyms').read(9000).splitlines()[:50]) or None)", control=False),
    _reads("the list of keys", "attempt(lambda: given['key'] in open('/proc/keys').read() or None)", control=False),
    _reads("a disk", "attempt(*[lambda path=path: open(path, 'rb').read(16) for path in ('/dev/vda', '/dev/sda', '/dev/nvme0n1', '/dev/loop0', '/dev/zram0')])", control=False),
    _reads("device nodes that open the machine", "attempt(*[lambda path=path: os.open(path, os.O_RDWR) for path in ('/dev/kvm', '/dev/fuse', '/dev/net/tun', '/dev/vsock', '/dev/btrfs-control', '/dev/loop-control', '/dev/userfaultfd', '/dev/port', '/dev/snapshot')])", control=False),
]  # fmt: skip

WRITES = [
    Probe("writes a file outside by its path", "attempt(lambda: wrote(given['writable']))", control=True),
    Probe("makes a file outside by its path", "attempt(lambda: open(given['profile'] + '/left-by-a-job', 'x'))", control=True),
    Probe("writes into its program's folder", "attempt(*[lambda path=path: open(path + '/new', 'w') for path in ('/job/program', given['program'])])", control=True),
    Probe("changes its program", "attempt(*[lambda path=path: wrote(path + '/job.py') for path in ('/job/program', given['program'])])", control=True),
    Probe("writes into the system", "attempt(*[lambda path=path: open(path, 'w') for path in ('/usr/new', '/usr/bin/new', '/usr/lib/new', '/new', '/bin/new', '/lib/new', '/dev/new', '/etc/new')])"),
    Probe("changes users", "attempt(*[lambda path=path: open(path, 'r+b') for path in ('/etc/passwd', '/etc/group')])"),
    Probe("plants a preloaded library", "attempt(lambda: open('/etc/ld.so.preload', 'w'), lambda: open('/etc/ld.so.cache', 'r+b'))"),
    Probe("writes sysctls", "attempt(*[lambda path=path: wrote(path, read(path)) for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/sys/kernel/modprobe', '/proc/sys/vm/overcommit_memory', '/proc/sys/fs/file-max')])"),
    Probe("presses sysrq", "attempt(lambda: wrote('/proc/sysrq-trigger', b'h'))"),
    Probe("writes control groups", """
        def look(path):
            os.mkdir(path + '/job'); return path
        attempt(*[lambda path=path: look(path) for path in ('/sys/fs/cgroup', '/sys/fs/cgroup/pids', '/sys/fs/cgroup/memory', '/sys/fs/cgroup/unified')])
        """),
    Probe("leaves its control group", "attempt(*[lambda path=path: wrote(path, b'0') for path in glob.glob('/sys/fs/cgroup/*/cgroup.procs') + ['/sys/fs/cgroup/cgroup.procs']])"),
    Probe("writes uevent_helper", "attempt(lambda: open('/sys/kernel/uevent_helper', 'r+b'), lambda: open('/sys/power/state', 'r+b'))"),
    Probe("makes itself the last to be killed", "attempt(lambda: given['root'] and wrote('/proc/self/oom_score_adj', b'-1000') or None)"),
    Probe("makes device nodes", "attempt(lambda: os.mknod('/tmp/disk', 0o600 | stat.S_IFBLK, os.makedev(254, 0)) or 'made', lambda: os.mknod(OUT + '/null', 0o600 | stat.S_IFCHR, os.makedev(1, 3)) or 'made')"),
    Probe("dumps core", """
        resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
        pid = os.fork()
        if pid == 0: os.abort()
        status = os.waitpid(pid, 0)[1]
        attempt(lambda: os.WCOREDUMP(status) or glob.glob('core*') or None)
        """),
]  # fmt: skip

NETWORK = [
    Probe("connects to the machine over IPv4", "attempt(lambda: socket.create_connection(('127.0.0.1', given['tcp']), 3))", control=True),
    Probe("connects to the machine over IPv6", "attempt(lambda: socket.create_connection(('::1', given['tcp6']), 3) if given['tcp6'] else None)"),
    Probe("sends to the machine over UDP", "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(given['shout'].encode(), ('127.0.0.1', given['udp'])) and None)"),
    Probe("connects to a Unix socket", "s = socket.socket(socket.AF_UNIX); attempt(lambda: s.connect(given['unix']) or 'connected')", control=True),
    Probe("connects to an abstract Unix socket", "s = socket.socket(socket.AF_UNIX); attempt(lambda: s.connect(chr(0) + given['abstract']) or 'connected')", control=True),
    Probe("connects to known sockets of the machine", "attempt(*[lambda path=path: socket.socket(socket.AF_UNIX).connect(path) or path for path in ('/run/docker.sock', '/var/run/docker.sock', '/run/podman/podman.sock', '/run/systemd/private', '/run/dbus/system_bus_socket', '/run/containerd/containerd.sock')])"),
    Probe("opens a raw socket", "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))"),
    Probe("opens a packet socket", "attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300))"),
    Probe("opens a vsock to the machine's host", "attempt(lambda: socket.socket(40, socket.SOCK_STREAM))"),
    Probe("changes the network over netlink", """
        def ask():
            s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            body = struct.pack('=BBHiII', 0, 0, 0, 1, 0, 0)  # sets nothing, which takes the same right
            s.send(struct.pack('=IHHII', 16 + len(body), 16, 5, 1, 0) + body)
            answer = s.recv(4096)
            return struct.unpack('=i', answer[16:20])[0] == 0 or None
        attempt(ask)
        """),
    Probe("sees other interfaces than its own", "attempt(lambda: [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:] if line.split(':')[0].strip() != 'lo'] or None)"),
    Probe("asks the metadata service", "attempt(lambda: socket.create_connection(('169.254.169.254', 80), 2))"),
    Probe("has a way out of the machine", "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); attempt(lambda: s.connect(('192.0.2.1', 53)) or 'routed')", control=False),
    Probe("looks up a name", "attempt(lambda: socket.getaddrinfo('example.org', 443))"),
    Probe("uses the kernel's ciphers by socket", "attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET).bind(('hash', 'sha256')) or 'bound')", only="bubblewrap"),
]  # fmt: skip

PROCESSES = [
    Probe("kills another process", "attempt(lambda: os.kill(given['spare'], 9) or 'killed')"),
    Probe("asks whether another process is there", "attempt(lambda: os.kill(given['victim'], 0) or (given['victim_word'].encode() in read(f\"/proc/{given['victim']}/cmdline\")) or None)", control=True),
    Probe("kills whatever it can", """
        if os.getpid() > 1000 or len([name for name in os.listdir('/proc') if name.isdigit()]) > 20: reached('the machine, which is spared')
        signal.signal(15, signal.SIG_IGN); os.kill(-1, 15); time.sleep(0.1); held('still here')
        """, ends=("held", "exit", "stopped"), control=True),
    Probe("kills its parent and the first process", """
        for pid in (os.getppid(), 1):
            for number in (9, 19):
                try: os.kill(pid, number)
                except OSError: pass
        held('still here')
        """, ends=("held", "exit")),
    Probe("attaches to another process", "attempt(lambda: call(101, 117, 0x4206, given['victim'], 0, 0) or 'attached')", control=True),
    Probe("attaches to the first process", "attempt(lambda: None if given['container'] else call(101, 117, 0x4206, 1, 0, 0) or 'attached')"),
    Probe("reads another process by a call", """
        local = ctypes.create_string_buffer(64)
        def look():
            start = int(open(f"/proc/{given['victim']}/maps").readline().split('-')[0], 16)
            mine, theirs = struct.pack('QQ', ctypes.addressof(local), 64), struct.pack('QQ', start, 64)
            return call(310, 270, given['victim'], mine, 1, theirs, 1, 0)
        attempt(look)
        """, control=True),
    _calls("compares itself with another process", "call(312, 272, os.getpid(), given['victim'], 1, 0, 0) + 1", control=True),
    Probe("takes a descriptor of another process", "attempt(lambda: call(438, 438, os.pidfd_open(given['victim']), 0, 0))", control=True),
    _calls("slows another process down", "os.setpriority(os.PRIO_PROCESS, given['spare'], 19) or 'slowed'"),
    _calls("limits another process", "resource.prlimit(given['spare'], resource.RLIMIT_NOFILE, (64, 64)) and 'limited'"),
    _calls("moves another process to one processor", "os.sched_setaffinity(given['spare'], {0}) or 'moved'"),
]  # fmt: skip

PRIVILEGES = [
    _calls("becomes root", "(os.setuid(0) or os.getuid() == 0 and open('/etc/shadow').read()) or None"),
    _calls("changes its groups", "os.setgroups([0]) or 'changed'"),
    Probe("gains by a setuid program", """
        def look():
            for name in ('su', 'passwd', 'newgrp', 'mount', 'umount', 'chsh', 'sudo', 'pkexec', 'ping'):
                path = '/usr/bin/' + name
                if not os.path.exists(path) or not os.stat(path).st_mode & stat.S_ISUID: continue
                child = os.fork()
                if child == 0:
                    os.dup2(os.open('/dev/null', os.O_RDWR), 2)
                    os.execv(path, [name, '--help'])
                answer = None
                while os.waitpid(child, os.WNOHANG)[0] == 0:
                    try: effective = [line.split()[2] for line in open(f'/proc/{child}/status') if line.startswith('Uid:')][0]
                    except (OSError, IndexError): break
                    if effective == '0' and os.getuid() != 0: answer = path
                if answer: return answer
        attempt(look)
        """),
    Probe("has capabilities", "attempt(lambda: [line for line in open('/proc/self/status') if line.startswith('Cap') and int(line.split()[1], 16)] or None)"),
    Probe("may still gain privileges", "attempt(lambda: 'NoNewPrivs:\\t1' not in open('/proc/self/status').read() or None)", control=True),
    Probe("runs without a system call filter", "attempt(lambda: 'Seccomp:\\t2' not in open('/proc/self/status').read() or None)", control=True),
    _calls("makes a user namespace", "call(272, 97, 0x10000000) or 'made'", control=True),
    _calls("makes a mount namespace", "call(272, 97, 0x00020000) or 'made'"),
    _calls("makes a network namespace", "call(272, 97, 0x40000000) or 'made'"),
    _calls("makes a process namespace", "call(272, 97, 0x20000000) or 'made'"),
    _calls("makes a user and mount namespace", "call(272, 97, 0x10020000) or 'made'", control=True),
    Probe("clones into a user namespace", """
        def look():
            pid = call(56, 220, 0x10000000 | 17, 0, 0, 0, 0)
            if pid == 0: os._exit(0)
            os.waitpid(pid, 0); return 'cloned'
        attempt(look)
        """, control=True),
    Probe("clones into a user namespace by clone3", """
        def look():
            pid = call(435, 435, struct.pack('8Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64)
            if pid == 0: os._exit(0)
            os.waitpid(pid, 0); return 'cloned'
        attempt(look)
        """, control=True),
    Probe("enters the machine's namespaces", "attempt(*[lambda path=path: call(308, 268, os.open(path, os.O_RDONLY), 0) or path for path in glob.glob('/proc/1/ns/*') + glob.glob('/proc/self/ns/net')])"),
    _calls("mounts a tmpfs", "libc.mount(b't', b'/tmp', b'tmpfs', 0, None) == 0 or None"),
    _calls("mounts another /proc", "libc.mount(b'p', b'/tmp', b'proc', 0, None) == 0 or None"),
    _calls("binds a folder over another", "libc.mount(b'/usr', b'/tmp', None, 0x1000, None) == 0 or None"),
    _calls("remounts the system writable", "any(libc.mount(None, path, None, 0x1020, None) == 0 for path in (b'/', b'/usr', b'/job/program', b'/dev')) or None"),
    _calls("mounts a control group hierarchy", "any(libc.mount(b'c', b'/tmp', kind, 0, b'rdma') == 0 for kind in (b'cgroup', b'cgroup2')) or None"),
    _calls("unmounts what hides the machine", "any(libc.umount2(path, flag) == 0 for path in (b'/proc/kcore', b'/proc/keys', b'/dev/shm', b'/tmp') for flag in (0, 8)) or None"),
    _calls("turns the root around", "call(155, 41, b'/tmp', b'/tmp') or 'turned'"),
    _calls("changes its root", "call(161, 51, b'/tmp') or 'changed'"),
    _calls("opens a file system by fsopen", "call(430, 430, b'tmpfs', 0)"),
    _calls("clones a mount by open_tree", "call(428, 428, -100, b'/usr', 1)"),
    _calls("changes a mount by mount_setattr", "call(442, 442, -100, b'/usr', 0, struct.pack('4Q', 0, 1, 0, 0), 32) or 'changed'"),
    _calls("takes realtime priority", "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)) or 'taken'"),
    _calls("goes before others", "os.nice(-5) < 0 or None"),
    _calls("raises its own limits", "resource.setrlimit(resource.RLIMIT_NPROC, (-1, -1)) or 'raised'", control=False),
]  # fmt: skip

KERNEL = [
    _refused("loads a bpf program", "call(321, 280, 0, struct.pack('IIII', 1, 4, 4, 1) + bytes(100), 116)"),
    _refused("opens a performance counter", "call(298, 241, struct.pack('IIQ', 1, 112, 0) + bytes(96), 0, -1, -1, 0)"),
    _refused("opens userfaultfd", "call(323, 282, 1)"),
    _refused("sets up io_uring", "call(425, 425, 4, ctypes.create_string_buffer(120))", control=True),
    _refused("changes its personality", "call(135, 92, 0x0400000) + 1", control=True),
    _refused("adds a key", "call(248, 217, b'user', b'escape', b'x', 1, -2)", control=True),
    _refused("requests a key", "call(249, 218, b'user', given['key'].encode(), 0, -4)"),
    _refused("searches the keyring", "call(250, 219, 10, -4, b'user', given['key'].encode(), 0)"),
    _refused("names a session keyring", "call(250, 219, 1, b'escape', 0, 0)", control=True),
    _refused("sets the clock", "call(227, 112, 0, struct.pack('qq', int(time.time()), 0)) or 'set'"),
    _refused("sets the time of day", "call(164, 170, struct.pack('qq', int(time.time()), 0), 0) or 'set'"),
    _refused("bends the clock", "call(159, 171, struct.pack('I', 0x0100) + bytes(300)) or 'bent'"),
    _refused("names the machine", "call(170, 161, socket.gethostname().encode(), len(socket.gethostname())) or 'named'"),
    _refused("names its domain", "call(171, 162, b'(none)', 6) or 'named'"),
    _refused("turns ctrl-alt-delete off", "call(169, 142, 0xfee1dead, 672274793, 0, 0)"),
    _refused("loads another kernel", "call(246, 104, 0, 0, 0, 0) or 'loaded'"),
    _refused("loads a module", "call(175, 105, b'x', 1, b'')"),
    _refused("unloads a module", "call(176, 106, b'nothing', 0x800)", control=False),
    _refused("swaps onto a file", "call(167, 224, b'/tmp/swap', 0) or 'on'"),
    _refused("accounts processes into a file", "call(163, 89, 0) or 'off'"),
    _refused("asks for disk quotas", "call(179, 60, 0x80000100, b'/dev/vda', 0, 0)"),
    Probe("gets at the ports", "attempt(lambda: call(172, 9999, 3) or 'got', lambda: call(173, 9999, 0, 16, 1) or 'got')"),
    _refused("watches all files", "call(300, 262, 0, 0)"),
    Probe("types into a terminal", """
        import fcntl
        def look():
            master, slave = os.openpty()
            os.setsid() if os.getpid() != os.getsid(0) else None
            fcntl.ioctl(slave, 0x540E, 0)
            return fcntl.ioctl(slave, 0x5412, b'x') or 'typed'
        attempt(look, lambda: fcntl.ioctl(os.open('/dev/tty', os.O_RDWR), 0x5412, b'x') or 'typed', lambda: fcntl.ioctl(0, 0x5412, b'x') or 'typed')
        """),
    Probe("calls the kernel as a 32 bit program", """
        if platform.machine() != 'x86_64': held('not here')
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(bytes.fromhex('53b814000000cd805bc3'))  # getpid by int 0x80
        number = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        attempt(lambda: number if number > 0 else None)
        """, ends=("held", "exit"), control=True, only="bubblewrap"),
    Probe("calls the kernel by x32 numbers", "attempt(lambda: call(0x40000000 + 39, 99999))", ends=("held", "exit")),
    _refused("makes shared memory that outlives it", "call(29, 194, 0, 4096, 0o1600)", control=False, only="bubblewrap"),
    _refused("makes a file in memory that nothing counts", "call(319, 279, b'x', 0)", control=True, only="bubblewrap"),
    _refused("makes a call newer than the filter", "call(467, 467, -100, b'/usr', 1, 0, 0)", only="bubblewrap"),
]  # fmt: skip

SHARES = [
    Probe("forks without end", """
        while True:
            try: os.fork()
            except OSError: time.sleep(0.01)
        """, ends=("limit.processes", "limit.time", "limit.memory"), seconds=2.0),
    Probe("starts threads without end", """
        count = 0
        def stay(): time.sleep(60)
        try:
            while count < 5000: threading.Thread(target=stay, daemon=True).start(); count += 1
        except (RuntimeError, MemoryError): pass
        reached(count) if count >= 5000 else held(count)
        """, ends=("held", "limit.processes", "limit.memory")),
    Probe("leaves daemons that ignore signals", """
        for number in range(4):
            if os.fork() == 0:
                os.setsid()
                if os.fork(): os._exit(0)
                for name in (1, 2, 15): signal.signal(name, signal.SIG_IGN)
                open(f'/tmp/daemon{number}', 'w').write('here')
                time.sleep(1000)
        while len(glob.glob('/tmp/daemon*')) < 4: time.sleep(0.01)
        held('they are to be dead soon')
        """),
    Probe("takes memory in one process", "x = bytearray(2**33); x[::4096] = bytes(2**21); reached('8 GiB')", ends=("limit.memory", "exit")),
    Probe("takes memory in many processes", """
        for _ in range(5): os.fork()
        try: x = os.urandom(2**20) * 100
        except MemoryError: os._exit(0)
        time.sleep(4); reached('3 GiB')
        """, ends=("limit.memory", "limit.processes", "exit", "limit.time")),
    Probe("fills /tmp", """
        size = 0
        try:
            for number in range(4000):
                with open(f'/tmp/{number}', 'wb', 0) as opened: size += opened.write(bytes(2**20))
        except OSError as error: held(f'{size} bytes: {error}')
        reached(size)
        """, ends=("held", "limit.output", "limit.memory")),
    Probe("fills its home", """
        size = 0
        try:
            for number in range(4000):
                with open(os.environ.get('HOME', '/tmp') + f'/{number}', 'wb', 0) as opened: size += opened.write(bytes(2**20))
        except OSError as error: held(f'{size} bytes: {error}')
        reached(size)
        """, ends=("held", "limit.output", "limit.memory")),
    Probe("fills shared memory", """
        size = 0
        try:
            for number in range(4000):
                with open(f'/dev/shm/{number}', 'wb', 0) as opened: size += opened.write(bytes(2**20))
        except OSError as error: held(f'{size} bytes: {error}')
        reached(size)
        """, ends=("held", "limit.output", "limit.memory")),
    Probe("fills its output", """
        try:
            for number in range(200):
                with open(OUT + f'/{number}', 'wb', 0) as opened: opened.write(bytes(2**19))
        except OSError: pass
        time.sleep(60)
        """, ends=("limit.output", "limit.memory", "limit.time"), seconds=2.0),
    Probe("makes a million files in /tmp", """
        count = 0
        try:
            while count < 10**6: os.close(os.open(f'/tmp/{count}', os.O_CREAT)); count += 1
        except OSError as error: held(f'{count} files: {error}')
        reached(count)
        """, ends=("held", "limit.output", "limit.memory", "limit.time")),
    Probe("makes a million files in its output", """
        try:
            for count in range(10**6): os.close(os.open(OUT + f'/{count}', os.O_CREAT))
        except OSError: time.sleep(60)
        reached('a million')
        """, ends=("limit.output", "limit.time"), seconds=2.0),
    Probe("nests folders in its output", """
        os.chdir(OUT)
        try:
            for _ in range(3000): os.mkdir('d'); os.chdir('d')
        except OSError: pass
        """, ends=("limit.output", "output")),
    Probe("prints without end", "while True: sys.stdout.write('x' * 65536)", ends=("limit.output", "exit")),
    Probe("complains without end", "while True: os.write(2, b'x' * 65536)", ends=("limit.time", "limit.output"), seconds=2.0),
    Probe("ignores being asked to end", "[signal.signal(number, signal.SIG_IGN) for number in (1, 2, 15)]\nwhile True: time.sleep(0.05)", ends=("limit.time",), seconds=0.5),
    Probe("stops itself and its time with it", "os.kill(os.getpid(), 19); os.kill(0, 19); time.sleep(60)", ends=("limit.time", "exit"), seconds=1.0),
    Probe("computes without end", "resource.setrlimit(resource.RLIMIT_CPU, (resource.getrlimit(resource.RLIMIT_CPU)[1],) * 2)\nwhile True: pass", ends=("limit.time",), seconds=1.5),
    Probe("opens files without end", """
        kept = []
        try:
            while len(kept) < 20000: kept.append(os.open('/dev/null', 0))
        except OSError as error: held(f'{len(kept)}: {error}')
        reached(len(kept))
        """),
    Probe("locks memory", "attempt(lambda: libc.mlockall(3) == 0 and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] > 2**30 or None)"),
]  # fmt: skip

OUTPUTS = [
    Probe("leaves a symbolic link to the seed", "os.symlink(given['seed'], OUT + '/result.txt')", ends=("output",)),
    Probe("leaves a symbolic link to a folder", "os.symlink(given['profile'], OUT + '/result')", ends=("output",)),
    Probe("leaves a symbolic link up and out", "os.symlink('../task.json', OUT + '/result.txt')", ends=("output",)),
    Probe("leaves a hard link", "open(OUT + '/a', 'w').write('x'); os.link(OUT + '/a', OUT + '/b')", ends=("output",)),
    Probe("leaves a hard link to another file system", "attempt(*[lambda path=path: os.link(path, OUT + '/a') or path for path in ('/etc/passwd', '/proc/self/fd/0', '/proc/self/exe', given['seed'])])"),
    Probe("leaves a FIFO", "os.mkfifo(OUT + '/a')", ends=("output",)),
    Probe("leaves a socket", "socket.socket(socket.AF_UNIX).bind(OUT + '/a')", ends=("output",)),
    Probe("leaves a sparse terabyte", """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try: os.truncate(os.open(OUT + '/a', os.O_CREAT | os.O_RDWR), 2**40)
        except OSError: os.unlink(OUT + '/a'); held('too large')
        """, ends=("held", "limit.output", "output")),
    Probe("leaves many sparse files", "for n in range(20): os.truncate(os.open(OUT + f'/{n}', os.O_CREAT | os.O_RDWR), 2**20)", ends=("limit.output", "output")),
    Probe("leaves control characters in a name", "open(OUT + '/a\\x1b[2J', 'w').write('x')", ends=("output",)),
    Probe("leaves a line break in a name", "open(OUT + '/a\\nb', 'w').write('x')", ends=("output",)),
    Probe("leaves a name that is no text", "open(os.fsencode(OUT) + b'/\\xff\\xfe', 'w').write('x')", ends=("output",)),
    Probe("leaves a name that turns the line around", "open(OUT + '/a\\u202egpj.exe', 'w').write('x')", ends=("output",)),
    Probe("leaves a hidden file", "open(OUT + '/.bashrc', 'w').write('x')", ends=("output",)),
    Probe("leaves a name of 255 bytes", "open(OUT + '/' + 'a' * 255, 'w').write('x')", ends=("output",)),
    Probe("leaves a backslash in a name", "open(OUT + '/..' + chr(92) + 'a', 'w').write('x')", ends=("output",)),
    Probe("swaps its output for a link", """
        def look():
            os.rmdir(OUT); os.symlink(given['profile'], OUT); return None
        attempt(look, lambda: os.rename(OUT, OUT + '2'))
        """, ends=("held", "output")),
    Probe("leaves folders that nobody may enter", "os.mkdir(OUT + '/a'); open(OUT + '/a/b', 'w').write('x'); os.chmod(OUT + '/a', 0); os.chmod(OUT, 0); held('left')", ends=("held", "output")),
    Probe("leaves one who goes on swapping files for links", """
        open(OUT + '/a', 'w').write('x')
        if os.fork() == 0:
            os.setsid()
            while True:
                try:
                    os.symlink(given['seed'], OUT + '/l'); os.rename(OUT + '/l', OUT + '/a')
                    open(OUT + '/f', 'w').write('x'); os.rename(OUT + '/f', OUT + '/a')
                except OSError: pass
        time.sleep(0.1); held('left')
        """, ends=("held", "output")),
]  # fmt: skip

PROBES = (*FILES, *WRITES, *NETWORK, *PROCESSES, *PRIVILEGES, *KERNEL, *SHARES, *OUTPUTS)
