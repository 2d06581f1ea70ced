"""A profile as one call of many at once sees it: the parts are shared, what the call opens beside them closes with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from tradeskill.profile import Profile

if TYPE_CHECKING:
    from tradeskill.journal import Purchase

__all__ = ["OneCall"]

_SHARED: Final = frozenset({"identity", "password", "journal", "blobs", "plugins", "market", "wallets", "_owner"})


class OneCall(Profile):
    """Use it with `async with`, within the life of `whole`. `progress` and `ask_owner` are this call's own."""

    def __init__(self, whole: Profile, progress: Callable[[Purchase], None], ask_owner: Callable[[Any], Awaitable[bool]] | None) -> None:
        self.__dict__.update(vars(whole))
        self._stack = AsyncExitStack()
        self._whole, self.progress, self.ask_owner = whole, progress, ask_owner

    def __getattribute__(self, name: str) -> Any:
        return getattr(self._whole, name) if name in _SHARED else super().__getattribute__(name)
