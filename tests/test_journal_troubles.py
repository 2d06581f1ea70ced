"""What is noted of strangers' plugins: one entry each, counted as long as it goes on."""

from __future__ import annotations

import asyncio
from functools import partial

from tradeskill.journal import Database
from tradeskill.journal.troubles import Trouble, note, troubles
from tradeskill.sqlite import memory
from tradeskill.world import World

HOUR = 3_600_000


def test_a_plugins_trouble_is_one_entry_that_counts_and_after_a_quiet_hour_a_new_one() -> None:
    async def scenario() -> None:
        journal = Database(memory(), World(), "dev")
        for plugin, times, now in (("b", 1, 10), ("a", 2, 20), ("b", 3, 30), ("b", 1, 30 + HOUR), ("a", 1, 21 + HOUR)):
            await journal.write(partial(note, plugin=plugin, said=f"{plugin} at {now}" + "!" * 600, times=times, now=now))
        first, second = journal.read(troubles)
        assert (first.plugin, first.times, first.since, first.last) == ("a", 1, 21 + HOUR, 21 + HOUR)
        assert second == Trouble("b", (f"b at {30 + HOUR}" + "!" * 600)[:500], 5, 10, 30 + HOUR)
        await journal.close()

    asyncio.run(scenario())
