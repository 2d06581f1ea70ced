"""Which proofs pay what, and in which pieces: pure arithmetic over amounts and fees (NUT-02)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from tradeskill.errors import AmountError
from tradeskill_plugins.cashu.nuts.keysets import split

__all__ = ["choose", "face", "fee"]


class Spendable(Protocol):
    """What is chosen from: an amount, what it costs to spend it, and whether it should be spent before others."""

    @property
    def amount(self) -> int: ...

    @property
    def fee_ppk(self) -> int: ...

    @property
    def ends(self) -> bool: ...


S = TypeVar("S", bound=Spendable)


def fee(coins: Sequence[Spendable]) -> int:
    """What a mint keeps for spending these: the sum of their thousandths, rounded up once."""
    return -(-sum(coin.fee_ppk for coin in coins) // 1000)


def face(amount: int, denominations: Collection[int], fee_ppk: int) -> tuple[int, ...]:
    """Pieces worth exactly `amount` to somebody who must pay the fee for spending them; the smallest excess where exactly is impossible."""
    if fee_ppk <= 0:
        return split(amount, denominations)
    most = None
    for extra in range(1, amount + 1001):
        parts = split(amount + extra, denominations)
        left = amount + extra - -(-len(parts) * fee_ppk // 1000)
        if left >= amount:
            most = parts
            break
    if most is None:
        raise AmountError("fees would eat this amount")
    while (left := sum(most) - -(-len(most) * fee_ppk // 1000)) > amount:  # more pieces cost more, down to the exact amount
        finer = _finer(most, denominations)
        if finer is None or sum(finer) - -(-len(finer) * fee_ppk // 1000) < amount:
            return most
        most = finer
    return most


def _finer(parts: tuple[int, ...], denominations: Collection[int]) -> tuple[int, ...] | None:
    """One more piece, the same sum."""
    for part in parts:
        if part > 1 and part % 2 == 0 and part // 2 in denominations:
            rest = list(parts)
            rest.remove(part)
            return tuple(sorted([*rest, part // 2, part // 2]))
    return None


def choose(coins: Sequence[S], need: int) -> list[S] | None:
    """A few coins that are worth at least `need` after the fee for spending them, of those that end where these are enough; None when all together are not."""
    ending = [coin for coin in coins if coin.ends]
    return (_choose(ending, need) if ending else None) or _choose(coins, need)


def _choose(coins: Sequence[S], need: int) -> list[S] | None:
    useful = sorted((coin for coin in coins if coin.amount * 1000 > coin.fee_ppk), key=lambda coin: coin.amount)
    chosen: list[S] = []
    while sum(coin.amount for coin in chosen) - fee(chosen) < need:
        missing = need + fee(chosen) - sum(coin.amount for coin in chosen)
        if not useful:
            return None
        # the smallest that is enough by itself, else the largest
        index = next((i for i, coin in enumerate(useful) if coin.amount - fee([coin]) >= missing), len(useful) - 1)
        chosen.append(useful.pop(index))
    for coin in sorted(chosen, key=lambda coin: coin.amount):
        rest = [other for other in chosen if other is not coin]
        if sum(other.amount for other in rest) - fee(rest) >= need:
            chosen = rest
    return chosen
