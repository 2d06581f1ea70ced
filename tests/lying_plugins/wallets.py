"""Rails that lie, each in one way, over the honest one in memory. A class's docstring says what its wallet does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from tests.test_wallet_contract_fake import FakeBench
from tradeskill.contracts import Wallet
from tradeskill.errors import RefusedError, UnavailableError, UntrustedError
from tradeskill.model import Invoice, Payment, PaymentStatus, Proof
from tradeskill.money import Amount
from tradeskill.testing.fakes import FakeWallet, tally
from tradeskill.testing.wallet_contract import WalletBench, WalletContract
from tradeskill.world import World

SEED = "4c0ffee5eed"


class Bench(FakeBench):
    """The honest bench with another wallet in it."""

    def __init__(self, kind: type[FakeWallet]) -> None:
        super().__init__()
        self._kind = kind

    def make(self, name: str) -> FakeWallet:
        return self._kind(self.ledger, World(), name, fault=self._fault)


class Lying(WalletContract):
    liar: ClassVar[type[FakeWallet]] = FakeWallet

    @pytest.fixture
    def bench(self) -> WalletBench:
        return Bench(self.liar)


class TestHonest(Lying):
    """The rail that all the others are made of."""


class TestPaysTwiceOnRetry(Lying):
    """A key that was paid before is paid again."""

    class liar(FakeWallet):  # noqa: N801 - it stands for the attribute of that name
        async def pay(self, invoice: Invoice, key: str) -> Proof:
            known = self.store.sends.get(f"pay:{key}")
            again = known is not None and known.to == invoice.address
            return await super().pay(invoice, f"{key}-{len(self.store.sends)}" if again else key)


class TestForgetsKeysAfterRestart(Lying):
    """What it signed before it was closed it does not know any more."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def close(self) -> None:
            await super().close()
            self.store.next_index += 1

        async def pay(self, invoice: Invoice, key: str) -> Proof:
            return await super().pay(invoice, f"{key} since {self.store.next_index}")

        async def paid(self, key: str) -> Proof | None:
            return await super().paid(f"{key} since {self.store.next_index}")


class TestReportsUnconfirmedAsPaid(Lying):
    """Money on its way is money."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def status(self, invoice: Invoice) -> PaymentStatus:
            await super().status(invoice)
            seen = [Payment(t.transfer_id, Amount(t.amount, self.unit), t.at, t.source) for t in self.ledger.incoming(invoice.address)]
            return tally(invoice, seen, 0) if self._fault("look") == "" else PaymentStatus("unknown")


class TestReusesAnInvoice(Lying):
    """All jobs are paid at one address."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
            one = await super().invoice("one for all", amount, expires_at)
            return replace(one, job_id=job_id, amount=amount, expires_at=expires_at)


class TestForgetsInvoicesAfterRestart(Lying):
    """A job that comes back after a restart gets another place to pay to."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def close(self) -> None:
            await super().close()
            self.store.invoices.clear()


class TestRoundsAmounts(Lying):
    """It asks for round sums."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
            return await super().invoice(job_id, Amount(round(amount.value, -2), amount.unit), expires_at)


class TestAcceptsAnotherNetwork(Lying):
    """It pays an invoice of any network."""

    class liar(FakeWallet):  # noqa: N801 - as above
        def check(self, invoice: Invoice) -> None:
            super().check(replace(invoice, network=self.ledger.network))


class TestAcceptsAnotherUnit(Lying):
    """It pays millisatoshi as if they were raw."""

    class liar(FakeWallet):  # noqa: N801 - as above
        def check(self, invoice: Invoice) -> None:
            super().check(replace(invoice, amount=Amount(invoice.amount.value, self.unit)))


class TestRefundsTwice(Lying):
    """A refund asked for again is made again."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def refund(self, payment: Payment, invoice: Invoice, to: str, amount: Amount, key: str) -> Proof:
            if to == self.check_address(to):
                self.ledger.fund(invoice.address, amount.value)
            return await super().refund(payment, invoice, to, amount, f"{key}-{len(self.store.sends)}")


class TestCannotRefundWhatItCollected(Lying):
    """Money that was swept is not given back."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def refund(self, payment: Payment, invoice: Invoice, to: str, amount: Amount, key: str) -> Proof:
            self.check_address(to)
            if f"refund:{key}" not in self.store.sends and any(t.source == invoice.address and p.startswith("sweep:") for p, t in self.store.sends.items()):
                raise RefusedError(f"{invoice.address} is empty")
            return await super().refund(payment, invoice, to, amount, key)


class TestSaysRefusedWhenItIsUnknown(Lying):
    """A ledger that cannot be reached is called a refusal, as if nothing could have been signed."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def pay(self, invoice: Invoice, key: str) -> Proof:
            try:
                return await super().pay(invoice, key)
            except UnavailableError as error:
                raise RefusedError(f"payment failed: {error}") from error


class TestSaysUnpaidWhenItCannotLook(Lying):
    """Not to know is taken for no."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def status(self, invoice: Invoice) -> PaymentStatus:
            try:
                found = await super().status(invoice)
            except UnavailableError:
                return PaymentStatus("none")
            return PaymentStatus("none") if found.state == "unknown" else found


class TestPublishesBeforeItStores(Lying):
    """A payment is on its way before it is on the disk."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def pay(self, invoice: Invoice, key: str) -> Proof:
            self.check(invoice)
            if f"pay:{key}" in self.store.sends:
                return await super().pay(invoice, key)
            if self._spendable(self._main) < invoice.amount.value:
                raise RefusedError("not enough money")
            if self._fault("call") or self._fault("publish"):
                return await super().pay(invoice, key)
            keep, self.name = self.name, f"{self.name}+{len(self.ledger.transfers)}"  # bytes of their own each time
            await super().pay(invoice, key)
            self.name, sent = keep, self.store.sends.pop(f"pay:{key}")
            await asyncio.sleep(0)  # the disk is slow
            self.store.sends[f"pay:{key}"] = sent
            return self._proof(f"pay:{key}")


class TestBelievesProofs(Lying):
    """What a payer claims is taken for what it paid."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
            if proof and proof not in self.ledger.transfers:
                return PaymentStatus("paid", (Payment(proof, invoice.amount, 0),))
            return await super().settle(invoice, proof)


class TestCountsOnePaymentForTwoJobs(Lying):
    """A payment counts wherever its id is shown."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
            found = await super().settle(invoice, proof)
            seen = self.ledger.transfers.get(proof or "")
            if found.state == "none" and seen is not None and seen.final:
                return tally(invoice, [Payment(seen.transfer_id, Amount(seen.amount, self.unit), seen.at)], 0)
            return found


class TestKeepsQuietAboutASurplus(Lying):
    """What was paid beyond the price is not mentioned."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def status(self, invoice: Invoice) -> PaymentStatus:
            return replace(await super().status(invoice), surplus=0)


class TestTakesLateMoneyForTimely(Lying):
    """No payment is ever late."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def status(self, invoice: Invoice) -> PaymentStatus:
            return replace(await super().status(invoice), late=False)


class TestDropsMoneyOfForgottenInvoices(Lying):
    """An invoice that needs no more hints is not looked at any more."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def status(self, invoice: Invoice) -> PaymentStatus:
            if invoice.invoice_id in self.store.forgotten:
                return PaymentStatus("none")
            return await super().status(invoice)


class TestReportsASweepAsTheEnd(Lying):
    """An invoice whose money was collected is unpaid again."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def status(self, invoice: Invoice) -> PaymentStatus:
            found = await super().status(invoice)
            swept = any(purpose.startswith(f"sweep:{invoice.address}") for purpose in self.store.sends)
            return PaymentStatus("none") if swept and found.state == "paid" else found


class TestTakesAKeyForAnotherInvoice(Lying):
    """A key used for one invoice pays any other."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def pay(self, invoice: Invoice, key: str) -> Proof:
            known = self.store.sends.get(f"pay:{key}")
            return await super().pay(invoice, key if known is None or known.to == invoice.address else f"{key} for {invoice.address}")


class TestPaysAnyAddress(Lying):
    """It refunds to whatever it is told."""

    class liar(FakeWallet):  # noqa: N801 - as above
        def check_address(self, address: str) -> str:
            return address

        def check(self, invoice: Invoice) -> None:
            super().check(invoice)
            try:
                super().check_address(invoice.address)
            except Exception as error:
                raise UntrustedError(str(error)) from error


class Telling(Lying):
    """A bench that knows its wallets' secret."""

    @pytest.fixture
    def bench(self) -> WalletBench:
        class Knowing(Bench):
            lacks: ClassVar[Mapping[str, str]] = {}

            def secrets(self, wallet: Wallet) -> Sequence[str]:
                return [SEED]

        return Knowing(self.liar)


class TestKeepsItsSecret(Telling):
    """The honest one, with a secret."""


class TestLeaksItsSecretInItsRepr(Telling):
    """A dataclass's repr, as it comes by itself."""

    class liar(FakeWallet):  # noqa: N801 - as above
        def __repr__(self) -> str:
            return f"FakeWallet(name={self.name!r}, seed={SEED!r})"


class TestLeaksItsSecretInAnError(Telling):
    """An error that means to be helpful."""

    class liar(FakeWallet):  # noqa: N801 - as above
        async def pay(self, *args: Any) -> Proof:
            try:
                return await super().pay(*args)
            except UntrustedError:
                raise
            except RefusedError as error:
                raise RefusedError(f"{error} (derived from {SEED})") from error
