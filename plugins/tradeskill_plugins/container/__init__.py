"""The plugin `container`: runs jobs in containers of a Docker or Podman engine, from one pinned image, with everything taken away from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from tradeskill.contracts import Backend, Capability, PluginContext
from tradeskill.errors import PluginError
from tradeskill.hookspecs import hookimpl
from tradeskill.manifest import API, Manifest
from tradeskill.model import Json

__all__ = ["tradeskill_capabilities", "tradeskill_manifest", "tradeskill_open_backend"]


tradeskill_api = API


@hookimpl
def tradeskill_manifest() -> Manifest:
    return Manifest(hosts=("the container engine at `socket`",), files=("the engine's own storage of images and containers",))


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    return (
        Capability("isolation", "container", "the files of a pinned image, no privileges, the engine's filter of system calls; the kernel is shared"),
        Capability("network", "granted", "none at all, unless the offer says `network: true`: then the engine's network that the settings name"),
        Capability("folder", False, "jobs see nothing of this machine: their program is the image's"),
        Capability("kinds", "run", "commands that end; no long-running services"),
        Capability("adopts", True, "each job's own watcher outlives the worker; should it die, the container goes on and a new one takes over"),
        Capability("limit.time", True, "wall clock, by the watcher; processor time, by the kernel, for each process"),
        Capability("limit.memory", True, "by the kernel, for all processes together, files in memory included; no swap, where the kernel counts it"),
        Capability("limit.processes", True, "by the kernel"),
        Capability("limit.cpu", True, "a share of the machine's processors, by the kernel"),
        Capability("limit.output", True, "printing is counted as it comes, output files are looked at about once a second; no file grows past it"),
        Capability("limit.disk", True, "nothing but the output folder is on disk; scratch space is memory of a fixed size"),
    )


@hookimpl
def tradeskill_open_backend(settings: Mapping[str, Json], context: PluginContext) -> Backend:
    """Settings: see `settings.Settings`. PluginError where the package that talks to engines is not installed."""
    if find_spec("docker") is None:
        raise PluginError("the backend container needs the Python package docker: pip install 'tradeskill[container]'")
    from tradeskill_plugins.container.backend import ContainerBackend
    from tradeskill_plugins.container.settings import read_settings

    return ContainerBackend(context.home, context.world, context.identity.key, read_settings(settings, context.name))
