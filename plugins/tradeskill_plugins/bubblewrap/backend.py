"""BubblewrapBackend: commands in a sandbox each. Tries once, by a real job, that this machine gives what is promised; never runs with less."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tradeskill.contracts import Capability, Limits, Task
from tradeskill.errors import ConfigError, UnavailableError
from tradeskill.world import World
from tradeskill_plugins import outputs
from tradeskill_plugins.bubblewrap import cgroups
from tradeskill_plugins.bubblewrap.seccomp import seccomp_filter
from tradeskill_plugins.bubblewrap.view import View, holds, interpreter_folders
from tradeskill_plugins.executions.backend import SupervisedBackend
from tradeskill_plugins.executions.records import SCRATCH, Executions

__all__ = ["BubblewrapBackend", "probed_uids"]

_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_INSTALL: Final = "install it (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap; Arch: pacman -S bubblewrap)"
_UIDS: Final = (1_900_000_000, 100_000_000)  # nobody's: above what distributions and containers hand out, below what has a meaning of its own
_TRIED: Final[set[tuple[object, ...]]] = set()  # in this process: what was found to hold is not tried again
_TRIAL: Final = """
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
cat /proc/net/dev | tail -n +3 | cut -d: -f1 | while read name; do echo "Net: $name"; done
for path in /root /home /run /sys /var; do test -e $path && echo "Seen: $path"; done
touch /usr/x /x 2>/dev/null && echo "Written: yes"
echo "Tried: yes"
"""


class BubblewrapBackend(SupervisedBackend):
    """`home` holds the executions; `guarded` is what no job may see, whatever folders are named. `open` is when the machine is tried."""

    def __init__(
        self,
        home: Path,
        world: World,
        owner: str,
        *,
        processes: int = 64,
        scratch: int = SCRATCH,
        uids: tuple[int, int] | None = None,
        readable: Sequence[Path] = (),
        guarded: Sequence[Path] = (),
    ) -> None:
        self._home, self._owner, self._processes, self._scratch, self._guarded = home.absolute(), owner, processes, scratch, (home.absolute(), *guarded)
        self._asked_uids, self._readable = uids, tuple(readable)
        self._view: View | None = None
        super().__init__(Executions(home, owner, processes), world)

    async def open(self) -> None:
        """ConfigError where a folder named for jobs shows the seller's own files; UnavailableError, with the way out, where no sandbox can be made."""
        if self._view is not None:
            return
        bwrap = shutil.which("bwrap", path=_PATH)
        if bwrap is None:
            raise UnavailableError(f"backend bubblewrap: the program bwrap is not in {_PATH}: {_INSTALL}")
        seccomp_filter(network=False)
        for path in self._readable:
            if not path.exists():
                raise ConfigError(f"backend bubblewrap: read: {path} does not exist")
        for path in (Path("/usr"), *self._readable, *interpreter_folders()):
            if holds(path, self._guarded):
                raise ConfigError(f"backend bubblewrap: jobs can read {path}, and the seller's own files lie there ({self._home}): move one of them")
        uids = (self._asked_uids or probed_uids(_text("/proc/self/uid_map"))) if os.geteuid() == 0 else None
        groups = await self._world.offload(lambda: cgroups.find(_text("/proc/self/mountinfo"), _text("/proc/self/cgroup")))
        view = View(bwrap, self._home, uids, self._processes, self._scratch, tuple(path.absolute() for path in self._readable), groups)
        executions = Executions(self._home, self._owner, self._processes, self._scratch, view)
        await self._world.offload(lambda: executions.prepare(self._world.now_ms()))
        self._executions = executions
        kind = (bwrap, os.geteuid(), uids, *sorted(groups.items()))
        if kind not in _TRIED:
            await self._try(view)
            _TRIED.add(kind)
        self._view = view

    def check(self, task: Task) -> None:
        assert self._view is not None, "open it first"
        self._view.check(task)

    async def remove(self, execution_id: str) -> None:
        await super().remove(execution_id)
        assert self._view is not None, "open it first"
        left = [f"{folder}/tradeskill-{self._view.name(execution_id)}" for folder in self._view.cgroups.values()]
        await self._world.offload(lambda: cgroups.remove(left))  # where its supervisor was killed, nobody has done it yet

    async def enforced(self) -> Sequence[Capability]:
        """What holds on this machine, found by trying."""
        await self.open()
        assert self._view is not None
        whose = "this user, in a user namespace" if self._view.uids is None else f"users of their own from {self._view.uids[0]} on, never root"
        both = "a control group holds all of a job together" if "memory" in self._view.cgroups else "all together are looked at several times a second"
        walls = "RLIMIT_NPROC and a control group" if "pids" in self._view.cgroups else "RLIMIT_NPROC"
        return (
            Capability("isolation", "sandbox", f"tried on this machine with {self._view.bwrap}; jobs run as {whose}"),
            Capability("network", False, "a network namespace with nothing in it, unless the offer grants the machine's"),
            Capability("limit.time", True, "wall clock by the supervisor, processor time by RLIMIT_CPU"),
            Capability("limit.memory", True, f"RLIMIT_AS for each process; {both}"),
            Capability("limit.processes", True, f"{walls}, and counted several times a second"),
            Capability("limit.output", True, "RLIMIT_FSIZE, and folders in memory of a fixed size and number of files"),
        )

    async def examine(self) -> str:
        enforced = {capability.name: capability for capability in await self.enforced()}
        return f"isolation sandbox: {enforced['isolation'].reason}; memory: {enforced['limit.memory'].reason}; processes: {enforced['limit.processes'].reason}"

    async def _try(self, view: View) -> None:
        """Run one job that looks about. UnavailableError where anything that is promised does not hold."""
        home = self._home / f".trial-{os.getpid()}-{os.urandom(4).hex()}"  # a name that is cleared like anything else a crash leaves behind
        trial = _Trial(Executions(home, self._owner, self._processes, self._scratch, dataclasses.replace(view, home=home)), self._world)
        try:
            await trial.open()
            await trial.start("trial", Task(("/bin/sh", "-c", _TRIAL), b""), Limits(seconds=20.0, memory=128 * 2**20, output=65536, files=4))
            status = await trial.wait("trial", 30.0)
            if status.state != "finished":
                raise UnavailableError(f"backend bubblewrap: no sandbox can be made on this machine ({status.detail}); {_way_out(status.detail)}")
            lines = (await trial.result("trial")).data.decode("utf-8", "replace").splitlines()
        finally:
            await trial.stop("trial")
            await self._world.offload(lambda: self._forget(home))
        found = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        wanted = {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2", "Net": "lo", "Tried": "yes"}
        wrong = [f"{name} is {found.get(name)!r}, not {value!r}" for name, value in wanted.items() if found.get(name) != value]
        wrong += [f"{name} {found[name]}" for name in ("Seen", "Written") if name in found]
        if wrong:
            raise UnavailableError(f"backend bubblewrap: its sandbox does not hold on this machine: {'; '.join(wrong)}")

    def _forget(self, home: Path) -> None:
        parent = outputs.open_folder(self._home)
        try:
            outputs.remove_tree(parent, home.name)
        finally:
            os.close(parent)


class _Trial(SupervisedBackend):
    def check(self, task: Task) -> None:
        """It is ours."""


def probed_uids(uid_map: str) -> tuple[int, int]:
    """Users for jobs of a seller that is root: nobody's where they exist, else (in a container) high ones of those there are.

    UnavailableError where there is none to be had.
    """
    first, count = _UIDS
    ranges = [tuple(map(int, line.split())) for line in uid_map.splitlines() if len(line.split()) == 3]
    if any(inside <= first and first + count <= inside + size for inside, _, size in ranges):
        return _UIDS
    ends = [(max(inside, 20_000), min(inside + size, 60_000)) for inside, _, size in ranges]
    low, high = max(ends, key=lambda pair: pair[1] - pair[0], default=(0, 0))
    if high <= low:
        raise UnavailableError("backend bubblewrap: as root it needs users to run jobs under, and has none from 20000 to 60000: set `uids: [FIRST, COUNT]`")
    return low, high - low


def _way_out(detail: str) -> str:
    if "unshare" in detail or "uid map" in detail or "ermission" in detail or "not permitted" in detail:
        sysctls = "kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, kernel.apparmor_restrict_unprivileged_userns=0"
        return f"it needs user namespaces for ordinary users ({sysctls}), and in a container a /proc that nothing is mounted over"
    return f"kernel {platform.release()}; see its folder's supervisor.log, or name another backend"


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
