"""Money sent without a purchase passes the same gate: counted once whatever became of it, freed only where nothing was signed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from tradeskill import policy
from tradeskill.errors import PolicyError, RefusedError, UnavailableError
from tradeskill.journal import Database
from tradeskill.money import Amount
from tradeskill.policy import Caps, Guard, Intended
from tradeskill.policy.by_hand import spending
from tradeskill.sqlite import connector
from tradeskill.world import World

GUARD = Guard(Caps(in_total=(Amount(10, "raw"),)))
WISH = Intended("send:a", Amount(10, "raw"), seller="nano_1", kind="send")


def run(tmp_path: Path, main: Any) -> None:
    async def whole() -> None:
        journal = Database(connector(tmp_path / "journal.db", "the journal"), World(), "dev")
        try:
            await main(journal)
        finally:
            await journal.close()

    body: Coroutine[Any, Any, None] = whole()
    asyncio.run(body)


@pytest.mark.parametrize(
    ("trouble", "signed", "spent"), [(None, True, 10), (UnavailableError("?"), True, 10), (RefusedError("no"), False, 0), (None, False, 0)]
)
def test_what_was_signed_counts_as_spent_and_nothing_else(tmp_path: Path, trouble: Exception | None, signed: bool, spent: int) -> None:
    async def main(journal: Database) -> None:
        async def act() -> None:
            async with spending(journal, World(), WISH, GUARD, "a send", None, lambda: signed):
                assert journal.read(lambda c: policy.spent_and_reserved(c, "raw")) == (10, 0)
                if trouble is not None:
                    raise trouble

        for _ in range(2):  # the same key again is the same spend
            if trouble is None:
                await act()
            else:
                with pytest.raises(type(trouble)):
                    await act()
        assert journal.read(lambda c: policy.spent_and_reserved(c, "raw")) == (spent, 0)

    run(tmp_path, main)


def test_over_a_cap_the_act_is_never_reached(tmp_path: Path) -> None:
    async def main(journal: Database) -> None:
        with pytest.raises(PolicyError, match="total cap"):
            async with spending(journal, World(), Intended("send:a", Amount(11, "raw"), kind="send"), GUARD, "a send", None, lambda: True):
                raise AssertionError("reached")
        assert journal.read(lambda c: policy.spent_and_reserved(c, "raw")) == (0, 0)

    run(tmp_path, main)
