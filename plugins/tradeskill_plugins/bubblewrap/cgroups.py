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
        wanted = [controller for controller in _FILES if controller not in found]
        if kind == "cgroup2":
            mine = paths.get("")
            if mine is not None and wanted:
                folder, handed = _in_v2(mounted, _inside(mine, root), wanted)
                found.update(dict.fromkeys(handed, folder))
            continue
        for controller in wanted:
            mine = next((path for names, path in paths.items() if controller in names.split(",")), None)
            if mine is None or controller not in options.split(","):
                continue
            inside = _inside(mine, root)
            folder = os.path.join(mounted, inside) if inside else mounted
            if os.access(folder, os.W_OK) and _takes_a_group(folder):
                found[controller] = folder
    return found


def make(folders: dict[str, str], name: str, limits: dict[str, int]) -> list[str]:
    """A control group `name` in each folder, with the limits of all controllers there. OSError where one cannot be had; then none is left."""
    made: list[str] = []
    try:
        for controller, folder in folders.items():
            group = os.path.join(folder, name)
            if group not in made:  # v2 has one for all of them
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


def _inside(mine: str, root: str) -> str:
    """The own group as seen from what is mounted, which may begin below the top."""
    above = f"{root.rstrip('/')}/"
    return (mine[len(above) :] if f"{mine}/".startswith(above) else mine).strip("/")


def _in_v2(mounted: str, inside: str, wanted: list[str]) -> tuple[str, list[str]]:
    """The nearest group, our own or above it, in which one can be made that has the most of these controllers; and which.

    A group has the controllers that the one above hands down, and one with processes in it hands down none. A process is in one group only,
    so all come from the same. Moving there takes the right to write the `cgroup.procs` of what is above both.
    """
    best: tuple[str, list[str]] = ("", [])
    while True:
        folder = os.path.join(mounted, inside) if inside else mounted
        try:
            with open(os.path.join(folder, "cgroup.subtree_control"), encoding="ascii") as opened:
                handed_down = opened.read().split()
        except OSError:
            handed_down = []
        handed = [controller for controller in wanted if controller in handed_down]
        more = (len(handed), "memory" in handed) > (len(best[1]), "memory" in best[1])
        if more and os.access(folder, os.W_OK) and os.access(os.path.join(folder, "cgroup.procs"), os.W_OK) and _takes_a_group(folder):
            best = (folder, handed)
        if not inside or len(best[1]) == len(wanted):
            return best
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
