"""Paying a job through Lightning: a buyer melts at one mint, a seller takes ecash at another; what Lightning does not settle stays in sight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.cashu_bench import deposit
from tests.cashu_stage import PRICE, Shop, held, play_at, total, until
from tests.mint import Mint, minting, missing
from tradeskill.errors import RefusedError, UnavailableError


@pytest.fixture(scope="module")
def own_mint() -> Iterator[Mint]:
    """The buyer's, whose payments end as a test wants."""
    if lacking := missing():
        pytest.skip(lacking)
    with minting(key="another mint") as made:
        yield made


def test_a_buyer_without_a_common_mint_pays_by_melting_and_both_name_the_payment_alike(mint: Mint, own_mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller", lightning=True), await shop.open("buyer", mints=[own_mint.url], lightning=True)
        await deposit(buyer, 3 * PRICE)
        invoice = await shop.invoice(seller)
        proof = await buyer.pay(invoice, "key")
        assert (proof.state, proof.token) == ("final", "")
        assert await buyer.pay(invoice, "key") == proof == await buyer.paid("key")

        async def paid() -> bool:
            return (await seller.settle(invoice, proof.payment_id)).state == "paid"

        await until(paid)
        status = await seller.settle(invoice, None)
        assert (total(status), status.surplus, [payment.payment_id for payment in status.payments]) == (PRICE, 0, [proof.payment_id])
        assert 0 < 2 * PRICE - await held(buyer) < 50  # fees of both mints; what the reserve did not need came back
        assert (await buyer.balance()).incoming.value == 0

    play_at([mint.url], tmp_path, body)


def test_without_lightning_or_a_common_mint_nothing_is_paid(mint: Mint, own_mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        seller = await shop.open("seller", lightning=True)
        plain, poor = await shop.open("plain", mints=[own_mint.url]), await shop.open("poor", mints=[own_mint.url], lightning=True)
        await deposit(plain, 3 * PRICE)
        await deposit(poor, PRICE)
        invoice = await shop.invoice(seller)
        with pytest.raises(RefusedError, match="the seller takes money of"):
            await plain.pay(invoice, "key")
        with pytest.raises(RefusedError, match="are needed with fees"):
            await poor.pay(invoice, "key")
        assert await plain.paid("key") is None
        assert await poor.paid("key") is None
        assert (await held(plain), await held(poor)) == (3 * PRICE, PRICE)

    play_at([mint.url], tmp_path, body)


def test_a_payment_that_lightning_keeps_is_published_and_in_sight_until_it_settles(mint: Mint, own_mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller", lightning=True), await shop.open("buyer", mints=[own_mint.url], lightning=True)
        await deposit(buyer, 3 * PRICE)
        invoice = await shop.invoice(seller)
        own_mint.restart(FAKEWALLET_PAY_INVOICE_STATE="PENDING", FAKEWALLET_PAYMENT_STATE="PENDING")

        async def under_way() -> bool:
            try:
                return (await buyer.pay(invoice, "key")).state == "published"
            except UnavailableError:
                return False

        await until(under_way)
        proof = await buyer.pay(invoice, "key")
        assert await buyer.pay(invoice, "key") == proof
        doubt = buyer.by_hand.doubts()[0]
        assert (doubt["purpose"], int(doubt["amount"]) >= PRICE) == ("pay:key", True)
        own_mint.restart(FAKEWALLET_PAY_INVOICE_STATE="SETTLED", FAKEWALLET_PAYMENT_STATE="SETTLED")

        async def done() -> bool:  # a connection that the old process left behind may fail once
            last = await buyer.pay(invoice, "key")
            assert last.payment_id == proof.payment_id
            return last.state == "final"

        await until(done)
        assert buyer.by_hand.doubts() == []
        assert 0 < 2 * PRICE - await held(buyer) < 50

    play_at([mint.url], tmp_path, body, 120)


def test_a_payment_that_lightning_refuses_leaves_all_money_and_may_be_tried_again(mint: Mint, own_mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller", lightning=True), await shop.open("buyer", mints=[own_mint.url], lightning=True)
        await deposit(buyer, 3 * PRICE)
        invoice = await shop.invoice(seller)
        own_mint.restart(FAKEWALLET_PAY_INVOICE_STATE="FAILED", FAKEWALLET_PAYMENT_STATE="FAILED")

        async def refused() -> bool:
            try:
                return (await buyer.pay(invoice, "key")).state == "final"
            except UnavailableError:
                return False

        with pytest.raises(RefusedError, match="Lightning"):
            await until(refused)
        assert await buyer.paid("key") is None
        assert await held(buyer) == 3 * PRICE
        own_mint.restart(FAKEWALLET_PAY_INVOICE_STATE="SETTLED", FAKEWALLET_PAYMENT_STATE="SETTLED")

        async def paid() -> bool:
            try:
                return (await buyer.pay(invoice, "key")).state == "final"
            except UnavailableError:  # a connection that the old process left behind may fail once
                return False

        await until(paid)

    play_at([mint.url], tmp_path, body, 120)


def test_a_lightning_payment_is_hinted_at_by_a_mint_that_gives_hints(mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        seller = await shop.open("seller", lightning=True)
        first = await shop.invoice(seller, "first")
        async with aclosing(seller.watch()) as hints:  # type: ignore[type-var]  # an async generator in practice
            assert await anext(hints) == first.invoice_id
            second = await shop.invoice(seller, "second")
            while await anext(hints) != second.invoice_id:
                pass
        assert (await seller.settle(second, None)).state == "paid"

    play_at([mint.url], tmp_path, body)
