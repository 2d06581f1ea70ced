"""Confirmation in time, faults on request, the faucet, and HTTP at its edges.

Past 400 lines because it is one catalogue of a node's faults.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tradeskill.errors import StateError, StorageError, UsageError
from tradeskill_wallet.devnet.clock import ManualClock
from tradeskill_wallet.devnet.genesis import GENESIS_ACCOUNT, GENESIS_SECRET
from tradeskill_wallet.devnet.http import MAX_BODY
from tradeskill_wallet.devnet.node import DevNode
from tradeskill_wallet.devnet.work import find_work
from tradeskill_wallet.primitives import StateBlock, derive_key, encode_address, public_key, work_valid

ALICE_SECRET = derive_key(bytes(32), 1)
ALICE = encode_address(public_key(ALICE_SECRET))
BOB = encode_address(public_key(derive_key(bytes(32), 2)))
NANO = 10**30


async def rpc(node: DevNode, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await node.rpc.answer(json.dumps(fields).encode()))
    return answer


async def raw_http(node: DevNode, data: bytes, *, finish: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.rpc_port)
    writer.write(data)
    if finish:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


def genesis_send(node: DevNode, destination: str, raw: int) -> dict[str, str]:
    from tradeskill_wallet.primitives import decode_address

    account = node.ledger.accounts[GENESIS_ACCOUNT]
    block = StateBlock(GENESIS_ACCOUNT, account.head, GENESIS_ACCOUNT, account.balance - raw, decode_address(destination))
    return block.with_work(find_work(block.root, node.ledger.thresholds.epoch_2)).signed(GENESIS_SECRET, os.urandom).to_json()


@asynccontextmanager
async def standing(**options: Any) -> AsyncIterator[tuple[DevNode, ManualClock]]:
    clock = ManualClock()
    async with DevNode(clock=clock, **options) as node:
        yield node, clock


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scene(), 20)

    asyncio.run(bounded())


async def confirmed(node: DevNode, block_hash: str) -> str:
    info = await rpc(node, action="block_info", hash=block_hash)
    return str(info.get("confirmed", info.get("error")))


# --- time


def test_a_block_is_confirmed_when_its_delay_has_passed_and_not_before() -> None:
    async def scene() -> None:
        async with standing() as (node, clock):
            block_hash = await node.fund(ALICE, NANO, confirm=False)
            clock.advance(149)
            assert await confirmed(node, block_hash) == "false"
            clock.advance(1)
            assert await confirmed(node, block_hash) == "true"

    run(scene)


def test_a_chain_of_blocks_is_confirmed_one_delay_after_its_last_not_one_delay_each() -> None:
    async def scene() -> None:
        async with standing() as (node, clock):
            hashes = [await node.fund(ALICE, 1, confirm=False) for _ in range(50)]
            clock.advance(150)
            assert {await confirmed(node, item) for item in hashes} == {"true"}

    run(scene)


def test_on_the_wall_clock_confirmation_comes_by_itself_and_is_true_when_announced() -> None:
    async def scene() -> None:
        async with DevNode(confirmation_delay_ms=5) as node, connect(node.ws_url) as socket:
            await socket.send('{"action": "subscribe", "topic": "confirmation", "ack": true}')
            await socket.recv()
            for _ in range(20):
                block_hash = await node.fund(ALICE, 1, confirm=False)
                message = json.loads(await socket.recv())
                assert message["message"]["hash"] == block_hash
                assert await confirmed(node, block_hash) == "true"

    run(scene)


def test_without_a_delay_nothing_is_confirmed_until_somebody_does() -> None:
    async def scene() -> None:
        async with standing(confirmation_delay_ms=None) as (node, clock):
            first = await node.fund(ALICE, 1, confirm=False)
            second = await node.fund(ALICE, 1, confirm=False)
            clock.advance(10**9)
            assert await confirmed(node, first) == "false"
            node.confirm(second)
            assert await confirmed(node, first) == "true"
            third = await node.fund(ALICE, 1, confirm=False)
            assert (await rpc(node, action="devnet_confirm"))["confirmed"] == str(len(node.ledger.entries))
            assert await confirmed(node, third) == "true"

    run(scene)


# --- faults


def test_an_unconfirmed_block_stays_so_with_all_above_it_until_the_fault_ends() -> None:
    async def scene() -> None:
        async with standing() as (node, clock):
            node.set_faults(unconfirmed=[ALICE])
            held = await node.fund(ALICE, NANO, confirm=False)
            above = await node.fund(BOB, NANO, confirm=False)
            clock.advance(10_000)
            assert [await confirmed(node, item) for item in (held, above)] == ["false", "false"]
            node.set_faults(unconfirmed="none")
            clock.advance(0)
            assert [await confirmed(node, item) for item in (held, above)] == ["true", "true"]

    run(scene)


def test_a_send_rolled_back_before_confirmation_was_seen_and_is_gone() -> None:
    async def scene() -> None:
        async with standing() as (node, clock):
            node.set_faults(rollback="1")
            gone = await node.fund(ALICE, NANO, confirm=False)
            assert await confirmed(node, gone) == "false"
            clock.advance(150)
            assert await confirmed(node, gone) == "Block not found"
            assert (await rpc(node, action="account_balance", account=ALICE, include_only_confirmed="false"))["receivable"] == "0"
            kept = await node.fund(ALICE, NANO, confirm=False)
            clock.advance(150)
            assert await confirmed(node, kept) == "true"

    run(scene)


def test_a_lagging_node_answers_from_before_and_still_takes_blocks() -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            node.set_faults(lagging="true")
            block_hash = await node.fund(ALICE, NANO)
            assert await confirmed(node, block_hash) == "Block not found"
            assert (await rpc(node, action="accounts_balances", accounts=[ALICE]))["balances"][ALICE]["receivable"] == "0"
            node.set_faults(lagging="false")
            assert await confirmed(node, block_hash) == "true"

    run(scene)


def test_a_silent_websocket_acknowledges_and_then_says_nothing() -> None:
    async def scene() -> None:
        async with standing() as (node, _), connect(node.ws_url) as socket:
            node.set_faults(silent_websocket="true")
            await socket.send('{"action": "subscribe", "topic": "confirmation", "ack": true}')
            assert json.loads(await socket.recv())["ack"] == "subscribe"
            await node.fund(ALICE, NANO)
            node.set_faults(silent_websocket="false")
            loud = await node.fund(ALICE, NANO)
            assert json.loads(await socket.recv())["message"]["hash"] == loud

    run(scene)


def test_a_dropped_process_says_ok_and_forgets_once() -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            node.set_faults(drop_process="1")
            block = genesis_send(node, ALICE, NANO)
            answer = await rpc(node, action="process", json_block="true", subtype="send", block=block)
            assert await confirmed(node, answer["hash"]) == "Block not found"
            assert await rpc(node, action="process", json_block="true", subtype="send", block=block) == answer
            assert await confirmed(node, answer["hash"]) == "false"

    run(scene)


def test_lies_are_told_in_answers_but_never_in_block_contents() -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            block_hash = await node.fund(ALICE, NANO)
            truth = await rpc(node, action="block_info", json_block="true", hash=block_hash)
            node.set_faults(lies={"amount": "7", "balance": "8", "confirmed": "false", "frontier": "F" * 64, "receivable": "9"})
            lie = await rpc(node, action="block_info", json_block="true", hash=block_hash)
            assert (lie["amount"], lie["balance"], lie["confirmed"]) == ("7", "8", "false")
            assert lie["contents"] == truth["contents"]
            info = await rpc(node, action="account_info", account=encode_address(GENESIS_ACCOUNT))
            assert (info["frontier"], info["balance"]) == ("F" * 64, "8")
            assert (await rpc(node, action="account_balance", account=ALICE)) == {"balance": "8", "pending": "9", "receivable": "9"}
            assert (await rpc(node, action="receivable", account=ALICE, threshold="1"))["blocks"] == {block_hash: "7"}
            node.set_faults(lies={})
            assert await rpc(node, action="block_info", json_block="true", hash=block_hash) == truth

    run(scene)


def test_faults_are_switched_over_rpc_and_only_with_control() -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            answer = await rpc(node, action="devnet_faults", set={"unconfirmed": "all", "silent_websocket": True})
            assert answer["faults"]["unconfirmed"] == "all"
            assert node.faults.silent_websocket
            assert "unknown" in (await rpc(node, action="devnet_faults", set={"lagging": "true", "nonsense": "1"}))["error"]
            assert not node.faults.lagging
        async with standing(control=False) as (node, _):
            assert await rpc(node, action="devnet_faults") == {"error": "Unknown command"}
            assert await rpc(node, action="devnet_confirm") == {"error": "Unknown command"}

    run(scene)


@pytest.mark.parametrize("wanted", [{"unconfirmed": "some"}, {"lagging": "maybe"}, {"lies": {"hash": "1"}}, {"rollback": ["nano_bad"]}])
def test_a_fault_that_makes_no_sense_is_refused_and_changes_nothing(wanted: dict[str, Any]) -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            before = node.faults.describe()
            with pytest.raises(UsageError):
                node.set_faults(**wanted)
            assert node.faults.describe() == before

    run(scene)


# --- faucet and work


def test_funding_at_the_same_time_sends_every_amount_once() -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            hashes = await asyncio.gather(*(node.fund(ALICE, index + 1) for index in range(40)))
            assert len(set(hashes)) == 40
            assert node.ledger.balance_of(public_key(ALICE_SECRET), confirmed=True) == (0, 40 * 41 // 2)

    run(scene)


@pytest.mark.parametrize("raw", [0, -1, 2**128, True])
def test_the_faucet_sends_no_impossible_amount(raw: int) -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            with pytest.raises(UsageError, match="faucet"):
                await node.fund(ALICE, raw)

    run(scene)


def test_hard_work_is_searched_in_another_process_and_can_be_cancelled() -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            root = "AB" * 32
            answer = await rpc(node, action="work_generate", hash=root, multiplier="60")
            assert work_valid(bytes.fromhex(root), answer["work"], 0xFFFEEF0000000000)
        async with standing(thresholds="live") as (node, _):
            search = asyncio.create_task(rpc(node, action="work_generate", hash=root))
            while not node.rpc._pool._running.get(bytes.fromhex(root)):
                await asyncio.wait([search], timeout=0.01)
            assert await rpc(node, action="work_cancel", hash=root) == {"success": ""}
            assert await search == {"error": "Cancelled"}

    run(scene)


def test_work_that_is_already_good_or_asked_in_a_wrong_way_is_answered_as_the_node_does() -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            block = genesis_send(node, ALICE, 1)
            good = {"action": "work_generate", "hash": block["previous"], "json_block": "true", "block": block}
            assert await rpc(node, **good) == {"error": "Provided work is already enough for given difficulty"}
            assert await rpc(node, action="work_generate", hash="12", version="work_2") == {"error": "Bad work version"}
            assert await rpc(node, action="work_validate", hash="12", multiplier="0") == {"error": "Bad multiplier"}
            assert await rpc(node, action="accounts_balances", accounts=[]) == {"error": "Empty response"}
            assert await rpc(node, action="account_history", account="nano_1", count="0") == {"error": "Invalid count"}
            assert await rpc(node, action="receivable", account=ALICE, threshold="0x") == {"error": "Bad threshold number"}

    run(scene)


# --- HTTP


def test_a_body_in_pieces_is_put_together_and_a_huge_one_is_cut_off() -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            body = b'{"action": "uptime"}'
            chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[index : index + 1]) for index in range(len(body))) + b"0\r\n\r\n"
            answer = await raw_http(node, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
            assert answer.endswith(b'"seconds": "0"\n}\n')
            size = MAX_BODY + 1
            answer = await raw_http(node, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
            assert answer.startswith(b"HTTP/1.1 413 ")

    run(scene)


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"\x16\x03\x01\r\n\r\n"])
def test_what_is_not_http_is_refused_and_the_next_request_is_served(data: bytes) -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            assert not (await raw_http(node, data)).startswith(b"HTTP/1.1 200")
            assert (await raw_http(node, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")

    run(scene)


def test_brackets_are_counted_before_anything_is_parsed() -> None:
    async def scene() -> None:
        async with standing() as (node, _):
            assert "rpc_version" in await rpc(node, action="version", x=[[]] * 18)
            assert await rpc(node, action="version", x=[[]] * 19) == {"error": "Max JSON depth exceeded"}
            assert json.loads(await node.rpc.answer(b"\xff\xfe")) == {"error": "Unable to parse JSON"}
            assert json.loads(await node.rpc.answer(b'{"action": "version", "x": NaN}')) == {"error": "Unable to parse JSON"}

    run(scene)


# --- memory


def test_a_ledger_on_disk_is_the_same_after_reopening_and_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with standing(data=tmp_path) as (node, _):
            sure = await node.fund(ALICE, NANO)
            unsure = await node.fund(BOB, NANO, confirm=False)
            gone = await node.fund(BOB, 5, confirm=False)
            node.rollback(gone)
            with pytest.raises(StateError, match="open in another"):
                await DevNode(data=tmp_path).__aenter__()
        async with standing(data=tmp_path) as (node, clock):
            assert [await confirmed(node, item) for item in (sure, unsure, gone)] == ["true", "false", "Block not found"]
            clock.advance(150)
            assert await confirmed(node, unsure) == "true"
        with pytest.raises(UsageError, match="another ledger"):
            await DevNode(data=tmp_path, epoch=0).__aenter__()

    run(scene)


def test_half_a_record_at_the_end_is_forgotten_and_damage_before_it_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with standing(data=tmp_path) as (node, _):
            kept = await node.fund(ALICE, NANO)
        log = tmp_path / "ledger.jsonl"
        whole = log.read_bytes()
        log.write_bytes(whole + b'{"block": {"type"')
        async with standing(data=tmp_path) as (node, _):
            assert await confirmed(node, kept) == "true"
            assert log.read_bytes() == whole
        log.write_bytes(whole.replace(b'"confirm"', b'"confirm'))
        with pytest.raises(StorageError, match="damaged"):
            await DevNode(data=tmp_path).__aenter__()

    run(scene)


def test_when_the_disk_fails_nothing_is_acknowledged_and_the_node_says_so(tmp_path: Path) -> None:
    async def scene() -> None:
        async with standing(data=tmp_path) as (node, _):
            block = genesis_send(node, ALICE, NANO)
            body = json.dumps({"action": "process", "json_block": "true", "block": block}).encode()
            store = node.chain._store
            assert store
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, store._fd)
            os.close(full)
            with pytest.raises((ConnectionResetError, AssertionError)):
                assert await raw_http(node, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            with pytest.raises(StorageError, match="No space left"):
                await node.failed()

    run(scene)


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tradeskill", "devnet", "--rpc-port", "0", "--ws-port", "0", "--data", str(tmp_path), "--json"]
    from tradeskill_wallet.devnet.fund import asker, fund

    def start() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        ready: dict[str, str] = json.loads(process.stdout.readline())
        return process, ready["rpc"]

    def stop(process: subprocess.Popen[str]) -> int:
        assert process.stdout
        process.stdout.close()
        return process.wait(10)

    process, url = start()
    try:
        block_hash = fund(asker(url), ALICE, NANO, work=find_work, random_bytes=os.urandom, sleep=threading.Event().wait)
    finally:
        process.kill()
        stop(process)
    process, url = start()
    try:
        info = asker(url)({"action": "block_info", "hash": block_hash})
    finally:
        process.terminate()
        assert stop(process) == 0
    assert info["confirmed"] == "true"
