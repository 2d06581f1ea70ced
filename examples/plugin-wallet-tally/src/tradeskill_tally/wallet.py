"""The wallet: a fresh address for every job, and every transfer on the disk before it is on its way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from tradeskill.contracts import Balance, PluginContext
from tradeskill.errors import RefusedError, StateError, StorageError, UnavailableError, UntrustedError, UsageError
from tradeskill.model import Invoice, Payment, PaymentStatus, Proof
from tradeskill.money import Amount

from tradeskill_tally.ledger import Ledger, Transfer

_ADDRESS = re.compile(r"tally_(dev|test|live)_([0-9a-f]{16})_([0-9a-f]{4})", re.ASCII)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


class TallyWallet:
    """`context.home` is its disk: `wallet.json` holds the wallet's name, what was promised to whom, and every transfer ever signed."""

    rail = "tally"
    unit = "sat"

    def __init__(self, ledger: Ledger, context: PluginContext) -> None:
        self.ledger, self._world = ledger, context.world
        self._file = context.home / "wallet.json"
        self._sending = asyncio.Lock()  # one decision about money at a time
        self._name = ""
        self._invoices: dict[str, Invoice] = {}  # job -> what it was promised
        self._sends: dict[str, Transfer] = {}  # purpose -> what was signed for it

    async def open(self) -> None:
        if self._file.exists():
            kept = json.loads(self._file.read_text("utf-8"))
            self._name = kept["name"]
            self._invoices = {job: _invoice(each) for job, each in kept["invoices"].items()}
            self._sends = {purpose: Transfer(**each) for purpose, each in kept["sends"].items()}
        else:
            self._name = self._world.random_bytes(16).hex()
            self._keep()

    async def close(self) -> None:
        return None

    # being paid

    async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
        if job_id not in self._invoices:
            address = self._address("job", job_id)
            self._invoices[job_id] = Invoice(self.rail, self.ledger.network, address, job_id, address, amount, expires_at)
            self._keep()
        return self._invoices[job_id]

    async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
        return await self.status(invoice)  # the payer pushes: there is nothing to take, and nothing in the proof to believe

    async def status(self, invoice: Invoice) -> PaymentStatus:
        try:
            seen = await self.ledger.incoming(invoice.address)
        except UnavailableError as error:
            return PaymentStatus("unknown", detail=str(error))  # not to know is not "no"
        final = sorted((each for each in seen if each.final), key=lambda each: (each.at, each.transfer_id))
        payments = tuple(Payment(each.transfer_id, Amount(each.amount, self.unit), each.at, each.source) for each in final)
        paid, due = sum(each.amount for each in final), invoice.amount.value
        in_time = sum(each.amount for each in final if each.at <= invoice.expires_at)
        if paid >= due:
            return PaymentStatus("paid", payments, surplus=paid - due, late=in_time < due)
        if paid:
            return PaymentStatus("partial", payments, late=in_time < paid)
        return PaymentStatus("pending" if seen else "none")

    async def watch(self) -> AsyncIterator[str]:
        for invoice_id in list[str]():  # nobody tells it of payments: polling finds them
            yield invoice_id

    async def forget(self, invoice: Invoice) -> None:
        return None

    async def conclude(self, payment: Payment, invoice: Invoice, outcome: Literal["delivered", "failed"]) -> None:
        return None  # nothing is held back on this rail

    # paying

    def check(self, invoice: Invoice) -> None:
        if (invoice.rail, invoice.network, invoice.amount.unit) != (self.rail, self.ledger.network, self.unit) or invoice.amount.value < 1:
            raise UntrustedError(f"invoice {invoice.invoice_id!r:.80} is not one of {self.rail} on {self.ledger.network} in {self.unit}")
        try:
            self.check_address(invoice.address)
        except UsageError as error:
            raise UntrustedError(f"invoice {invoice.invoice_id!r:.80}: {error}") from error

    def check_address(self, address: str) -> str:
        match = _ADDRESS.fullmatch(address)
        if match is None or match[1] != self.ledger.network or _digest(match[1], match[2])[:4] != match[3]:
            raise UsageError(f"{address!r:.80} is no address of {self.rail} on {self.ledger.network}")
        return address

    async def pay(self, invoice: Invoice, key: str) -> Proof:
        self.check(invoice)
        return await self._send(f"pay:{key}", self._main, invoice.address, invoice.amount.value)

    async def paid(self, key: str) -> Proof | None:
        return await self._proof(self._sends[f"pay:{key}"]) if f"pay:{key}" in self._sends else None

    async def refund(self, payment: Payment, invoice: Invoice, to: str, amount: Amount, key: str) -> Proof:
        self.check_address(to)
        known = self._sends.get(f"refund:{key}")
        source = known.source if known else invoice.address if await self._free(invoice.address) >= amount.value else self._main
        return await self._send(f"refund:{key}", source, to, amount.value)

    # its own money

    async def address(self) -> str:
        return self._main

    async def balance(self) -> Balance:
        incoming = sum([await self._free(invoice.address) for invoice in self._invoices.values()])
        return Balance(Amount(await self._free(self._main), self.unit), Amount(incoming, self.unit))

    async def collect(self) -> int:
        for transfer in list(self._sends.values()):  # what was signed and never arrived leaves again, as the same bytes
            if (await self._proof(transfer)).state == "unknown":
                await self.ledger.publish(transfer)
        made = 0
        for address in [invoice.address for invoice in self._invoices.values()]:
            amount = await self._free(address)
            if amount:
                swept = sum(1 for each in self._sends.values() if each.source == address)
                await self._send(f"sweep:{address}:{swept}", address, self._main, amount)
                made += 1
        return made

    # below: stored, then sent, those bytes only

    @property
    def _main(self) -> str:
        return self._address("main")

    def _address(self, *parts: str) -> str:
        body = _digest(self._name, *parts)[:16]
        return f"{self.rail}_{self.ledger.network}_{body}_{_digest(self.ledger.network, body)[:4]}"

    async def _send(self, purpose: str, source: str, to: str, amount: int) -> Proof:
        async with self._sending:
            known = self._sends.get(purpose)
            if known is None:
                if await self._free(source) < amount:
                    raise RefusedError(f"{source} holds less than {amount} {self.unit}: fund it; nothing was signed")
                known = self._sends[purpose] = Transfer(_digest(self._name, purpose, source, to, amount), source, to, amount)
                self._keep()
            elif (known.to, known.amount) != (to, amount):
                raise StateError(f"{purpose} has sent {known.amount} to {known.to}: use a new key for another payment")
            try:
                await self.ledger.publish(known)
            except UnavailableError:
                return Proof(known.transfer_id, "unknown")  # signed: it may have left, and will
        return await self._proof(known)

    async def _proof(self, transfer: Transfer) -> Proof:
        try:
            seen = await self.ledger.found(transfer.transfer_id)
        except UnavailableError:
            seen = None
        return Proof(transfer.transfer_id, "unknown" if seen is None else "final" if seen.final else "published")

    async def _free(self, address: str) -> int:
        """What the ledger holds there, less what was signed and is not on it (yet)."""
        held = await self.ledger.held(address)
        for each in list(self._sends.values()):
            if each.source == address and await self.ledger.found(each.transfer_id) is None:
                held -= each.amount
        return held

    def _keep(self) -> None:
        kept = {
            "name": self._name,
            "invoices": {job: asdict(each) for job, each in self._invoices.items()},
            "sends": {purpose: asdict(each) for purpose, each in self._sends.items()},
        }
        try:
            _write(self._file, json.dumps(kept))
        except OSError as error:
            raise StorageError(f"{self._file} cannot be written: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and on the disk when it returns."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _invoice(kept: dict[str, Any]) -> Invoice:
    return Invoice(**{**kept, "amount": Amount(**kept["amount"])})
