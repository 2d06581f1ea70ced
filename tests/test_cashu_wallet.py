"""The rail cashu at a real mint with fees: what is paid is exact, what is lost is found, what nobody took comes back."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cashu_bench import deposit, make_wallet
from tests.cashu_stage import HOUR, PRICE, Play, Shop, held, play_at, total, until
from tests.mint import Mint
from tradeskill.errors import NetworkMismatchError, RefusedError, SecretError, StateError, UntrustedError
from tradeskill.money import Amount


@pytest.fixture
def play(tmp_path: Path, mint: Mint) -> Play:
    return lambda body: play_at([mint.url], tmp_path, body)


@pytest.mark.parametrize("price", [1, 7, 127, 1000, 1023, 99_999])
def test_with_fees_the_seller_nets_the_price_to_the_sat_and_the_buyer_pays_two_fees(play: Play, price: int) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, price + 50)
        invoice = await shop.invoice(seller, price=price)
        proof = await buyer.pay(invoice, "key")
        assert proof.state == "final"
        status = await seller.settle(invoice, proof.token)
        assert (status.state, status.surplus, total(status)) == ("paid", 0, price)
        assert status.payments[0].payment_id == proof.payment_id
        assert await held(seller) == price
        assert 0 < price + 50 - await held(buyer) - price < 10

    play(body)


def test_a_refund_is_found_by_whoever_asks_for_its_address_and_is_worth_the_whole_sum(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, PRICE + 50)
        await deposit(seller, 50)
        invoice = await shop.invoice(seller)
        refunds = await buyer.invoice("refund-abc", Amount(PRICE, "sat"), shop.world.now_ms() + 300 * 24 * HOUR)
        assert "bolt11" not in refunds.details
        status = await seller.settle(invoice, (await buyer.pay(invoice, "abc")).token)
        assert (await buyer.settle(refunds, None)).state == "none"
        proof = await seller.refund(status.payments[0], invoice, refunds.address, Amount(PRICE, "sat"), "r")
        assert proof.state == "final"
        back = await buyer.settle(refunds, None)
        assert (back.state, total(back)) == ("paid", PRICE)
        assert await buyer.settle(refunds, None) == back

    play(body)


def test_letters_for_one_address_from_several_senders_are_all_found(play: Play) -> None:
    async def body(shop: Shop) -> None:
        target = await shop.open("target")
        address = await target.address()
        sellers = []
        for name in ("one", "two", "three"):
            seller, buyer = await shop.open(f"seller-{name}"), await shop.open(f"buyer-{name}")
            await deposit(buyer, 600)
            await deposit(seller, 30)
            invoice = await shop.invoice(seller, price=500)
            status = await seller.settle(invoice, (await buyer.pay(invoice, "key")).token)
            sellers.append((seller, status.payments[0], invoice))

        async def refunded() -> bool:  # who loses the race for a letter does not know what the mint did, asks again, and takes the next one
            proofs = await asyncio.gather(*(seller.refund(payment, invoice, address, Amount(333, "sat"), "key") for seller, payment, invoice in sellers))
            return all(proof.state == "final" for proof in proofs)

        await until(refunded)
        while await target.collect():
            pass
        assert 333 * 3 <= await held(target) <= 333 * 3 + 3  # swapped together they cost less than one by one

    play(body)


def test_a_token_that_nobody_took_comes_home_after_its_locktime_and_the_purchase_sees_it(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, PRICE + 50)
        refunds = await buyer.invoice("refund-key-and-more", Amount(PRICE, "sat"), shop.world.now_ms() + HOUR)
        soon = int(time.time()) + 1
        invoice = replace(await shop.invoice(seller), expires_at=soon * 1000, details={"locktime": str(soon)})
        token = (await buyer.pay(invoice, "key")).token
        assert await buyer.collect() == 0
        before = await held(buyer)
        assert (await buyer.settle(refunds, None)).state == "none"
        shop.world.ahead = 40_000

        async def home() -> bool:
            await buyer.collect()
            return await held(buyer) > before

        await until(home)
        back = await buyer.settle(refunds, None)
        assert total(back) == PRICE
        assert await held(buyer) == before + PRICE
        assert await buyer.collect() == 0
        assert (await buyer.pay(invoice, "key")).token == token  # still the one payment of this key
        assert (await seller.settle(await shop.invoice(seller), token)).payments == ()

    play(body)


def test_a_token_that_was_taken_is_not_taken_back(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, PRICE + 50)
        invoice = await shop.invoice(seller)
        await seller.settle(invoice, (await buyer.pay(invoice, "key")).token)
        shop.world.ahead = 10 * 24 * HOUR
        assert await buyer.collect() == 0
        row = buyer.store.read(lambda rows: rows.outgoing("pay:key"))
        assert row is not None
        assert row.state == "gone"

    play(body)


def test_a_seed_alone_brings_back_all_money_and_hands_out_no_lock_twice(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller", bytes(range(32))), await shop.open("buyer")
        await deposit(buyer, 5000)
        await deposit(seller, 123)
        keys = set()
        for number in range(3):
            invoice = await shop.invoice(seller, f"job-{number}")
            keys.add(invoice.invoice_id)
            await seller.settle(invoice, (await buyer.pay(invoice, f"key-{number}")).token)
        sale = await shop.invoice(buyer, "own sale", price=700)
        await buyer.settle(sale, (await seller.pay(sale, "spend")).token)
        before = await held(seller)
        again = await shop.open("again", bytes(range(32)))
        assert await held(again) == 0
        assert await again.restore() == before == await held(again)
        assert await again.restore() == 0
        assert (await shop.invoice(again, "job-0")).invoice_id not in keys
        third = await shop.invoice(buyer, "third", price=300)
        assert (await buyer.settle(third, (await again.pay(third, "third")).token)).state == "paid"  # counters go on where they were

    play(body)


def test_a_restore_finds_letters_that_wait_for_the_wallets_address(play: Play) -> None:
    async def body(shop: Shop) -> None:
        secret = bytes(range(1, 33))
        lost, seller, buyer = await shop.open("lost", secret), await shop.open("seller"), await shop.open("buyer")
        refunds = [await lost.invoice(f"refund-{n}", Amount(100, "sat"), shop.world.now_ms() + HOUR) for n in range(4)]
        await deposit(buyer, 600)
        await deposit(seller, 30)
        invoice = await shop.invoice(seller, price=500)
        status = await seller.settle(invoice, (await buyer.pay(invoice, "key")).token)
        await seller.refund(status.payments[0], invoice, refunds[3].address, Amount(200, "sat"), "r")
        found = await shop.open("found", secret)
        await found.restore()
        while await found.collect():
            pass
        assert await held(found) == 200

    play(body)


def test_a_wallet_file_out_of_a_backup_asks_its_mints_before_it_uses_a_counter_again(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, 3 * PRICE)
        await buyer.close()
        shutil.copytree(shop.home / "buyer", shop.home / "copy")
        buyer = await shop.open("buyer")
        invoice = await shop.invoice(seller)
        await seller.settle(invoice, (await buyer.pay(invoice, "key")).token)
        left = await held(buyer)
        await buyer.close()
        copy = await shop.open("copy")
        await copy.address()
        assert copy.store.read(lambda rows: rows.restore_due())
        await copy.restore()  # as the wallet does by itself within half a minute
        assert not copy.store.read(lambda rows: rows.restore_due())
        second = await shop.invoice(seller, "second")
        assert (await seller.settle(second, (await copy.pay(second, "second")).token)).state == "paid"
        assert left - PRICE - 10 < await held(copy) < left - PRICE

    play(body)


def test_lightning_through_the_mint_pays_an_invoice_once(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller = await shop.open("seller", lightning=True)
        invoice = await shop.invoice(seller)
        assert str(invoice.details["bolt11"]).startswith("lnbc")

        async def paid() -> bool:
            return (await seller.settle(invoice, None)).state == "paid"

        await until(paid)
        status = await seller.settle(invoice, None)
        assert (status.surplus, total(status), len(status.payments)) == (0, PRICE, 1)
        await seller.close()
        again = await shop.open("seller", lightning=True)
        assert await again.settle(invoice, None) == status
        assert await held(again) == PRICE

    play(body)


def test_a_token_beside_a_lightning_payment_is_surplus(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller", lightning=True), await shop.open("buyer")
        await deposit(buyer, PRICE + 50)
        invoice = await shop.invoice(seller)
        token = (await buyer.pay(invoice, "key")).token

        async def both() -> bool:
            return len((await seller.settle(invoice, token)).payments) == 2

        await until(both)
        assert (await seller.settle(invoice, None)).surplus == PRICE

    play(body)


def test_a_wallet_of_one_network_opens_on_no_other_and_with_no_other_secret(tmp_path: Path, mint: Mint) -> None:
    async def body() -> None:
        wallet = make_wallet(tmp_path / "a", [mint.url])
        await wallet.open()
        await wallet.address()
        await wallet.close()
        other = make_wallet(tmp_path / "b", [mint.url])
        (tmp_path / "b" / "wallet.db").write_bytes((tmp_path / "a" / "wallet.db").read_bytes())
        await other.open()
        with pytest.raises(SecretError, match="another secret"):
            await other.address()
        await other.close()
        strange = make_wallet(tmp_path / "a", [mint.url])
        strange._network = "test"
        with pytest.raises(NetworkMismatchError):
            await strange.open()

    asyncio.run(body())


def test_a_key_pays_one_invoice_for_one_amount(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, 3 * PRICE)
        invoice = await shop.invoice(seller)
        await buyer.pay(invoice, "key")
        with pytest.raises(StateError, match="use a new key"):
            await buyer.pay(replace(invoice, amount=Amount(PRICE + 1, "sat")), "key")

    play(body)


def test_a_token_that_no_market_would_carry_is_not_made(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer", max_token_bytes=2048)
        await deposit(buyer, 3 * PRICE)
        with pytest.raises(RefusedError, match="too large to be submitted"):
            await buyer.pay(await shop.invoice(seller), "key")
        assert (await buyer.pay(await shop.invoice(seller, "other", price=3), "key")).state == "final"

    play(body)


def test_what_an_invoice_may_not_ask_of_a_buyer(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller", lightning=True), await shop.open("buyer")
        invoice = await shop.invoice(seller)
        bolt11 = str(invoice.details["bolt11"])
        locktime = str(invoice.details["locktime"])
        other = await shop.invoice(seller, "other", price=PRICE * 2)
        for details in (
            {},
            {"locktime": 5},
            {"locktime": "1e9"},
            {"locktime": "5"},
            {"locktime": str(int(locktime) + 90 * 86400)},
            {"locktime": locktime, "bolt11": 7},
            {"locktime": locktime, "bolt11": bolt11[:-1]},
            {"locktime": locktime, "bolt11": other.details["bolt11"]},
        ):
            with pytest.raises(UntrustedError):
                buyer.check(replace(invoice, details=details))
        with pytest.raises(UntrustedError, match="named by the key"):
            buyer.check(replace(invoice, invoice_id=other.invoice_id))
        buyer.check(invoice)

    play(body)
