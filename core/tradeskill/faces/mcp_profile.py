"""The profile that a server's calls share: opened at the first call that needs it, again when its configuration changed, closed when nobody uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradeskill.config import CONFIG_FILE

if TYPE_CHECKING:
    from tradeskill.journal import Purchase
    from tradeskill.profile import Profile

__all__ = ["SharedProfile"]


class _Opened:
    def __init__(self, profile: Profile, stamp: Any) -> None:
        self.profile, self.stamp, self.users, self.retired = profile, stamp, 0, False


class SharedProfile:
    """`load` makes the profile and may raise what is missing; the next call tries again, so `tradeskill init` needs no restart."""

    def __init__(self, home: Path, load: Callable[[], Profile]) -> None:
        self.home = home
        self._load = load
        self._opened: _Opened | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def one_call(self, progress: Callable[[Purchase], None], ask_owner: Callable[[Any], Awaitable[bool]] | None) -> AsyncIterator[Profile]:
        from tradeskill.onecall import OneCall

        opened = await self._current()
        opened.users += 1
        try:
            async with OneCall(opened.profile, progress, ask_owner) as view:
                yield view
        finally:
            opened.users -= 1
            await self._close_idle(opened)

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.retired = True
            await self._close_idle(opened)

    async def _current(self) -> _Opened:
        async with self._turn:
            stamp = self._stamp()
            if self._opened is None or self._opened.stamp != stamp:
                fresh = _Opened(self._load(), stamp)
                await self.close()
                self._opened = fresh
            return self._opened

    async def _close_idle(self, opened: _Opened) -> None:
        if opened.retired and opened.users == 0:
            await opened.profile.__aexit__()

    def _stamp(self) -> Any:
        try:
            found = (self.home / CONFIG_FILE).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
