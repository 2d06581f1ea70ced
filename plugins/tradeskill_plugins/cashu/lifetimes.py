"""How long the money of a keyset is good for (NUT-02), and which keyset new money is made in: pure.

An inactive keyset is still honoured, until its `final_expiry` if it has one; after that the mint owes nothing for it. Some mints write 0 for "never".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

__all__ = ["HORIZON_SECONDS", "best", "ending", "expired", "outlasts"]

HORIZON_SECONDS: Final = 30 * 86_400  # money is moved out of a keyset this long before it expires; longer than a token for somebody else is locked


class Lasting(Protocol):
    """What a keyset says of itself."""

    @property
    def id(self) -> str: ...

    @property
    def active(self) -> bool: ...

    @property
    def fee_ppk(self) -> int: ...

    @property
    def final_expiry(self) -> int | None: ...


L = TypeVar("L", bound=Lasting)


def expired(final_expiry: int | None, now_ms: int) -> bool:
    """Whether the mint may refuse it for good."""
    return bool(final_expiry) and (final_expiry or 0) * 1000 <= now_ms


def ending(active: bool, final_expiry: int | None, now_ms: int) -> bool:
    """Whether its money should move to another keyset of the mint, where there is one."""
    return not active or expired(final_expiry, now_ms + HORIZON_SECONDS * 1000)


def outlasts(new: Lasting, old: Lasting, now_ms: int) -> bool:
    """Whether money of `old`, which is ending, is better off in `new`: one that lasts, or at least expires later."""
    if not ending(new.active, new.final_expiry, now_ms):
        return True
    return bool(new.active and old.final_expiry and new.final_expiry) and (new.final_expiry or 0) > (old.final_expiry or 0)


def best(keysets: Iterable[L], now_ms: int) -> L | None:
    """The cheapest active one that lasts; where none lasts, the one that does longest. None where all have expired."""
    usable = [keyset for keyset in keysets if keyset.active and not expired(keyset.final_expiry, now_ms)]
    lasting = [keyset for keyset in usable if not ending(True, keyset.final_expiry, now_ms)]
    if lasting:
        return min(lasting, key=lambda keyset: (keyset.fee_ppk, keyset.id))
    return max(usable, key=lambda keyset: (keyset.final_expiry or 0, keyset.id), default=None)
