"""An in-memory payment rail: `FakeLedger` holds the money, `FakeWallet` passes the wallet contract on it. Deterministic, no I/O, with faults on request.

A fake wallet's durable store lives in the ledger object under the wallet's name, so a wallet that "crashed" is simply opened again.
Nothing here looks at the real clock: time, sleeping and crash points come from the `World` given.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from tradeskill.contracts import Balance, Capability
from tradeskill.errors import RefusedError, StateError, UnavailableError, UnknownOutcomeError, UntrustedError, UsageError
from tradeskill.model import Invoice, Network, Payment, PaymentStatus, Proof
from tradeskill.money import Amount
from tradeskill.world import World

__all__ = ["WALLET_CAPABILITIES", "WALLET_FAULTS", "FakeLedger", "FakeStore", "FakeWallet", "Transfer", "tally"]

# Where a fault may be asked for -> what may go wrong there. `FakeWallet(fault=...)` is called with the place and answers a kind or "".
WALLET_FAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "call": ("unavailable",),  # at the start of any call: nothing happened, UnavailableError
    "publish": (
        "unreached",  # signed and stored, never left; Proof "unknown"
        "answer-lost",  # arrived; Proof "unknown"
        "answer-raised",  # arrived; UnknownOutcomeError
        "dropped",  # said to have arrived, but did not; Proof "published"
    ),
    "look": (
        "hidden",  # says that nothing was paid
        "unsure",  # says unknown
        "unbacked",  # says paid without a payment to show: a broken rail, which the core must not believe
    ),
    "hint": ("lost", "doubled"),
}

WALLET_CAPABILITIES: Final = (
    Capability("push_to_address", True, "the payer sends to the invoice's address"),
    Capability("splits", True, "several transfers to one address add up"),
)

_ADDRESS = re.compile(r"fake_(dev|test|live)_([0-9a-f]{16})_([0-9a-f]{4})", re.ASCII)

Fault = Callable[[str], str]


def _no_fault(_place: str) -> str:
    return ""


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def _address(network: Network, *parts: object) -> str:
    body = _digest(network, *parts)[:16]
    return f"fake_{network}_{body}_{_digest(network, body)[:4]}"


@dataclass(frozen=True)
class Transfer:
    """Money on its way from one address to another; `transfer_id` names its bytes, so publishing it twice is publishing it once."""

    transfer_id: str
    source: str
    to: str
    amount: int
    at: int = 0  # ms, when the ledger first saw it
    final: bool = False


class FakeLedger:
    """Who sent what to whom. A transfer is pending until confirmed; a pending one may vanish (`roll_back`), a final one never.

    `confirm_after`: seconds on the running event loop until a transfer becomes final; 0 at once; None only by `confirm`/`confirm_all`.
    While `hold` is true nothing becomes final.
    """

    def __init__(self, now_ms: Callable[[], int], network: Network = "dev", confirm_after: float | None = None) -> None:
        self.network: Network = network
        self.transfers: dict[str, Transfer] = {}
        self.stores: dict[str, FakeStore] = {}
        self.hold = False
        self._now_ms = now_ms
        self._confirm_after = confirm_after
        self._listeners: list[Callable[[str], None]] = []
        self._funded = 0

    def fund(self, address: str, amount: int) -> str:
        """Final money out of nowhere."""
        self._funded += 1
        transfer = Transfer(_digest("fund", address, self._funded), "mint", address, amount, self._now_ms(), True)
        self.transfers[transfer.transfer_id] = transfer
        self._tell(address)
        return transfer.transfer_id

    def publish(self, transfer: Transfer) -> None:
        """Idempotent by id. RefusedError when the source does not hold the money (pending in is not money yet)."""
        if transfer.transfer_id in self.transfers:
            return
        if self.spendable(transfer.source) < transfer.amount:
            raise RefusedError(f"{transfer.source} does not hold {transfer.amount}")
        self.transfers[transfer.transfer_id] = replace(transfer, at=self._now_ms(), final=False)
        self._tell(transfer.to)
        if self._confirm_after == 0:
            self.confirm(transfer.transfer_id)
        elif self._confirm_after is not None:
            asyncio.get_running_loop().call_later(self._confirm_after, self.confirm, transfer.transfer_id)

    def confirm(self, transfer_id: str) -> None:
        """Make one transfer final, unless the ledger is held or the transfer is gone. Calling twice changes nothing."""
        transfer = self.transfers.get(transfer_id)
        if self.hold or transfer is None or transfer.final:
            return
        self.transfers[transfer_id] = replace(transfer, final=True)
        self._tell(transfer.to)

    def confirm_all(self) -> None:
        for transfer_id in list(self.transfers):
            self.confirm(transfer_id)

    def roll_back(self, transfer_id: str) -> None:
        """A pending transfer vanishes; whoever signed it may publish it again. StateError for a final one."""
        if self.transfers[transfer_id].final:
            raise StateError(f"transfer {transfer_id} is final: it cannot be rolled back")
        del self.transfers[transfer_id]

    def incoming(self, address: str) -> list[Transfer]:
        """Everything ever sent there, in the order it was first seen."""
        return [t for t in self.transfers.values() if t.to == address]

    def spendable(self, address: str) -> int:
        """Final money in, less everything sent out."""
        money_in = sum(t.amount for t in self.transfers.values() if t.to == address and t.final)
        return money_in - sum(t.amount for t in self.transfers.values() if t.source == address)

    def received(self, address: str) -> int:
        """Final money that ever came in."""
        return sum(t.amount for t in self.incoming(address) if t.final)

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call `listener` with an address whenever a transfer to it appears or becomes final; returns how to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def _tell(self, address: str) -> None:
        for listener in list(self._listeners):
            listener(address)


@dataclass
class FakeStore:
    """What a fake wallet has on its disk. `sends` is what it ever signed, by purpose."""

    next_index: int = 0
    invoices: dict[str, Invoice] = field(default_factory=dict)  # job id -> invoice
    sends: dict[str, Transfer] = field(default_factory=dict)  # purpose -> signed bytes
    states: dict[str, Literal["signed", "published", "confirmed"]] = field(default_factory=dict)
    received: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)


def tally(invoice: Invoice, final: Iterable[Payment], pending: int) -> PaymentStatus:
    """The plain rule of every rail: sum the final payments, compare, flag surplus and lateness. `pending` is unconfirmed money."""
    payments = tuple(sorted(final, key=lambda p: (p.received_at, p.payment_id)))
    paid = sum(p.amount.value for p in payments)
    due = invoice.amount.value
    in_time = sum(p.amount.value for p in payments if p.received_at <= invoice.expires_at)
    if paid >= due:
        return PaymentStatus("paid", payments, surplus=paid - due, late=in_time < due)
    if paid:
        return PaymentStatus("partial", payments, late=in_time < paid)
    return PaymentStatus("pending" if pending else "none")


class FakeWallet:
    """A push-to-address rail on a `FakeLedger`, shaped like Nano: one address a job, pending before final, blocks stored before they leave.

    `fault(place)` is asked at each place of `WALLET_FAULTS` and answers a kind or "". `latency` seconds pass before each answer.
    """

    def __init__(
        self,
        ledger: FakeLedger,
        world: World,
        name: str = "wallet",
        *,
        rail: str = "fake",
        unit: str = "raw",
        fault: Fault = _no_fault,
        latency: float = 0.0,
    ) -> None:
        self.rail, self.unit, self.name = rail, unit, name
        self.ledger = ledger
        self.store = ledger.stores.setdefault(name, FakeStore())
        self._world, self._fault, self._latency = world, fault, latency
        self._main = _address(ledger.network, name, "main")
        self._hints: list[asyncio.Queue[str | None]] = []
        self._stop_listening: Callable[[], None] = lambda: None
        self._by_address = {invoice.address: invoice for invoice in self.store.invoices.values()}

    async def open(self) -> None:
        await self._call()
        self._stop_listening = self.ledger.listen(self._hint)

    async def close(self) -> None:
        self._stop_listening()
        for queue in self._hints:
            queue.put_nowait(None)
        self._hints.clear()

    async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
        await self._call()
        if job_id not in self.store.invoices:
            index = self.store.next_index
            address = _address(self.ledger.network, self.name, index)
            invoice = Invoice(self.rail, self.ledger.network, address, job_id, address, amount, expires_at)
            with self._world.step("seller.index-reserved"):
                self.store.next_index += 1
                self.store.invoices[job_id] = invoice
            self._by_address[address] = invoice
        return self.store.invoices[job_id]

    async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
        return await self.status(invoice)  # nothing to take: whoever pays pushes

    async def status(self, invoice: Invoice) -> PaymentStatus:
        await self._call()
        match self._fault("look"):
            case "hidden":
                return PaymentStatus("none")
            case "unsure":
                return PaymentStatus("unknown", detail="the ledger could not be asked")
            case "unbacked":
                return PaymentStatus("paid", detail="believe me")
        seen = self.ledger.incoming(invoice.address)
        final = [Payment(t.transfer_id, Amount(t.amount, self.unit), t.at, t.source) for t in seen if t.final]
        return tally(invoice, final, sum(t.amount for t in seen if not t.final))

    async def watch(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._hints.append(queue)
        while (hint := await queue.get()) is not None:
            yield hint

    async def forget(self, invoice: Invoice) -> None:
        self.store.forgotten.add(invoice.invoice_id)

    def check(self, invoice: Invoice) -> None:
        if (invoice.rail, invoice.network, invoice.amount.unit) != (self.rail, self.ledger.network, self.unit):
            raise UntrustedError(
                f"invoice {invoice.invoice_id!r} is for {invoice.rail}/{invoice.network}/{invoice.amount.unit}, "
                f"this wallet is {self.rail}/{self.ledger.network}/{self.unit}"
            )
        if invoice.amount.value < 1:
            raise UntrustedError(f"invoice {invoice.invoice_id!r} asks for nothing")
        try:
            self.check_address(invoice.address)
        except UsageError as error:
            raise UntrustedError(f"invoice {invoice.invoice_id!r}: {error}") from error

    def check_address(self, address: str) -> str:
        match = _ADDRESS.fullmatch(address)
        if match is None or _digest(match.group(1), match.group(2))[:4] != match.group(3):
            raise UsageError(f"address {address!r} is not an address of the fake rail")
        if match.group(1) != self.ledger.network:
            raise UsageError(f"address {address!r} belongs to network {match.group(1)}, this is {self.ledger.network}")
        return address

    async def pay(self, invoice: Invoice, key: str) -> Proof:
        self.check(invoice)
        await self._call()
        return await self._send("pay", f"pay:{key}", self._main, invoice.address, invoice.amount.value)

    async def paid(self, key: str) -> Proof | None:
        await self._call()
        purpose = f"pay:{key}"
        return self._proof(purpose) if purpose in self.store.sends else None

    async def conclude(self, payment: Payment, invoice: Invoice, outcome: Literal["delivered", "failed"]) -> None:
        return None

    async def refund(self, payment: Payment, invoice: Invoice, to: str, amount: Amount, key: str) -> Proof:
        self.check_address(to)
        await self._call()
        known = self.store.sends.get(f"refund:{key}")
        rich = self._spendable(invoice.address) >= amount.value
        source = known.source if known else invoice.address if rich else self._main
        return await self._send("refund", f"refund:{key}", source, to, amount.value)

    async def address(self) -> str:
        return self._main

    async def balance(self) -> Balance:
        await self._call()
        waiting = sum(self._spendable(address) for address in self._by_address)
        return Balance(Amount(self._spendable(self._main), self.unit), Amount(waiting, self.unit))

    async def collect(self) -> int:
        await self._call()
        for purpose in list(self.store.sends):
            if self._proof(purpose).state == "unknown":
                await self._publish(purpose)
        made = 0
        for address in list(self._by_address):
            for transfer in self.ledger.incoming(address):
                if transfer.final and transfer.transfer_id not in self.store.received:
                    self._receive(transfer.transfer_id)
                    made += 1
            amount = self._spendable(address)
            if amount > 0:
                swept = sum(1 for t in self.store.sends.values() if t.source == address)
                await self._send("sweep", f"sweep:{address}:{swept}", address, self._main, amount)
                made += 1
        return made

    # --- below: how a transfer is signed, stored, published and found again

    def _receive(self, transfer_id: str) -> None:
        with self._world.step("receive.intent"):
            pass
        with self._world.step("receive.block-stored"):
            self.store.received.add(transfer_id)
        with self._world.step("receive.published"):
            pass
        with self._world.step("receive.confirmed"):
            pass

    async def _send(self, kind: str, purpose: str, source: str, to: str, amount: int) -> Proof:
        known = self.store.sends.get(purpose)
        if known is None:
            with self._world.step(f"{kind}.intent"):
                if self._spendable(source) < amount:
                    raise RefusedError(f"{source} holds {self._spendable(source)} of {amount} {self.unit}: fund it; nothing was signed")
            with self._world.step(f"{kind}.block-stored"):
                self.store.sends[purpose] = Transfer(_digest(self.name, purpose, source, to, amount), source, to, amount)
                self.store.states[purpose] = "signed"
        elif (known.to, known.amount) != (to, amount):
            raise StateError(f"{purpose} already sent {known.amount} to {known.to}: use a new key for another payment")
        return await self._publish(purpose)

    async def _publish(self, purpose: str) -> Proof:
        kind = purpose.partition(":")[0]
        transfer = self.store.sends[purpose]
        if transfer.transfer_id not in self.ledger.transfers:
            fault = self._fault("publish")
            await self._world.sleep(self._latency)
            if fault == "unreached":
                return Proof(transfer.transfer_id, "unknown")
            if fault != "dropped":
                self.ledger.publish(transfer)
            if fault == "answer-raised":
                raise UnknownOutcomeError(f"the answer to transfer {transfer.transfer_id} was lost: ask again")
            if fault == "answer-lost":
                return Proof(transfer.transfer_id, "unknown")
        with self._world.step(f"{kind}.published"):
            if self.store.states[purpose] == "signed":
                self.store.states[purpose] = "published"
        return Proof(transfer.transfer_id, "published") if transfer.transfer_id not in self.ledger.transfers else self._proof(purpose)

    def _proof(self, purpose: str) -> Proof:
        transfer = self.store.sends[purpose]
        seen = self.ledger.transfers.get(transfer.transfer_id)
        if seen is None:
            return Proof(transfer.transfer_id, "unknown")
        if not seen.final:
            return Proof(transfer.transfer_id, "published")
        if self.store.states[purpose] != "confirmed":
            with self._world.step(f"{purpose.partition(':')[0]}.confirmed"):
                self.store.states[purpose] = "confirmed"
        return Proof(transfer.transfer_id, "final")

    def _spendable(self, address: str) -> int:
        """What the ledger holds there, less what was signed and has not reached it (yet, or any more)."""
        waiting = (t for t in self.store.sends.values() if t.source == address and t.transfer_id not in self.ledger.transfers)
        return self.ledger.spendable(address) - sum(t.amount for t in waiting)

    def _hint(self, address: str) -> None:
        invoice = self._by_address.get(address)
        if invoice is None or invoice.invoice_id in self.store.forgotten:
            return
        fault = self._fault("hint")
        for queue in self._hints:
            for _ in range({"lost": 0, "doubled": 2}.get(fault, 1)):
                queue.put_nowait(invoice.invoice_id)

    async def _call(self) -> None:
        await self._world.sleep(self._latency)
        if self._fault("call") == "unavailable":
            raise UnavailableError(f"the {self.rail} rail cannot be reached: try again")
