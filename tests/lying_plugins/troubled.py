"""A plugin of every kind that behaves badly at whichever hook `TROUBLE` names, in the way it names: "HOOK KIND". Without it, it is honest."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tradeskill.contracts import Backend, Capability, Market, PluginContext, Wallet
from tradeskill.hookspecs import hookimpl
from tradeskill.manifest import Manifest
from tradeskill.model import Json
from tradeskill.testing.fake_backend import FakeBackend, FakeMachine
from tradeskill.testing.fakes import FakeLedger, FakeWallet
from tradeskill_plugins.market.embedded import EmbeddedMarket
from tradeskill_plugins.market.store import open_memory

tradeskill_api = 1


def trouble(hook: str, honest: Any) -> Any:
    named, _, kind = os.environ.get("TROUBLE", "").partition(" ")
    if named != hook:
        return honest
    if kind == "raises":
        raise RuntimeError("trouble")
    if kind == "exits":
        raise SystemExit(0)
    if kind == "interrupts":
        raise KeyboardInterrupt
    while kind == "hangs":
        try:
            time.sleep(1000)
        except Exception:  # noqa: BLE001, PERF203, RUF100 - a plugin that will not be stopped
            continue
    return object()  # it lies


trouble("import", None)


@hookimpl
def tradeskill_manifest() -> Manifest:
    return trouble("manifest", Manifest(spends=("everything",)))


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    return trouble("capabilities", ())


@hookimpl
def tradeskill_create_wallet(settings: Mapping[str, Json], context: PluginContext, secret: bytes) -> None:
    trouble("create_wallet", None)


@hookimpl
def tradeskill_open_wallet(settings: Mapping[str, Json], context: PluginContext) -> Wallet:
    return trouble("open_wallet", FakeWallet(FakeLedger(context.world.now_ms), context.world))


@hookimpl
def tradeskill_open_market(settings: Mapping[str, Json], context: PluginContext) -> Market:
    return trouble("open_market", EmbeddedMarket(lambda: open_memory(context.world), context.identity, context.world))


@hookimpl
def tradeskill_open_backend(settings: Mapping[str, Json], context: PluginContext) -> Backend:
    return trouble("open_backend", FakeBackend(FakeMachine(), context.world))


@hookimpl
def tradeskill_skill() -> str:
    return trouble("skill", "troubled.tools")
