"""What `doctor` says of mints: which is there and what it lacks, all asked side by side, in bounded time, without the password."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cashu_bench import deposit, make_wallet
from tests.cashu_stage import PRICE, Shop, play_at
from tests.mint import Mint
from tests.test_cashu_wallet_hostile import changed, lying
from tradeskill.contracts import Examinable
from tradeskill.errors import UnavailableError
from tradeskill.faces.checkup import _in_time

NOBODY = "http://127.0.0.1:1"


def nuts(**changes: Any) -> Callable[[Any], Any]:
    return lambda answer: {**answer, "nuts": {**answer["nuts"], **changes}}


def keysets(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda answer: {"keysets": [change(row) for row in answer["keysets"]]}


def test_a_mint_that_is_in_order_is_described_without_the_password(mint: Mint, tmp_path: Path) -> None:
    def refuse() -> str:
        raise AssertionError("nobody is to be asked for the password")

    async def main() -> None:
        wallet = make_wallet(tmp_path / "wallet", [mint.url], lightning=True)
        object.__setattr__(wallet._context, "password", refuse)
        assert isinstance(wallet, Examinable)
        await wallet.open()
        try:
            said = await wallet.examine()
        finally:
            await wallet.close()
        assert said.startswith(f"{mint.url} is ")
        for words in ("Nutshell/", "a fee of 0.1 sat for each proof spent", "keyset 01"):
            assert words in said
        assert "no Lightning" not in said

    asyncio.run(main())


LACKS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "no locks": ("/v1/info", nuts(**{"11": {"supported": False}}), "lacks NUT-11 (locks to keys); name another in `mints`"),
    "no restoring and no states": ("/v1/info", nuts(**{"7": {"supported": False}, "9": {"supported": False}}), "lacks NUT-07 (states of proofs), NUT-09"),
    "no keyset in sat": ("/v1/keysets", keysets(lambda row: {**row, "active": False}), "has no active keyset in sat"),
    "no JSON": ("/v1/info", lambda answer: [], "answer to info cannot be taken"),
}


def test_a_mint_that_cannot_be_used_is_named_with_what_it_lacks(mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        async with lying(mint.url) as liar:
            wallet = await shop.open("wallet", mints=[liar.url, mint.url], lightning=True)
            for path, change, words in LACKS.values():
                liar.lie = changed(path, change)
                with pytest.raises(UnavailableError) as refused:
                    await wallet.examine()
                assert words in str(refused.value)
                assert f"{mint.url} is " in str(refused.value)  # the other one is described all the same
            liar.lie = changed("/v1/info", nuts(**{"4": {"disabled": True, "methods": []}, "5": {"disabled": True, "methods": []}}))
            said = await wallet.examine()
            for words in ("no Lightning in (NUT-04)", "no Lightning out (NUT-05)", "although `lightning` is true"):
                assert words in said

    play_at([mint.url], tmp_path, body)


def test_mints_are_asked_side_by_side_and_one_that_is_silent_is_not_waited_for_long(mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        with ExitStack() as stack:
            silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]  # nobody takes what comes
            urls = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in silent]
            wallet = await shop.open("wallet", mints=[*urls, NOBODY, mint.url], timeout_seconds=1)
            began = time.monotonic()
            with pytest.raises(UnavailableError) as refused:
                await wallet.examine()
            assert time.monotonic() - began < 3.5
            parts = str(refused.value).split("; ")
            assert [url for url in (*urls, NOBODY, mint.url) if not any(url in part for part in parts)] == []
            assert str(refused.value).count("within 1 s") == len(silent)

    play_at([mint.url], tmp_path, body)


def test_money_at_risk_and_requests_without_an_answer_are_told(mint: Mint, tmp_path: Path) -> None:
    async def body(shop: Shop) -> None:
        async with lying(mint.url) as liar:
            wallet, seller = await shop.open("wallet", mints=[liar.url]), await shop.open("seller", mints=[liar.url])
            await deposit(wallet, PRICE)
            liar.lie = changed("/v1/keysets", lambda answer: {"keysets": []})
            with pytest.raises(UnavailableError, match=f"no active keyset in sat.*{PRICE} sat lie in keysets that it does not list any more"):
                await wallet.examine()
            liar.lie = lambda path, status, answer: None if path == "/v1/swap" else (status, answer)
            assert "any more" not in await wallet.examine()
            assert (await wallet.pay(await shop.invoice(seller, price=100), "key")).state == "unknown"
            assert "1 requests without an answer: see `tradeskill cashu doubts`" in await wallet.examine()

    play_at([mint.url], tmp_path, body)


class Stranger:
    """A wallet of somebody else's whose `examine` does not keep to the contract."""

    async def examine(self) -> str:
        raise ValueError("boom")


def test_what_a_strangers_wallet_raises_is_a_finding_and_not_the_doctors_end() -> None:
    with pytest.raises(UnavailableError, match="ValueError: boom"):
        asyncio.run(_in_time(Stranger()))
