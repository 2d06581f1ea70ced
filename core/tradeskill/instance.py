"""Which process is this, and is that one still alive? Leases name their owner so that a dead worker's jobs are taken over at once."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_dead", "own_name"]


def own_name(random: bytes) -> str:
    """`pid.start.boot.random`: unique for ever, checkable on this host."""
    return f"{os.getpid()}.{_start_time(os.getpid())}.{_boot_id()}.{random.hex()}"


def is_dead(name: str) -> bool:
    """True only when proved: same host since boot and the pid is gone or belongs to a later process; True as well after a reboot."""
    parts = name.split(".")
    if len(parts) != 4 or not parts[0].isdigit():
        return False
    boot = _boot_id()
    if not boot or not parts[2]:
        return False
    return parts[2] != boot or _start_time(int(parts[0])) != parts[1]


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat (clock ticks since boot), or "" when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
