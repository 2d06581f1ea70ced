"""Control groups, v1 and v2: where this process may make one with the controllers `pids` and `memory`, and making one for a job.

Imports the standard library only: the supervisor loads it too.
"""

# ruff: noqa: PTH102, PTH106, PTH110, PTH118, PTH123  # pathlib alone would make the supervisor's start a third longer

from __future__ import annotations

import os
import time

__all__ = ["find", "join", "kills", "make", "remove"]

_FILES = {  # controller: version: the file with its limit
    "pids": {1: "pids.max", 2: "pids.max"},
    "memory": {1: "memory.limit_in_bytes", 2: "memory.max"},
}
_SWAP = {1: ("memory.memsw.limit_in_bytes", ""), 2: ("memory.swap.max", "0")}


def find(mounts: str, own: str) -> dict[str, str]:
    """Controller -> folder in which this process may make a control group with it.

    `mounts`, `own`: the texts of /proc/self/mountinfo and /proc/self/cgroup.
    """
    found: dict[str, str] = {}
    paths = {fields[1]: fields[2] for line in own.splitlines() if len(fields := line.split(":", 2)) == 3}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split()[:3] if len(right.split()) >= 3 else ("", "", "")
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mounted = left.split()[3:5]
        for controller in _FILES:
            if controller in found:
                continue
            mine = paths.get("") if kind == "cgroup2" else next((path for names, path in paths.items() if controller in names.split(",")), None)
            if mine is None or (kind == "cgroup" and controller not in options.split(",")):
                continue
            above = f"{root.rstrip('/')}/"
            inside = mine[len(above) :] if f"{mine}/".startswith(above) else mine  # what is mounted may begin below the top
            folder = _usable(mounted, inside.strip("/"), controller if kind == "cgroup2" else "")
            if folder:
                found[controller] = folder
    return found


def make(folders: dict[str, str], name: str, limits: dict[str, int]) -> list[str]:
    """A control group `name` in each folder, with its limit. OSError where one cannot be had; then none is left."""
    made: list[str] = []
    try:
        for controller, folder in folders.items():
            group = os.path.join(folder, name)
            os.mkdir(group)
            made.append(group)
            version = 2 if os.path.exists(os.path.join(folder, "cgroup.controllers")) else 1
            _write(os.path.join(group, _FILES[controller][version]), str(limits[controller]))
            swap, most = _SWAP[version]  # there where the kernel counts it; v1's is memory and swap together
            if controller == "memory" and os.path.exists(os.path.join(group, swap)):
                _write(os.path.join(group, swap), most or str(limits[controller]))
    except OSError:
        remove(made)
        raise
    return made


def join(groups: list[str]) -> None:
    """This process, and all that it will start."""
    for group in groups:
        _write(os.path.join(group, "cgroup.procs"), "0")


def kills(groups: list[str]) -> int:
    """How many processes the kernel has killed in them for want of memory."""
    count = 0
    for group in groups:
        for name in ("memory.events", "memory.oom_control"):
            try:
                with open(os.path.join(group, name), encoding="ascii") as opened:
                    count += sum(int(line.split()[1]) for line in opened if line.startswith("oom_kill "))
            except OSError:
                continue
    return count


def remove(groups: list[str]) -> None:
    """Once nothing runs in them; what cannot be removed is left, it holds nothing."""
    for group in groups:
        for _ in range(50):
            try:
                os.rmdir(group)
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.005)
            else:
                break


def _usable(mounted: str, inside: str, controller: str) -> str:
    """Our own group, or the nearest one above it, where a group can be made; "" where there is none.

    In v2 (`controller` given) a group has the controllers that the one above hands down, and one with processes in it hands down none.
    """
    while True:
        folder = os.path.join(mounted, inside) if inside else mounted
        handed = not controller
        if controller:
            try:
                with open(os.path.join(folder, "cgroup.subtree_control"), encoding="ascii") as opened:
                    handed = controller in opened.read().split()
            except OSError:
                handed = False
        if handed and os.access(folder, os.W_OK) and _takes_a_group(folder):
            return folder
        if not inside or not controller:
            return ""
        inside = os.path.dirname(inside)  # noqa: PTH120  # as above


def _takes_a_group(folder: str) -> bool:
    """Tried out: rights alone do not say it, with a read-only mount or a manager in between."""
    trial = os.path.join(folder, f"tradeskill-try-{os.getpid()}")
    try:
        os.mkdir(trial)
        os.rmdir(trial)
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as opened:
        opened.write(text)
