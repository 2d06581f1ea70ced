"""Keysets that end: money leaves them in time, is spent from them first, and what stayed too long is in sight and not counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.cashu_bench import deposit
from tests.cashu_stage import HOUR, PRICE, Shop, held, play_at, total
from tests.mint import Mint, minting, missing, rotating
from tests.test_cashu_wallet_hostile import honest, lying
from tradeskill.errors import RefusedError
from tradeskill_plugins.cashu.lifetimes import HORIZON_SECONDS, best, ending, expired, outlasts
from tradeskill_plugins.cashu.selection import choose
from tradeskill_plugins.cashu.wallet import CashuWallet

NOW = 1_800_000_000
DAY = 86_400


@dataclass(frozen=True)
class Said:
    id: str
    active: bool = True
    fee_ppk: int = 0
    final_expiry: int | None = None


@dataclass(frozen=True)
class Piece:
    amount: int
    ends: bool
    fee_ppk: int = 100


def test_an_expiry_of_nothing_or_zero_never_comes_and_any_other_comes_with_its_second() -> None:
    assert not expired(None, NOW * 1000)
    assert not expired(0, NOW * 1000)
    assert not expired(NOW + 1, NOW * 1000 + 999)
    assert expired(NOW, NOW * 1000)


def test_money_should_leave_an_inactive_keyset_and_one_that_expires_within_the_horizon() -> None:
    assert not ending(True, None, NOW * 1000)
    assert ending(False, None, NOW * 1000)
    assert ending(True, NOW + HORIZON_SECONDS, NOW * 1000)
    assert not ending(True, NOW + HORIZON_SECONDS + 1, NOW * 1000)


def test_new_money_is_made_in_the_cheapest_keyset_that_lasts_and_never_in_one_that_is_over() -> None:
    cheap, dear, soon, sooner = Said("a", fee_ppk=1), Said("b", fee_ppk=9), Said("c", final_expiry=NOW + DAY), Said("d", final_expiry=NOW + 60)
    over, off = Said("e", final_expiry=NOW - 1), Said("f", active=False)
    assert best([dear, cheap, soon, over, off], NOW * 1000) == cheap
    assert best([dear, soon], NOW * 1000) == dear
    assert best([soon, sooner, over, off], NOW * 1000) == soon
    assert best([over, off], NOW * 1000) is None


def test_money_moves_to_a_keyset_that_lasts_or_at_least_expires_later() -> None:
    off, soon, later = Said("a", active=False), Said("b", active=False, final_expiry=NOW + 60), Said("c", final_expiry=NOW + DAY)
    assert outlasts(Said("d"), off, NOW * 1000)
    assert outlasts(later, soon, NOW * 1000)
    assert not outlasts(later, off, NOW * 1000)
    assert not outlasts(later, later, NOW * 1000)
    assert not outlasts(replace(later, active=False), soon, NOW * 1000)


def test_money_that_ends_is_spent_before_other_money_where_it_is_enough() -> None:
    old, new = [Piece(4, True), Piece(8, True)], [Piece(16, False), Piece(64, False)]
    assert choose([*new, *old], 10) == [*reversed(old)]
    chosen = choose([*new, *old], 50)
    assert chosen is not None
    assert sum(piece.amount for piece in chosen) >= 51


# --- at a real mint that is rotated as its operator would


@pytest.fixture(scope="module")
def turning() -> Iterator[Mint]:
    if lacking := missing():
        pytest.skip(lacking)
    with minting(**rotating()) as mint:
        yield mint


def in_keysets(wallet: CashuWallet, mint: str) -> dict[str, int]:
    """keyset -> what lies in it."""
    coins = wallet.store.read(lambda rows: rows.spendable(mint))
    return {keyset_id: sum(c.amount for c in coins if c.proof.keyset_id == keyset_id) for keyset_id in {c.proof.keyset_id for c in coins}}


def test_money_moves_out_of_a_rotated_keyset_and_out_of_one_that_will_expire(turning: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        wallet, seller = await shop.open("wallet"), await shop.open("seller")
        await deposit(wallet, 2 * PRICE)
        assert await wallet.collect() == 0  # nothing ends: nothing moves, no fee is paid
        turning.rotate(final_expiry=int(time.time()) + 2 * DAY)
        shop.world.ahead = HOUR  # the list is asked for again
        invoice = await shop.invoice(seller)
        assert await wallet.collect() == 0  # the new keyset ends sooner than the old one: stay
        assert (await wallet.pay(invoice, "key")).state == "final"
        assert len(in_keysets(wallet, turning.url)) == 2  # its change
        turning.rotate()
        shop.world.ahead = 2 * HOUR
        before = await held(wallet)
        assert await wallet.collect() == 1
        lasting = await wallet.mints.active(turning.url)
        assert lasting.final_expiry == 0
        assert set(in_keysets(wallet, turning.url)) == {lasting.id}
        assert before - 3 <= await held(wallet) < before
        assert await wallet.collect() == 0

    play_at([turning.url], tmp_path, body)


def test_a_lost_answer_while_money_moves_between_keysets_loses_none_of_it(turning: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        async with lying(turning.url) as liar:
            wallet = await shop.open("wallet", mints=[liar.url])
            await deposit(wallet, PRICE)
            turning.rotate()
            shop.world.ahead = HOUR
            liar.lie = lambda path, status, answer: None if path == "/v1/swap" else (status, answer)
            assert await wallet.collect() == 0
            assert (await held(wallet), (await wallet.balance()).incoming.value) == (0, PRICE - 1)
            await wallet.close()
            liar.lie = honest
            again = await shop.open("wallet", mints=[liar.url])
            assert await again.finish_all() == 1
            assert await held(again) == PRICE - 1
            assert again.by_hand.doubts() == []

    play_at([turning.url], tmp_path, body)


def test_money_of_an_expired_keyset_is_in_sight_not_counted_and_taken_where_the_mint_is_lenient(turning: Mint, tmp_path: Path) -> None:
    turning.rotate(final_expiry=int(time.time()) + DAY)

    async def body(shop: Shop) -> None:
        async with lying(turning.url) as liar:
            wallet, seller = await shop.open("wallet", mints=[liar.url]), await shop.open("seller", mints=[liar.url])
            await deposit(wallet, PRICE * 2)  # there is no better keyset
            turning.rotate()
            shop.world.ahead = DAY * 1000 + HOUR
            assert (await wallet.balance()).available.value == 0
            place = wallet.by_hand.places()[0]
            assert (place["held"], place["in_expired_keysets"]) == (str(PRICE * 2), str(PRICE * 2))
            with pytest.raises(RefusedError, match="holds 0 sat"):
                await wallet.pay(await shop.invoice(seller), "key")
            liar.refuses, liar.refusal = "/v1/swap", b'{"detail":"Keyset has expired","code":12003}'
            assert await wallet.collect() == 0
            assert wallet.by_hand.places()[0]["in_expired_keysets"] == str(PRICE * 2)
            liar.refuses = ""
            assert await wallet.collect() == 0  # not asked again at once
            shop.world.ahead += 2 * HOUR
            assert await wallet.collect() == 1
            assert PRICE * 2 - 2 <= await held(wallet) < PRICE * 2
            invoice = await shop.invoice(seller)
            status = await seller.settle(invoice, (await wallet.pay(invoice, "key")).token)
            assert (status.state, total(status)) == ("paid", PRICE)

    play_at([turning.url], tmp_path, body)
