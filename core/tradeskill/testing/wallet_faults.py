"""The wallet's clauses about what goes wrong: calls that end halfway, ledgers that fail, hang or talk nonsense, secrets in the open."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

from tradeskill.contracts import Wallet
from tradeskill.errors import RefusedError, TradeskillError, UnavailableError
from tradeskill.model import Invoice, PaymentStatus
from tradeskill.money import Amount
from tradeskill.testing.clauses import clause, declared
from tradeskill.testing.interruption import interrupted
from tradeskill.testing.wallet_bench import PRICE, WALLET_LACKS, LedgerFault, WalletBench, WalletSteps

__all__ = ["WalletFaultClauses"]

GIVE_UP: Final = 0.5  # seconds after which the core's own deadline would end a call
TURNS: Final = (0, 1, 2, 3, 4, 6, 9, 14, 30, 100)  # of the event loop, after which a call is interrupted
PRIME: Final = 1_000_003  # no rounding leaves it as it is


class WalletFaultClauses(WalletSteps):
    """What must hold whatever ends halfway. The ledger's faults are made by the bench; interruptions, restarts and repetitions by the tests themselves."""

    @clause("W-40")
    def test_what_is_declared_off_has_a_name_and_a_reason(self, bench: WalletBench) -> None:
        declared(bench.lacks, WALLET_LACKS)

    @clause("W-41")
    def test_a_payment_interrupted_anywhere_and_asked_again_is_one_payment(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            await bench.fund(buyer, PRICE * len(TURNS) * 2)
            for turns in TURNS:
                invoice = await self._invoice(bench, seller, f"job-{turns}")
                await interrupted(buyer.pay(invoice, f"key-{turns}"), turns)
                await buyer.close()
                buyer = await bench.open("buyer")
                await self._until_known(partial(buyer.pay, invoice, f"key-{turns}"))
                await bench.settle_ledger()
                status = await self._until_known(partial(seller.settle, invoice, await bench.proof(buyer, f"key-{turns}")))
                assert (status.state, status.surplus, self._sum(status)) == ("paid", 0, PRICE), f"interrupted after {turns} turns"
            balance = await buyer.balance()
            assert balance.available.value + balance.incoming.value == PRICE * len(TURNS)

        self._run(bench, check)

    @clause("W-42")
    def test_a_settlement_interrupted_anywhere_loses_and_doubles_nothing(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            for turns in TURNS:
                invoice = await self._invoice(bench, seller, f"job-{turns}")
                proof = await bench.send(invoice, PRICE)
                await bench.settle_ledger()
                await interrupted(seller.settle(invoice, proof), turns)
                await seller.close()
                seller = await bench.open("seller")
                status = await self._until_known(partial(seller.settle, invoice, proof))
                assert (status.state, status.surplus, len(status.payments)) == ("paid", 0, 1), f"interrupted after {turns} turns"
            await self._collect(bench, seller)
            assert (await seller.balance()).available.value == PRICE * len(TURNS)

        self._run(bench, check)

    @clause("W-43")
    def test_a_refund_interrupted_anywhere_and_asked_again_is_one_refund(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer, payment, invoice = await self._sold(bench)
            to, turns = await buyer.address(), (0, 1, 2, 4, 9, 30)
            part = PRICE // len(turns)
            for each in turns:
                await interrupted(seller.refund(payment, invoice, to, Amount(part, seller.unit), f"key-{each}"), each)
                await seller.close()
                seller = await bench.open("seller")
                await self._until_known(partial(seller.refund, payment, invoice, to, Amount(part, seller.unit), f"key-{each}"))
                await bench.settle_ledger()
            assert await bench.received(buyer) == part * len(turns)

        self._run(bench, check)

    @clause("W-44")
    def test_payments_that_are_looked_at_in_another_order_are_found_at_their_own_invoices(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoices = [await self._invoice(bench, seller, f"job-{n}") for n in range(3)]
            proofs = [await bench.send(invoice, PRICE + n) for n, invoice in enumerate(invoices)]
            await bench.settle_ledger()
            for n in (2, 0, 1):
                status = await seller.settle(invoices[n], proofs[n])
                assert (status.state, status.surplus) == ("paid", n)
            ids = [(await seller.settle(invoice, None)).payments[0].payment_id for invoice in invoices]
            assert len(set(ids)) == 3

        self._run(bench, check)

    @clause("W-45")
    def test_amounts_are_exact_to_the_last_unit_on_both_sides(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            invoice = await self._invoice(bench, seller, price=PRIME)
            assert invoice.amount == Amount(PRIME, seller.unit)
            await bench.fund(buyer, PRIME + 1)
            await buyer.pay(invoice, "key")
            await bench.settle_ledger()
            status = await seller.settle(invoice, await bench.proof(buyer, "key"))
            assert (status.state, status.surplus, self._sum(status)) == ("paid", 0, PRIME)
            assert (await buyer.balance()).available.value == 1

        self._run(bench, check)

    @clause("W-46", unless="secrets")
    def test_no_secret_shows_in_what_a_wallet_prints_or_raises(self, bench: WalletBench) -> None:
        async def check() -> None:
            wallet, seller = await bench.open("buyer"), await bench.open("seller")
            if "secrets" in bench.lacks:
                return
            secrets = [secret for secret in bench.secrets(wallet) if secret]
            assert secrets, "bench.secrets() names none: say in lacks['secrets'] why this wallet has none"
            said = [repr(wallet), str(wallet), f"{wallet}", *(repr(value) for value in vars(wallet).values() if not callable(value))]
            for call in (wallet.pay(await self._invoice(bench, seller), "key"), wallet.settle(await self._invoice(bench, wallet), secrets[0])):
                try:
                    said.append(repr(await call))
                except TradeskillError as error:
                    said += [str(error), repr(error), repr(error.__cause__), repr(error.details)]
            for secret in secrets:
                assert not [text[:80].replace(secret, "<the secret>") for text in said if secret in text and text is not secret]

        self._run(bench, check)

    @clause("W-50", unless="faults")
    def test_what_cannot_be_reached_is_neither_unpaid_nor_refused(self, bench: WalletBench) -> None:
        self._trouble(bench, "unreachable")

    @clause("W-51", unless="faults")
    def test_a_lost_answer_is_unknown_and_the_same_key_still_pays_once(self, bench: WalletBench) -> None:
        self._trouble(bench, "answer-lost")

    @clause("W-52", unless="faults")
    def test_a_call_that_hangs_may_be_given_up_at_any_time_and_nothing_is_assumed(self, bench: WalletBench) -> None:
        self._trouble(bench, "hang")

    @clause("W-53", unless="faults")
    def test_garbage_from_the_ledger_is_an_error_of_ours_and_nothing_is_assumed(self, bench: WalletBench) -> None:
        self._trouble(bench, "garbage")

    def _trouble(self, bench: WalletBench, kind: LedgerFault) -> None:
        """Ask for payment, settlement and a look while the ledger fails; then heal it: exactly one payment was made and is found."""

        async def check() -> None:
            if "faults" in bench.lacks:
                return
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            invoice, early, late = [await self._invoice(bench, seller, job) for job in ("job", "early", "late")]
            await bench.fund(buyer, PRICE * 3)
            assert (await self._paid_by_stranger(bench, seller, early, PRICE)).state == "paid"
            proof = await bench.send(late, PRICE)
            await bench.settle_ledger()
            await bench.fault(kind)
            await self._unsure(buyer, invoice)
            await self._not_unpaid(seller.settle(late, proof))
            await self._not_unpaid(seller.settle(early, None))
            await self._not_unpaid(seller.status(early))
            await bench.fault("")
            await buyer.pay(invoice, "key")
            await bench.settle_ledger()
            status = await seller.settle(invoice, await bench.proof(buyer, "key"))
            assert (status.state, status.surplus, len(status.payments)) == ("paid", 0, 1)
            assert (await buyer.balance()).available.value == PRICE * 2
            for each, its in ((early, None), (late, proof)):
                found = await seller.settle(each, its)
                assert (found.state, found.surplus, len(found.payments)) == ("paid", 0, 1)

        self._run(bench, check)

    @staticmethod
    async def _unsure(buyer: Wallet, invoice: Invoice) -> None:
        """Paying may answer "unknown", or raise that it is not known, or not reached; it must not say that it did not happen."""
        try:
            answer = await asyncio.wait_for(buyer.pay(invoice, "key"), GIVE_UP)
        except (UnavailableError, TimeoutError):
            return
        except RefusedError as error:
            raise AssertionError(f"paying over a failing ledger was refused, as if nothing could have happened: {error}") from error
        assert answer.state != "final", "a payment was called final though no answer can have said so"

    @staticmethod
    async def _not_unpaid(look: Coroutine[Any, Any, PaymentStatus]) -> None:
        try:
            state = (await asyncio.wait_for(look, GIVE_UP)).state
        except (UnavailableError, TimeoutError):
            return
        assert state in ("unknown", "paid"), f"a paid invoice was called {state!r} while the ledger could not be asked"
