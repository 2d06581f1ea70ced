"""The rail `tally` keeps the wallet's contract (the class imported here), and its hooks say what is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tradeskill.contracts import PluginContext
from tradeskill.errors import ConfigError, RefusedError
from tradeskill.plugins import Plugins
from tradeskill.signing import Identity
from tradeskill.world import World

from tradeskill_tally.conformance import TestTally
from tradeskill_tally.ledger import Ledger

__all__ = ["TestTally"]


def test_it_is_found_and_says_what_it_is() -> None:
    (report,) = [report for report in Plugins().report() if report.name == "tally"]
    assert (report.error, report.kinds, report.notes) == (None, ("wallet",), ())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "t.db", "colour": "red"}, "unknown key 'colour'"),
        ({}, "path None is not the path of a file"),
        ({"path": "t.db", "settles_after_ms": -1}, "settles_after_ms -1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path: Path, settings: dict[str, str | int], said: str) -> None:
    context = PluginContext("tally", "dev", tmp_path, World(), Identity(bytes(32)), lambda: "")
    with pytest.raises(ConfigError, match=said):
        Plugins().require("tally", "wallet").open_wallet(settings, context)


def test_a_tally_of_another_network_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        await Ledger(tmp_path / "tally.db", "test", World()).held("a")
        with pytest.raises(RefusedError, match="network test"):
            await Ledger(tmp_path / "tally.db", "dev", World()).held("a")

    asyncio.run(scenario())
