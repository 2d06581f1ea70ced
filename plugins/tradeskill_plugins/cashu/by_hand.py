"""What the owner does with the wallet by hand: take a token in, send to an address, pay a Lightning invoice, and see where everything lies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from tradeskill.errors import InputError, RefusedError, UnavailableError, UntrustedError, UsageError
from tradeskill.model import Proof
from tradeskill.world import World
from tradeskill_plugins.cashu.bolt11 import sats_of
from tradeskill_plugins.cashu.exchange import payment_id
from tradeskill_plugins.cashu.keys import Keys
from tradeskill_plugins.cashu.mints import UNIT, Mints
from tradeskill_plugins.cashu.nuts import curve, tokens
from tradeskill_plugins.cashu.nuts import model as nuts
from tradeskill_plugins.cashu.nuts.errors import TokenError
from tradeskill_plugins.cashu.nuts.secrets import lock_of, sign_inputs
from tradeskill_plugins.cashu.purse import Purse, Wish
from tradeskill_plugins.cashu.settings import CashuSettings
from tradeskill_plugins.cashu.spending import Spending
from tradeskill_plugins.cashu.store import PaymentRow, Rows, Store

__all__ = ["ByHand"]

REFUND_GAP: Final = 50  # refund keys tried beyond those that are known to be used


class ByHand:
    """Calls for a person at a terminal. Each may be repeated and continues where it was."""

    def __init__(
        self, store: Store, mints: Mints, purse: Purse, spending: Spending, keys: Callable[[], Awaitable[Keys]], world: World, settings: CashuSettings
    ) -> None:
        self._store, self._mints, self._purse, self._spending = store, mints, purse, spending
        self._keys, self._world, self._settings = keys, world, settings

    async def receive(self, text: str, main: int) -> int:
        """Swap a token into our own proofs; returns what it was worth. Unlocked, locked to one of our keys, or our own and beyond its locktime.

        RefusedError says why it is not taken; repeating it after a lost answer continues.
        """
        token = tokens.decode(text.strip(), 1_000_000, 1000)
        if token.mint not in self._settings.mints:
            raise TokenError(f"the token is of mint {token.mint}: add it to `mints` of the wallet if you trust it")
        if token.unit != UNIT:
            raise TokenError(f"the token is in {token.unit}, this wallet is in {UNIT}")
        known = await self._mints.keysets_for(token.mint, [proof.keyset_id for proof in token.proofs])
        proofs = [await self._unlocked(proof) for proof in tokens.resolve(token, known.values()).proofs]
        if all(proof.dleq is not None for proof in proofs):
            tokens.verify(proofs, known)
        name = payment_id([curve.y_of(proof.secret) for proof in proofs])
        before = self._store.read(lambda rows: rows.payment(name))
        if before is None or before.state != "taken":
            payment = PaymentRow(name, main, token.mint, 0, self._world.now_ms(), "taking", None)
            await self._purse.settle(await self._purse.take(f"receive:{name}", token.mint, [replace(proof, dleq=None) for proof in proofs], payment))
        found = self._store.read(lambda rows: rows.payment(name))
        assert found is not None
        return found.amount

    async def _unlocked(self, proof: nuts.Proof) -> nuts.Proof:
        lock = lock_of(proof.secret)
        if lock is None:
            return proof
        keys = await self._keys()
        row = self._store.read(lambda rows: rows.lock_of_key(lock.key))
        if row is not None:
            return sign_inputs([proof], keys.lock(row.lock_id))[0]
        for index in range(self._store.read(lambda rows: rows.refunds_used()) + REFUND_GAP):
            if curve.public_key(keys.refund(index)) in lock.refund:
                if lock.locktime is None or lock.locktime * 1000 > self._world.now_ms():
                    raise TokenError(f"the token comes back to this wallet only after {lock.locktime} (unix time)")
                return sign_inputs([proof], keys.refund(index))[0]
        raise TokenError("the token is locked to a key that is not this wallet's")

    async def inspect(self, text: str) -> dict[str, Any]:
        """What a token is, and what its mint says became of it; takes nothing. Only mints of this wallet are asked."""
        token = tokens.decode(text.strip(), 1_000_000, 1000)
        if token.mint not in self._settings.mints:
            raise TokenError(f"the token is of mint {token.mint}, which is not one of this wallet's")
        ys = [curve.y_of(proof.secret) for proof in token.proofs]
        locks = {None if lock is None else (lock.key, lock.locktime) for lock in (lock_of(proof.secret) for proof in token.proofs)}
        states = set((await self._mints.states(token.mint, ys)).values())
        return {
            "payment": payment_id(ys),
            "mint": token.mint,
            "amount": str(token.amount),
            "unit": token.unit,
            "state": states.pop() if len(states) == 1 else "MIXED",
            "locked_to": [{"key": lock[0], "until": lock[1]} for lock in locks if lock is not None],
        }

    async def send(self, to: str, amount: int, key: str) -> Proof:
        """Leave money for an address; its token can be handed over as well."""
        return await self._spending.leave(Wish("pay", f"send:{key}", to, amount), to, self._settings.mints[0])

    async def melt(self, bolt11: str, key: str) -> Proof:
        """Pay a Lightning invoice through the first mint that holds enough."""
        try:
            wish = Wish("pay", f"melt:{key}", bolt11.lower(), sats_of(bolt11))
        except InputError as error:
            raise UsageError(str(error)) from error
        return await self._spending.melt(wish, bolt11)

    def signed(self, purpose: str) -> bool:
        """Whether anything was ever stored under this purpose: only what is stored is sent."""
        row = self._store.read(lambda rows: rows.outgoing(purpose))
        return row is not None and row.state != "dead"

    def places(self) -> list[dict[str, Any]]:
        """Where the money lies, mint by mint; amounts in sat. Asks nobody."""

        def look(rows: Rows) -> list[dict[str, Any]]:
            sums = rows.sums()
            return [
                {
                    "mint": mint,
                    "used": mint in self._settings.mints,
                    "held": str(sums.get((mint, "held"), 0)),
                    "reserved": str(sums.get((mint, "reserved"), 0)),
                    "locked_for_others": str(sums.get((mint, "sent"), 0)),
                    "in_dropped_keysets": str(rows.dropped(mint)),
                    "in_expired_keysets": str(rows.expired(mint)),
                }
                for mint in dict.fromkeys([*self._settings.mints, *rows.mints()])
            ]

        return self._store.read(look)

    def doubts(self) -> list[dict[str, str]]:
        """Requests whose outcome is not known, with what they reserve."""
        return [
            {"request": str(number), "mint": mint, "purpose": purpose, "amount": str(amount), "trouble": trouble}
            for number, mint, purpose, amount, trouble in self._store.read(lambda rows: rows.in_doubt())
        ]

    async def describe(self) -> list[dict[str, Any]]:
        """What each configured mint says of itself, asked side by side; one that cannot be asked says why."""
        return list(await asyncio.gather(*(self._described(mint) for mint in self._settings.mints)))

    async def _described(self, mint: str) -> dict[str, Any]:
        try:
            info, keyset = await self._mints.info(mint), await self._mints.active(mint)
        except (RefusedError, UnavailableError, UntrustedError) as error:
            return {"mint": mint, "trouble": str(error)}
        said = {"mint": mint, "name": info.name, "version": info.version, "motd": info.motd, "keyset": keyset.id, "fee_ppk": str(keyset.fee_ppk)}
        return {**said, "final_expiry": str(keyset.final_expiry)} if keyset.final_expiry else said
