"""The mints of one wallet: a client each, what they said of themselves and their keysets (kept for ever), and answers turned into proofs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from tradeskill.errors import RefusedError, UnavailableError, UntrustedError
from tradeskill.world import World
from tradeskill_plugins.cashu.lifetimes import best
from tradeskill_plugins.cashu.nuts import answers
from tradeskill_plugins.cashu.nuts.client import MintClient
from tradeskill_plugins.cashu.nuts.errors import MintRefusedError
from tradeskill_plugins.cashu.nuts.model import Keyset, MeltQuote, MintInfo, MintQuote, Output, Proof, SpendState
from tradeskill_plugins.cashu.store import RequestRow, Rows, Store

__all__ = ["NEEDED", "UNIT", "Mints"]

T = TypeVar("T")
UNIT: Final = "sat"
FRESH_MS: Final = 10 * 60_000  # keysets are looked up again after this
AGAIN_MS: Final = 10_000  # and never more often than this for a stranger's sake
NEEDED: Final = {7: "states of proofs", 9: "restoring", 10: "locks", 11: "locks to keys", 12: "proofs of its signatures (DLEQ)"}
PATHS: Final = {"swap": "/v1/swap", "mint": "/v1/mint/bolt11", "melt": "/v1/melt/bolt11"}
RESTORED_AT_ONCE: Final = 500


class Mints:
    """UnavailableError: not reached. UntrustedError: an answer that cannot be true. MintRefusedError: see there."""

    def __init__(self, store: Store, world: World, timeout: float) -> None:
        self._store, self._world, self._timeout = store, world, timeout
        self._clients: dict[str, MintClient] = {}
        self._infos: dict[str, MintInfo] = {}
        self._looked: dict[str, int] = {}  # when keysets were asked for
        self._looking: dict[str, asyncio.Lock] = {}

    async def close(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    def client(self, mint: str) -> MintClient:
        if mint not in self._clients:
            self._clients[mint] = MintClient(mint, self._timeout)
        return self._clients[mint]

    # --- what they are

    async def info(self, mint: str) -> MintInfo:
        """RefusedError for a mint that lacks what this rail rests on."""
        if mint not in self._infos:
            info = await self.client(mint).info()
            lacking = [f"NUT-{number:02} ({what})" for number, what in NEEDED.items() if number not in info.nuts]
            if lacking:
                raise RefusedError(f"mint {mint} cannot be used: it lacks {', '.join(lacking)}")
            self._infos[mint] = info
            await self._store.write(lambda rows: rows.set_mint(mint, {"name": info.name, "version": info.version}, self._world.now_ms()))
        return self._infos[mint]

    async def keysets(self, mint: str) -> Mapping[str, Keyset]:
        """All that were ever seen there, asked for again when they are old. A mint that is away does not matter while some are known."""
        if self._world.now_ms() - self._looked.get(mint, -FRESH_MS) >= FRESH_MS:
            try:
                await self.refresh(mint)
            except (UnavailableError, UntrustedError):
                if not self._store.read(lambda rows: rows.keysets(mint)):
                    raise
        return self._store.read(lambda rows: rows.keysets(mint))

    async def keysets_for(self, mint: str, ids: Collection[str]) -> Mapping[str, Keyset]:
        """As `keysets`, asked for again when one of `ids` (full or short) is not known."""
        known = await self.keysets(mint)
        strange = [each for each in ids if each not in known and not any(full.startswith(each) for full in known)]
        if strange and self._world.now_ms() - self._looked.get(mint, 0) >= AGAIN_MS:
            await self.refresh(mint)
            known = await self.keysets(mint)
        return known

    async def active(self, mint: str) -> Keyset:
        """The keyset to make new proofs in: the cheapest active one of our unit that lasts."""
        await self.info(mint)
        found = best([keyset for keyset in (await self.keysets(mint)).values() if keyset.unit == UNIT], self._world.now_ms())
        if found is None:
            raise UnavailableError(f"mint {mint} has no active keyset in {UNIT}: ask its operator, or use another mint")
        return found

    async def refresh(self, mint: str) -> None:
        """Ask for the keysets now. What was known stays known; what is not listed any more makes no new money."""
        async with self._looking.setdefault(mint, asyncio.Lock()):
            client = self.client(mint)
            listed = await client.keysets()
            known = self._store.read(lambda rows: rows.keysets(mint))
            found = []
            for info in listed:
                before = known.get(info.id)
                same = before is not None and (before.fee_ppk, before.final_expiry) == (info.fee_ppk, info.final_expiry)  # then its keys are: they make its id
                found.append(replace(before, active=info.active) if before is not None and same else await client.keyset(info))

            def keep(rows: Rows) -> None:
                for keyset in found:
                    rows.set_keyset(mint, keyset)
                rows.list_keysets(mint, [keyset.id for keyset in found])

            if {keyset.id: keyset for keyset in found} != dict(known) or self._store.read(lambda rows: rows.dropped(mint)):
                await self._store.write(keep)
            self._looked[mint] = self._world.now_ms()

    # --- stored requests

    async def signed(self, row: RequestRow) -> tuple[Proof, ...]:
        """Send the stored bytes of a swap or a mint; its outputs, signed."""
        answer = await self.client(row.mint).send(PATHS[row.kind], row.body)
        return answers.proofs(row.outputs, answer, await self.keysets(row.mint), row.kind)

    async def melt(self, row: RequestRow) -> MeltQuote:
        return answers.melt_quote(await self.client(row.mint).send(PATHS["melt"], row.body))

    async def change(self, row: RequestRow, quote: MeltQuote) -> tuple[Proof, ...]:
        return answers.change(row.outputs, quote, await self.keysets(row.mint))

    # --- questions; a refusal of one says nothing about any request

    async def restored(self, mint: str, outputs: Sequence[Output]) -> tuple[Proof, ...]:
        """Those that the mint ever signed, in their order."""
        known = dict(await self.keysets(mint))
        found: list[Proof] = []
        for start in range(0, len(outputs), RESTORED_AT_ONCE):
            part = await _asked(self.client(mint).restore(outputs[start : start + RESTORED_AT_ONCE], known))
            found += [part[place] for place in sorted(part)]
        return tuple(found)

    async def states(self, mint: str, ys: Sequence[str]) -> dict[str, SpendState]:
        return {state.y: state.state for state in await _asked(self.client(mint).states(ys))}

    async def mint_quote(self, mint: str, amount: int, pubkey: str = "") -> MintQuote:
        return await self.client(mint).new_mint_quote(amount, UNIT, pubkey)

    async def mint_state(self, mint: str, quote_id: str) -> MintQuote:
        return await _asked(self.client(mint).mint_quote(quote_id))

    async def melt_quote(self, mint: str, bolt11: str) -> MeltQuote:
        return await self.client(mint).new_melt_quote(bolt11, UNIT)

    async def melt_state(self, mint: str, quote_id: str) -> MeltQuote:
        return await _asked(self.client(mint).melt_quote(quote_id))


async def _asked(question: Awaitable[T]) -> T:
    try:
        return await question
    except MintRefusedError as error:
        raise UnavailableError(f"the mint does not answer a question: {error}") from error

