"""A call that ends halfway, as it does when its program is stopped: what contracts try every promise of "again" with."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["interrupted"]


async def interrupted(call: Coroutine[Any, Any, Any], turns: int) -> bool:
    """Let `call` run for so many turns of the event loop, then cancel it, as a stopped program would. Whether it had ended by itself."""
    task = asyncio.ensure_future(call)
    for _ in range(turns):
        if task.done():
            break
        await asyncio.sleep(0)
    ended = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return ended
