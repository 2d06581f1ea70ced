"""chain: what a node refuses, invents or takes back never makes us sign a second payment or get stuck."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.nano_bench import NanoBench, make_wallet
from tests.test_wallet_nano import BACK, GENESIS, SEED, CrashingWorld, blocks_of
from tradeskill.errors import RefusedError, StateError, UnavailableError
from tradeskill.money import MAX_RAW
from tradeskill_wallet import chain as module
from tradeskill_wallet.devnet.node import DevNode
from tradeskill_wallet.nano import NanoWallet
from tradeskill_wallet.primitives import ZERO, StateBlock, decode_address, derive_key, encode_address, public_key
from tradeskill_wallet.rpc import RpcError
from tradeskill_wallet.work import compute

TO = decode_address(BACK)


def run(tmp_path: Path, body: Callable[[NanoBench, NanoWallet], Coroutine[Any, Any, None]], epoch: int = 2) -> None:
    """One opened wallet with a known seed on a ledger that confirms when told."""

    async def whole() -> None:
        bench = NanoBench(tmp_path, CrashingWorld())
        bench.node = DevNode(confirmation_delay_ms=None, epoch=epoch)
        await bench.start()
        wallet = make_wallet(bench.home / "one", bench.world, bench.node, SEED)
        bench._opened.append(wallet)
        try:
            await wallet.open()
            await asyncio.wait_for(body(bench, wallet), 30)
        finally:
            await bench.stop()

    asyncio.run(whole())


def interpose(wallet: NanoWallet, change: Callable[[str, dict[str, Any], Any], Any]) -> None:
    """Every answer (or RpcError) of the wallet's node passes through `change(action, params, answer)`."""
    call = wallet._nodes.call

    async def between(action: str, **params: Any) -> Any:
        try:
            answer = await call(action, **params)
        except RpcError as error:
            answer = error
        answer = change(action, params, answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    wallet._nodes.call = between  # type: ignore[method-assign]  # the one call that goes wrong


def refusal(text: str, times: int = 1) -> Callable[[str, dict[str, Any], Any], Any]:
    """The block arrives, but the answer is a refusal: as when an earlier try had arrived already."""
    left = [times]

    def change(action: str, params: dict[str, Any], answer: Any) -> Any:
        if action == "process" and left[0]:
            left[0] -= 1
            return RpcError(action, text, "http://node")
        return answer

    return change


SAYINGS = ["Old block", "Fork", "Invalid block balance for given subtype", "Gap previous block", "Unreceivable", "Block work is insufficient", "Who knows"]


@pytest.mark.parametrize("text", SAYINGS)
def test_whatever_a_refusal_says_a_block_that_the_ledger_has_is_published(tmp_path: Path, text: str) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        await bench.fund(wallet, 100)
        interpose(wallet, refusal(text))
        mains = wallet._store.rows.mains()
        row = await wallet._chain.send("send", "send:1", mains, TO, 10)
        assert row.state == "published"
        assert len(blocks_of(bench, await wallet.address())) == 2

    run(tmp_path, body)


def test_an_answer_with_another_hash_is_a_doubt_and_is_looked_up(tmp_path: Path) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        await bench.fund(wallet, 100)
        interpose(wallet, lambda action, _, answer: {"hash": "AB" * 32} if action == "process" else answer)
        row = await wallet._chain.send("send", "send:1", wallet._store.rows.mains(), TO, 10)
        assert row.state == "published"

    run(tmp_path, body)


@pytest.mark.parametrize(("wrong", "kind"), [(99, "Balance and amount delta do not match"), (0, "Unreceivable")])
def test_a_receive_the_ledger_will_never_take_is_given_up_and_blocks_nothing(tmp_path: Path, wrong: int, kind: str) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        main = wallet._store.rows.mains()[0]
        source = await bench.node.fund(await wallet.address() if wrong else BACK, 100)
        row = await wallet._chain.receive(main, source, wrong or 100)
        assert row.state == "dead", kind
        await bench.fund(wallet, 50)
        assert (await wallet.balance()).available.value == (150 if wrong else 50)

    run(tmp_path, body)


def test_a_receive_given_up_too_early_that_is_on_the_ledger_after_all_lives_again(tmp_path: Path) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        main = wallet._store.rows.mains()[0]
        source = await bench.node.fund(await wallet.address(), 100)
        hidden = [True]

        def change(action: str, params: dict[str, Any], answer: Any) -> Any:
            if hidden[0] and action == "process":
                return RpcError(action, "Unreceivable", "http://node")
            if hidden[0] and action in ("block_info", "account_info"):
                return RpcError(action, "Block not found" if action == "block_info" else "Account not found", "http://node")
            return answer

        interpose(wallet, change)
        assert (await wallet._chain.receive(main, source, 100)).state == "dead"
        hidden[0] = False
        assert await wallet._chain.sync(main.account)
        head = wallet._store.rows.head(main.account)
        assert head is not None
        assert (head.state, head.block.balance) == ("published", 100)

    run(tmp_path, body)


def test_too_weak_work_is_replaced_by_stronger_and_the_hash_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cheap", lambda _: False)  # as on a real network: receives get receive-grade work

    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        for _ in range(6):  # receive grade is good enough for epoch 0 once in 32
            source = await bench.node.fund(await wallet.address(), 10)
            row = await wallet._chain.receive(wallet._store.rows.mains()[0], source, 10)
            assert row.state == "published"
            assert row.block.hash in bench.node.ledger.entries
        assert (await wallet.balance()).available.value == 60

    run(tmp_path, body, epoch=0)


def test_work_computed_ahead_is_used_for_the_next_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cheap", lambda _: False)

    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        await bench.fund(wallet, 100)
        main = wallet._store.rows.mains()[0]
        await wallet._chain.prepare(main.account)
        head = wallet._store.rows.head(main.account)
        assert head is not None
        ahead = wallet._store.rows.work(head.block.hash)
        assert ahead is not None
        wallet._work.quick = lambda root, threshold: None  # type: ignore[method-assign]  # the one call that goes wrong
        row = await wallet._chain.send("send", "send:1", [main], TO, 10)
        assert row.block.work == ahead
        assert wallet._store.rows.work(head.block.hash) is None

    run(tmp_path, body)


def test_an_epoch_block_on_an_unopened_account_is_received_upon(tmp_path: Path) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        main = wallet._store.rows.mains()[0]
        await bench.node.fund(await wallet.address(), 100)
        signer, mark = public_key(GENESIS), b"epoch v1 block".ljust(32, b"\0")
        for link in (mark, b"epoch v2 block".ljust(32, b"\0")):
            state = bench.node.ledger.accounts.get(main.account)
            previous = state.head if state else ZERO
            epoch = StateBlock(main.account, previous, state.representative if state else ZERO, 0, link)
            signed = epoch.signed(GENESIS, os.urandom).with_work(compute(epoch.root, 0xFFC0000000000000, 0))
            bench.node.chain.submit(signed)
        bench.node.confirm()
        assert bench.node.ledger.accounts[main.account].head != ZERO, signer
        await wallet.collect()
        assert (await wallet.balance()).available.value == 100

    run(tmp_path, body)


def forged(change: Callable[[dict[str, Any]], None], only: str = "blocks_info") -> Callable[[str, dict[str, Any], Any], Any]:
    def lie(action: str, params: dict[str, Any], answer: Any) -> Any:
        if action == only and isinstance(answer, dict):
            answer = copy.deepcopy(answer)
            change(answer)
        return answer

    return lie


def spoil_blocks(answer: dict[str, Any]) -> None:
    for info in answer["blocks"].values():
        info["contents"]["balance"] = str(MAX_RAW)


def drop_blocks(answer: dict[str, Any]) -> None:
    answer["blocks"] = ""


@pytest.mark.parametrize("change", [spoil_blocks, drop_blocks], ids=["balance", "withheld"])
def test_a_chain_that_cannot_be_verified_is_not_built_on(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        await bench.fund(wallet, 100)
        bench.node.confirm()
        await wallet.close()
        (bench.home / "one" / "wallet.db").unlink()
        again = await bench.open("one")
        interpose(again, forged(change))
        with pytest.raises(UnavailableError, match="not building on"):
            await again._chain.send("send", "send:1", again._store.rows.mains(), TO, 10)
        assert again._store.rows.by_purpose("send:1") is None

    run(tmp_path, body)


def test_a_block_on_our_account_that_we_never_signed_is_not_built_on(tmp_path: Path) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        await bench.fund(wallet, 100)
        bench.node.confirm()
        main = wallet._store.rows.mains()[0]
        head = wallet._store.rows.head(main.account)
        assert head is not None
        fake = StateBlock(main.account, head.block.hash, ZERO, 10**9, bytes(32)).signed(derive_key(SEED, 5), os.urandom).with_work("0" * 16)
        info = {"contents": fake.to_json(), "confirmed": "true", "subtype": "receive"}

        def lie(action: str, params: dict[str, Any], answer: Any) -> Any:
            match action:
                case "account_info":
                    return {**answer, "frontier": fake.hash_hex}
                case "chain":
                    return {"blocks": [fake.hash_hex]}
                case "blocks_info":
                    return {"blocks": {fake.hash_hex: info}}
                case _:
                    return answer

        interpose(wallet, lie)
        with pytest.raises(UnavailableError, match="did not sign"):
            await wallet._chain.sync(main.account)
        known = wallet._store.rows.head(main.account)
        assert known == head

    run(tmp_path, body)


def test_a_longer_chain_of_ours_is_adopted_block_by_block(tmp_path: Path) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        main = wallet._store.rows.mains()[0]
        await bench.fund(wallet, 100)
        for number in range(4):
            await wallet._chain.send("send", f"send:{number}", [main], TO, 10)
        bench.node.confirm()
        await wallet.close()
        (bench.home / "one" / "wallet.db").unlink()
        again = await bench.open("one")
        assert await again._chain.sync(main.account, whole=True)
        assert not await again._chain.sync(main.account, whole=True)
        chain = [again._store.rows.block(b.hash_hex) for b in blocks_of(bench, encode_address(main.account))]
        assert [(row.subtype, row.amount, row.state, row.height) for row in chain if row] == [
            ("receive", 100, "confirmed", 1),
            *[("send", 10, "confirmed", height) for height in range(2, 6)],
        ]

    run(tmp_path, body)


def test_nothing_is_sent_to_the_burn_account_or_to_the_sender(tmp_path: Path) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        await bench.fund(wallet, 100)
        mains = wallet._store.rows.mains()
        for target in (ZERO, mains[0].account):
            with pytest.raises(RefusedError):
                await wallet._chain.send("send", "send:1", mains, target, 10)
        assert wallet._store.rows.by_purpose("send:1") is None

    run(tmp_path, body)


def test_of_two_tasks_with_one_purpose_and_two_targets_one_wins_and_one_is_told(tmp_path: Path) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        await bench.fund(wallet, 100)
        mains = wallet._store.rows.mains()
        other = public_key(derive_key(bytes(32), 77))
        sends = (wallet._chain.send("send", "send:1", mains, target, 10) for target in (TO, other))
        results = await asyncio.gather(*sends, return_exceptions=True)
        assert sorted(type(r).__name__ for r in results) == ["BlockRow", "StateError"]
        assert any(isinstance(r, StateError) for r in results)
        assert len(blocks_of(bench, await wallet.address())) == 2

    run(tmp_path, body)


def test_more_than_all_the_money_is_not_received(tmp_path: Path) -> None:
    async def body(bench: NanoBench, wallet: NanoWallet) -> None:
        await bench.fund(wallet, 100)
        with pytest.raises(RefusedError, match="2\\^128"):
            await wallet._chain.receive(wallet._store.rows.mains()[0], "AB" * 32, MAX_RAW)

    run(tmp_path, body)
