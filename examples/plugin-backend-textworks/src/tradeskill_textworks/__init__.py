"""The plugin `textworks`: a compute backend that does a few things to texts. What stands here is read at every listing, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tradeskill.contracts import Backend, Capability, PluginContext
from tradeskill.errors import ConfigError
from tradeskill.hookspecs import hookimpl
from tradeskill.manifest import Manifest
from tradeskill.model import Json

tradeskill_api = 1


@hookimpl
def tradeskill_manifest() -> Manifest:
    return Manifest()  # it talks to nobody, keeps no secret and spends nothing


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    return (
        Capability("isolation", "sandbox", "nothing that a stranger wrote is run: jobs choose among functions of the backend's own"),
        Capability("network", False, "its functions reach no network"),
        Capability("kinds", "run", "commands that end; no long-running services"),
        Capability("adopts", True, "an execution is a row in a file, which every worker can read"),
        Capability("limit.time", True, "wall clock"),
        Capability("limit.output", True, "a result's size"),
    )


@hookimpl
def tradeskill_open_backend(settings: Mapping[str, Json], context: PluginContext) -> Backend:
    """No settings. The executions lie in the plugin's own folder."""
    from tradeskill_textworks.backend import TextworksBackend

    for key in settings:
        raise ConfigError(f"backend {context.name}: unknown key {key!r}; it has no settings")
    return TextworksBackend(context.home, context.world, context.identity.key)
