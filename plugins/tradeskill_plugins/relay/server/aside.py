"""A whole relay on a thread of its own within this process, on whatever clock it is given: for tests, of ours and of anybody who talks to relays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Final

import uvloop

from tradeskill.world import World
from tradeskill_plugins.relay.server.serving import RelaySettings, run

__all__ = ["relay_aside"]

PATIENCE: Final = 60.0  # seconds to come up, and to go


@contextmanager
def relay_aside(settings: RelaySettings, world: World) -> Iterator[str]:
    """Its URL. Raises what `run` raises where it cannot begin; it has ended in good order afterwards."""
    begun: Future[tuple[str, asyncio.AbstractEventLoop]] = Future()
    over = asyncio.Event()

    def work() -> None:
        try:
            uvloop.run(run(settings, world, ready=lambda url: begun.set_result((url, asyncio.get_running_loop())), stop=over))
        except BaseException as error:
            if begun.done():
                raise
            begun.set_exception(error)

    thread = threading.Thread(target=work, name="relay")
    thread.start()
    url, loop = begun.result(PATIENCE)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(PATIENCE)
        assert not thread.is_alive()
