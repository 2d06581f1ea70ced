"""A wallet plugin whose wallet cannot pay, refund or say its unit."""

from __future__ import annotations

from collections.abc import Mapping

from tradeskill.contracts import PluginContext, Wallet
from tradeskill.hookspecs import hookimpl
from tradeskill.model import Json
from tradeskill.testing.fakes import FakeWallet


class HalfWallet:
    rail = "half"

    def __getattr__(self, name: str) -> object:
        if name in ("pay", "refund", "unit"):
            raise AttributeError(name)
        return getattr(FakeWallet, name)


@hookimpl
def tradeskill_open_wallet(settings: Mapping[str, Json], context: PluginContext) -> Wallet:
    return HalfWallet()  # type: ignore[return-value]  # what the test is about
