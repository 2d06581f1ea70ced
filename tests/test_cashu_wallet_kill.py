"""kill -9 before and after every named step of the Cashu wallet, and of the mint: the next process brings the same money to the same one end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cashu_bench import deposit, make_wallet
from tests.cashu_stage import HOUR, PRICE, Clock, Shop, held, play_at, restart, total, until
from tests.mint import Mint, minting, missing
from tradeskill.model import Invoice
from tradeskill.money import Amount
from tradeskill.world import World
from tradeskill_plugins.cashu.wallet import CashuWallet

STEPS = ("intent", "block-stored", "published", "confirmed")


def points(kind: str) -> list[str]:
    return [f"{when}:{kind}.{step}" for step in STEPS for when in ("before", "after")]


class Dying:
    """One wallet's home, in which processes die."""

    def __init__(self, home: Path, mint: str, **settings: Any) -> None:
        self.home, self.mint, self.settings = home, mint, settings

    def dies(self, at: str, act: Callable[[CashuWallet], Coroutine[Any, Any, Any]]) -> None:
        """In a process of its own. AssertionError unless it is killed at that point."""

        async def whole() -> None:
            wallet = make_wallet(self.home, [self.mint], World(at), **self.settings)
            await wallet.open()
            await act(wallet)

        child = os.fork()
        if child == 0:
            try:
                asyncio.run(whole())
            finally:
                os._exit(3)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"nothing died at {at}"
        assert os.WTERMSIG(status) == signal.SIGKILL

    def lives(self, act: Callable[[CashuWallet], Coroutine[Any, Any, Any]]) -> Any:
        async def whole() -> Any:
            wallet = make_wallet(self.home, [self.mint], **self.settings)
            await wallet.open()
            try:
                return await asyncio.wait_for(act(wallet), 30)
            finally:
                await wallet.close()

        return asyncio.run(whole())


def soon() -> int:
    return World().now_ms() + HOUR


@pytest.fixture
def homes(tmp_path: Path, mint: Mint) -> tuple[Dying, Dying]:
    return Dying(tmp_path / "seller", mint.url, lightning=False), Dying(tmp_path / "buyer", mint.url)


def test_a_payer_killed_at_any_step_pays_once(homes: tuple[Dying, Dying]) -> None:
    seller, buyer = homes
    walk = points("pay")
    funds = len(walk) * (PRICE + 20)
    buyer.lives(lambda wallet: deposit(wallet, funds))
    for at in walk:
        invoice: Invoice = seller.lives(lambda wallet, job=at: wallet.invoice(job, Amount(PRICE, "sat"), soon()))
        buyer.dies(at, lambda wallet, to=invoice, key=at: wallet.pay(to, key))
        first = buyer.lives(lambda wallet, to=invoice, key=at: wallet.pay(to, key))
        assert first == buyer.lives(lambda wallet, to=invoice, key=at: wallet.pay(to, key)), at
        status = seller.lives(lambda wallet, to=invoice, token=first.token: wallet.settle(to, token))
        assert (status.state, status.surplus, total(status)) == ("paid", 0, PRICE), at
        assert status.payments[0].payment_id == first.payment_id
    assert funds - 20 * len(walk) - len(walk) * PRICE <= buyer.lives(held) < funds - len(walk) * PRICE


def test_a_payee_killed_at_any_step_takes_the_token_once(homes: tuple[Dying, Dying]) -> None:
    seller, buyer = homes
    walk = points("receive")
    buyer.lives(lambda wallet: deposit(wallet, len(walk) * (PRICE + 20)))
    for number, at in enumerate(walk):
        invoice: Invoice = seller.lives(lambda wallet, job=at: wallet.invoice(job, Amount(PRICE, "sat"), soon()))
        token = buyer.lives(lambda wallet, to=invoice, key=at: wallet.pay(to, key)).token
        seller.dies(at, lambda wallet, to=invoice, proof=token: wallet.settle(to, proof))
        status = seller.lives(lambda wallet, to=invoice, proof=token: wallet.settle(to, proof))
        assert (status.state, status.surplus, total(status), len(status.payments)) == ("paid", 0, PRICE, 1), at
        assert seller.lives(held) == (number + 1) * PRICE, at


def test_a_payee_killed_at_any_step_takes_a_lightning_payment_once(tmp_path: Path, mint: Mint) -> None:
    seller = Dying(tmp_path / "seller", mint.url, lightning=True)
    for number, at in enumerate(["before:seller.index-reserved", "after:seller.index-reserved", *points("receive")]):
        if "index" in at:
            seller.dies(at, lambda wallet, job=at: wallet.invoice(job, Amount(PRICE, "sat"), soon()))
        invoice: Invoice = seller.lives(lambda wallet, job=at: wallet.invoice(job, Amount(PRICE, "sat"), soon()))
        assert invoice == seller.lives(lambda wallet, job=at: wallet.invoice(job, Amount(PRICE, "sat"), soon() + 1))
        if "index" not in at:
            seller.dies(at, lambda wallet, to=invoice: until(lambda: paid(wallet, to)))
        seller.lives(lambda wallet, to=invoice: until(lambda: paid(wallet, to)))
        assert seller.lives(held) == (number + 1) * PRICE, at


async def paid(wallet: CashuWallet, invoice: Invoice) -> bool:
    return (await wallet.settle(invoice, None)).state == "paid"


def test_whoever_is_killed_while_refunding_refunds_once(homes: tuple[Dying, Dying]) -> None:
    seller, buyer = homes
    walk = points("refund")
    buyer.lives(lambda wallet: deposit(wallet, PRICE + 20))
    seller.lives(lambda wallet: deposit(wallet, 200))
    invoice: Invoice = seller.lives(lambda wallet: wallet.invoice("job", Amount(PRICE, "sat"), soon()))
    token = buyer.lives(lambda wallet: wallet.pay(invoice, "key")).token
    payment = seller.lives(lambda wallet: wallet.settle(invoice, token)).payments[0]
    part = Amount(PRICE // len(walk), "sat")
    for at in walk:
        refunds: Invoice = buyer.lives(lambda wallet, job=f"refund-{at}": wallet.invoice(job, part, soon()))
        seller.dies(at, lambda wallet, to=refunds.address, key=at: wallet.refund(payment, invoice, to, part, key))
        proof = seller.lives(lambda wallet, to=refunds.address, key=at: wallet.refund(payment, invoice, to, part, key))
        assert proof.state == "final", at
        back = buyer.lives(lambda wallet, to=refunds: wallet.settle(to, None))
        assert (back.state, total(back)) == ("paid", part.value), at


# --- the mint dies


@pytest.fixture(scope="module")
def mortal() -> Iterator[Mint]:
    if lacking := missing():
        pytest.skip(lacking)
    with minting() as mint:
        yield mint


def test_a_mint_killed_at_any_moment_of_a_swap_loses_and_doubles_nothing(mortal: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller", timeout_seconds=2), await shop.open("buyer", timeout_seconds=2)
        await deposit(buyer, 3 * (PRICE + 20))
        for number, pause in enumerate((0.01, 0.05)):
            invoice = await shop.invoice(seller, f"job-{number}")
            paying = asyncio.create_task(buyer.pay(invoice, f"key-{number}"))
            await asyncio.sleep(pause)  # not waited for anything: the moment of the death is meant to vary
            await asyncio.to_thread(mortal.kill)
            first = await paying
            await asyncio.to_thread(restart, mortal)
            proof = await buyer.pay(invoice, f"key-{number}")
            assert (proof.state, proof.payment_id) == ("final", first.payment_id)
            settling = asyncio.create_task(seller.settle(invoice, proof.token))
            await asyncio.sleep(pause)
            await asyncio.to_thread(mortal.kill)
            assert (await settling).state in ("unknown", "paid")
            await asyncio.to_thread(restart, mortal)
            status = await seller.settle(invoice, proof.token)
            assert (status.state, total(status), status.surplus) == ("paid", PRICE, 0)
        assert await held(seller) == 2 * PRICE
        assert PRICE <= await held(buyer) <= PRICE + 100
        assert (await buyer.balance()).incoming.value == 0

    play_at([mortal.url], tmp_path, body, 240)


def test_the_shared_clock_is_the_real_one_unless_it_is_set_forward() -> None:
    assert abs(Clock().now_ms() - World().now_ms()) < 10_000
