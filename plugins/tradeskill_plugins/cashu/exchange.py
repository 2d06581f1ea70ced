"""Sends stored requests until the mint's word on them is known, and books what came of it. The only place where a request ends.

A request is stored before it is sent and only those bytes are sent, however often. A refusal of a repetition proves nothing by itself: the first try may
have been carried out. So after a refusal the mint is asked what it signed (NUT-09) and which inputs are spent (NUT-07), and only then is the request
`done` (its outputs are signed and its inputs spent) or `dead` (it changed nothing; its inputs are free, or were spent by another request).
Whatever else happens, it stays `open`: unknown, with its money in sight.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from tradeskill.errors import TradeskillError, UnavailableError, UnknownOutcomeError
from tradeskill_plugins.cashu.mints import UNIT, Mints
from tradeskill_plugins.cashu.nuts import curve, tokens
from tradeskill_plugins.cashu.nuts.errors import MintRefusedError
from tradeskill_plugins.cashu.nuts.model import MeltQuote, Proof, SpendState, Token
from tradeskill_plugins.cashu.store import Coin, RequestRow, Rows, Store

__all__ = ["Exchange", "payment_id"]

log = logging.getLogger("tradeskill.cashu")

PATIENT: Final = 5  # tries after which a mint that calls our outputs pending is asked what became of the quote
UNSURE: Final = "the mint's word on it is not known yet; its money stays reserved and the same request is sent again"


def payment_id(ys: Sequence[str]) -> str:
    """What payer and payee call the payment that these proofs make: they both know the proofs' points."""
    return hashlib.sha256(b"tradeskill/cashu/payment\n" + "\n".join(sorted(ys)).encode()).hexdigest()


class Exchange:
    """One for each open wallet. Several processes may finish the same request: its end is booked once."""

    def __init__(self, store: Store, mints: Mints) -> None:
        self._store, self._mints = store, mints
        self._turns: dict[int, asyncio.Lock] = {}

    async def finish(self, request_id: int) -> RequestRow:
        """The request once it is `done`; still `open` only for a melt whose Lightning payment is under way.

        UnavailableError while its outcome is unknown; MintRefusedError when it is dead: the mint refused it and nothing came of it.
        """
        async with self._turns.setdefault(request_id, asyncio.Lock()):
            row = self._store.read(lambda rows: rows.request(request_id))
            if row.state == "done":
                return row
            if row.state == "dead":
                raise MintRefusedError(row.trouble or "the mint refused it before", 0)
            try:
                return await (self._melt(row) if row.kind == "melt" else self._sign(row))
            except MintRefusedError:
                raise
            except TradeskillError as error:  # not reached, no answer, nonsense or a lie: all of them say nothing about what the mint did
                await self._store.write(partial(_note_try, request_id=request_id, trouble=str(error)))
                raise UnknownOutcomeError(f"{row.mint}: {error}; {UNSURE}") from error
            finally:
                self._turns.pop(request_id, None)

    async def finish_all(self) -> int:
        """Every request that a crash or a lost answer left open. Returns how many ended; trouble is logged and met again next time."""
        ended = 0
        for request_id in self._store.read(lambda rows: rows.open_requests()):
            try:
                ended += (await self.finish(request_id)).state == "done"
            except MintRefusedError as error:
                ended += 1
                log.warning("request %d was refused for good: %s", request_id, error)
            except UnavailableError as error:
                log.info("%s", error)
        return ended

    # --- swap and mint

    async def _sign(self, row: RequestRow) -> RequestRow:
        try:
            proofs = await self._mints.signed(row)
        except MintRefusedError as refusal:
            proofs = await self._after_refusal(row, refusal)
        return await self._store.write(partial(self._book, row=row, proofs=proofs))

    async def _after_refusal(self, row: RequestRow, refusal: MintRefusedError) -> tuple[Proof, ...]:
        """The proofs, when an earlier try was carried out. Raises as `finish` does."""
        if refusal.pending:
            if row.kind == "mint" and row.tries >= PATIENT and await self._abandoned(row):
                await self._bury(row, refusal, {})
                raise refusal
            raise UnavailableError(f"the mint has it under way: {refusal}") from refusal
        found = await self._mints.restored(row.mint, row.outputs)
        states = await self._states(row)
        whole = len(found) == len(row.outputs)
        if "PENDING" in states.values():
            raise UnavailableError("the mint has its inputs under way") from refusal
        if whole and all(state == "SPENT" for state in states.values()):
            return found
        if found and states and all(state == "SPENT" for state in states.values()):
            raise UnavailableError(f"the mint took its inputs and shows {len(found)} of {len(row.outputs)} outputs") from refusal
        if whole and not states:
            return found
        await self._bury(row, refusal, states)
        raise refusal

    async def _abandoned(self, row: RequestRow) -> bool:
        """A mint that died in the middle may call our outputs pending for ever. While it calls the quote paid it issued nothing for it, and it will
        issue once only: then other outputs may ask, and should the first ones be signed after all, `late` finds them.
        """
        quote = await self._mints.mint_state(row.mint, str(json.loads(row.body)["quote"]))
        return quote.state == "PAID" and not await self._mints.restored(row.mint, row.outputs)

    async def late(self, purpose: str) -> int | None:
        """A request for this purpose that was given up and whose outputs the mint signed nevertheless: open again, to be finished."""
        for request_id in self._store.read(lambda rows: rows.dead_requests(purpose)):
            row = self._store.read(partial(Rows.request, request_id=request_id))
            own = [output for output in row.outputs if output.point not in row.given]
            carried_out = own and len(await self._mints.restored(row.mint, own)) == len(own)
            if carried_out and await self._store.write(partial(Rows.revive_request, request_id=request_id)):
                log.warning("request %d was given up and carried out by %s: its money is taken now", request_id, row.mint)
                return request_id
        return None

    async def _states(self, row: RequestRow) -> Mapping[str, SpendState]:
        ys = [curve.y_of(entry["secret"]) for entry in json.loads(row.body).get("inputs", [])]
        return await self._mints.states(row.mint, ys) if ys else {}

    async def _bury(self, row: RequestRow, refusal: MintRefusedError, states: Mapping[str, SpendState]) -> None:
        def bury(rows: Rows) -> None:
            if rows.close_request(row.request_id, "dead", str(refusal)):
                for y, state in states.items():
                    if state == "SPENT" and rows.knows_coin(y):
                        rows.set_coin(y, "spent")
                rows.set_coins(row.request_id, "held")

        await self._store.write(bury)

    # --- melt

    async def _melt(self, row: RequestRow) -> RequestRow:
        quote_id = str(json.loads(row.body)["quote"])
        quote = await self._mints.melt_state(row.mint, quote_id)
        if quote.state == "UNPAID":
            try:
                quote = await self._mints.melt(row)
            except MintRefusedError as refusal:
                quote = await self._mints.melt_state(row.mint, quote_id)
                if quote.state == "UNPAID":
                    states = await self._states(row)
                    if any(state != "UNSPENT" for state in states.values()):
                        raise UnavailableError("the mint calls it unpaid and has its inputs") from refusal
                    await self._bury(row, refusal, states)
                    raise
        if quote.state == "UNPAID":
            raise UnavailableError("the mint calls it unpaid and did not refuse it")
        if quote.state == "PENDING":
            await self._store.write(partial(_under_way, request_id=row.request_id))
            return row
        change = await self._change(row, quote)
        return await self._store.write(partial(self._book, row=row, proofs=change))

    async def _change(self, row: RequestRow, quote: MeltQuote) -> tuple[Proof, ...]:
        """What a melt gave back (NUT-08), in whichever way the mint tells it."""
        if not row.outputs:
            return ()
        if quote.change:
            return await self._mints.change(row, quote)
        return await self._mints.restored(row.mint, row.outputs)

    # --- the books

    def _book(self, rows: Rows, row: RequestRow, proofs: Sequence[Proof]) -> RequestRow:
        """Inputs gone, outputs there, payments final: one transaction, once."""
        if rows.close_request(row.request_id, "done"):
            rows.set_coins(row.request_id, "spent")
            given = {output.secret for output in row.outputs if output.point in row.given}
            own = 0
            for proof in proofs:
                mine = proof.secret not in given
                own += proof.amount if mine else 0
                rows.add_coin(Coin(curve.y_of(proof.secret), row.mint, proof, "held" if mine else "sent", made_by=row.request_id))
            rows.end_payments(row.request_id, "taken", own)
            outgoing = rows.outgoing_of(row.request_id)
            if outgoing is not None:
                handed = tuple(proof for proof in proofs if proof.secret in given)
                token = tokens.encode(Token(row.mint, UNIT, handed)) if handed else ""
                rows.set_outgoing(outgoing.purpose, "final", only=("open", "published"), token=token or None)
        return replace(row, state="done")


def _note_try(rows: Rows, request_id: int, trouble: str) -> None:
    rows.note_try(request_id, trouble)


def _under_way(rows: Rows, request_id: int) -> None:
    rows.note_try(request_id, "the Lightning payment is under way")
    outgoing = rows.outgoing_of(request_id)
    if outgoing is not None:
        rows.set_outgoing(outgoing.purpose, "published", only=("open",))
