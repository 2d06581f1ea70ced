"""A second, differently shaped rail that keeps the wallet contract honest: bearer tokens of a mint, final only once swapped for the payee's own.

Paying makes a token that travels with the submission; whoever swaps it first has the money. `settle` is the call that takes: it stores the swap request
before sending it and replays exactly that request after a lost answer. Sums add up from several tokens; there is no address but the wallet's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal

from tradeskill.contracts import Balance
from tradeskill.errors import RefusedError, StateError, UnavailableError, UnknownOutcomeError, UntrustedError, UsageError
from tradeskill.model import Invoice, Payment, PaymentStatus, Proof
from tradeskill.money import Amount
from tradeskill.testing.fakes import tally
from tradeskill.world import World


class SpentError(RefusedError):
    """The mint saw this token before."""


def digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


class Mint:
    """Who may spend which secret. Answers a swap request that it answered before with the same answer."""

    def __init__(self) -> None:
        self.worth: dict[str, int] = {}  # unspent secret -> value
        self.spent: set[str] = set()
        self.answers: dict[str, list[str]] = {}  # request id -> what was given for it
        self.stores: dict[str, BearerStore] = {}
        self.fault: Callable[[], str] = lambda: ""

    def issue(self, secret: str, value: int) -> None:
        self.worth[secret] = value

    def swap(self, request: SwapRequest) -> None:
        """Old secrets for new ones of the same worth. SpentError when any was spent by another request."""
        fault = self.fault()
        if fault == "unavailable":
            raise UnavailableError("the mint cannot be reached")
        if request.request_id not in self.answers:
            if len(set(request.inputs)) != len(request.inputs) or any(secret not in self.worth for secret in request.inputs):
                raise SpentError("a token was spent before, or never issued")
            if sum(self.worth[secret] for secret in request.inputs) != sum(value for _, value in request.outputs):
                raise RefusedError("inputs and outputs differ")
            for secret in request.inputs:
                del self.worth[secret]
                self.spent.add(secret)
            for secret, value in request.outputs:
                self.issue(secret, value)
            self.answers[request.request_id] = [secret for secret, _ in request.outputs]
        if fault == "answer-lost":
            raise UnknownOutcomeError("the mint's answer was lost")

    def value(self, secret: str) -> int:
        return self.worth.get(secret, 0)


@dataclass(frozen=True)
class SwapRequest:
    request_id: str
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass
class BearerStore:
    """What a wallet has on its disk."""

    coins: dict[str, int] = field(default_factory=dict)  # own unspent secrets
    invoices: dict[str, Invoice] = field(default_factory=dict)
    swaps: dict[str, SwapRequest] = field(default_factory=dict)  # token -> the one request that takes it
    splits: dict[str, SwapRequest] = field(default_factory=dict)  # key -> the one request that makes its token
    taken: dict[str, list[Payment]] = field(default_factory=dict)  # invoice id -> payments that are ours for good
    payments: dict[str, tuple[str, str, int]] = field(default_factory=dict)  # key -> payment id, token, amount
    targets: dict[str, str] = field(default_factory=dict)  # key -> whom it paid


class BearerWallet:
    """One wallet at one mint. Payment ids name the token's secret, so one token counts once."""

    rail = "bearer"
    unit = "sat"

    def __init__(self, mint: Mint, world: World, name: str) -> None:
        self._mint, self._world, self._name = mint, world, name
        self.store = mint.stores.setdefault(name, BearerStore())

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
        address = await self.address()
        fresh = Invoice(self.rail, "dev", f"{self._name}/{job_id}", job_id, address, amount, expires_at, {"lock": digest("lock", job_id)})
        return self.store.invoices.setdefault(job_id, fresh)

    async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
        taken = self.store.taken.setdefault(invoice.invoice_id, [])
        try:
            if proof is not None and proof.startswith(f"token:{invoice.invoice_id}:") and proof not in self.store.swaps:
                secret, value = proof.rsplit(":", 2)[1:]
                if value.isascii() and value.isdigit() and 0 < len(value) < 20:
                    outputs = ((digest("own", self._name, secret), int(value)),)
                    self.store.swaps[proof] = SwapRequest(digest("swap", self._name, proof), (secret,), outputs)  # stored before it is sent
            for token, request in list(self.store.swaps.items()):
                if token.startswith(f"token:{invoice.invoice_id}:"):
                    self._take(invoice, token, request, taken)
        except UnavailableError as error:
            return PaymentStatus("unknown", tuple(taken), detail=str(error))
        return await self.status(invoice)

    def _take(self, invoice: Invoice, token: str, request: SwapRequest, taken: list[Payment]) -> None:
        payment_id = digest("payment", request.inputs[0])
        if any(payment.payment_id == payment_id for payment in taken):
            return
        try:
            self._mint.swap(request)
        except UnavailableError:
            raise
        except RefusedError:  # spent elsewhere, worth something else, or made up: no money
            del self.store.swaps[token]
            return
        self.store.coins.update(request.outputs)
        taken.append(Payment(payment_id, Amount(request.outputs[0][1], self.unit), self._world.now_ms()))

    async def status(self, invoice: Invoice) -> PaymentStatus:
        return tally(invoice, self.store.taken.get(invoice.invoice_id, []), 0)

    async def watch(self) -> AsyncIterator[str]:
        for invoice_id in ():
            yield invoice_id

    async def forget(self, invoice: Invoice) -> None: ...

    def check(self, invoice: Invoice) -> None:
        if (invoice.rail, invoice.network, invoice.amount.unit) != (self.rail, "dev", self.unit) or invoice.amount.value < 1:
            raise UntrustedError(f"invoice {invoice.invoice_id!r} is not of this rail, network or unit")
        try:
            self.check_address(invoice.address)
        except UsageError as error:
            raise UntrustedError(str(error)) from error

    def check_address(self, address: str) -> str:
        name, _, check = address.removeprefix("bearer:").rpartition("#")
        if not address.startswith("bearer:") or check != digest(name)[:6]:
            raise UsageError(f"address {address!r} is not a bearer address")
        return address

    async def pay(self, invoice: Invoice, key: str) -> Proof:
        self.check(invoice)
        return self._make_token(f"pay:{key}", invoice.invoice_id, invoice.amount.value)

    async def paid(self, key: str) -> Proof | None:
        return self._proof(f"pay:{key}") if f"pay:{key}" in self.store.payments else None

    async def conclude(self, payment: Payment, invoice: Invoice, outcome: Literal["delivered", "failed"]) -> None: ...

    async def refund(self, payment: Payment, invoice: Invoice, to: str, amount: Amount, key: str) -> Proof:
        name = self.check_address(to).removeprefix("bearer:").rpartition("#")[0]
        fresh = f"refund:{key}" not in self.store.payments
        proof = self._make_token(f"refund:{key}", f"{name}/refund", amount.value)
        if fresh:  # a refund token is left at the mint for its owner
            self._mint.stores.setdefault(name, BearerStore()).coins[proof.token.rsplit(":", 2)[1]] = amount.value
        return proof

    async def address(self) -> str:
        return f"bearer:{self._name}#{digest(self._name)[:6]}"

    async def balance(self) -> Balance:
        return Balance(Amount(sum(self._mint.value(secret) for secret in self.store.coins), self.unit), Amount(0, self.unit))

    async def collect(self) -> int:
        return 0

    def _make_token(self, key: str, target: str, amount: int) -> Proof:
        known = self.store.payments.get(key)
        if known is not None:
            if self.store.targets[key] != target or known[2] != amount:
                raise StateError(f"key {key!r} already paid something else")
            return self._proof(key)
        paid, change = digest("pay", self._name, key), digest("change", self._name, key)
        if key not in self.store.splits:
            chosen, worth = [], 0
            for secret, value in self.store.coins.items():
                if worth < amount:
                    chosen.append(secret)
                    worth += value
            if worth < amount:
                raise RefusedError(f"{self._name} holds {worth} of {amount}: fund it")
            outputs = ((paid, amount), *(((change, worth - amount),) if worth > amount else ()))
            self.store.splits[key] = SwapRequest(digest("split", self._name, key), tuple(chosen), outputs)  # stored before it is sent
            for secret in chosen:
                del self.store.coins[secret]
        self._mint.swap(self.store.splits[key])
        self.store.coins.update(dict(self.store.splits[key].outputs[1:]))
        self.store.payments[key] = (digest("payment", paid), f"token:{target}:{paid}:{amount}", amount)
        self.store.targets[key] = target
        return self._proof(key)

    def _proof(self, key: str) -> Proof:
        payment_id, token, _ = self.store.payments[key]
        return Proof(payment_id, "final", token)
