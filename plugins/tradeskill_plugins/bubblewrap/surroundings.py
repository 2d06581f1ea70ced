"""Inside the supervisor of one sandboxed job: its own mounts, the uid drop, the control group, and bringing the output to disk.

What is to be done comes as data from `view.py`. The supervisor takes a mount namespace for itself (and, started by an ordinary user,
a user namespace to be allowed to), lays out there what bwrap will show the job, and reads the job's output from there once all of it is
dead. With the supervisor's end the kernel takes the namespace and everything in it away.

Imports the standard library only: it runs in the supervisor's bare interpreter.
"""

# ruff: noqa: PTH102, PTH123  # pathlib alone would make the supervisor's start a third longer

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat

try:
    from tradeskill_plugins.bubblewrap import cgroups
    from tradeskill_plugins.executions import supervisor
except ImportError:  # in the supervisor, whose path holds these two folders and no packages
    import cgroups  # type: ignore[import-not-found, no-redef]  # the same file under another name
    import supervisor  # type: ignore[import-not-found, no-redef]  # as above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Surroundings"]

_STAGE = "/tmp"  # noqa: S108  # in a mount namespace of our own; a folder that every system has
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 0x1000, 0x4000, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_OURS = 4  # tasks of the job's user that are not the job's: the supervisor, bwrap twice, and one to spare
_CHUNK = 1 << 20


class Surroundings(supervisor.Surroundings):
    outer = 2  # bwrap, and the first process of the namespace

    def __init__(self, folder: int, path: str, task: dict[str, Any]) -> None:
        self.folder = folder
        self.room = folder
        self.plan = task["sandbox"]
        self.environment = self.plan["environment"]
        self.argv: list[str] = []
        self.groups: list[str] = []
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.supervisor = os.getpid()

    def prepare(self) -> None:
        plan = self.plan
        self.groups = cgroups.make(plan["cgroups"], plan["name"], plan["cgroup_limits"])
        self._own_namespace()
        sources = {name: os.open(path, os.O_PATH) for name, path in plan["sources"].items()}
        self._call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        self._tmpfs(_STAGE, "size=4m,nr_inodes=1000,mode=0755")
        for name, source in sources.items():
            place = f"{_STAGE}/{name}"
            if stat.S_ISDIR(os.fstat(source).st_mode):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            self._call("mount", f"/proc/self/fd/{source}".encode(), place.encode(), None, _MS_BIND | _MS_REC, None)
            os.close(source)
        for name, text in plan["files"].items():
            with open(f"{_STAGE}/{name}", "w", encoding="utf-8") as opened:
                opened.write(text)
            os.chmod(f"{_STAGE}/{name}", 0o644)  # noqa: PTH101  # as above
        uid = plan["uid"]
        owner = "" if uid is None else f",uid={uid},gid={uid}"
        for name, (size, entries) in plan["folders"].items():
            os.mkdir(f"{_STAGE}/{name}")
            self._tmpfs(f"{_STAGE}/{name}", f"size={size},nr_inodes={entries},mode=0700{owner}")
        for name in plan["made"]:
            os.mkdir(f"{_STAGE}/{name}", 0o700)
            if uid is not None:
                os.chown(f"{_STAGE}/{name}", uid, uid)
        self.room = os.open(_STAGE, os.O_RDONLY | os.O_DIRECTORY)
        program = os.memfd_create("filter", 0)  # kept open over the exec, and closed by bwrap
        os.write(program, bytes.fromhex(plan["filter"]))
        os.lseek(program, 0, os.SEEK_SET)
        self.argv = [*plan["bwrap"], "--seccomp", str(program), "--", *plan["command"]]

    def enter(self) -> None:
        cgroups.join(self.groups)
        for kind, most in ((resource.RLIMIT_NPROC, self.plan["tasks"] + _OURS), (resource.RLIMIT_MEMLOCK, 0), (resource.RLIMIT_MSGQUEUE, 0)):
            hard = resource.getrlimit(kind)[1]
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (bound, bound))
        uid = self.plan["uid"]
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            self.libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # changing the user has cleared it
            if os.getppid() != self.supervisor:
                os._exit(126)
        self.libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        os.chdir("/")

    def exit_code(self, status: int) -> int:
        """bwrap ends as the job did, and says the number of a signal as a shell does."""
        code = os.waitstatus_to_exitcode(status)
        return 128 - code if code > 128 else code

    def overrun(self) -> supervisor.Verdict | None:
        if cgroups.kills(self.groups):
            return "limit.memory", "used more memory, files in memory included, than it has"
        return None  # its folders cannot grow past their sizes

    def keep(self) -> None:
        """Copy the output to disk as it is, hostile or not: the collector judges it there. Within the limits, as looked at before."""
        source = os.open("output", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.room)
        target = os.open("output", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.folder)
        try:
            _copy(source, target)
        finally:
            os.close(source)
            os.close(target)

    def close(self) -> None:
        cgroups.remove(self.groups)

    def _own_namespace(self) -> None:
        if self.plan["uid"] is not None:
            self._call("unshare", _CLONE_NEWNS)
            return
        uid, gid = os.geteuid(), os.getegid()
        self._call("unshare", _CLONE_NEWNS | _CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as opened:
                opened.write(text)

    def _tmpfs(self, place: str, options: str) -> None:
        self._call("mount", b"tmpfs", place.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options.encode())

    def _call(self, name: str, *arguments: bytes | int | None) -> None:
        if getattr(self.libc, name)(*(ctypes.c_ulong(word) if isinstance(word, int) else word for word in arguments)) != 0:
            number = ctypes.get_errno()
            place = next((word.decode() for word in arguments[1:2] if isinstance(word, bytes)), "")
            raise OSError(number, f"{name} {place}: {os.strerror(number)}")


def _copy(source: int, target: int) -> None:
    """Files by their bytes; whatever else is there as something of its kind, or as a FIFO, which no collector takes either."""
    for name in sorted(os.listdir(source)):
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            inner = [os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=where) for where in (source, target)]
            try:
                _copy(*inner)
            finally:
                for handle in inner:
                    os.close(handle)
        elif stat.S_ISREG(info.st_mode):
            _copy_file(source, target, name)
            if info.st_nlink > 1:
                os.link(name, os.urandom(8).hex(), src_dir_fd=target, dst_dir_fd=target)
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mkfifo(name, 0o600, dir_fd=target)
    os.fsync(target)


def _copy_file(source: int, target: int, name: str) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=source)
    writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target)
    try:
        while data := os.read(reading, _CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(writing, view) :]
        os.fsync(writing)
    finally:
        os.close(reading)
        os.close(writing)
