"""A profile as one call of many at once sees it: the parts are shared, what the call opens beside them closes with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tradeskill.asking import AskOwner
from tradeskill.profile import Profile

if TYPE_CHECKING:
    from tradeskill.journal import Purchase

__all__ = ["OneCall"]

_SHARED: Final = frozenset({"identity", "password", "journal", "blobs", "plugins", "market", "wallets", "_owner"})


class OneCall(Profile):
    """Use it with `async with`, within the life of `whole`. `progress` and `ask_owner` are this call's own."""

    def __init__(self, whole: Profile, progress: Callable[[Purchase], None], ask_owner: AskOwner) -> None:
        super().__init__(whole.home, whole.config, lambda: whole.password(), whole.world)
        self._whole, self.progress, self.ask_owner = whole, progress, ask_owner

    def __getattribute__(self, name: str) -> Any:
        return getattr(self._whole, name) if name in _SHARED else super().__getattribute__(name)
