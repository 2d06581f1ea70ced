"""The wallet's own money: what it holds where, and the stored requests by which it leaves (locked tokens, letters, Lightning) and comes in.

Every request is built, its counters are used up and its inputs are reserved in one transaction, before a byte of it is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, Protocol

from tradeskill.errors import AmountError, RefusedError, StateError, UnavailableError, UntrustedError
from tradeskill.world import World
from tradeskill_plugins.cashu.bolt11 import bolt11_id, sats_of
from tradeskill_plugins.cashu.exchange import Exchange, payment_id
from tradeskill_plugins.cashu.keys import Keys
from tradeskill_plugins.cashu.lifetimes import outlasts
from tradeskill_plugins.cashu.mints import Mints
from tradeskill_plugins.cashu.nuts import curve, requests
from tradeskill_plugins.cashu.nuts.errors import MintRefusedError
from tradeskill_plugins.cashu.nuts.keysets import fee as input_fee
from tradeskill_plugins.cashu.nuts.keysets import split
from tradeskill_plugins.cashu.nuts.model import Keyset, Output, Proof
from tradeskill_plugins.cashu.selection import choose, face, fee
from tradeskill_plugins.cashu.store import Coin, OutgoingRow, PaymentRow, Rows, Store

__all__ = ["Given", "Purse", "Wish"]

log = logging.getLogger("tradeskill.cashu")

RENEWED_AT_ONCE: Final = 100  # proofs of a keyset that ends, in one swap
RENEW_AGAIN_MS: Final = 3_600_000  # after the mint refused such a swap

@dataclass(frozen=True)
class Wish:
    """Money that shall leave, once for its purpose (`pay:KEY`, `refund:KEY`, `send:KEY`). `target` must be the same at each repetition."""

    kind: Literal["pay", "refund"]
    purpose: str
    target: str
    amount: int


@dataclass(frozen=True)
class Given:
    """Outputs for somebody else; `locktime` (seconds) and the index of our refund key where they can come back."""

    outputs: tuple[Output, ...]
    locktime: int | None = None
    refund_id: int | None = None


class GivenMaker(Protocol):
    """Makes outputs of these amounts inside the transaction that stores the request."""

    def __call__(self, rows: Rows, keyset: Keyset, amounts: Sequence[int]) -> Given: ...


class _ChangeAwaited(Exception):  # noqa: N818  # not an error: what is missing is on its way back to us
    """The money is ours, and in requests that are under way."""


class Purse:
    """Every call may be repeated and continues where it was."""

    def __init__(self, store: Store, mints: Mints, exchange: Exchange, keys: Callable[[], Awaitable[Keys]], world: World) -> None:
        self._store, self._mints, self._exchange, self._keys, self._world = store, mints, exchange, keys, world
        self._not_before: dict[tuple[str, str], int] = {}  # when a keyset whose money the mint did not swap is tried again

    # --- out

    async def begun(self, wish: Wish) -> OutgoingRow | None:
        """What is stored for the purpose and may still be carried out, or was. StateError when it was another payment."""
        return self._store.read(partial(_living, wish=wish))

    async def give(self, wish: Wish, mint: str, maker: GivenMaker) -> OutgoingRow:
        """A swap that makes proofs worth `wish.amount` to their receiver. RefusedError while nothing was stored for the purpose."""
        keyset, known, keys = await self._mints.active(mint), await self._mints.keysets(mint), await self._keys()
        try:
            amounts = face(wish.amount, keyset.keys, keyset.fee_ppk)
        except AmountError as error:
            raise RefusedError(f"{wish.amount} sat cannot be paid at {mint}: {error}") from error

        def prepare(rows: Rows) -> OutgoingRow:
            before = _living(rows, wish)
            if before is not None:
                return before
            chosen = _choose(rows, mint, sum(amounts))
            given = maker(rows, keyset, amounts)
            rest = sum(coin.amount for coin in chosen) - fee(chosen) - sum(amounts)
            request = requests.swap([coin.proof for coin in chosen], (*given.outputs, *_own(rows, keys, keyset, rest)), known)
            points = {output.point for output in given.outputs}
            number = rows.add_request(mint, "swap", wish.purpose, request.body, request.outputs, self._world.now_ms(), points)
            rows.reserve([coin.y for coin in chosen], number)
            name = payment_id([curve.y_of(output.secret) for output in given.outputs])
            return self._put(rows, wish, mint, name, number, given)

        return await self._prepared(wish, mint, prepare)

    async def melt(self, wish: Wish, mint: str, bolt11: str) -> OutgoingRow:
        """Have the mint pay a Lightning invoice. RefusedError while nothing was stored for the purpose."""
        quote = await self._mints.melt_quote(mint, bolt11)
        if (quote.amount, quote.request.lower()) != (sats_of(bolt11), bolt11.lower()):
            raise UntrustedError(f"{mint} wants {quote.amount} sat for an invoice of {sats_of(bolt11)} sat: nothing was paid")
        keyset, known, keys = await self._mints.active(mint), await self._mints.keysets(mint), await self._keys()

        def prepare(rows: Rows) -> OutgoingRow:
            before = _living(rows, wish)
            if before is not None:
                return before
            chosen = _choose(rows, mint, quote.amount + quote.fee_reserve)
            most = sum(coin.amount for coin in chosen) - fee(chosen) - quote.amount
            blanks = requests.blank_outputs(keys.nut13_seed, keyset, most, rows.take_counters(keyset.id, max(most, 1).bit_length()))
            request = requests.melt(quote, [coin.proof for coin in chosen], blanks, known)
            number = rows.add_request(mint, "melt", wish.purpose, request.body, request.outputs, self._world.now_ms())
            rows.reserve([coin.y for coin in chosen], number)
            return self._put(rows, wish, mint, bolt11_id(bolt11), number, Given(()))

        return await self._prepared(wish, mint, prepare)

    def _put(self, rows: Rows, wish: Wish, mint: str, name: str, request_id: int, given: Given) -> OutgoingRow:
        before = rows.outgoing(wish.purpose)
        row = OutgoingRow(
            *(wish.purpose, wish.target, wish.amount, mint, name, "open", request_id, given.refund_id, given.locktime, ""),
            attempt=1 if before is None else before.attempt + 1,
            at=self._world.now_ms(),
        )
        rows.put_outgoing(row)
        return row

    async def _prepared(self, wish: Wish, mint: str, prepare: Callable[[Rows], OutgoingRow]) -> OutgoingRow:
        """The stored row; what is short and under way is waited for."""
        with self._world.step(f"{wish.kind}.intent"):
            pass
        for _ in range(100):
            try:
                with self._world.step(f"{wish.kind}.block-stored"):
                    return await self._store.write(prepare)
            except _ChangeAwaited:
                for request_id in self._store.read(lambda rows: rows.open_requests()):
                    try:
                        row = await self._exchange.finish(request_id)
                    except MintRefusedError:
                        continue
                    if row.state == "open":
                        raise UnavailableError(f"{mint}: what is missing for {wish.amount} sat is in a Lightning payment that is under way") from None
        raise UnavailableError(f"{mint}: too many payments of this wallet are under way: try again")

    async def finish(self, wish: Wish) -> OutgoingRow:
        """Bring what is stored for the purpose to its end. MintRefusedError when it is dead: another attempt may be made."""
        row = self._store.read(lambda rows: rows.outgoing(wish.purpose))
        assert row is not None
        if row.state in ("open", "published"):
            assert row.request_id is not None
            try:
                with self._world.step(f"{wish.kind}.published"):
                    await self._exchange.finish(row.request_id)
            except MintRefusedError:
                await self._store.write(partial(_give_up, purpose=wish.purpose))
                raise
            with self._world.step(f"{wish.kind}.confirmed"):
                found = self._store.read(lambda rows: rows.outgoing(wish.purpose))
            assert found is not None
            return found
        return row

    # --- in

    async def take(self, purpose: str, mint: str, proofs: Sequence[Proof], payment: PaymentRow | None = None, counts: dict[str, int] | None = None) -> int:
        """Store the swap of signed foreign proofs into our own; returns the request. `counts`: letters that are looked through by it.

        RefusedError when nothing would be left after the fee.
        """
        keyset, known, keys = await self._mints.active(mint), await self._mints.keysets(mint), await self._keys()
        left = sum(proof.amount for proof in proofs) - input_fee(proofs, known)
        if left < 1:
            raise RefusedError(f"a token of {sum(proof.amount for proof in proofs)} sat is not worth its fee at {mint}")

        def prepare(rows: Rows) -> int:
            before = rows.request_for(purpose)
            if before is not None:
                return before.request_id
            request = requests.swap(proofs, _own(rows, keys, keyset, left), known)
            number = rows.add_request(mint, "swap", purpose, request.body, request.outputs, self._world.now_ms())
            if payment is not None:
                if rows.see([curve.y_of(proof.secret) for proof in proofs], payment.payment_id) is not None:
                    raise StateError("a proof of this token was taken a moment ago with another one: try again")
                rows.put_payment(replace(payment, amount=left, state="taking", request_id=number))
                if counts is not None:
                    rows.set_letters(payment.lock_id, counts)
            return number

        with self._world.step("receive.intent"):
            pass
        with self._world.step("receive.block-stored"):
            return await self._store.write(prepare)

    async def mint(self, purpose: str, mint: str, quote_id: str, amount: int, key: bytes | None, payment: PaymentRow | None) -> int:
        """Store the request that takes the ecash of a paid quote; returns it."""
        keyset, keys = await self._mints.active(mint), await self._keys()

        def prepare(rows: Rows) -> int:
            before = rows.request_for(purpose)
            if before is not None:
                return before.request_id
            request = requests.mint(quote_id, _own(rows, keys, keyset, amount), key)
            number = rows.add_request(mint, "mint", purpose, request.body, request.outputs, self._world.now_ms())
            if payment is not None:
                rows.put_payment(replace(payment, amount=amount, state="taking", request_id=number))
            return number

        with self._world.step("receive.intent"):
            pass
        with self._world.step("receive.block-stored"):
            return await self._store.write(prepare)

    async def renew(self, mint: str) -> int:
        """Swap what lies in keysets that end into one that outlasts them (`lifetimes`); returns how much moved. Expired money too, which the mint may take.

        One request a keyset, stored before it is sent like any other. What the mint refuses stays where it is and is tried again after a while.
        """
        moved = 0
        await self._mints.keysets(mint)
        if not self._store.read(lambda rows: rows.ends_soon(mint)):
            return moved
        keyset, known, keys = await self._mints.active(mint), await self._mints.keysets(mint), await self._keys()
        for old in sorted({coin.proof.keyset_id for coin in self._store.read(lambda rows: rows.in_ending_keysets(mint))}):
            if self._world.now_ms() < self._not_before.get((mint, old), 0) or not outlasts(keyset, known[old], self._world.now_ms()):
                continue

            def prepare(rows: Rows, old: str = old) -> int | None:
                coins = [coin for coin in rows.in_ending_keysets(mint) if coin.proof.keyset_id == old and coin.amount * 1000 > coin.fee_ppk][:RENEWED_AT_ONCE]
                left = sum(coin.amount for coin in coins) - fee(coins)
                if left < 1:
                    return None
                request = requests.swap([coin.proof for coin in coins], _own(rows, keys, keyset, left), known)
                ys = [coin.y for coin in coins]
                number = rows.add_request(mint, "swap", f"renew:{payment_id(ys)}", request.body, request.outputs, self._world.now_ms())
                rows.reserve(ys, number)
                return number

            number = await self._store.write(prepare)
            if number is None:
                continue
            try:
                await self.settle(number)
            except MintRefusedError as error:
                log.warning("%s does not swap the money of keyset %s: %s", mint, old, error)
                if not error.spent:  # what was spent elsewhere is marked by now, the rest may go
                    self._not_before[mint, old] = self._world.now_ms() + RENEW_AGAIN_MS
                continue
            moved += sum(coin.amount for coin in self._store.read(partial(Rows.made, request_id=number)))
        return moved

    async def late(self, purpose: str) -> int | None:
        """A request for the purpose that was given up and carried out nevertheless, open again."""
        return await self._exchange.late(purpose)

    async def settle(self, request_id: int) -> None:
        """Finish a request made by `take` or `mint`. MintRefusedError when it is dead."""
        with self._world.step("receive.published"):
            await self._exchange.finish(request_id)
        with self._world.step("receive.confirmed"):
            pass


def _living(rows: Rows, wish: Wish) -> OutgoingRow | None:
    """What is stored for the purpose; None when another attempt may be made. StateError when it was something else."""
    row = rows.outgoing(wish.purpose)
    if row is not None and (row.target, row.amount) != (wish.target, wish.amount):
        raise StateError(f"{wish.purpose} already paid {row.amount} sat to {row.target[:80]}: use a new key for another payment")
    return None if row is None or row.state == "dead" else row


def _give_up(rows: Rows, purpose: str) -> None:
    row = rows.outgoing(purpose)
    if row is not None and row.request_id is not None and rows.request(row.request_id).state == "dead":
        rows.set_outgoing(purpose, "dead", only=("open", "published"))


def _choose(rows: Rows, mint: str, need: int) -> list[Coin]:
    coins = rows.spendable(mint)
    chosen = choose(coins, need)
    if chosen is not None:
        return chosen
    coming = sum(
        output.amount
        for request_id in rows.open_requests()
        for row in [rows.request(request_id)]
        for output in row.outputs
        if row.mint == mint and output.point not in row.given
    )
    held = sum(coin.amount for coin in coins)
    if coming and held + coming >= need:
        raise _ChangeAwaited
    raise RefusedError(f"this wallet holds {held} sat at {mint}, {need} are needed with fees: fund it")


def _own(rows: Rows, keys: Keys, keyset: Keyset, amount: int) -> tuple[Output, ...]:
    """Outputs for ourselves, their counters used up for ever."""
    amounts = split(amount, keyset.keys)
    return requests.outputs(keys.nut13_seed, keyset, amounts, rows.take_counters(keyset.id, len(amounts)))
