"""The plugin `process`: runs the seller's own commands as plain processes. It limits them, it isolates nothing."""

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

_SETTINGS: Final = ("plugin", "folder", "processes")
_PROCESSES: Final = 64


tradeskill_api = API


@hookimpl
def tradeskill_manifest() -> Manifest:
    return Manifest(files=("whatever the seller's user can read and write: jobs run as that user",))


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    return (
        Capability("isolation", "none", "jobs run as the seller's user and can read what the seller can: own code only (trusted: true)"),
        Capability("network", True, "jobs share the host's network"),
        Capability("kinds", "run", "commands that end; no long-running services"),
        Capability("adopts", True, "a supervisor of each job's own outlives the worker"),
        Capability("limit.time", True, "wall clock for the job, processor time for each of its processes"),
        Capability("limit.memory", True, "address space of each process; private memory of all together, looked at several times a second"),
        Capability("limit.output", True, "stdout, output folder and scratch folder, looked at several times a second; no file grows past it"),
        Capability("limit.processes", True, "counted several times a second"),
    )


@hookimpl
def tradeskill_open_backend(settings: Mapping[str, Json], context: PluginContext) -> Backend:
    """Settings, all optional: `folder` for the executions (relative to the plugin's home, which is the default), `processes` per job."""
    for key in settings:
        if key not in _SETTINGS:
            raise ConfigError(f"backend {context.name}: unknown key {key!r}; known: {', '.join(_SETTINGS)}")
    folder = settings.get("folder", "")
    if not isinstance(folder, str) or "\0" in folder:
        raise ConfigError(f"backend {context.name}: folder {folder!r} is not a path")
    processes = settings.get("processes", _PROCESSES)
    if type(processes) is not int or not 1 <= processes <= 10_000:
        raise ConfigError(f"backend {context.name}: processes {processes!r} is not a number from 1 to 10000")
    from tradeskill_plugins.process.backend import ProcessBackend

    return ProcessBackend(context.home / Path(folder).expanduser(), context.world, context.identity.key, processes)
