"""What makes a watcher one: the only one at its execution, known by pid and start, awake to signals; and its files, durable when they count."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path

from tradeskill_plugins import outputs

__all__ = ["claim", "empty", "save", "sync_tree", "wake_up", "who_am_i", "write"]


def claim(folder: Path) -> bool:
    """Take the lock for the rest of this process's life and its forks'. False where somebody has it, or the execution ended."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(5000):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if (folder / "supervisor.json").exists():
                return False
            time.sleep(0.002)  # its holder is about to write its record, or to die
        else:
            return not (folder / "outcome.json").exists()
    raise TimeoutError("another watcher holds the lock and does not say who it is")


def who_am_i() -> dict[str, object]:
    """As `executions/records.py` reads it."""
    started = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    return {"pid": os.getpid(), "started": started, "boot": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()}


def wake_up() -> int:
    """A descriptor that says which signals came. Set up before anybody is told our pid, so that a stop is never missed."""
    wake, wake_in = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wake_in, False)
    signal.set_wakeup_fd(wake_in)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return wake


def empty(folder: Path) -> None:
    """The folder anew, whatever was in it."""
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        outputs.remove_tree(parent, folder.name)
    finally:
        os.close(parent)
    folder.mkdir(0o700)


def sync_tree(folder: Path) -> None:
    """All in it, and its names, durable on return."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write(path: Path, data: bytes) -> None:
    """Durable on return, but for its name."""
    with path.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def save(folder: Path, name: str, value: dict[str, object]) -> None:
    """All of it or nothing, durable on return."""
    write(folder / f"{name}.new", json.dumps(value).encode())
    (folder / f"{name}.new").rename(folder / name)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
