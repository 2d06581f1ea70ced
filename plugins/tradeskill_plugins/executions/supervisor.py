"""The small program that stands between a worker and one job: launches it, holds it to its limits, writes down how it ended.

It runs in a fresh, empty interpreter (`-I -S`), one for each execution, and so imports nothing but a few modules of the standard
library: this file's start is what an execution costs. One file on purpose, past 400 lines: it could import no second one there. It is in
its own session and nobody's child, so it outlives the worker. It is the subreaper of everything the job starts: daemons come back to it
and die with the job.

What the job is shut in is not decided here: `Surroundings` is nothing at all, and a backend that isolates names a module with a class
`Surroundings` of the same members, found in a folder that the worker names on the command line.

In the execution's folder: `task.json`, `stdin` (read) · `lock` (held for life) · `supervisor.json` (who it is; durable before the job
starts) · `stdout`, `stderr` · `work/` (the job's own folder), `output/` · `outcome.json` (last, durable, by rename).
"""

# ruff: noqa: PTH123, PTH208  # pathlib alone would make this program's start a third longer

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ALREADY", "LAUNCHED", "NOT_LAUNCHED", "Surroundings", "main"]

# exit codes of the launching half
LAUNCHED, NOT_LAUNCHED, ALREADY = 0, 1, 3

_PATH = "/usr/local/bin:/usr/bin:/bin"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_STDERR_KEPT = 16 * 1024  # the last bytes, for the seller's log
_ENTRIES_LOOKED_AT = 20_000
_DEEPEST = 32
_OUT_OF_MEMORY = (b"MemoryError", b"bad_alloc", b"Cannot allocate memory", b"out of memory", b"Out of memory")

Verdict = tuple[str, str]  # code and detail of a failure


class Surroundings:
    """What stands around a job: here nothing. `room` is an open folder with the job's `output` and `work` in it."""

    outer = 0  # processes of the surroundings themselves among the supervisor's descendants; the first one is the supervisor's child

    def __init__(self, folder: int, path: str, task: dict[str, Any]) -> None:
        self.room = folder
        self.argv = [str(part) for part in task["argv"]]
        self.work, self.scratch = f"{path}/work", int(task["limits"]["scratch"])
        self.environment = {"PATH": _PATH, "HOME": self.work, "TMPDIR": self.work, "LANG": "C.UTF-8", "TRADESKILL_OUTPUT": f"{path}/output"}

    def prepare(self) -> None:
        """In the supervisor, before the fork. An OSError ends the execution as failed before anything ran."""

    def enter(self) -> None:
        """In the child, before its limits and the exec of `argv` under `environment`."""
        os.chdir(self.work)

    def exit_code(self, status: int) -> int:
        """Of the job, from the wait status of the supervisor's child; negative: the signal that killed it."""
        return os.waitstatus_to_exitcode(status)

    def overrun(self) -> Verdict | None:
        """What the job took beyond its limits, other than processes, memory and output."""
        entries, size = _extent(self.room, "work")
        if entries >= _ENTRIES_LOOKED_AT or size > self.scratch:
            return "limit.output", f"filled its own folder with {entries} files of {size} bytes, {self.scratch} allowed"
        return None

    def keep(self) -> None:
        """Once nothing of the job runs any more and it ended well: make its output durable in the execution's folder."""
        _extent(self.room, "output", sync=True)

    def close(self) -> None:
        """Last, however it ended."""


def main(path: str, *inside: str) -> int:
    """Launch the execution in folder `path` unless it was launched before. Returns once that is durable, in the launching process only.

    `inside`: the module with the Surroundings, importable here; none for those above.
    """
    folder = os.open(path, _FOLDER)
    if not _claim(folder):
        return ALREADY
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        return LAUNCHED if os.read(told, 1) else NOT_LAUNCHED
    os.close(told)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1)  # whoever launched us reads that pipe to its end
    os.close(null)
    wake = _wake_up()
    _save(folder, "supervisor.json", _who_am_i())
    os.write(tell, b"+")
    os.close(tell)
    code = 1
    try:
        _supervise(folder, path, wake, __import__(inside[0]).Surroundings if inside else Surroundings)
        code = 0
    except BaseException:  # noqa: BLE001  # the only place left to say it is the log, which is stderr here
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)  # never back into the launching half's code


def _claim(folder: int) -> bool:
    """Take the lock for the rest of this process's life and its forks'. False: another supervisor has (or had) this execution."""
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    for _ in range(5000):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _exists(folder, "supervisor.json"):
                return False
            time.sleep(0.002)  # its holder is about to write its record, or to die
        else:
            return not _exists(folder, "supervisor.json")
    raise TimeoutError("another supervisor holds the lock and does not say who it is")


def _who_am_i() -> dict[str, object]:
    with open("/proc/self/stat", "rb") as opened:
        started = int(opened.read().rpartition(b")")[2].split()[19])  # field 22: two precede the bracket, counting starts at one
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as opened:
        return {"pid": os.getpid(), "started": started, "boot": opened.read().strip()}


def _wake_up() -> int:
    """A descriptor that says which signals came. Set up before anybody is told our pid, so that a stop is never missed."""
    wake, wake_in = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wake_in, False)
    signal.set_wakeup_fd(wake_in)
    signal.signal(signal.SIGCHLD, _noted)
    signal.signal(signal.SIGTERM, _noted)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return wake


def _supervise(folder: int, path: str, wake: int, kind: type[Surroundings]) -> None:
    with open(os.open("task.json", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), encoding="utf-8") as opened:
        task = json.load(opened)
    around = kind(folder, path, task)
    try:
        around.prepare()
    except OSError as error:
        around.close()
        _save(folder, "outcome.json", {"state": "failed", "code": "exit", "detail": f"nothing has run, its surroundings could not be made: {error}"})
        return
    job = _Job(folder, task, around)
    job.launch()
    verdict = job.watch(wake)
    job.kill_everything()
    verdict = job.judge(verdict)
    os.fsync(job.stdout)  # its output is durable before its outcome says that it is there; an error here means no outcome
    if verdict is None:
        around.keep()
    around.close()
    _save(folder, "outcome.json", job.outcome(verdict))


class _Job:
    """One running command: its process tree, its pipes, its limits."""

    def __init__(self, folder: int, task: dict[str, Any], around: Surroundings) -> None:
        self.folder, self.around = folder, around
        limits: dict[str, float] = task["limits"]
        self.seconds, self.cpu = limits["seconds"], limits["cpu_seconds"]
        self.memory, self.most_output = int(limits["memory"]), int(limits["output"])
        self.most_files, self.most_processes, self.grace = int(limits["files"]), int(limits["processes"]), limits["grace"]
        self.stdin = os.open("stdin", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        self.stdout = os.open("stdout", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
        self.errors, self.errors_in = os.pipe()
        os.set_blocking(self.errors, False)
        self.tail = bytearray()
        self.pid = 0
        self.status: int | None = None
        self.usage: resource.struct_rusage | None = None
        self.began = time.monotonic()

    def launch(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        supervisor = os.getpid()
        self.began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._become(libc, supervisor)
            except (OSError, ValueError) as error:
                os.write(2, f"cannot run {self.around.argv[0]!r}: {error}\n".encode())
            finally:
                os._exit(127)
        os.close(self.stdin)
        os.close(self.errors_in)

    def _become(self, libc: ctypes.CDLL, supervisor: int) -> None:
        """In the child: turn into the job's command, with nothing of ours left."""
        for source, target in ((self.stdin, 0), (self.stdout, 1), (self.errors_in, 2)):
            os.dup2(source, target)  # all other descriptors close at exec
        os.setsid()
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != supervisor:  # it died before it could be watched
            os._exit(126)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)  # what our starter ignores, or we do, is no business of the job's
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as opened:
            opened.write("1000")  # if the machine runs out of memory, jobs go first
        os.umask(0o077)
        self.around.enter()
        seconds = int(self.cpu) + 1
        _limit(resource.RLIMIT_CPU, seconds, seconds + 1)
        _limit(resource.RLIMIT_AS, self.memory)
        _limit(resource.RLIMIT_FSIZE, self.most_output + 1)  # one more, so that reaching it shows
        _limit(resource.RLIMIT_CORE, 1)  # too small for a file; and unlike 0 it also keeps the kernel from piping a dump to the machine's handler
        _limit(resource.RLIMIT_NOFILE, 256)
        os.execvpe(self.around.argv[0], self.around.argv, self.around.environment)  # noqa: S606  # the list is the seller's own offer

    def watch(self, wake: int) -> Verdict | None:
        """Until the command ends by itself (None) or has to be ended (why)."""
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(self.errors, select.POLLIN)
        verdict: Verdict | None = None
        deadline = self.began + self.seconds
        look, pause = self.began + 0.05, 0.05
        while True:
            now = time.monotonic()
            if now >= deadline:
                if verdict is not None:
                    return verdict  # it had its grace
                verdict, deadline = ("limit.time", f"ran longer than {self.seconds:g} s"), now + self.grace
                self._ask_to_end()
            if now >= look:
                if overrun := self._overrun():
                    return overrun  # no grace: it would only take more
                pause = min(pause * 1.5, 0.5)
                look = now + pause
            for descriptor, event in poller.poll(max(1, int((min(deadline, look) - now) * 1000) + 1)):
                if descriptor == self.errors:
                    self._read_errors()
                    if event & select.POLLHUP:
                        poller.unregister(self.errors)
                elif signal.SIGTERM in os.read(wake, 512) and verdict is None:
                    verdict, deadline = ("stopped", "stopped on request"), time.monotonic() + self.grace
                    self._ask_to_end()
            self._reap()
            if self.status is not None:
                return verdict

    def judge(self, verdict: Verdict | None) -> Verdict | None:
        """Why it failed, or None for a command that ended well within its limits."""
        self._read_errors()
        code = self.around.exit_code(self.status) if self.status is not None else None
        if verdict is None:
            verdict = self._too_much_output() or self.around.overrun()
        if verdict is not None or code == 0:
            return verdict
        if code is None:
            return "exit", "its end could not be observed"
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and self._cpu_used() >= self.cpu):
            return "limit.time", f"used more than {self.cpu:g} s of processor time"
        if code == -signal.SIGXFSZ:
            return "limit.output", f"wrote a file of more than {self.most_output} bytes"
        peak = self.usage.ru_maxrss * 1024 if self.usage else 0
        if any(sign in self.tail for sign in _OUT_OF_MEMORY) or (code == -signal.SIGKILL and peak > 0.8 * self.memory):
            return "limit.memory", f"ran out of its {self.memory} bytes of memory"
        last = self.tail.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
        said = "".join(character if character.isprintable() else "?" for character in last)
        how = f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
        return "exit", f"{how}: {said}" if said else how

    def outcome(self, verdict: Verdict | None) -> dict[str, object]:
        _write_new(self.folder, "stderr", bytes(self.tail))
        code, detail = verdict or ("", "")
        return {
            "state": "failed" if verdict else "finished",
            "code": code,
            "detail": detail,
            "status": self.status,
            "seconds": round(time.monotonic() - self.began, 3),
            "cpu_seconds": round(self._cpu_used(), 3),
            "peak_memory": self.usage.ru_maxrss * 1024 if self.usage else 0,
        }

    def kill_everything(self) -> None:
        """Until no process of the job is left: new ones may appear while old ones die, but none can leave the tree."""
        patience = time.monotonic() + 20
        while time.monotonic() < patience:
            for pid in _descendants(os.getpid()):
                _signal(pid, signal.SIGKILL)
            if not self._reap():
                return
            time.sleep(0.002)

    def _reap(self) -> bool:
        """Collect what has died. False when no child is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.status, self.usage = status, usage

    def _ask_to_end(self) -> None:
        for pid in _descendants(os.getpid()):
            if pid != self.pid or not self.around.outer:  # what surrounds the job would take it along at once
                _signal(pid, signal.SIGTERM)

    def _read_errors(self) -> None:
        try:
            self.tail += os.read(self.errors, 65536)
        except BlockingIOError:
            return
        del self.tail[:-_STDERR_KEPT]

    def _cpu_used(self) -> float:
        return self.usage.ru_utime + self.usage.ru_stime if self.usage else 0.0

    def _overrun(self) -> Verdict | None:
        pids = _descendants(os.getpid())
        if len(pids) - self.around.outer > self.most_processes:
            return "limit.processes", f"started more than {self.most_processes} processes"
        if sum(map(_private_memory, pids)) > self.memory:
            return "limit.memory", f"used more than {self.memory} bytes of memory"
        return self._too_much_output() or self.around.overrun()

    def _too_much_output(self) -> Verdict | None:
        if os.fstat(self.stdout).st_size > self.most_output:
            return "limit.output", f"printed more than {self.most_output} bytes"
        entries, size = _extent(self.around.room, "output")
        if entries > self.most_files or size > self.most_output:
            return "limit.output", f"left {entries} files of {size} bytes, {self.most_files} of {self.most_output} allowed"
        return None


def _noted(number: int, frame: object) -> None:
    """The wake-up descriptor already says it."""


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; never above what we were given ourselves."""
    _, most = resource.getrlimit(kind)
    bound = (1 << 62) if most == resource.RLIM_INFINITY else most
    resource.setrlimit(kind, (min(soft, bound), min(soft if hard is None else hard, bound)))


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _descendants(root: int) -> list[int]:
    """All processes below `root`, parents first. A subreaper's tree loses nobody while it is read, but may gain."""
    found: list[int] = []
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as opened:
                    children = [int(child) for child in opened.read().split()]
                found += children
                waiting += children
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _private_memory(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as opened:
            resident, shared = opened.read().split()[1:3]
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return 0
    return (int(resident) - int(shared)) * resource.getpagesize()


def _extent(folder: int, name: str, sync: bool = False) -> tuple[int, int]:
    """Entries and apparent bytes under a folder, following no symlink. What cannot be opened is left to the collector's refusal."""
    entries = size = 0
    waiting: list[tuple[str, ...]] = [(name,)]
    while waiting:
        path = waiting.pop()
        try:
            handle = _below(folder, path)
        except OSError:
            continue
        try:
            with os.scandir(handle) as listing:
                for entry in listing:
                    entries += 1
                    if entries >= _ENTRIES_LOOKED_AT or len(path) >= _DEEPEST:
                        return _ENTRIES_LOOKED_AT, size
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if stat.S_ISREG(info.st_mode):
                        size += info.st_size
                        if sync:
                            _sync(handle, entry.name)
                    elif stat.S_ISDIR(info.st_mode):
                        waiting.append((*path, entry.name))
            if sync:
                os.fsync(handle)
        finally:
            os.close(handle)
    return entries, size


def _below(folder: int, path: tuple[str, ...]) -> int:
    handle = os.dup(folder)
    for name in path:
        try:
            deeper = os.open(name, _FOLDER, dir_fd=handle)
        finally:
            os.close(handle)
        handle = deeper
    return handle


def _sync(folder: int, name: str) -> None:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=folder)
    except OSError:
        return  # the job took it away, swapped or locked it: the collector will see
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _write_new(folder: int, name: str, data: bytes) -> None:
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    with open(handle, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(handle)


def _save(folder: int, name: str, value: dict[str, object]) -> None:
    """All of it or nothing, durable on return."""
    _write_new(folder, f"{name}.new", json.dumps(value).encode())
    os.rename(f"{name}.new", name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
