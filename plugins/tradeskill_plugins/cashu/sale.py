"""Being paid: an invoice with a lock of its own for each job, and what comes in for it: tokens, Lightning through the mint, letters.

What comes in counts once it is swapped into proofs of our own and not before. Every step is stored before it is taken and repeated after a crash.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tradeskill.errors import InputError, RefusedError, StateError, UnavailableError
from tradeskill.model import NETWORKS, Invoice, Json, Network, Payment, PaymentStatus
from tradeskill.money import Amount, parse_raw
from tradeskill.world import World
from tradeskill_plugins.cashu.address import Address
from tradeskill_plugins.cashu.bolt11 import bolt11_id, sats_of
from tradeskill_plugins.cashu.exchange import payment_id
from tradeskill_plugins.cashu.keys import Keys
from tradeskill_plugins.cashu.letters import letter
from tradeskill_plugins.cashu.mints import UNIT, Mints
from tradeskill_plugins.cashu.nuts import curve, tokens
from tradeskill_plugins.cashu.nuts.errors import MintRefusedError, TokenError
from tradeskill_plugins.cashu.nuts.model import MintQuote, Proof
from tradeskill_plugins.cashu.nuts.secrets import demand, sign_inputs
from tradeskill_plugins.cashu.purse import Purse
from tradeskill_plugins.cashu.settings import CashuSettings
from tradeskill_plugins.cashu.store import LockRow, PaymentRow, RequestRow, Rows, Store

__all__ = ["Sale"]

log = logging.getLogger("tradeskill.cashu")

RAIL: Final = "cashu"
DAY_MS: Final = 86_400_000
PROBE, BATCH = 4, 32  # letters asked for at first, and while there are more
TAKES: Final = 3  # swaps of one token that the mint refused for a reason of its own


class Sale:
    """What the wallet is paid. Knows nothing of jobs but their names."""

    def __init__(
        self, store: Store, mints: Mints, purse: Purse, keys: Callable[[], Awaitable[Keys]], world: World, settings: CashuSettings, network: Network
    ) -> None:
        self._store, self._mints, self._purse, self._keys = store, mints, purse, keys
        self._world, self._settings, self._network = world, settings, network
        self.listeners: list[asyncio.Event] = []  # told of each Lightning invoice that is issued

    # --- invoices

    async def invoice(self, job_id: str, amount: Amount, expires_at: int, through: str = "") -> Invoice:
        """A lock that no other job has, durable before this returns; the same job gets the same invoice. `through`: a mint whose Lightning it must offer."""
        row = self._store.read(lambda rows: rows.lock_of_job(job_id))
        if row is None or row.invoice is None:
            keys = await self._keys()
            row = await self._store.write(partial(_reserve, keys=keys, job_id=job_id))
            with self._world.step("seller.index-reserved"):
                quote, mint = await self._quote(row, amount, expires_at, through), through or self._settings.mints[0]
                locktime = max(expires_at, self._world.now_ms()) // 1000 + self._settings.locktime_margin
                details: dict[str, Json] = {"locktime": str(locktime)}
                if quote is not None:
                    details["bolt11"] = quote.request
                address = Address(self._network, self._settings.mints, row.pubkey).text
                invoice = Invoice(RAIL, self._network, row.pubkey, job_id, address, amount, expires_at, details)
                await self._store.write(partial(_issue, lock_id=row.lock_id, invoice=invoice, quote=quote, mint=mint))
                for changed in self.listeners if quote is not None else ():
                    changed.set()
            row = self._store.read(lambda rows: rows.lock_of_job(job_id))
        assert row is not None
        assert row.invoice is not None
        return _invoice(row.invoice)

    async def _quote(self, row: LockRow, amount: Amount, expires_at: int, through: str) -> MintQuote | None:
        """A Lightning invoice of the first mint; none for what is open longer than any Lightning invoice is (a refund's address)."""
        wanted = through or (self._settings.lightning and expires_at - self._world.now_ms() <= DAY_MS)
        if not wanted:
            return None
        mint = through or self._settings.mints[0]
        locked = 20 in (await self._mints.info(mint)).nuts
        try:
            quote = await self._mints.mint_quote(mint, amount.value, row.pubkey if locked else "")
            if sats_of(quote.request) != amount.value:
                raise TokenError(f"its invoice asks for {sats_of(quote.request)} sat")
        except (RefusedError, InputError) as error:
            if through:
                raise RefusedError(f"{mint} gave no Lightning invoice for {amount.value} sat: {error}") from error
            log.warning("%s gave no Lightning invoice for %d sat: %s; the quote goes without one", mint, amount.value, error)
            return None
        return quote

    def own(self, invoice: Invoice) -> LockRow | None:
        """The lock that this invoice was issued with."""
        row = self._store.read(lambda rows: rows.lock_of_key(invoice.invoice_id))
        return row if row is not None and row.invoice is not None and row.job_id == invoice.job_id else None

    # --- what came in

    def status(self, lock: LockRow) -> PaymentStatus:
        """By our own books alone."""
        assert lock.invoice is not None
        rows = self._store.read(lambda rows: rows.payments(lock.lock_id))
        status = tally(_invoice(lock.invoice), [row for row in rows if row.state == "taken"])
        doubtful = [row for row in rows if row.state == "taking"]
        if doubtful and status.state != "paid":
            return PaymentStatus("unknown", status.payments, detail=f"{sum(row.amount for row in doubtful)} sat are being taken: ask again")
        return status

    async def settle(self, lock: LockRow, proof: str | None) -> PaymentStatus:
        """Take what there is. Unknown, with what is certain, where a mint cannot be asked.

        The call that a token pays returns with it, since a job waits; what else came is looked for by every other call.
        """
        assert lock.invoice is not None
        trouble = detail = ""
        waits = False
        steps: list[Callable[[], Awaitable[object]]] = [lambda: self._take_all(lock), lambda: self._lightning(lock), lambda: self.open_letters(lock)]
        if proof is not None and proof.removeprefix("cashu:").startswith(("cashuA", "cashuB")):
            steps.insert(0, lambda: self._offer(lock, proof))
            waits = self.status(lock).state != "paid"
        for step in steps:
            try:
                await step()
            except (UnavailableError, StateError) as error:
                trouble = trouble or str(error)
            except RefusedError as error:
                detail = detail or str(error)
            if waits and (status := self.status(lock)).state == "paid":
                return status
        status = self.status(lock)
        if status.state == "paid" or not (trouble or detail):
            return status
        return PaymentStatus("unknown" if trouble else status.state, status.payments, late=status.late, detail=trouble or detail)

    async def _offer(self, lock: LockRow, text: str) -> None:
        """Check a token against exactly this invoice, and store the swap that takes it. RefusedError says why it is not taken."""
        assert lock.invoice is not None
        token = tokens.decode(text, self._settings.max_token_bytes, self._settings.max_proofs)
        if token.mint not in self._settings.mints:
            raise TokenError(f"the token is of mint {token.mint}, which is not accepted here")
        if token.unit != UNIT:
            raise TokenError(f"the token is in {token.unit}, not in {UNIT}")
        known = await self._mints.keysets_for(token.mint, [proof.keyset_id for proof in token.proofs])
        proofs = tokens.resolve(token, known.values()).proofs
        locktime = int(lock.invoice["details"]["locktime"])
        for proof in proofs:
            if (found := demand(proof.secret, lock.pubkey, locktime)).refund == (lock.pubkey,):
                raise TokenError(f"the token goes back to {found.refund[0]}, which is the seller's own key")
        tokens.verify(proofs, known)
        ys = {curve.y_of(proof.secret): proof for proof in proofs}
        seen = self._store.read(lambda rows: {y for y in ys if rows.has_seen(y)})
        fresh = {y: proof for y, proof in ys.items() if y not in seen}
        if fresh:
            keys = await self._keys()
            name = payment_id(list(fresh))
            payment = PaymentRow(name, lock.lock_id, token.mint, 0, self._world.now_ms(), "taking", None)
            await self._purse.take(f"take:{name}", token.mint, sign_inputs(fresh.values(), keys.lock(lock.lock_id)), payment)

    async def _take_all(self, lock: LockRow) -> None:
        """Finish every swap that was stored for this lock."""
        for payment in self._store.read(lambda rows: rows.payments(lock.lock_id)):
            if payment.state == "taking" and payment.request_id is not None:
                await self._finish(payment)

    async def _finish(self, payment: PaymentRow) -> None:
        """The mint's yes makes it taken. A no for a reason of the mint's own (a new keyset) is answered with another swap; any other is its end."""
        assert payment.request_id is not None
        request_id = payment.request_id
        for attempt in range(TAKES):
            try:
                await self._purse.settle(request_id)
            except MintRefusedError as refusal:
                row = self._store.read(partial(Rows.request, request_id=request_id))
                again = None if attempt == TAKES - 1 else await self._another(row, payment, refusal)
                if again is None:
                    await self._store.write(partial(Rows.end_payments, request_id=request_id, state="refused", note=str(refusal)))
                    raise
                request_id = again
            else:
                return

    async def _another(self, row: RequestRow, payment: PaymentRow, refusal: MintRefusedError) -> int | None:
        """Another request in the place of one that is dead for a reason of the mint's own; None where its no is the end."""
        if row.kind == "swap" and refusal.keyset:
            await self._mints.refresh(row.mint)
            return await self._purse.take(row.purpose, row.mint, inputs_of(row.body), payment)
        if row.kind == "mint" and refusal.pending:
            body = json.loads(row.body)
            key = (await self._keys()).lock(payment.lock_id) if "signature" in body else None
            return await self._purse.mint(row.purpose, row.mint, str(body["quote"]), sum(output.amount for output in row.outputs), key, payment)
        if row.kind == "mint" and refusal.issued:
            late = await self._purse.late(row.purpose)
            if late is not None:
                await self._store.write(lambda rows: rows.put_payment(replace(payment, request_id=late)))
            return late
        return None

    async def _lightning(self, lock: LockRow) -> None:
        """Take the ecash of a paid Lightning invoice, once."""
        if lock.quote is None or lock.quote_mint is None or lock.bolt11_id is None or lock.invoice is None:
            return
        name, mint, quote_id = lock.bolt11_id, lock.quote_mint, lock.quote
        before = self._store.read(lambda rows: rows.payment(name))
        if before is not None and before.state == "taken":
            return
        quote = await self._mints.mint_state(mint, quote_id)
        if quote.state == "ISSUED" and before is None:
            raise UnavailableError(f"{mint} says that the Lightning payment was taken before, these books do not know of it: run `tradeskill cashu restore`")
        if quote.state != "PAID" or (before is not None and before.state == "taking"):
            return
        keys = await self._keys()
        payment = PaymentRow(name, lock.lock_id, mint, quote.amount, self._world.now_ms(), "taking", None)
        key = keys.lock(lock.lock_id) if quote.pubkey else None
        request_id = await self._purse.mint(f"mint:{lock.lock_id}", mint, quote_id, quote.amount, key, payment)
        await self._finish(PaymentRow(name, lock.lock_id, mint, quote.amount, payment.received_at, "taking", request_id))

    # --- letters

    async def open_letters(self, lock: LockRow) -> int:
        """Take what lies for the lock's key at every accepted mint. Returns how many payments that were."""
        made = 0
        for mint in self._settings.mints:
            made += await self._open_letters(lock, mint)
        return made

    async def _open_letters(self, lock: LockRow, mint: str) -> int:
        known = await self._mints.keysets(mint)
        counts = self._store.read(lambda rows: rows.letters(lock.lock_id))
        found: list[Proof] = []
        looking, size = {keyset.id: counts.get(keyset.id, 0) for keyset in known.values() if keyset.unit == UNIT}, PROBE
        while looking:
            wanted = {keyset_id: [letter(lock.pubkey, keyset_id, start + place) for place in range(size)] for keyset_id, start in looking.items()}
            signed = {proof.secret: proof for proof in await self._mints.restored(mint, [each for letters in wanted.values() for each in letters])}
            further = {}
            for keyset_id, letters in wanted.items():
                there = [place for place, each in enumerate(letters) if each.secret in signed]
                found += [signed[letters[place].secret] for place in there]
                if there:
                    further[keyset_id] = counts[keyset_id] = looking[keyset_id] + there[-1] + 1
            looking, size = further, BATCH
        if not found:
            return 0
        states = await self._mints.states(mint, [curve.y_of(proof.secret) for proof in found])
        if "PENDING" in states.values():
            raise UnavailableError(f"{mint} has letters for {lock.pubkey} under way: ask again")
        fresh = [proof for proof in found if states[curve.y_of(proof.secret)] == "UNSPENT"]
        if not fresh:
            await self._store.write(lambda rows: rows.set_letters(lock.lock_id, counts))
            return 0
        name = payment_id([curve.y_of(proof.secret) for proof in fresh])
        payment = PaymentRow(name, lock.lock_id, mint, 0, self._world.now_ms(), "taking", None)
        signed_inputs = sign_inputs(fresh, (await self._keys()).lock(lock.lock_id))
        request_id = await self._purse.take(f"letters:{name}", mint, signed_inputs, payment, counts)
        await self._finish(PaymentRow(name, lock.lock_id, mint, 0, payment.received_at, "taking", request_id))
        return 1



def tally(invoice: Invoice, taken: Sequence[PaymentRow]) -> PaymentStatus:
    """What was taken against what was asked for."""
    ordered = sorted(taken, key=lambda row: (row.received_at, row.payment_id))
    payments = tuple(Payment(row.payment_id, Amount(row.amount, UNIT), row.received_at) for row in ordered)
    paid, due = sum(row.amount for row in taken), invoice.amount.value
    in_time = sum(row.amount for row in taken if row.received_at <= invoice.expires_at)
    if paid >= due:
        return PaymentStatus("paid", payments, surplus=paid - due, late=in_time < due)
    return PaymentStatus("partial", payments, late=in_time < paid) if paid else PaymentStatus("none")


def inputs_of(body: bytes) -> tuple[Proof, ...]:
    """The inputs of a stored request, with their witnesses."""
    return tuple(Proof(entry["amount"], entry["id"], entry["secret"], entry["C"], None, entry.get("witness", "")) for entry in json.loads(body)["inputs"])


def _reserve(rows: Rows, keys: Keys, job_id: str) -> LockRow:
    row = rows.lock_of_job(job_id)
    if row is None:
        lock_id = rows.next_lock()
        rows.add_lock(lock_id, curve.public_key(keys.lock(lock_id)), job_id)
        row = rows.lock_of_job(job_id)
    assert row is not None
    return row


def _issue(rows: Rows, lock_id: int, invoice: Invoice, quote: MintQuote | None, mint: str) -> None:
    value: dict[str, Any] = {
        "network": invoice.network,
        "invoice_id": invoice.invoice_id,
        "job_id": invoice.job_id,
        "address": invoice.address,
        "amount": str(invoice.amount.value),
        "expires_at": str(invoice.expires_at),
        "details": dict(invoice.details),
    }
    if quote is None:
        rows.issue(lock_id, value, None, None, None)
    else:
        rows.issue(lock_id, value, quote.id, mint, bolt11_id(quote.request))


def _invoice(value: Mapping[str, Any]) -> Invoice:
    network = next(name for name in NETWORKS if name == value["network"])
    amount = Amount(parse_raw(value["amount"]), UNIT)
    return Invoice(RAIL, network, value["invoice_id"], value["job_id"], value["address"], amount, int(value["expires_at"]), dict(value["details"]))
