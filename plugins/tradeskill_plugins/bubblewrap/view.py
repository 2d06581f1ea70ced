"""What a sandboxed job sees and may use, as data for `surroundings.py` and arguments for bwrap. Looks at the machine, changes nothing."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tradeskill.contracts import Limits, Task
from tradeskill.errors import RefusedError
from tradeskill_plugins.bubblewrap.seccomp import seccomp_filter
from tradeskill_plugins.executions.records import own_files

__all__ = ["HOME", "OUTPUT", "PROGRAM", "View", "holds", "interpreter_folders"]

PROGRAM, HOME, OUTPUT = Path("/job/program"), "/job/home", "/job/output"
_TMP: Final = "/tmp"  # noqa: S108  # the job's own
_STAGE: Final = "/tmp"  # noqa: S108  # of the supervisor's own mount namespace, as surroundings.py makes it
_USER: Final = 1000  # inside; which user that is outside, nobody inside sees
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_PAGE: Final = 4096
_ENTRIES: Final = 20_000  # in the scratch folders together
_THREADS: Final = 4  # tasks for each process allowed; a limit of the kernel's counts threads too

_MODULE: Final = Path(__file__).with_name("surroundings.py")
_SYSTEM: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC: Final = (
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "mime.types", "fonts", "ssl/certs", "ssl/openssl.cnf", "ca-certificates",
    "pki/tls/certs", "pki/tls/cert.pem", "pki/tls/openssl.cnf", "pki/ca-trust/extracted", "crypto-policies",
)  # fmt: skip
_ETC_NETWORK: Final = ("resolv.conf", "hosts", "services", "protocols", "gai.conf", "host.conf")
_FILES: Final = {
    "passwd": f"root:x:0:0::/:/bin/false\njob:x:{_USER}:{_USER}::{HOME}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "group": f"root:x:0:\njob:x:{_USER}:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
}
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_PROC_FILES: Final = (
    "kcore", "keys", "key-users", "kallsyms", "kmsg", "timer_list", "sched_debug", "interrupts", "latency_stats", "vmallocinfo", "slabinfo", "modules",
    "config.gz", "iomem", "ioports", "pagetypeinfo", "mtrr", "cmdline", "swaps", "partitions", "diskstats",
)  # fmt: skip
_PROC_FOLDERS: Final = ("acpi", "scsi", "asound", "driver", "fs")


@dataclass(frozen=True)
class View:
    """What is the same for all jobs of one backend on this machine. An `executions.records.Inside`."""

    bwrap: str
    home: Path  # of the executions
    uids: tuple[int, int] | None  # first and count; None: started by an ordinary user, whose jobs run as that user
    processes: int
    scratch: int
    readable: tuple[Path, ...] = ()  # more of the machine's folders and files, at their own places
    cgroups: Mapping[str, str] = field(default_factory=dict)
    module: Path = _MODULE
    outermost: str = "bwrap"  # the first process in the sandbox too, until the kernel has ended all others in there

    def name(self, execution_id: str) -> str:
        """Of an execution on this machine, for what is not kept in its folder."""
        return hashlib.sha256(os.fsencode(self.home / execution_id)).hexdigest()[:32]

    def mark(self, execution_id: str) -> str:
        return f"EXECUTION={self.name(execution_id)}"

    def uid(self, execution_id: str) -> int | None:
        if self.uids is None:
            return None
        first, count = self.uids
        return first + int(self.name(execution_id), 16) % count

    def check(self, task: Task) -> None:
        """RefusedError where this task cannot be shown to a job, with the way out."""
        if task.folder is None:
            return
        folder = task.folder.resolve()
        if not folder.is_dir():
            raise RefusedError(f"there is no folder {folder} with the job's program: name it as the offer's `folder`")
        if holds(folder, [self.home]):
            raise RefusedError(f"folder {folder} holds the seller's own files: put the program into a folder of its own and name it as the offer's `folder`")
        if self.uids is not None:
            shown = (folder / word for word in own_files(task) if Path(word).is_relative_to(folder))
            for path in (folder, *shown):
                wanted = 0o5 if path == folder else 0o4
                if path.stat().st_mode & wanted != wanted:
                    raise RefusedError(f"others cannot read {path}, and where the seller is root jobs run under users of their own: chmod -R go+rX {folder}")

    def plan(self, execution_id: str, task: Task, limits: Limits) -> Mapping[str, object]:
        sources: dict[str, str] = {}
        options = [
            self.bwrap, "--unshare-all", *(["--share-net"] if task.network else []), "--unshare-user", "--disable-userns",
            "--uid", str(_USER), "--gid", str(_USER), "--hostname", "job", "--new-session", "--die-with-parent", "--cap-drop", "ALL",
            *_system(), *_etc(task.network), *_proc(), *_dev(),
            "--bind", f"{_STAGE}/scratch/tmp", _TMP, "--bind", f"{_STAGE}/scratch/home", HOME, "--bind", f"{_STAGE}/output", OUTPUT,
        ]  # fmt: skip
        if task.folder is not None:
            sources["program"] = str(task.folder.resolve())
            options += ["--ro-bind", f"{_STAGE}/program", str(PROGRAM)]
        more = list(self.readable)
        if task.argv[0] in ("python", "python3", sys.executable):
            more += interpreter_folders()
        for number, path in enumerate(dict.fromkeys(more)):
            sources[f"more{number}"] = str(path)
            options += ["--ro-bind", f"{_STAGE}/more{number}", str(path)]
        options += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", HOME, "--clearenv"]
        for name, value in {"PATH": _PATH, "HOME": HOME, "TMPDIR": _TMP, "LANG": "C.UTF-8", "TRADESKILL_OUTPUT": OUTPUT}.items():
            options += ["--setenv", name, value]
        room = limits.output + (limits.files + 2) * _PAGE  # each file takes whole pages; what is too much has to show, so a little more
        command = own_files(task, PROGRAM)
        return {
            "argv": command,
            "sandbox": {
                "name": f"tradeskill-{self.name(execution_id)}",
                "bwrap": options,
                "command": command,
                "sources": sources,
                "files": _FILES,
                "folders": {"output": [room, limits.files + 3], "scratch": [self.scratch, _ENTRIES]},
                "made": ["scratch/tmp", "scratch/home", "scratch/shm"],
                "uid": self.uid(execution_id),
                "filter": seccomp_filter(task.network).hex(),
                "environment": {"EXECUTION": self.name(execution_id), "PATH": _PATH},
                "tasks": self.processes * _THREADS,
                "cgroups": dict(self.cgroups),
                "cgroup_limits": {"pids": self.processes * _THREADS + 16, "memory": limits.memory + self.scratch + room + 16 * 2**20},
            },
        }


def holds(folder: Path, guarded: Iterable[Path]) -> bool:
    """Whether showing `folder` would show any of `guarded`, or lies in one of them."""
    shown = folder.resolve()
    return any(path.resolve().is_relative_to(shown) or shown.is_relative_to(path.resolve()) for path in guarded)


def interpreter_folders() -> list[Path]:
    """Where this Python keeps what `python` in a job needs, as far as it is not part of the system. Not all of a prefix: it may hold a project."""
    found: list[Path] = []
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix))):
        for name in ("bin", "lib", "lib64", "pyvenv.cfg"):
            path = Path(prefix) / name
            if not path.is_relative_to("/usr") and path.exists() and not path.is_symlink():
                found.append(path)
    return found


def _system() -> list[str]:
    options = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        path = Path("/") / name
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    return options


def _etc(network: bool) -> list[str]:
    options: list[str] = []
    for name in (*_ETC, *(_ETC_NETWORK if network else ())):
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in _FILES:
        if not (network and name in _ETC_NETWORK):
            options += ["--ro-bind", f"{_STAGE}/{name}", f"/etc/{name}"]
    return options


def _proc() -> list[str]:
    options = ["--proc", "/proc"]
    for name in _PROC_FILES:
        if Path("/proc", name).exists():
            options += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for name in _PROC_FOLDERS:
        if Path("/proc", name).is_dir():
            options += ["--perms", "0555", "--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
    return options


def _dev() -> list[str]:
    options = ["--perms", "0755", "--tmpfs", "/dev"]
    for name in _DEVICES:
        options += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        options += ["--symlink", f"/proc/self/fd{target}", f"/dev/{name}"]
    return [*options, "--bind", f"{_STAGE}/scratch/shm", "/dev/shm"]  # noqa: S108  # the job's own
