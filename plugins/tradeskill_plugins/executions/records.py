"""Executions on disk: one folder each, made whole or not at all; who supervises it, whether that one lives, how it ended."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from tradeskill.contracts import ExecutionStatus, Limits, Task
from tradeskill.errors import NotFoundError, RefusedError, StorageError, TradeskillError, UnavailableError, UnknownOutcomeError
from tradeskill.model import Result
from tradeskill_plugins import outputs
from tradeskill_plugins.executions import supervisor

__all__ = ["GRACE", "SCRATCH", "Executions", "Inside", "Supervisor", "own_files", "storage", "sync_folder", "write"]

GRACE: Final = 1.0  # seconds between SIGTERM and SIGKILL
SCRATCH: Final = 256 * 2**20
_LAUNCH_SECONDS: Final = 30.0
_DYING_MS: Final = 10
_PF_EXITING: Final = 0x4  # linux/sched.h
_LEFTOVER_MS: Final = 3_600_000
_SUPERVISORS: Final = str(Path(supervisor.__file__).parent)
_LAUNCHER: Final = "import sys; sys.path += sys.argv[3:]; import supervisor; sys.exit(supervisor.main(*filter(None, sys.argv[1:3])))"


class Inside(Protocol):
    """How a backend shuts its jobs in. Without one, jobs run as `supervisor.Surroundings` has it: shut in by nothing."""

    @property
    def module(self) -> Path:
        """With a class `Surroundings`; loaded by the supervisor, so it may import the standard library only."""

    def plan(self, execution_id: str, task: Task, limits: Limits) -> Mapping[str, object]:
        """What that class is to do, as JSON; written into `task.json` over what stands there."""

    @property
    def outermost(self) -> str:
        """What the program of its outermost processes is called. Once they are gone, not only on their way out, all inside is dead."""

    def mark(self, execution_id: str) -> str:
        """NAME=VALUE in the environment of the outermost processes of this execution, and of no other."""


@dataclass(frozen=True)
class Supervisor:
    """Which process it is: a pid means something only together with its start time and the boot it belongs to."""

    pid: int
    started: int  # clock ticks since boot, field 22 of /proc/PID/stat
    boot: str

    def alive(self) -> bool:
        if self.boot != _boot_id():
            return False
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return fields[0] not in (b"Z", b"X") and int(fields[19]) == self.started

    def pinned(self) -> int | None:
        """A pidfd of exactly this process, to wait on and signal through; None where it is dead. The caller closes it."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive():  # looked at after opening: the descriptor cannot come to mean another process
            return pidfd
        os.close(pidfd)
        return None

    def signal(self, number: signal.Signals) -> None:
        pidfd = self.pinned()
        if pidfd is None:
            return
        try:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


class Executions:
    """The home folder of one backend. Every call blocks on the disk; any number of processes may share the home."""

    def __init__(self, home: Path, owner: str, processes: int, scratch: int = SCRATCH, inside: Inside | None = None) -> None:
        self._home, self._owner, self._processes, self._scratch = home.absolute(), owner, processes, scratch  # supervisors work from /
        self._inside = inside

    def prepare(self, now_ms: int) -> None:
        """Make the home folder, and clear what a crash left half made or half removed an hour ago or more."""
        if not Path("/proc/thread-self/children").exists():
            raise UnavailableError("a backend that runs commands here needs Linux with /proc/PID/task/TID/children: it could not find what a job started")
        with storage(self._home):
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._home.chmod(0o700)
            for path in self._home.glob(".*"):
                with suppress(FileNotFoundError):
                    if now_ms - path.lstat().st_mtime_ns // 1_000_000 > _LEFTOVER_MS:
                        self._drop(path.name)

    def create(self, execution_id: str, task: Task, limits: Limits) -> None:
        """The execution's folder with all it needs, durable on return; nothing if it is there already."""
        final = self._home / execution_id
        if final.exists():
            return
        header: dict[str, object] = {
            "argv": own_files(task),
            "owner": str((task.details or {}).get("owner", self._owner)),
            "limits": {
                "seconds": limits.seconds,
                "cpu_seconds": limits.seconds if limits.cpu_seconds is None else limits.cpu_seconds,
                "memory": limits.memory,
                "output": limits.output,
                "files": limits.files,
                "processes": self._processes,
                "scratch": self._scratch,
                "grace": GRACE,
            },
        }
        header.update(self._plan(execution_id, task, limits))
        with storage(final):
            made = self._home / f".new-{execution_id}-{os.urandom(6).hex()}"
            try:
                made.mkdir(0o700)
                write(made / "task.json", json.dumps(header).encode())
                write(made / "stdin", task.stdin)
                (made / "work").mkdir(0o700)
                (made / "output").mkdir(0o700)
                sync_folder(made)
                made.rename(final)  # fails where a full folder of that name is: of two makers one wins
            except OSError as error:
                self._drop(made.name)
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            sync_folder(self._home)

    def launch(self, execution_id: str) -> None:
        """Run the supervisor unless one was ever launched here; it decides that itself, under its lock."""
        if not (self._home / execution_id / "supervisor.json").exists():
            self._launch(execution_id)

    def _launch(self, execution_id: str) -> None:
        folder = self._home / execution_id
        command = self._supervisor_command(folder)
        try:
            with (folder / "supervisor.log").open("ab") as log:
                code = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,  # its end says that the launching half is done: waiting with a timeout would poll instead
                    stderr=log,
                    cwd="/",
                    env={"LANG": "C.UTF-8"},
                    start_new_session=True,
                    timeout=_LAUNCH_SECONDS,
                    check=False,
                ).returncode
        except subprocess.TimeoutExpired as error:
            raise UnknownOutcomeError(f"execution {execution_id} did not say within {_LAUNCH_SECONDS:g} s whether it started") from error
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
                raise UnavailableError(f"execution {execution_id} cannot start now: {error.strerror}; nothing has run") from error
            raise StorageError(f"execution {execution_id} cannot start: {error}; nothing has run") from error
        if code not in (supervisor.LAUNCHED, supervisor.ALREADY) and not (folder / "supervisor.json").exists():
            raise UnavailableError(f"execution {execution_id} cannot start: its supervisor failed, see {folder / 'supervisor.log'}")

    def _plan(self, execution_id: str, task: Task, limits: Limits) -> Mapping[str, object]:
        """What goes into `task.json` over what stands there."""
        return {} if self._inside is None else self._inside.plan(execution_id, task, limits)

    def _supervisor_command(self, folder: Path) -> list[str]:
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(folder)]
        return command + (["", _SUPERVISORS] if self._inside is None else [self._inside.module.stem, _SUPERVISORS, str(self._inside.module.parent)])

    def supervisor(self, execution_id: str) -> Supervisor | None:
        record = self._read(execution_id, "supervisor.json")
        return None if record is None else Supervisor(record["pid"], record["started"], record["boot"])

    def status(self, execution_id: str) -> ExecutionStatus:
        """A folder whose supervisor was never recorded counts as absent: its command cannot have run, and `start` will run it."""
        ended = self._ended(execution_id)
        if ended is not None:
            return ended
        watching = self.supervisor(execution_id)
        if watching is None:
            return ExecutionStatus("absent")
        if watching.alive():
            return ExecutionStatus("running")
        ended = self._ended(execution_id)  # it may have ended between the two looks
        if ended is not None:
            return ended
        if self._inside is None:
            left = _kill_marked(f"TRADESKILL_OUTPUT={self._home / execution_id}/output")
        else:
            left = _kill_marked(self._inside.mark(execution_id), self._inside.outermost)
        if left:
            return ExecutionStatus("running", "its supervisor died, and processes it started do not yet")
        return ExecutionStatus("lost", f"its supervisor (pid {watching.pid}) died without leaving an outcome")

    def result(self, execution_id: str) -> Result:
        """Files if there are any (then what was printed is only talk), else stdout. RefusedError where `status` says code `output`."""
        folder, most_bytes, most_files = self._opened(execution_id)
        try:
            output = outputs.open_folder(self._home / execution_id, "output")
            try:
                files = outputs.collect(output, most_bytes, most_files)
            finally:
                os.close(output)
            if files:
                return outputs.pack(files)
            printed = outputs.read_file(folder, "stdout", most_bytes)
            return Result(printed, outputs.media_type_of(printed))
        finally:
            os.close(folder)

    def remove(self, execution_id: str) -> None:
        gone = f".gone-{execution_id}-{os.urandom(6).hex()}"
        with storage(self._home / execution_id):
            with suppress(FileNotFoundError):
                (self._home / execution_id).rename(self._home / gone)  # gone at once; the rest may be interrupted
            self._drop(gone)

    def owned(self, owner: str) -> list[str]:
        with storage(self._home):
            names = sorted(path.name for path in self._home.iterdir() if not path.name.startswith(".")) if self._home.exists() else []
        return [name for name in names if (self._read(name, "task.json") or {}).get("owner") == owner]

    def _ended(self, execution_id: str) -> ExecutionStatus | None:
        outcome = self._read(execution_id, "outcome.json")
        if outcome is None:
            return None
        if outcome["state"] != "finished":
            return ExecutionStatus(outcome["state"], outcome["detail"], outcome["code"])
        try:
            self._survey(execution_id)
        except TradeskillError as error:
            return ExecutionStatus("failed", str(error), "output")
        return ExecutionStatus("finished", f"took {outcome['seconds']} s, at most {outcome['peak_memory']} bytes of memory")

    def _survey(self, execution_id: str) -> None:
        folder, most_bytes, most_files = self._opened(execution_id)
        try:
            output = outputs.open_folder(self._home / execution_id, "output")
            try:
                found = outputs.survey(output, most_bytes, most_files)
            finally:
                os.close(output)
            if not found and not outputs.read_file(folder, "stdout", most_bytes):
                raise RefusedError("it ended well but left nothing: no file in TRADESKILL_OUTPUT, nothing on stdout")
        finally:
            os.close(folder)

    def _opened(self, execution_id: str) -> tuple[int, int, int]:
        """Its folder, and how many bytes and files it may have left."""
        task = self._read(execution_id, "task.json")
        if task is None:
            raise NotFoundError(f"execution {execution_id} is not known here")
        return outputs.open_folder(self._home / execution_id), task["limits"]["output"], task["limits"]["files"]

    def _read(self, execution_id: str, name: str) -> dict[str, Any] | None:
        path = self._home / execution_id / name
        with storage(path):
            try:
                value = json.loads(path.read_bytes())
            except FileNotFoundError:
                return None
            except ValueError as error:
                raise StorageError(f"{path} is damaged: {error}") from error
        assert isinstance(value, dict)
        return value

    def _drop(self, name: str) -> None:
        home = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            outputs.remove_tree(home, name)
        finally:
            os.close(home)


def own_files(task: Task, shown: Path | None = None) -> list[str]:
    """The command with `python` as this interpreter, and every word that names a file in the task's folder as that file's full path.

    `shown`: where the job sees that folder, if elsewhere.
    """
    words = list(task.argv)
    for index, word in enumerate(words):
        if index == 0 and word in ("python", "python3"):
            words[index] = sys.executable
        elif task.folder is not None and word and "\0" not in word and not word.startswith("/"):
            path = task.folder.resolve() / word
            if os.path.isfile(path) and path.resolve().is_relative_to(task.folder.resolve()):  # noqa: PTH113  # false too where a word is no name at all
                words[index] = str(path if shown is None else shown / word)
    return words


def _kill_marked(mark: str, outermost: str = "") -> bool:
    """After a supervisor's violent death: kill what still carries its execution's environment. True while something does not die.

    The command itself died with the supervisor (the kernel's parent-death signal); this finds its children. A process on its way out has no
    environment any more, but if it is the first of a namespace, the kernel lets it go only after all others in there: so whatever is called
    `outermost` and on its way out is waited for too, whose it is can no longer be told.
    """
    wanted = mark.encode() + b"\0"
    for _ in range(100):
        left = [pid for pid in _pids() if _carries(pid, wanted) or (outermost and _leaving(pid, outermost))]
        if not left:
            return False
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                pidfd = os.pidfd_open(pid)
                try:
                    if _carries(pid, wanted):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    ended = select.poll()
                    ended.register(pidfd, select.POLLIN)
                    ended.poll(_DYING_MS)
                finally:
                    os.close(pidfd)
    return True


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  # names, not paths


def _carries(pid: int, wanted: bytes) -> bool:
    try:
        return wanted in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # dead, or somebody else's
        return False


def _leaving(pid: int, name: str) -> bool:
    """Whether a process of that name is on its way out. Asked after `_carries`: what had ended meanwhile is neither, and dead."""
    try:
        before, _, after = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")
    except OSError:
        return False
    fields = after.split()
    return before.partition(b"(")[2] == name.encode() and fields[0] not in (b"Z", b"X") and int(fields[6]) & _PF_EXITING != 0


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def write(path: Path, data: bytes) -> None:
    """A new file, durable but for its name."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as opened:  # noqa: PTH123  # a descriptor
        opened.write(data)
        opened.flush()
        os.fsync(handle)


def sync_folder(path: Path) -> None:
    """Its names are durable on return."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """The one place where the disk's errors become ours."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}; check space and permissions") from error
