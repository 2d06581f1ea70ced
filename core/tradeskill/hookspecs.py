"""The index of hooks: what a plugin module may define. Mark each with `tradeskill.hookspecs.hookimpl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pluggy

from tradeskill.contracts import Backend, Capability, Market, PluginContext, Wallet
from tradeskill.manifest import Manifest
from tradeskill.model import Json

__all__ = ["hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("tradeskill")
hookimpl = pluggy.HookimplMarker("tradeskill")


@hookspec
def tradeskill_capabilities() -> Sequence[Capability]:  # type: ignore[empty-body]  # a hook specification has no body
    """Say what this plugin can and cannot do; called at listing and before use, without I/O; an exception keeps it from loading."""


@hookspec
def tradeskill_manifest() -> Manifest:  # type: ignore[empty-body]  # as above
    """Say whom this plugin talks to, what secrets it keeps and what it can spend; called at listing, without I/O; an exception keeps it from loading."""


@hookspec
def tradeskill_open_wallet(settings: Mapping[str, Json], context: PluginContext) -> Wallet:  # type: ignore[empty-body]  # as above
    """Make a payment rail from its configuration entry, once per profile opened, without I/O; raise ConfigError naming the key that is wrong."""


@hookspec
def tradeskill_create_wallet(settings: Mapping[str, Json], context: PluginContext, secret: bytes) -> None:
    """Make a new wallet's secret in `context.home`, from `secret` (32 bytes), once, by `init` and `wallet restore`; SecretError when one is there."""


@hookspec
def tradeskill_open_market(settings: Mapping[str, Json], context: PluginContext) -> Market:  # type: ignore[empty-body]  # as above
    """Make a market from its configuration entry, once per profile opened, without I/O; raise ConfigError naming the key that is wrong."""


@hookspec
def tradeskill_open_backend(settings: Mapping[str, Json], context: PluginContext) -> Backend:  # type: ignore[empty-body]  # as above
    """Make a compute backend, once per seller started, without I/O; raise ConfigError naming the key that is wrong."""


@hookspec
def tradeskill_skill() -> str:  # type: ignore[empty-body]  # as above
    """Return the import path of the module that holds the skill's tools; called at listing, so it must be cheap; SKILL.md lies beside it."""
