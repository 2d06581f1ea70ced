"""The plugin `bubblewrap`: runs strangers' programs in a sandbox each, on the machine's own kernel and read-only system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tradeskill.contracts import Backend, Capability, PluginContext
from tradeskill.errors import ConfigError
from tradeskill.hookspecs import hookimpl
from tradeskill.manifest import API, Manifest
from tradeskill.model import Json

__all__ = ["tradeskill_capabilities", "tradeskill_manifest", "tradeskill_open_backend"]

_SETTINGS: Final = ("plugin", "folder", "processes", "scratch", "read", "uids")


tradeskill_api = API


@hookimpl
def tradeskill_manifest() -> Manifest:
    return Manifest(files=("what the settings name: `folder` for the executions, `read` for jobs to read",))


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    return (
        Capability("isolation", "sandbox", "own namespaces for files, processes, network and users, no privileges, a system call filter; tried at start"),
        Capability("network", False, "none, unless the offer grants it (network: true): then the machine's, loopback included"),
        Capability("kinds", "run", "commands that end; no long-running services"),
        Capability("adopts", True, "a supervisor of each job's own outlives the worker"),
        Capability("limit.time", True, "wall clock for the job, processor time for each of its processes"),
        Capability("limit.memory", True, "address space of each process; all together by a control group where one can be made, else by looking often"),
        Capability("limit.output", True, "stdout by its size; output, /tmp, home and /dev/shm are folders in memory of a fixed size and number of files"),
        Capability("limit.processes", True, "a limit of the kernel's, under a user of its own where the seller is root; and counted several times a second"),
    )


@hookimpl
def tradeskill_open_backend(settings: Mapping[str, Json], context: PluginContext) -> Backend:
    """Settings, all optional. ConfigError names the key that is wrong; whether the machine can do it is found out by `open`.

    `folder` for the executions (relative to the plugin's home, which is the default) · `processes` per job · `scratch`, bytes for /tmp, home
    and /dev/shm together · `read`, more of this machine's files and folders for jobs to read · `uids`, [first, count], where the seller is root.
    """
    for key in settings:
        if key not in _SETTINGS:
            raise _wrong(context, f"unknown key {key!r}; known: {', '.join(_SETTINGS)}")
    folder = settings.get("folder", "")
    if not isinstance(folder, str) or "\0" in folder:
        raise _wrong(context, f"folder {folder!r} is not a path")
    processes = settings.get("processes", 64)
    if type(processes) is not int or not 1 <= processes <= 10_000:
        raise _wrong(context, f"processes {processes!r} is not a number from 1 to 10000")
    scratch = settings.get("scratch", 256 * 2**20)
    if type(scratch) is not int or not 2**20 <= scratch <= 2**40:
        raise _wrong(context, f"scratch {scratch!r} is not a number of bytes from {2**20} on")
    read = settings.get("read", [])
    if not isinstance(read, list) or not all(isinstance(path, str) and path.startswith("/") and "\0" not in path for path in read):
        raise _wrong(context, f"read {read!r} is not a list of whole paths")
    uids = settings.get("uids")
    if uids is not None and not (isinstance(uids, list) and len(uids) == 2 and all(type(number) is int and 1 <= number < 2**32 - 1 for number in uids)):
        raise _wrong(context, f"uids {uids!r} is not [first, count], both above zero")
    from tradeskill_plugins.bubblewrap.backend import BubblewrapBackend

    return BubblewrapBackend(
        context.home / Path(folder).expanduser(),
        context.world,
        context.identity.key,
        processes=processes,
        scratch=scratch,
        uids=None if uids is None else (uids[0], uids[1]),  # type: ignore[arg-type]  # checked above, which the checker does not follow
        readable=[Path(str(path)) for path in read],
        guarded=[context.home],
    )


def _wrong(context: PluginContext, what: str) -> ConfigError:
    return ConfigError(f"backend {context.name}: {what}")
