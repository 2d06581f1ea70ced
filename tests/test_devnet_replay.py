"""Every recorded request is asked again, in its order, and the answer must be the recorded one, to the letter.

Past 400 lines because the recordings are one ledger's history and are replayed in one piece.
"""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tradeskill.world import World
from tradeskill_wallet.devnet.chain import Chain
from tradeskill_wallet.devnet.clock import ManualClock
from tradeskill_wallet.devnet.genesis import GENESIS_ACCOUNT, GENESIS_SECRET
from tradeskill_wallet.devnet.node import DevNode
from tradeskill_wallet.devnet.work import find_work
from tradeskill_wallet.primitives import StateBlock, decode_address, verify, work_valid, work_value

CAPTURES = Path(__file__).parent / "captures"
LEFT_OUT: dict[str, str] = json.loads((CAPTURES / "LEFT_OUT.json").read_text())
ACCOUNTS = {name: decode_address(text) for name, text in json.loads((CAPTURES / "accounts.json").read_text()).items()}
A_SECRET = bytes.fromhex("C8366D42171D896CE78C871BA368633F0684F1E6EB00084EC766DCB27E50B8B2")

ALL = sorted(path.name for path in CAPTURES.glob("*.json") if path.name not in ("LEFT_OUT.json", "accounts.json"))
OTHERWISE = {  # replayed by a test of their own below
    "100-ws-first-confirmations.json",
    "163-process-same-block-6-times-in-parallel.json",
    "288-ws-accounts-filter.json",
    "289-ws-update-unsubscribe.json",
    "290-ws-accounts-filter-include_block-false.json",
    "291-ws-include_block-false.json",
    "292-ws-election-info-sideband.json",
    "293-ws-options-leak-second-session.json",
    "294-ws-options-lost-second-session.json",
    "295-ws-block_confirm-again.json",
    "296-ws-bad-json-then-ping.json",
    "297-ws-unknown-topic-action.json",
    "298-ws-accounts-invalid.json",
    "299-ws-accounts-all-subtypes.json",
    "301-thresholds.json",
    "X99-ws-subscribe-without-ack.json",
}
ASKED = [name for name in ALL if name not in LEFT_OUT and name not in OTHERWISE]


def load(name: str) -> dict[str, Any]:
    capture: dict[str, Any] = json.loads((CAPTURES / name).read_text())
    return capture


def recorded_blocks() -> dict[str, dict[str, str]]:
    """Every block that stands in full in some capture, by hash."""
    found: dict[str, dict[str, str]] = {}
    for name in ALL:
        pending: list[Any] = [load(name)]
        while pending:
            value = pending.pop()
            if isinstance(value, list):
                pending.extend(value)
            elif isinstance(value, dict):
                pending.extend(value.values())
                if value.get("type") == "state":
                    with contextlib.suppress(Exception):  # the malformed ones are malformed on purpose
                        block = StateBlock.from_json(value)
                        known = found.get(block.hash_hex)
                        signer = GENESIS_ACCOUNT if block.link.startswith(b"epoch") else block.account
                        if verify(signer, block.hash, block.signature) and (
                            known is None or work_value(block.root, block.work) > work_value(block.root, known["work"])
                        ):
                            found[block.hash_hex] = block.to_json()  # of several spellings the one with the best work
    return found


BLOCKS = recorded_blocks()


async def http(node: DevNode, body: bytes, method: str = "POST") -> tuple[int, dict[str, str], str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.rpc_port)
    writer.write(f"{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    head, _, text = answer.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), text


async def rpc(node: DevNode, **fields: Any) -> dict[str, Any]:
    _, _, text = await http(node, json.dumps(fields).encode())
    answer: dict[str, Any] = json.loads(text)
    return answer


async def publish(node: DevNode, block_hash: str) -> None:
    answer = await rpc(node, action="process", json_block="true", block=BLOCKS[block_hash])
    assert answer == {"hash": block_hash}, answer


def made(secret: bytes, block: StateBlock) -> str:
    """Sign a block whose contents we know but whose signature was not recorded."""
    signed = block.with_work(find_work(block.root, 0xFFC0000000000000)).signed(secret, os.urandom)
    BLOCKS[signed.hash_hex] = signed.to_json()
    return signed.hash_hex


async def publish_recorded(*hashes: str, node: DevNode) -> None:
    for start in hashes:
        await publish(node, next(item for item in BLOCKS if item.startswith(start)))


async def change_by_a(node: DevNode) -> None:
    head = next(bytes.fromhex(item) for item in BLOCKS if item.startswith("74EFAEFB"))
    block_hash = made(A_SECRET, StateBlock(ACCOUNTS["A"], head, ACCOUNTS["genesis"], 8 * 10**30, bytes(32)))
    assert block_hash.startswith("8102572E")
    await publish(node, block_hash)


async def receive_by_a(node: DevNode) -> None:
    head = next(bytes.fromhex(item) for item in BLOCKS if item.startswith("92DF68F0"))
    block_hash = made(A_SECRET, StateBlock(ACCOUNTS["A"], head, ACCOUNTS["genesis"], 64 * 10**29, head))
    assert block_hash.startswith("6C1C07F6")
    await publish(node, block_hash)


async def upgrade(node: DevNode) -> None:
    for start, link in (("73FE787B", b"epoch v1 block"), ("7442BB86", b"epoch v2 block")):
        account = node.ledger.accounts[GENESIS_ACCOUNT]
        block = StateBlock(GENESIS_ACCOUNT, account.head, GENESIS_ACCOUNT, account.balance, link.ljust(32, b"\0"))
        block_hash = made(GENESIS_SECRET, block)
        assert block_hash.startswith(start)
        await publish(node, block_hash)


async def parallel(node: DevNode) -> None:
    capture = load("163-process-same-block-6-times-in-parallel.json")
    body = {"action": "process", "json_block": "true", "block": capture["block"]}
    answers = await asyncio.gather(*(rpc(node, **body) for _ in range(6)))
    assert sorted(map(str, answers)) == sorted(map(str, capture["responses"]))


async def ask_x(node: DevNode) -> None:
    assert await rpc(node, action="block_confirm", hash="1359478D7D82EC0FDE0BAFD2D2EB56B9C4F5B44BD00A98EA3510F493C484CE34") == {"started": "1"}


async def confirm_all(node: DevNode) -> None:
    node.confirm()


Step = Callable[[DevNode], Coroutine[Any, Any, None]]


def published(*hashes: str) -> Step:
    async def step(node: DevNode) -> None:
        await publish_recorded(*hashes, node=node)

    return step


# What happened between two captures (see facts: set-up blocks stand in full elsewhere), by the file before which it happened.
BETWEEN: dict[str, list[Step]] = {
    "034": [published("87755433", "A6DE91DD")],
    "040": [published("CD9EA6C4", "E50CDDEA")],
    "140": [change_by_a],
    "160": [published("7E1A712A")],
    "164": [parallel],
    "242": [confirm_all],
    "243": [receive_by_a],
    "X02": [upgrade, published("1359478D")],
    "X17": [ask_x],
    "X33": [confirm_all],
}
VOTING = "099"  # from here on the recorded node had a voter: blocks were confirmed before the next question, unless the answer shows otherwise


class Stage:
    """One ledger for each series of captures, all on one event loop."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.nodes: dict[str, DevNode] = {}
        self.stack = contextlib.AsyncExitStack()
        self.passed: list[str] = []

    def node(self, series: str) -> DevNode:
        if series not in self.nodes:
            node = DevNode(
                clock=ManualClock(),
                confirmation_delay_ms=None,
                epoch=2 if series == "L" else 0,
                thresholds="live" if series == "L" else "dev",
                control=series != "N",
            )
            self.nodes[series] = self.runner.run(self.stack.enter_async_context(node))
        return self.nodes[series]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.runner.run(stage.stack.aclose())
    stage.runner.close()


VOLATILE = re.compile(r'("(?:local_timestamp|modified_timestamp|time|timestamp|uptime|seconds|node_id|signature_of_telemetry)": )"[^"]*"')
TELEMETRY_SIGNATURE = re.compile(r'("signature": )"[^"]*"(?=\n\}\n$)')
WORKED = re.compile(r'("(?:work|difficulty|multiplier)": )"[^"]*"')


def settled(action: str, text: str) -> str:
    """The answer without what nobody compares: times, node ids, uptime, and found work."""
    text = VOLATILE.sub(r'\1"*"', text)
    if action == "telemetry":
        text = TELEMETRY_SIGNATURE.sub(r'\1"*"', text)
    if action == "work_generate":
        text = WORKED.sub(r'\1"*"', text)
    return text


@pytest.mark.parametrize("name", ASKED)
def test_the_recorded_answer_is_given_again(stage: Stage, name: str) -> None:
    series = name[0] if name[0] in "LNX" else "main"
    node = stage.node(series)
    capture = load(name)

    async def ask() -> tuple[int, dict[str, str], str]:
        for step in BETWEEN.get(name[:3], []):
            await step(node)
        if series == "main" and name >= VOTING and '"confirmed": "false"' not in capture["response_text"]:
            node.confirm()
        request = capture["request"]
        if "raw_body" in request:
            return await http(node, request["raw_body"].encode(), request["method"])
        return await http(node, json.dumps(request).encode())

    status, headers, text = stage.runner.run(ask())
    action = capture["request"].get("action", "")
    recorded = capture.get("response_text", None)
    if recorded is None:
        assert json.loads(text) == capture["response"]
        assert list(json.loads(text)) == list(capture["response"])
        return
    assert settled(action, text) == settled(action, recorded)
    assert status == capture["http"]["status"]
    assert list(headers.items())[:-1] == list(capture["http"]["headers"].items())[:-1]
    assert headers["Content-Length"] == str(len(text))
    if action == "work_generate" and "error" not in capture["response"]:
        answer = json.loads(text)
        needed = int(capture["request"].get("difficulty", "ffc0000000000000"), 16)
        assert work_valid(bytes.fromhex(answer["hash"]), answer["work"], needed)
        assert float(answer["multiplier"]) >= float(capture["request"].get("multiplier", "0"))


def test_every_capture_is_replayed_or_left_out_with_a_reason() -> None:
    assert not set(LEFT_OUT) & OTHERWISE
    assert set(ALL) == set(ASKED) | OTHERWISE | set(LEFT_OUT)
    assert all(len(reason) > 20 for reason in LEFT_OUT.values())


# --- the websocket


def genesis_sends(node: DevNode, target: str) -> list[str]:
    """The sends of 0.01 XNO from genesis that lead to a block of which only the hash was recorded; signs them all."""
    account = node.ledger.accounts[GENESIS_ACCOUNT]
    paths: list[tuple[bytes, int, list[StateBlock]]] = [(account.head, account.balance, [])]
    for _ in range(4):
        longer = []
        for head, balance, path in paths:
            for name in ("A", "B", "C"):
                block = StateBlock(GENESIS_ACCOUNT, head, GENESIS_ACCOUNT, balance - 10**28, ACCOUNTS[name])
                longer.append((block.hash, block.balance, [*path, block]))
                if block.hash_hex == target:
                    return [item.hash_hex if item.hash_hex in BLOCKS else made(GENESIS_SECRET, item) for item in [*path, block]]
        paths = longer
    raise AssertionError(f"no way to {target}")


async def send_on(node: DevNode, target: str) -> None:
    """Publish and confirm a block, and what must come before it."""
    before = BLOCKS[target]["previous"] if target in BLOCKS else target
    if bytes.fromhex(before) not in node.ledger.entries:
        for block_hash in genesis_sends(node, before):
            await publish(node, block_hash)
            node.confirm()
    if bytes.fromhex(target) not in node.ledger.entries:
        await publish(node, target)
        node.confirm()


def message_of(text: str | bytes) -> str:
    """Without times, and of election info (whose votes are not compared) only that it is there."""
    value = json.loads(text)
    inner = value.get("message", {})
    if "election_info" in inner:
        inner["election_info"] = sorted(inner["election_info"])
    return VOLATILE.sub(r'\1"*"', json.dumps(value, indent=1))


async def heard(socket: ClientConnection) -> str | bytes:
    return await asyncio.wait_for(socket.recv(), 5)


async def nothing_more(socket: ClientConnection) -> None:
    """Messages keep their order: if the answer to a ping is next, nothing else was sent."""
    await socket.send('{"action": "ping", "id": "last"}')
    assert json.loads(await heard(socket))["id"] == "last"


async def play(node: DevNode, socket: ClientConnection, events: list[dict[str, Any]]) -> None:
    for event in events:
        message = event["message"]
        if event["dir"] == "sent":
            await socket.send(message["unparsable"] if "unparsable" in message else json.dumps(message))
            continue
        if message.get("topic") == "confirmation":
            if message["message"]["confirmation_type"] == "active_confirmation_height":
                assert await rpc(node, action="block_confirm", hash=message["message"]["hash"]) == {"started": "1"}
            else:
                await send_on(node, message["message"]["hash"])
        assert message_of(await heard(socket)) == message_of(json.dumps(message))


def events_of(name: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = load(name)["events"]
    return events


def test_filters_updates_and_unsubscribing_act_as_recorded(stage: Stage) -> None:
    async def scene() -> None:
        node = stage.node("main")
        async with connect(node.ws_url, compression=None) as socket:
            events = events_of("289-ws-update-unsubscribe.json")
            first = events_of("288-ws-accounts-filter.json")
            assert [item["message"] for item in events[: len(first)]] == [item["message"] for item in first]
            await play(node, socket, first)
            await send_on(node, genesis_sends(node, events[-3]["message"]["message"]["hash"])[0])  # the second send of 288: to B, not heard
            await play(node, socket, events[len(first) :])
            later = events_of("291-ws-include_block-false.json")[-1]["message"]["message"]["hash"]
            unseen = genesis_sends(node, later)
            await send_on(node, unseen[0])
            await nothing_more(socket)  # unsubscribed
        async with connect(node.ws_url, compression=None) as socket:
            await play(node, socket, events_of("290-ws-accounts-filter-include_block-false.json"))
            await send_on(node, unseen[1])
            await nothing_more(socket)
        async with connect(node.ws_url, compression=None) as socket:
            await play(node, socket, events_of("291-ws-include_block-false.json"))
            await nothing_more(socket)

    stage.runner.run(scene())


def test_options_leak_between_sessions_as_recorded(stage: Stage) -> None:
    async def scene() -> None:
        node = stage.node("main")
        async with contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(connect(node.ws_url, compression=None))
            await play(node, first, events_of("292-ws-election-info-sideband.json"))
            second = await stack.enter_async_context(connect(node.ws_url, compression=None))
            events = events_of("293-ws-options-leak-second-session.json")
            await play(node, second, events)
            await first.close()
            third = await stack.enter_async_context(connect(node.ws_url, compression=None))
            await play(node, third, events_of("294-ws-options-lost-second-session.json"))
            await play(node, second, events_of("295-ws-block_confirm-again.json")[len(events) :])
            await nothing_more(second)

    stage.runner.run(scene())


def test_a_malformed_message_ends_the_connection_without_a_close_frame(stage: Stage) -> None:
    async def scene() -> None:
        node = stage.node("main")
        reader, writer = await asyncio.open_connection("127.0.0.1", node.ws_port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        text = events_of("296-ws-bad-json-then-ping.json")[0]["message"]["unparsable"].encode()
        writer.write(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()

    stage.runner.run(scene())


def test_unknown_topics_actions_and_accounts_are_met_with_silence(stage: Stage) -> None:
    async def scene() -> None:
        node = stage.node("main")
        async with connect(node.ws_url, compression=None) as socket:
            await play(node, socket, events_of("297-ws-unknown-topic-action.json"))
            await nothing_more(socket)
        async with connect(node.ws_url, compression=None) as socket:
            await play(node, socket, events_of("298-ws-accounts-invalid.json"))
            await send_on(node, BLOCKS[next(item for item in BLOCKS if item.startswith("60EF8D60"))]["previous"])
            await nothing_more(socket)
        async with connect(node.ws_url, compression=None) as socket:
            await play(node, socket, events_of("299-ws-accounts-all-subtypes.json"))
            await nothing_more(socket)

    stage.runner.run(scene())


def test_without_ack_the_first_frame_is_already_a_confirmation(stage: Stage) -> None:
    async def scene() -> None:
        node = stage.node("X")
        capture = load("X99-ws-subscribe-without-ack.json")
        expected = json.loads(capture["received_within_1s"])
        async with connect(node.ws_url, compression=None) as socket:
            await socket.send(json.dumps(capture["sent"]))
            await nothing_more(socket)
            block = expected["message"]["block"]
            assert await rpc(node, action="process", json_block="true", block=block) == {"hash": expected["message"]["hash"]}
            node.confirm()
            text = await heard(socket)
            assert VOLATILE.sub(r'\1"*"', str(text)) == VOLATILE.sub(r'\1"*"', capture["received_within_1s"])

    stage.runner.run(scene())


def test_a_first_session_hears_of_every_block_and_confirmation_as_recorded(stage: Stage) -> None:
    async def scene() -> None:
        async with DevNode(clock=ManualClock(), confirmation_delay_ms=None, epoch=0) as node:
            await publish_recorded("5D030B34", "B772B49A", "71F06470", "A740F066", "5B1B4913", "87755433", "A6DE91DD", node=node)
            await publish_recorded("0FA8DCA4", "08DC1B21", node=node)
            async with connect(node.ws_url, compression=None) as socket:
                for event in events_of("100-ws-first-confirmations.json"):
                    message = event["message"]
                    if message.get("topic") in ("vote", "started_election", "stopped_election") and event["dir"] == "received":
                        continue
                    if event["dir"] == "sent":
                        await socket.send(json.dumps(message))
                        continue
                    if message.get("topic") == "new_unconfirmed_block":
                        force = "true" if message["hash"].startswith("849068E4") else "false"
                        block = BLOCKS[message["hash"]]
                        assert "hash" in await rpc(node, action="process", json_block="true", block=block, force=force)
                    elif message.get("topic") == "confirmation":
                        node.confirm(message["message"]["hash"])
                    assert message_of(await heard(socket)) == message_of(json.dumps(message))
                await nothing_more(socket)
            # confirmed blocks cannot be forced out: the loser of the fork stays away
            assert node.ledger.cemented == len(node.ledger.entries)

    stage.runner.run(scene())


def test_the_probed_thresholds_are_the_ones_in_force(stage: Stage) -> None:
    probed = load("301-thresholds.json")["thresholds"]
    thresholds = Chain(World(), clock=ManualClock()).ledger.thresholds
    expected = {
        "send-epoch0": thresholds.needed(0, receive=False),
        "epoch1": thresholds.needed(1, receive=True),
        "epoch2": thresholds.needed(2, receive=True),
        "send-epoch2": thresholds.needed(2, receive=False),
        "change-epoch2": thresholds.needed(2, receive=False),
        "open-epoch2": thresholds.needed(2, receive=True),
        "receive-epoch2": thresholds.needed(2, receive=True),
    }
    assert {name: item["threshold"] for name, item in probed.items()} == {name: f"{value:016x}" for name, value in expected.items()}
