"""Finding a wallet's money again from its seed and what its mints remember (NUT-13, NUT-09), and what late answers left behind."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tradeskill.world import World
from tradeskill_plugins.cashu.exchange import Exchange
from tradeskill_plugins.cashu.keys import Keys
from tradeskill_plugins.cashu.letters import letter
from tradeskill_plugins.cashu.mints import UNIT, Mints
from tradeskill_plugins.cashu.nuts import curve
from tradeskill_plugins.cashu.nuts.derivation import derive
from tradeskill_plugins.cashu.nuts.model import Keyset, Output, Proof
from tradeskill_plugins.cashu.store import Coin, Rows, Store

__all__ = ["Recovery"]

log = logging.getLogger("tradeskill.cashu")

BATCH: Final = 100  # counters asked for at once
EMPTY: Final = 3  # so many batches without anything end a keyset
EPOCH: Final = 1_000_000  # locks after a restore begin at the next multiple of this: none is handed out twice
EMPTY_EPOCHS: Final = 8


class Recovery:
    """Safe to repeat; what is known already is left as it is."""

    def __init__(self, store: Store, mints: Mints, exchange: Exchange, keys: Callable[[], Awaitable[Keys]], world: World) -> None:
        self._store, self._mints, self._exchange, self._keys, self._world = store, mints, exchange, keys, world

    async def restore(self, mint: str, gap: int) -> int:
        """Every unspent proof of this seed at the mint, letters of its locks too. Returns the sum that was found anew."""
        await self._mints.refresh(mint)
        found = 0
        for keyset in (await self._mints.keysets(mint)).values():
            if keyset.unit == UNIT:
                found += await self._keyset(mint, keyset)
        await self._locks(mint, gap)
        await self._recheck(mint)
        return found

    async def _recheck(self, mint: str) -> None:
        """What an old copy of the books calls held may be gone."""
        ys = [coin.y for coin in self._store.read(lambda rows: rows.spendable(mint))]
        states = await self._mints.states(mint, ys) if ys else {}
        gone = [y for y, state in states.items() if state == "SPENT"]
        if gone:
            log.warning("%d proofs of %s were spent elsewhere: they are no longer counted", len(gone), mint)
            await self._store.write(lambda rows: rows.lose(gone))

    async def late(self) -> int:
        """Requests that were given up and whose outputs the mint signed nevertheless: finish them. Returns how many."""
        revived = 0
        for purpose in self._store.read(lambda rows: rows.dead_purposes()):
            while (request_id := await self._exchange.late(purpose)) is not None:
                await self._exchange.finish(request_id)
                revived += 1
        return revived

    async def new_epoch(self) -> None:
        """Hand out locks from a range that was never used here or, as far as is known, elsewhere."""
        step = 1 + self._world.random_bytes(1)[0] % (EMPTY_EPOCHS - 2)
        await self._store.write(lambda rows: rows.set_lock_floor((rows.next_lock() // EPOCH + step) * EPOCH))

    async def _keyset(self, mint: str, keyset: Keyset) -> int:
        seed, start, empty, found, last = (await self._keys()).nut13_seed, 0, 0, 0, -1
        while empty < EMPTY:
            outputs = [_output(seed, keyset, start + place) for place in range(BATCH)]
            proofs = await self._mints.restored(mint, outputs)
            places = {output.secret: start + place for place, output in enumerate(outputs)}
            last = max([last, *(places[proof.secret] for proof in proofs)])
            found += await self._keep(mint, proofs)
            empty = 0 if proofs else empty + 1
            start += BATCH
        if last >= 0:
            await self._store.write(lambda rows: rows.raise_counter(keyset.id, last + 1))
        return found

    async def _keep(self, mint: str, proofs: Sequence[Proof]) -> int:
        ys = [curve.y_of(proof.secret) for proof in proofs]
        states = await self._mints.states(mint, ys) if ys else {}

        def keep(rows: Rows) -> int:
            fresh = [Coin(y, mint, proof, "held") for y, proof in zip(ys, proofs, strict=True) if states[y] != "SPENT"]
            return sum(coin.amount for coin in fresh if rows.add_coin(coin))

        return await self._store.write(keep)

    async def _locks(self, mint: str, gap: int) -> None:
        """Locks of which a letter was ever sent, so that `collect` opens them; those between are never handed out again."""
        keysets = [keyset for keyset in (await self._mints.keysets(mint)).values() if keyset.unit == UNIT]
        epoch = empty = 0
        while empty < EMPTY_EPOCHS:
            start, last = 0, -1
            while start <= last + gap:
                numbers = range(epoch * EPOCH + start, epoch * EPOCH + last + gap + 1)
                used = await self._used(mint, keysets, numbers)
                start = numbers.stop - epoch * EPOCH
                last = max([last, *(number - epoch * EPOCH for number in used)])
            empty = 0 if last >= 0 else empty + 1
            epoch += 1

    async def _used(self, mint: str, keysets: Sequence[Keyset], numbers: range) -> list[int]:
        keys = await self._keys()
        pubkeys = {number: curve.public_key(keys.lock(number)) for number in numbers}
        wanted = {letter(pubkey, keyset.id, 0).secret: number for number, pubkey in pubkeys.items() for keyset in keysets}
        outputs = [letter(pubkeys[number], keyset.id, 0) for number in numbers for keyset in keysets]
        used = sorted({wanted[proof.secret] for proof in await self._mints.restored(mint, outputs)})

        def keep(rows: Rows) -> None:
            for number in used:
                rows.add_lock(number, pubkeys[number], None)

        if used:
            await self._store.write(keep)
        return used


def _output(seed: bytes, keyset: Keyset, counter: int) -> Output:
    secret, r = derive(seed, keyset.id, counter)
    return Output(1, keyset.id, secret, r, curve.blind(secret, r))
