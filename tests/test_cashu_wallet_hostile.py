"""What strangers hand over as payment, and what mints answer: each is refused or left unknown by name, no sat is lost and none counted that is not ours.

Past 400 lines because it is one catalogue of lies, told by one liar.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cashu_bench import deposit
from tests.cashu_stage import PRICE, Play, Shop, held, play_at, total
from tests.mint import Mint
from tradeskill.errors import RefusedError, UnavailableError
from tradeskill.model import Invoice
from tradeskill.money import Amount
from tradeskill_plugins.cashu.nuts import curve, requests, tokens
from tradeskill_plugins.cashu.nuts.model import Keyset, Token
from tradeskill_plugins.cashu.nuts.secrets import Lock
from tradeskill_plugins.cashu.purse import Given, Wish
from tradeskill_plugins.cashu.store import Rows
from tradeskill_plugins.cashu.wallet import CashuWallet

OTHER = curve.public_key(b"\x07" * 32)


@pytest.fixture
def play(tmp_path: Path, mint: Mint) -> Play:
    return lambda body: play_at([mint.url], tmp_path, body)


async def locked(wallet: CashuWallet, amount: int, lock: Lock | None) -> Token:
    """Real money under any lock."""
    keys = await wallet.keys()

    def make(rows: Rows, keyset: Keyset, amounts: Sequence[int]) -> Given:
        first = rows.take_counters(keyset.id, len(amounts))
        if lock is None:
            return Given(requests.outputs(keys.nut13_seed, keyset, amounts, first))
        return Given(requests.locked_outputs(keys.nut13_seed, keyset, amounts, first, lock))

    wish = Wish("pay", f"pay:{wallet._world.random_bytes(8).hex()}", "anybody", amount)
    await wallet.purse.give(wish, wallet._settings.mints[0], make)
    token = tokens.decode((await wallet.purse.finish(wish)).token)
    return tokens.resolve(token, (await wallet.mints.keysets(token.mint)).values())


def good(invoice: Invoice) -> Lock:
    return Lock(invoice.invoice_id, locktime=int(str(invoice.details["locktime"])), refund=(OTHER,))


LOCKS: dict[str, tuple[Callable[[Invoice], Lock | None], str]] = {
    "no lock": (lambda invoice: None, "not locked"),
    "another key": (lambda invoice: replace(good(invoice), key=OTHER, refund=(invoice.invoice_id,)), "is locked to"),
    "a lock that ends too soon": (lambda invoice: replace(good(invoice), locktime=int(str(invoice.details["locktime"])) - 1), "lock ends at"),
    "a lock that ends for anyone": (lambda invoice: replace(good(invoice), refund=()), "anyone's"),
    "two refund keys": (lambda invoice: replace(good(invoice), refund=(OTHER, curve.public_key(b"\x08" * 32))), "no single refund key"),
    "a second key": (lambda invoice: replace(good(invoice), pubkeys=(OTHER,), refund=(curve.public_key(b"\x08" * 32),)), "more than was asked for"),
    "all inputs signed together": (lambda invoice: replace(good(invoice), sigflag="SIG_ALL"), "SIG_ALL"),
    "an unknown tag": (lambda invoice: replace(good(invoice), others=(("later", "1"),)), "unknown tags"),
    "the seller's own key for the way back": (lambda invoice: replace(good(invoice), refund=(invoice.invoice_id,)), "seller's own key"),
}


def test_a_token_under_another_lock_than_was_asked_for_is_not_taken(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, 4 * PRICE)
        for case, (lock, words) in LOCKS.items():
            invoice = await shop.invoice(seller, case)
            token = await locked(buyer, 100, lock(invoice))
            status = await seller.settle(invoice, tokens.encode(token))
            assert (status.state, status.payments) == ("none", ()), case
            assert words in status.detail, case
        assert await held(seller) == 0

    play(body)


def test_a_lock_without_an_end_is_taken_since_only_the_seller_can_ever_open_it(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, PRICE + 50)
        invoice = await shop.invoice(seller)
        token = await locked(buyer, PRICE, Lock(invoice.invoice_id))
        assert (await seller.settle(invoice, tokens.encode(token))).state == "paid"

    play(body)


def altered(token: Token, **changes: Any) -> str:
    first, *rest = token.proofs
    return tokens.encode(replace(token, proofs=(replace(first, **changes), *rest)))


FORGERIES: dict[str, tuple[Callable[[Token], str], str]] = {
    "another mint": (lambda token: tokens.encode(replace(token, mint="https://mint.example")), "not accepted here"),
    "another unit": (lambda token: tokens.encode(replace(token, unit="usd")), "in usd"),
    "another keyset": (lambda token: altered(token, keyset_id="00" + "ab" * 7), "is not one of this mint"),
    "a larger amount": (lambda token: altered(token, amount=token.proofs[0].amount * 2), "DLEQ"),
    "an amount that no key signs": (lambda token: altered(token, amount=3), "no key for 3"),
    "no DLEQ proof": (lambda token: altered(token, dleq=None), "without its DLEQ"),
    "a proof twice": (lambda token: tokens.encode(replace(token, proofs=(*token.proofs, token.proofs[0]))), "twice"),
    "another signature": (lambda token: altered(token, signature=OTHER), "DLEQ"),
    "half of it": (lambda token: tokens.encode(token)[:200], "no token"),
    "ten megabytes": (lambda token: "cashuB" + "A" * 10_000_000, "at most are taken"),
    "a bomb of lists": (lambda token: "cashuB" + base64.urlsafe_b64encode(b"\x81" * 9000).decode(), "no token"),
    "V3 with a null": (lambda token: "cashuA" + base64.urlsafe_b64encode(b'{"token":null}').decode(), "no token"),
}


def test_a_forged_or_damaged_token_is_named_and_not_taken_and_the_true_one_still_is(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, PRICE + 50)
        invoice = await shop.invoice(seller)
        token = await locked(buyer, PRICE, good(invoice))
        for case, (forge, words) in FORGERIES.items():
            status = await seller.settle(invoice, forge(token))
            assert (status.state, status.payments) == ("none", ()), case
            assert words in status.detail, case
            assert token.proofs[0].secret not in status.detail, case
        assert total(await seller.settle(invoice, tokens.encode(token))) == PRICE

    play(body)


def test_a_token_in_the_old_form_is_taken_too(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, PRICE + 50)
        invoice = await shop.invoice(seller)
        token = await locked(buyer, PRICE, good(invoice))
        assert (await seller.settle(invoice, tokens.encode(token, version=3))).state == "paid"

    play(body)


def test_one_token_for_two_jobs_pays_one_also_in_pieces_and_at_once(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, PRICE + 50)
        one, other = await shop.invoice(seller, "one"), await shop.invoice(seller, "other")
        token = await locked(buyer, PRICE, good(one))
        text, part = tokens.encode(token), tokens.encode(replace(token, proofs=token.proofs[:2]))
        statuses = await asyncio.gather(*(seller.settle(invoice, each) for invoice in (one, other) for each in (part, text, text)))
        assert not any(status.payments for status in statuses[3:])
        last = await seller.settle(one, text)
        assert PRICE - 1 <= total(last) == await held(seller) <= PRICE  # in pieces the mint's fee is rounded up once more

    play(body)


def test_a_token_spent_elsewhere_pays_nothing_and_is_not_asked_about_again(play: Play) -> None:
    async def body(shop: Shop) -> None:
        secret = bytes(range(2, 34))
        seller, twin, buyer = await shop.open("seller", secret), await shop.open("twin", secret), await shop.open("buyer")
        await deposit(buyer, PRICE + 50)
        mine, same = await shop.invoice(seller), await shop.invoice(twin)
        assert mine.invoice_id == same.invoice_id
        token = (await buyer.pay(mine, "key")).token
        assert (await twin.settle(same, token)).state == "paid"
        twin.store.read(lambda rows: rows.counter(""))
        await seller.restore()  # so that its counters are beyond the twin's
        status = await seller.settle(mine, token)
        assert status.payments == ()
        assert (await seller.settle(mine, token)).state == "none"
        assert (await seller.balance()).incoming.value == 0

    play(body)


def test_dust_that_is_not_worth_its_fee_is_refused_and_stays_the_buyers(play: Play) -> None:
    async def body(shop: Shop) -> None:
        seller, buyer = await shop.open("seller"), await shop.open("buyer")
        await deposit(buyer, 50)
        invoice = await shop.invoice(seller)
        token = await locked(buyer, 2, good(invoice))
        dust = tokens.encode(replace(token, proofs=token.proofs[:1]))
        status = await seller.settle(invoice, dust)
        assert (status.state, status.payments) == ("none", ())
        assert "not worth its fee" in status.detail

    play(body)


# --- a mint that misbehaves: the real one, with some of its answers changed


Change = Callable[[str, int, bytes], tuple[int, bytes] | None]


def honest(path: str, status: int, answer: bytes) -> tuple[int, bytes]:
    return status, answer


class Liar:
    """Passes everything to the real mint and its answers back, changed by `lie(path, status, answer)`; None: no answer at all."""

    def __init__(self, mint: str) -> None:
        self.mint, self.url = mint, ""
        self.lie: Change = honest
        self.refuses = ""  # a path that the real mint never hears of
        self.refusal = b'{"detail":"not today","code":10000}'

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with httpx.AsyncClient(timeout=30) as client:
                while (line := await reader.readline()).strip():
                    method, path, _ = line.decode().split()
                    length = 0
                    while (header := (await reader.readline()).strip()):
                        if header.lower().startswith(b"content-length:"):
                            length = int(header.split(b":")[1])
                    body = await reader.readexactly(length)
                    if path == self.refuses:
                        told: tuple[int, bytes] | None = (400, self.refusal)
                    else:
                        real = await client.request(method, self.mint + path, content=body, headers={"Content-Type": "application/json"})
                        told = self.lie(path, real.status_code, real.content)
                    if told is None:
                        break
                    writer.write(f"HTTP/1.1 {told[0]} X\r\nContent-Type: application/json\r\nContent-Length: {len(told[1])}\r\n\r\n".encode() + told[1])
                    await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def lying(mint: str) -> AsyncIterator[Liar]:
    liar = Liar(mint)
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0)
    liar.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield liar
    finally:
        server.close()


def changed(path_start: str, change: Callable[[Any], Any]) -> Change:
    def lie(path: str, status: int, answer: bytes) -> tuple[int, bytes]:
        if not path.startswith(path_start) or status != 200:
            return status, answer
        return status, json.dumps(change(json.loads(answer))).encode()

    return lie


def less(answer: Any) -> Any:
    return {**answer, "signatures": answer["signatures"][:-1]}


def reversed_order(answer: Any) -> Any:
    return {**answer, "signatures": answer["signatures"][::-1]}


def smaller(answer: Any) -> Any:
    return {**answer, "signatures": [{**each, "amount": 1} for each in answer["signatures"]]}


def unproved(answer: Any) -> Any:
    return {**answer, "signatures": [{**each, "dleq": None} for each in answer["signatures"]]}


def other_points(answer: Any) -> Any:
    return {**answer, "signatures": [{**each, "C_": OTHER} for each in answer["signatures"]]}


LIES: dict[str, Change] = {
    "too few signatures": changed("/v1/swap", less),
    "signatures in another order": changed("/v1/swap", reversed_order),
    "smaller amounts": changed("/v1/swap", smaller),
    "no proof of its signatures": changed("/v1/swap", unproved),
    "signatures that are none": changed("/v1/swap", other_points),
    "an empty answer": lambda path, status, answer: (status, b"") if path == "/v1/swap" else (status, answer),
    "an error of a proxy": lambda path, status, answer: (502, b"<html>") if path == "/v1/swap" else (status, answer),
    "an error without a code": lambda path, status, answer: (400, b'{"detail":"oops","code":0}') if path == "/v1/swap" else (status, answer),
    "no answer": lambda path, status, answer: None if path == "/v1/swap" else (status, answer),
    "that it was spent": lambda path, status, answer: (400, b'{"detail":"spent","code":11001}') if path == "/v1/swap" else (status, answer),
    "that it is pending": lambda path, status, answer: (400, b'{"detail":"pending","code":11002}') if path == "/v1/swap" else (status, answer),
}


def test_after_whatever_a_mint_answers_to_a_swap_the_money_is_in_sight_and_comes(mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        async with lying(mint.url) as liar:
            seller, buyer = await shop.open("seller", mints=[liar.url]), await shop.open("buyer", mints=[liar.url])
            await deposit(buyer, len(LIES) * (PRICE + 10))
            for number, (case, lie) in enumerate(LIES.items()):
                invoice = await shop.invoice(seller, case)
                token = (await buyer.pay(invoice, case)).token
                liar.lie = lie
                status = await seller.settle(invoice, token)
                assert status.state in ("unknown", "paid"), case  # paid where the mint's own restore shows that it was carried out
                if status.state == "unknown":
                    assert (await seller.balance()).incoming.value == PRICE, case
                    assert await held(seller) == number * PRICE, case
                liar.lie = honest
                status = await seller.settle(invoice, None)
                assert (status.state, total(status), status.surplus) == ("paid", PRICE, 0), case
                assert await held(seller) == (number + 1) * PRICE, case

    play_at([mint.url], tmp_path, body)


def test_after_whatever_a_mint_answers_to_a_payment_it_is_made_once(mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        async with lying(mint.url) as liar:
            seller, buyer = await shop.open("seller", mints=[liar.url]), await shop.open("buyer", mints=[liar.url])
            await deposit(buyer, len(LIES) * PRICE + 500)
            for number, (case, lie) in enumerate(LIES.items()):
                invoice = await shop.invoice(seller, case)
                liar.lie = lie
                first = await buyer.pay(invoice, case)
                assert first.state in ("unknown", "final"), case
                liar.lie = honest
                second = await buyer.pay(invoice, case)
                assert (second.state, second.payment_id) == ("final", first.payment_id), case
                status = await seller.settle(invoice, second.token)
                assert (status.state, total(status), status.surplus) == ("paid", PRICE, 0), case
                spent = len(LIES) * PRICE + 500 - await held(buyer)
                assert 0 < spent - (number + 1) * PRICE < (number + 1) * 10, case

    play_at([mint.url], tmp_path, body)


def test_a_refusal_that_is_true_frees_the_money_and_says_that_nothing_was_paid(mint: Mint, tmp_path: Path) -> None:
    """The mint really did not do it: its refusal, its restore and its states agree."""

    async def body(shop: Shop) -> None:
        async with lying(mint.url) as liar:
            buyer, seller = await shop.open("buyer", mints=[liar.url]), await shop.open("seller", mints=[liar.url])
            await deposit(buyer, 3 * PRICE)
            invoice = await shop.invoice(seller)
            before = await held(buyer)
            liar.refuses = "/v1/swap"
            with pytest.raises(RefusedError):
                await buyer.pay(invoice, "key")
            assert await buyer.paid("key") is None
            assert await held(buyer) == before
            liar.refuses = ""
            assert (await buyer.pay(invoice, "key")).state == "final"

    play_at([mint.url], tmp_path, body)


def test_a_keyset_that_the_mint_drops_leaves_its_money_in_sight_and_unspent(mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        async with lying(mint.url) as liar:
            wallet, seller = await shop.open("wallet", mints=[liar.url]), await shop.open("seller", mints=[liar.url])
            await deposit(wallet, PRICE * 2)
            invoice = await shop.invoice(seller)
            liar.lie = changed("/v1/keysets", lambda answer: {"keysets": []})
            await wallet.mints.refresh(liar.url)
            assert (await wallet.balance()).available.value == 0
            assert wallet.store.read(lambda rows: rows.dropped(liar.url)) == PRICE * 2
            with pytest.raises(UnavailableError, match="no active keyset"):
                await wallet.pay(invoice, "key")
            liar.lie = honest
            await wallet.mints.refresh(liar.url)
            assert (await wallet.pay(invoice, "key")).state == "final"

    play_at([mint.url], tmp_path, body)


def test_a_mint_without_locks_is_not_used(mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        async with lying(mint.url) as liar:
            liar.lie = changed("/v1/info", lambda answer: {**answer, "nuts": {**answer["nuts"], "11": {"supported": False}}})
            wallet = await shop.open("wallet", mints=[liar.url])
            with pytest.raises(RefusedError, match="NUT-11"):
                await wallet.deposit("key", Amount(100, "sat"))

    play_at([mint.url], tmp_path, body)


PENDING = b'{"detail":"outputs are pending","code":11004}'


def test_a_mint_that_calls_outputs_pending_for_ever_is_asked_with_others(mint: Mint, tmp_path: Path) -> None:
    """As one that was killed between storing and signing them; the quote is still paid, so nothing was issued for it."""

    async def body(shop: Shop) -> None:
        async with lying(mint.url) as liar:
            seller = await shop.open("seller", mints=[liar.url], lightning=True)
            invoice = await shop.invoice(seller)
            liar.refuses, liar.refusal = "/v1/mint/bolt11", PENDING
            for _ in range(7):
                assert (await seller.settle(invoice, None)).state == "unknown"
            liar.refuses = ""
            status = await seller.settle(invoice, None)
            assert (status.state, total(status), len(status.payments)) == ("paid", PRICE, 1)
            assert await held(seller) == PRICE

    play_at([mint.url], tmp_path, body)


def test_outputs_that_were_given_up_and_signed_nevertheless_are_found(mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        async with lying(mint.url) as liar:
            seller = await shop.open("seller", mints=[liar.url], lightning=True)
            invoice = await shop.invoice(seller)

            def lie(path: str, status: int, answer: bytes) -> tuple[int, bytes]:
                """It is carried out at once, and denied for as long as the wallet is patient."""
                if path == "/v1/mint/bolt11":
                    return 400, PENDING
                if path == "/v1/restore":
                    return 200, b'{"outputs":[],"signatures":[]}'
                return status, answer.replace(b'"ISSUED"', b'"PAID"')

            liar.lie = lie
            for _ in range(8):
                assert (await seller.settle(invoice, None)).payments == ()
            liar.lie = honest
            for _ in range(3):
                status = await seller.settle(invoice, None)
            assert (status.state, total(status), len(status.payments)) == ("paid", PRICE, 1)
            assert await held(seller) == PRICE

    play_at([mint.url], tmp_path, body)


def test_the_call_that_a_token_pays_waits_for_its_swap_alone_and_the_next_one_looks_for_more(mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        async with lying(mint.url) as liar:
            seller, buyer = await shop.open("seller", mints=[liar.url]), await shop.open("buyer")
            await deposit(buyer, 2 * PRICE)
            invoice = await shop.invoice(seller)
            asked: list[str] = []

            def note(path: str, status: int, answer: bytes) -> tuple[int, bytes]:
                asked.append(path)
                return status, answer

            liar.lie = note
            token = await locked(buyer, PRICE, good(invoice))
            text = tokens.encode(replace(token, mint=liar.url))
            await seller.mints.active(liar.url)
            asked.clear()
            assert (await seller.settle(invoice, text)).state == "paid"
            assert asked == ["/v1/swap"]
            assert (await seller.settle(invoice, text)).state == "paid"
            assert asked[1:] == ["/v1/restore"]  # is there a letter as well?

    play_at([mint.url], tmp_path, body)
