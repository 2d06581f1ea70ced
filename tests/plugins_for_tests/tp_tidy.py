"""A backend plugin with nothing wrong, which says on stdout that it is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tradeskill.contracts import Backend, Capability, PluginContext
from tradeskill.errors import ConfigError
from tradeskill.hookspecs import hookimpl
from tradeskill.model import Json
from tradeskill.testing.fake_backend import FakeBackend, FakeMachine

print("tp_tidy is imported")


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    return [Capability("isolation", "none", "it runs nothing")]


@hookimpl
def tradeskill_open_backend(settings: Mapping[str, Json], context: PluginContext) -> Backend:
    if settings.get("fail") == "config":
        raise ConfigError("backends.tidy.fail: takes nothing")
    if settings.get("fail") == "exit":
        raise SystemExit(3)
    if settings.get("fail") == "nothing":
        return None  # type: ignore[return-value]  # what the test is about
    return FakeBackend(FakeMachine(), context.world)
