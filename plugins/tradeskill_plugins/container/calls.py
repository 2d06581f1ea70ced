"""Which system calls a job in a container may make, as the profile that engines read. Pure.

An engine's own profile is not relied on: Podman's lets a job make namespaces, mount in them and use the kernel's keys, with which much of
the kernel opens. This one lists what programs need; whatever is not in it, newer calls too, is answered as by a kernel that does not know
it. Another calling convention than the machine's own (32 bit, x32) is not served.
"""

from __future__ import annotations

import platform
from typing import Any, Final

from tradeskill.errors import UnavailableError

__all__ = ["ALLOWED", "profile"]

_ARCHITECTURES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_EPERM, _ENOSYS = 1, 38
_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_FAMILIES: Final = (1, 2, 10)  # Unix, IPv4, IPv6
_PERSONALITIES: Final = (0, 0xFFFFFFFF)  # Linux as it is; the question which one it is

ALLOWED: Final = frozenset(
    """
accept accept4 access alarm arch_prctl bind brk capget capset chdir chmod chown clock_getres clock_gettime clock_gettime64 clock_nanosleep close
close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2
execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchown fchownat fcntl fdatasync fgetxattr flistxattr
flock fork fremovexattr fsetxattr fstat fstatat fstatfs fsync ftruncate futex futex_waitv futimesat get_robust_list getcpu getcwd getdents getdents64
getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage
getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown
lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise membarrier memfd_create mincore mkdir mkdirat mknod
mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap msgctl msgget msgrcv msgsnd
msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat
readv recvfrom recvmmsg recvmsg removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_tid_address setfsgid setfsuid setgid setgroups
setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill
time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork wait4 waitid write
writev
""".split()  # noqa: SIM905  # a table of names
)
# Refused in words that programs expect; `clone3` is answered as unknown, because its flags lie where no filter can look, and callers then take `clone`
_REFUSED: Final = ("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "ptrace", "keyctl", "add_key", "request_key", "bpf", "perf_event_open")


def profile(machine: str = "") -> dict[str, Any]:
    """UnavailableError on a machine whose calls are not known here."""
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise UnavailableError(f"no system call filter is known for {machine}; containers run on {' and '.join(_ARCHITECTURES)}")
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "architectures": [_ARCHITECTURES[machine]],
        "syscalls": [
            {"names": sorted(ALLOWED), "action": "SCMP_ACT_ALLOW"},
            {"names": list(_REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            _where("clone", 0, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"),
            *(_where("socket", 0, family) for family in _FAMILIES),
            *(_where("personality", 0, value) for value in _PERSONALITIES),
        ],
    }


def _where(name: str, index: int, value: int, how: str = "SCMP_CMP_EQ") -> dict[str, Any]:
    """That call, where an argument is this; for a mask: has none of these bits."""
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": index, "value": value, "valueTwo": 0, "op": how}]}
