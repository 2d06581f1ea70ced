"""Which system calls a job may make, as a filter for the kernel (seccomp, classic BPF). Pure.

Refused is what reaches beyond the job's own processes and files or opens much of the kernel to it, and everything newer than this
table: such a call is answered as a kernel would that does not know it. Another calling convention (32 bit, x32) ends the job.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Final

from tradeskill.errors import UnavailableError

__all__ = ["MACHINES", "REFUSED", "seccomp_filter"]

MACHINES: Final = ("x86_64", "aarch64")
_ARCHITECTURE: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
_NEWEST: Final = 462  # mseal; numbers above 424 are the same on all architectures
_X32: Final = 0x40000000

# name: its numbers by MACHINES; None where there is no such call
REFUSED: Final[dict[str, tuple[int | None, int | None]]] = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # mounts and roots
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "move_mount": (429, 429), "open_tree": (428, 428), "mount_setattr": (442, 442),
    "statmount": (457, 457), "listmount": (458, 458), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    # namespaces (and `clone` below)
    "unshare": (272, 97), "setns": (308, 268),
    # keys, which no namespace separates
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    # large parts of the kernel that few programs need
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "fanotify_init": (300, 262), "lookup_dcookie": (212, 18), "vmsplice": (278, 75), "remap_file_pages": (216, 234),
    # the machine itself
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "create_module": (174, None), "query_module": (178, None), "get_kernel_syms": (177, None), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162), "syslog": (103, 116), "vhangup": (153, 58),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "nfsservctl": (180, 42), "_sysctl": (156, None), "sysfs": (139, None), "ustat": (136, None),
    "uselib": (134, None), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
    # placement of memory
    "mbind": (237, 235), "set_mempolicy": (238, 237), "get_mempolicy": (239, 236), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "set_mempolicy_home_node": (450, 450),
    # memory that neither belongs to a process nor lies in one of the job's folders, so that no limit but a control group's would count it
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197), "msgget": (68, 186), "msgctl": (71, 187), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "mq_open": (240, 180),
}  # fmt: skip
_CLONE3: Final = (435, 435)  # its flags lie in memory, where a filter cannot look: answered as unknown, so that callers take `clone`
_CLONE: Final = (56, 220)
_IOCTL: Final = (16, 29)
_PERSONALITY: Final = (135, 92)
_SOCKET: Final = (41, 198)
_SOCKETPAIR: Final = (53, 199)
_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_IOCTLS: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: put words into a terminal
_PERSONALITIES: Final = (0, 0xFFFFFFFF)  # Linux as it is; the question which one it is
_UNIX, _INET, _INET6 = 1, 2, 10
_STREAM, _SEQPACKET = 1, 5

_LOAD, _EQUAL, _GREATER_EQUAL, _SET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def seccomp_filter(network: bool, machine: str = "") -> bytes:
    """The program as `bwrap --seccomp` reads it. UnavailableError on a machine whose system calls are not known here.

    With `network` a job has the machine's network and with it its abstract Unix sockets, so then it gets no Unix sockets but pairs, and
    of those none that can still be sent elsewhere.
    """
    machine = machine or platform.machine()
    if machine not in MACHINES:
        raise UnavailableError(f"no system call filter is known for {machine}; this backend runs on {' and '.join(MACHINES)}")
    index = MACHINES.index(machine)
    number, low = 0, 16  # offsets in struct seccomp_data: the call's number, the low half of its first argument
    program = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, number),
        (_GREATER_EQUAL, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        (_GREATER_EQUAL, 0, 1, _NEWEST + 1),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 1, _CLONE3[index]),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for numbers in REFUSED.values():
        if (refused := numbers[index]) is not None:
            program += [(_EQUAL, 0, 1, refused), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    families = (_INET, _INET6) if network else (_UNIX, _INET, _INET6)
    program += [
        (_EQUAL, 0, 4, _CLONE[index]),
        (_LOAD, 0, 0, low),
        (_SET, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, 3 + len(_IOCTLS), _IOCTL[index]),
        (_LOAD, 0, 0, low + 8),
        *((_EQUAL, len(_IOCTLS) - place, 0, value) for place, value in enumerate(_IOCTLS)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        *_only(_PERSONALITY[index], _PERSONALITIES, errno.EPERM),
        *_only(_SOCKET[index], families, errno.EAFNOSUPPORT),
        *(_only(_SOCKETPAIR[index], (_STREAM, _SEQPACKET), errno.EPERM, argument=1, mask=0xF) if network else ()),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", code, yes, no, value) for code, yes, no, value in program)


def _only(call: int, values: tuple[int, ...], error: int, *, argument: int = 0, mask: int = 0xFFFFFFFF) -> list[tuple[int, int, int, int]]:
    """That call with one of these in the low half of an argument; skipped over for every other call."""
    return [
        (_EQUAL, 0, 4 + len(values), call),
        (_LOAD, 0, 0, 16 + 8 * argument),
        (_AND, 0, 0, mask),
        *((_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)),
        (_RETURN, 0, 0, _ERRNO | error),
        (_RETURN, 0, 0, _ALLOW),
    ]
