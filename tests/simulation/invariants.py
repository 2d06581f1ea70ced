"""The invariants of FAULTS.md, one function each: over journals, ledger, machine and market. Each yields what is wrong, in words.

I1 to I3, I5 and I6 are asked after every commit, all of them again at rest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from tradeskill.errors import UntrustedError
from tradeskill.journal import spendlog
from tradeskill.journal.records import read_document, read_invoice
from tradeskill.lifecycle import FULFILMENT, JOB, PAYMENT, PURCHASE, Lifecycle
from tradeskill.model import SignedDocument
from tradeskill.seller.shop import execution_id
from tradeskill.signing import canonical, digest
from tradeskill.testing.fake_backend import FakeMachine
from tradeskill.testing.fakes import FakeLedger, FakeStore

from .handles import store_name
from .scenario import UNITS

__all__ = ["AT_REST", "BuyerSide", "SellerSide", "Stage", "buyer_committed", "seller_committed", "started"]


@dataclass
class SellerSide:
    """The seller's journal as last seen, to tell a step from a leap."""

    raw: sqlite3.Connection
    jobs: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # job id -> state, fence, result_sha256, attempt
    payments: dict[tuple[str, int], tuple[Any, ...]] = field(default_factory=dict)  # id, part -> state, job_id, amount
    starts: int = 0
    fence: int = 0


@dataclass
class BuyerSide:
    name: str  # of its wallet
    key: str
    raw: sqlite3.Connection
    caps: dict[str, int]  # by unit; empty: none
    purchases: dict[str, str] = field(default_factory=dict)  # id -> state
    log: spendlog.Replay = field(default_factory=spendlog.Replay)  # of the entries seen so far


@dataclass
class Stage:
    """Everything the invariants look at."""

    ledger: FakeLedger
    machine: FakeMachine
    market: sqlite3.Connection
    seller: SellerSide
    buyers: list[BuyerSide]
    pure: bool
    secrets: tuple[str, ...]
    texts: list[str]  # what was logged
    gone: set[str] = field(default_factory=set)  # purchases whose buyer walked away
    doubtful: bool = False  # somebody forged or paid for somebody else: a buyer may rightly dispute what was delivered


def _reach(lifecycle: Lifecycle) -> dict[str, frozenset[str]]:
    """From each state, every state that some steps lead to, itself included."""
    reach = {state: {state} for state in lifecycle.states}
    changed = True
    while changed:
        changed = False
        for (state, _), step in lifecycle.steps.items():
            before = len(reach[state])
            reach[state] |= reach[step.to]
            changed = changed or len(reach[state]) != before
    return {state: frozenset(found) for state, found in reach.items()}


REACH: Final = {lifecycle.name: _reach(lifecycle) for lifecycle in (JOB, FULFILMENT, PAYMENT, PURCHASE)}


def _rows(raw: sqlite3.Connection, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    cursor = raw.cursor()
    cursor.row_factory = None
    return cursor.execute(sql, values).fetchall()


# after every commit


def seller_committed(stage: Stage) -> Iterator[str]:
    """I1, I2, I3 and I6 as far as one commit can break them."""
    seller = stage.seller
    for job_id, state, fence, result, attempt in _rows(seller.raw, "SELECT job_id, state, fence, result_sha256, attempt FROM fulfilments"):
        was = seller.jobs.get(job_id)
        if was is not None:
            if state not in REACH["fulfilment"][was[0]]:
                yield f"I6: job {job_id} went from {was[0]} to {state}"
            if fence < was[1]:
                yield f"I6: the fence of job {job_id} fell from {was[1]} to {fence}"
            if was[2] is not None and result != was[2]:
                yield f"I1: job {job_id} has a second result"
            if was[2] is None and result is not None and (shown := _receipt_fence(seller.raw, job_id)) != fence:
                yield f"I6: job {job_id} got its result under fence {shown}, the current one is {fence}"
            if attempt < was[3]:
                yield f"I1: the attempt of job {job_id} fell from {was[3]} to {attempt}"
        seller.jobs[job_id] = (state, fence, result, attempt)
    starts = _rows(seller.raw, "SELECT job_id, attempt, fence FROM starts ORDER BY rowid")
    for job_id, attempt, shown in starts[seller.starts :]:
        if shown != seller.jobs[job_id][1]:
            yield f"I6: start {attempt} of job {job_id} was recorded under fence {shown}, the current one is {seller.jobs[job_id][1]}"
    if len(starts) < seller.starts:
        yield "I1: a committed start vanished"
    seller.starts = len(starts)
    fence = int(_rows(seller.raw, "SELECT value FROM meta WHERE name = 'fence'")[0][0])
    if fence < seller.fence:
        yield f"I6: the journal's fence fell from {seller.fence} to {fence}"
    seller.fence = fence
    sums: dict[str, int] = {}
    for payment_id, part, state, job_id, amount in _rows(seller.raw, "SELECT payment_id, part, state, job_id, amount FROM payments"):
        sums[payment_id] = sums.get(payment_id, 0) + int(amount)
        before = seller.payments.get((payment_id, part))
        if before is not None:
            if before[1] != job_id:
                yield f"I3: payment {payment_id} moved from job {before[1]} to {job_id}"
            if state not in REACH["payment"][before[0]]:
                yield f"I6: payment {payment_id} went from {before[0]} to {state}"
        seller.payments[payment_id, part] = (state, job_id, amount)
    for payment_id, amount in sums.items():
        transfer = stage.ledger.transfers.get(payment_id)
        if transfer is None or not transfer.final:
            yield f"I2: payment {payment_id} counts and is not final on the ledger"
        elif transfer.amount != amount:
            yield f"I2: payment {payment_id} is {transfer.amount} on the ledger and {amount} in the journal"
    for key in seller.payments:
        if key[0] not in sums:
            yield f"I2: payment {key[0]} vanished from the journal"


def _receipt_fence(raw: sqlite3.Connection, job_id: str) -> int:
    text = _rows(raw, "SELECT receipt FROM fulfilments WHERE job_id = ?", (job_id,))[0][0]
    return int(str(read_document(text).body["fence"]))


def started(stage: Stage, execution: str, job_id: str) -> Iterator[str]:
    """I1 at the moment of a start: it was committed before, and the job is paid."""
    attempts = [row[0] for row in _rows(stage.seller.raw, "SELECT attempt FROM starts WHERE job_id = ?", (job_id,))]
    if execution not in [execution_id(job_id, attempt) for attempt in attempts]:
        yield f"I1: execution {execution} of job {job_id} starts, and its start is not committed"


def buyer_committed(stage: Stage, buyer: BuyerSide) -> Iterator[str]:
    """I5 and the purchase table as far as one commit can break them."""
    for purchase_id, state in _rows(buyer.raw, "SELECT purchase_id, state FROM purchases"):
        was = buyer.purchases.get(purchase_id)
        if was is not None and state not in REACH["purchase"][was]:
            yield f"I6: purchase {purchase_id} went from {was} to {state}"
        buyer.purchases[purchase_id] = state
    totals = dict(_rows(buyer.raw, "SELECT name, value FROM totals"))
    held: dict[tuple[str, str], int] = {}
    for state, unit, amount in _rows(buyer.raw, "SELECT state, unit, amount FROM reservations"):
        held[state, unit] = held.get((state, unit), 0) + int(amount)
    for unit in UNITS.values():
        spent, reserved = int(totals.get(f"spent:{unit}", "0")), int(totals.get(f"reserved:{unit}", "0"))
        if buyer.caps and spent + reserved > buyer.caps[unit]:
            yield f"I5: spent {spent} + reserved {reserved} {unit} is over the cap {buyer.caps[unit]}"
        if (held.get(("committed", unit), 0), held.get(("reserved", unit), 0)) != (spent, reserved):
            yield f"I5: the running totals {spent} and {reserved} {unit} are not the sums of the reservations {held}"
    yield from _spend_log(buyer)


def _spend_log(buyer: BuyerSide) -> Iterator[str]:
    """I5 as the spend log tells it: what was added follows from what was there, and gives the reservations and totals exactly."""
    if spendlog.head(buyer.raw)[0] < buyer.log.count:
        yield "I5: entries of the spend log vanished"
    try:
        for entry in spendlog.entries(buyer.raw, after=buyer.log.count):
            buyer.log.add(entry)
    except UntrustedError as error:
        yield f"I5: {error}"
    yield from (f"I5: {text}" for text in spendlog.differences(buyer.raw, buyer.log))


# at rest


def i1_one_start(stage: Stage) -> Iterator[str]:
    """At most one committed start per (job, attempt); more attempts only for pure work; the machine ran each at most once."""
    attempts: dict[str, int] = {}
    for job_id, attempt, _ in _rows(stage.seller.raw, "SELECT job_id, attempt, fence FROM starts ORDER BY job_id, attempt"):
        if attempt != attempts.get(job_id, 0) + 1:
            yield f"I1: job {job_id} has start {attempt} after {attempts.get(job_id, 0)}"
        attempts[job_id] = attempt
        if attempt > 1 and not stage.pure:
            yield f"I1: job {job_id} was attempted again and is not pure"
    committed = {execution_id(job_id, n): job_id for job_id, last in attempts.items() for n in range(1, last + 1)}
    for execution, count in stage.machine.started.items():
        if count > 1:
            yield f"I1: execution {execution} ran {count} times"
        if execution not in committed:
            yield f"I1: execution {execution} ran without a committed start"


def i2_exact_sums(stage: Stage) -> Iterator[str]:
    """Every final unit on an invoice is in the journal, and every refund on the ledger is one that the journal owes."""
    found: dict[str, int] = {}
    for invoice_id, amount in _rows(stage.seller.raw, "SELECT invoice_id, amount FROM payments"):
        found[invoice_id] = found.get(invoice_id, 0) + int(amount)
    for invoice_id, address in _rows(stage.seller.raw, "SELECT invoice_id, address FROM invoices"):
        received = stage.ledger.received(address)
        if received != found.get(invoice_id, 0):
            yield f"I2: invoice {invoice_id} received {received}, the journal holds {found.get(invoice_id, 0)}"
    sends = [pair for store in _stores(stage, "seller") for pair in store.sends.items()]
    sent = {purpose.removeprefix("refund:"): transfer for purpose, transfer in sends if purpose.startswith("refund:")}
    if len(sent) != sum(purpose.startswith("refund:") for purpose, _ in sends):
        yield "I2: one refund was signed on two rails"
    owed = {}
    rows = _rows(stage.seller.raw, "SELECT rail, network, payment_id, part, amount, refund_to, state, job_id FROM payments WHERE refund_to IS NOT NULL")
    for rail, network, payment_id, part, amount, to, state, job_id in rows:
        if state in ("refunding", "refunded"):
            owed[f"{rail}/{network}/{payment_id}/{part}"] = (int(amount), to, state)
        requests = [row[0] for row in _rows(stage.seller.raw, "SELECT request FROM fulfilments WHERE job_id = ?", (job_id,))]
        if not any(to == read_document(text).body["refund_to"].get(rail) for text in requests):  # type: ignore[union-attr]  # a request's shape
            yield f"I2: payment {payment_id} goes back to {to}, which its buyer did not sign"
    for key, transfer in sent.items():
        if key not in owed or (transfer.amount, transfer.to) != owed[key][:2]:
            yield f"I2: refund {key} of {transfer.amount} to {transfer.to} is not owed: {owed.get(key)}"
    for key, (amount, to, state) in owed.items():
        seen = stage.ledger.transfers.get(sent[key].transfer_id) if key in sent else None
        if state == "refunded" and (seen is None or not seen.final):
            yield f"I2: refund {key} of {amount} to {to} is said to be made and is not on the ledger"


def i3_one_job(stage: Stage) -> Iterator[str]:
    rows = _rows(
        stage.seller.raw,
        "SELECT payments.payment_id, payments.job_id, invoices.job_id, invoices.address FROM payments LEFT JOIN invoices USING (invoice_id)",
    )
    for payment_id, job_id, invoiced, address in rows:
        transfer = stage.ledger.transfers.get(payment_id)
        to = None if transfer is None else transfer.to
        if job_id != invoiced or to != address:
            yield f"I3: payment {payment_id} to {to} counts for job {job_id}, whose invoice is at {address}"
    addresses = [row[0] for row in _rows(stage.seller.raw, "SELECT address FROM invoices")]
    if len(set(addresses)) != len(addresses):
        yield "I3: two invoices share an address"


def i4_outcome(stage: Stage) -> Iterator[str]:
    """Every paid job was paid in full, and delivered, or all its money went back or is in review; and who was delivered to knows it."""
    for job_id, state in _rows(stage.seller.raw, "SELECT job_id, state FROM fulfilments WHERE paid_at IS NOT NULL"):
        money = [row[0] for row in _rows(stage.seller.raw, "SELECT state FROM payments WHERE job_id = ?", (job_id,))]
        if state == "delivered":
            prices = dict(_rows(stage.seller.raw, "SELECT invoice_id, amount FROM invoices WHERE job_id = ?", (job_id,)))
            allocated: dict[str, int] = {}
            for invoice_id, amount in _rows(stage.seller.raw, "SELECT invoice_id, amount FROM payments WHERE job_id = ? AND state = 'allocated'", (job_id,)):
                allocated[invoice_id] = allocated.get(invoice_id, 0) + int(amount)
            if len(allocated) != 1 or any(value != int(prices[invoice_id]) for invoice_id, value in allocated.items()):
                yield f"I4: job {job_id} is delivered for {allocated} of {prices}: {money}"
        elif state == "failed":
            if any(m not in ("refunded", "review", "surplus") for m in money):
                yield f"I4: job {job_id} failed and its money is {money}"
        elif "allocated" in money or "review" not in money:
            yield f"I4: job {job_id} is {state} and its money is {money}"
    unsettled = _rows(stage.seller.raw, "SELECT payment_id, state, job_id FROM payments WHERE state IN ('found', 'refund_due', 'refunding')")
    for payment_id, state, job_id in unsettled:
        yield f"I4: payment {payment_id} of job {job_id} is still {state}"
    states = dict(_rows(stage.seller.raw, "SELECT job_id, state FROM fulfilments"))
    for buyer in stage.buyers:
        for purchase_id, job_id, state, amount in _rows(buyer.raw, "SELECT purchase_id, job_id, state, amount FROM purchases"):
            if purchase_id in stage.gone:
                continue
            if state == "received" and states.get(job_id) != "delivered" and not _in_review(stage, job_id):
                yield f"I4: purchase {purchase_id} is received, the seller's job {job_id} is {states.get(job_id)}"
            paid = f"pay:{purchase_id}" in _sends(stage, buyer)
            if states.get(job_id) == "delivered" and state != "received" and paid and not stage.doubtful and _known(stage, job_id):
                yield f"I4: job {job_id} is delivered, its purchase {purchase_id} is {state}"
            if state not in ("received", "refunded", "disputed", "failed", "abandoned", "canceled", "expired"):
                yield f"I4: purchase {purchase_id} ({amount}) rests in {state}"


def _known(stage: Stage, job_id: str) -> bool:
    """Not where the market lost the job itself, being rolled back."""
    return bool(_rows(stage.market, "SELECT 1 FROM jobs WHERE job_id = ?", (job_id,)))


def _in_review(stage: Stage, job_id: str) -> bool:
    return bool(_rows(stage.seller.raw, "SELECT 1 FROM payments WHERE job_id = ? AND state = 'review'", (job_id,)))


def i5_one_send(stage: Stage) -> Iterator[str]:
    """One signed send a purchase, to its own invoice, and never without a reservation that still counts it."""
    for buyer in stage.buyers:
        sends = _sends(stage, buyer)
        if len(sends) != sum(len(store.sends) for store in _stores(stage, buyer.name)):
            yield f"I5: {buyer.name} signed one payment on two rails"
        by_invoice = {}
        for purchase_id, state, invoice, held in _rows(
            buyer.raw,
            "SELECT purchases.purchase_id, purchases.state, invoice, reservations.state FROM purchases LEFT JOIN reservations USING (purchase_id)",
        ):
            if invoice is not None:
                by_invoice[read_invoice(invoice).address] = purchase_id
            if f"pay:{purchase_id}" in sends:
                if held is None or (held == "released" and state != "refunded"):
                    yield f"I5: purchase {purchase_id} ({state}) signed a payment and holds {held}"
            elif held == "committed":
                yield f"I5: purchase {purchase_id} ({state}) counts as spent and signed nothing"
        paid = [transfer.to for purpose, transfer in sends.items() if purpose.startswith("pay:")]
        for address in paid:
            if address not in by_invoice:
                yield f"I5: a payment went to {address}, which is no purchase's invoice"
        if len(set(paid)) != len(paid):
            yield "I5: two signed sends to one invoice"


def i6_frozen(stage: Stage) -> Iterator[str]:
    yield from seller_committed(stage)
    for buyer in stage.buyers:
        yield from buyer_committed(stage, buyer)
        buyer.log = spendlog.Replay()  # from the first entry, too
        yield from _spend_log(buyer)


def i7_signed(stage: Stage) -> Iterator[str]:
    """Work only on requests that their buyers signed, money only to addresses the seller gave out, results only as they were made."""
    issued = {invoice.address for store in _stores(stage, "seller") for invoice in store.invoices.values()}
    rows = _rows(stage.seller.raw, "SELECT job_id, buyer, request, result_sha256 FROM fulfilments WHERE state NOT IN ('seen', 'refused')")
    made = {}
    for job_id, buyer, request, sha256 in rows:
        made[job_id] = sha256
        document = read_document(request)
        if document.key != buyer or not _signed(document):
            yield f"I7: job {job_id} was worked on, and its request is not signed by its buyer"
        if sha256 is not None and sha256 != digest(canonical(document.body["input"])):
            yield f"I7: job {job_id} has another result than its work"
    for side in stage.buyers:
        for purpose, transfer in _sends(stage, side).items():
            if purpose.startswith("pay:") and transfer.to not in issued:
                yield f"I7: {side.name} paid {transfer.to}, which the seller never gave out"
        for purchase_id, job_id, sha256 in _rows(side.raw, "SELECT purchase_id, job_id, result_sha256 FROM purchases WHERE state = 'received'"):
            if made.get(job_id) != sha256:
                yield f"I7: purchase {purchase_id} took a result that the seller did not make"


def _signed(document: SignedDocument) -> bool:
    """Checked here on its own, so that a bug in the shipped check does not hide itself."""
    message = f"tradeskill/{document.kind}/1\n".encode() + canonical(document.body)
    try:
        VerifyKey(bytes.fromhex(document.key)).verify(message, bytes.fromhex(document.signature))
    except (BadSignatureError, ValueError):
        return False
    return True


def i8_no_secret(stage: Stage) -> Iterator[str]:
    places = {"the seller's journal": stage.seller.raw, "the market": stage.market} | {f"the journal of {b.name}": b.raw for b in stage.buyers}
    contents = {name: raw.serialize() for name, raw in places.items()} | {"the log": "\n".join(stage.texts).encode()}
    for secret in stage.secrets:
        for name, content in contents.items():
            if secret.encode() in content:
                yield f"I8: a secret key is in {name}"


def _sends(stage: Stage, buyer: BuyerSide) -> dict[str, Any]:
    return {purpose: transfer for store in _stores(stage, buyer.name) for purpose, transfer in store.sends.items()}


def _stores(stage: Stage, owner: str) -> list[FakeStore]:
    """Of its wallets, on either rail."""
    names = (store_name(owner, rail) for rail in UNITS)
    return [stage.ledger.stores[name] for name in names if name in stage.ledger.stores]


AT_REST: Final[tuple[Callable[[Stage], Iterator[str]], ...]] = (
    i1_one_start,
    i2_exact_sums,
    i3_one_job,
    i4_outcome,
    i5_one_send,
    i6_frozen,
    i7_signed,
    i8_no_secret,
)
