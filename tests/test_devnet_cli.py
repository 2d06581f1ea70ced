"""The commands `devnet` and `devnet fund` as processes: one line when ready, clean stops, one-line errors."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tradeskill.errors import NetworkMismatchError, RefusedError, UnavailableError, UnknownOutcomeError, UsageError
from tradeskill_wallet.devnet.fund import asker, fund
from tradeskill_wallet.devnet.work import find_work
from tradeskill_wallet.primitives import GENESIS_HASH, derive_key, encode_address, public_key

ALICE = encode_address(public_key(derive_key(bytes(32), 1)))
DEVNET = [sys.executable, "-m", "tradeskill", "devnet"]


@contextmanager
def server(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    process = subprocess.Popen([*DEVNET, "--rpc-port", "0", "--ws-port", "0", "--json", *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEVNET, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_one_line_tells_the_endpoints_and_sigterm_ends_it_with_exit_0() -> None:
    with server() as (process, ready):
        assert set(ready) == {"rpc", "ws", "network", "genesis"}
        assert (ready["network"], ready["genesis"]) == ("dev", GENESIS_HASH["dev"])
        host, port = ready["ws"].removeprefix("ws://").split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        taken = call("--rpc-port", ready["rpc"].rsplit(":", 1)[1], "--ws-port", "0")
        assert taken.returncode == 2
        assert "port" in taken.stderr
        assert taken.stderr.count("\n") == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout
        assert process.stdout.read() == ""


def test_open_connections_do_not_keep_it_from_stopping() -> None:
    from websockets.sync.client import connect

    with server() as (process, ready):
        host, port = ready["rpc"].removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as idle, connect(ready["ws"]) as listener:
            idle.sendall(b"POST / HTTP/1.1\r\n")
            listener.send('{"action": "ping"}')
            assert json.loads(listener.recv(timeout=5))["ack"] == "pong"
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0


def test_fund_prints_the_hash_of_a_confirmed_send_and_several_at_once_all_arrive() -> None:
    with server("--confirmation-delay", "20") as (_, ready):
        funded = call("fund", ALICE, "5 XNO", "--rpc", ready["rpc"], "--json")
        assert funded.returncode == 0, funded.stderr
        answer = json.loads(funded.stdout)
        assert answer["confirmed"] is True
        assert answer["amount_raw"] == str(5 * 10**30)
        errors: list[BaseException] = []
        pause = threading.Event().wait

        def one() -> None:
            try:
                fund(asker(ready["rpc"]), ALICE, 10**30, work=find_work, random_bytes=os.urandom, sleep=pause)
            except BaseException as error:  # noqa: BLE001 -- carried to the asserting thread
                errors.append(error)

        threads = [threading.Thread(target=one) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert errors == []
        balance = asker(ready["rpc"])({"action": "account_balance", "account": ALICE})
        assert balance == {"balance": "0", "pending": str(11 * 10**30), "receivable": str(11 * 10**30)}


def test_fund_works_on_a_ledger_as_fresh_as_a_real_dev_node() -> None:
    with server("--epoch", "0", "--confirmation-delay", "0") as (_, ready):
        ask = asker(ready["rpc"])
        block_hash = fund(ask, ALICE, 1, work=find_work, random_bytes=os.urandom, sleep=threading.Event().wait)
        assert ask({"action": "block_info", "hash": block_hash})["confirmed"] == "true"


@pytest.mark.parametrize("amount", ["5", "1e3 XNO", " 5 XNO", "１２ XNO", "-1 XNO", "0 XNO", "5 sat", str(2**128) + " raw"])
def test_a_wrong_amount_is_one_line_and_exit_code_2(amount: str) -> None:
    from tradeskill_wallet.devnet.cli import fund as command

    with pytest.raises(UsageError, match="amount") as caught:
        command(ALICE, amount, "http://127.0.0.1:1", 1.0, False)
    assert "\n" not in str(caught.value)


def test_without_a_node_fund_says_so_with_exit_code_6() -> None:
    result = call("fund", ALICE, "1 raw", "--rpc", "http://127.0.0.1:1")
    assert result.returncode == 6
    assert result.stderr.startswith("error: node http://127.0.0.1:1 does not answer")
    assert result.stderr.count("\n") == 1


def test_importing_the_command_loads_nothing_heavy() -> None:
    code = "import sys, tradeskill_wallet.devnet.cli; print(sorted(set(sys.modules) & {'nanopy', 'websockets', 'h11', 'httpx', 'asyncio'}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout.strip() == "[]"


# --- the faucet against nodes that misbehave


class Scripted:
    """A node with a normal genesis account and one prepared answer for `process` and `block_info`."""

    def __init__(self, process: list[dict[str, object] | Exception], info: list[dict[str, object]], network: str = GENESIS_HASH["dev"]) -> None:
        self.process, self.info, self.network = process, info, network
        self.published: list[object] = []

    def __call__(self, fields: Mapping[str, object]) -> dict[str, object]:
        if fields["action"] == "version":
            return {"network": "dev", "network_identifier": self.network}
        if fields["action"] == "account_info":
            return {"frontier": "AB" * 32, "balance": "1000", "account_version": "2", "representative": ALICE}
        if fields["action"] == "process":
            self.published.append(fields["block"])
            answer = self.process.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if fields["action"] == "block_confirm":
            return {"started": "1"}
        found = self.info.pop(0) if len(self.info) > 1 else self.info[0]
        return found | {"contents": self.published[-1]} if found.get("mine") else found


def attempt(node: Scripted, raw: int = 1) -> str:
    return fund(node, ALICE, raw, work=find_work, random_bytes=os.urandom, sleep=lambda _: None, patience_seconds=2)


def test_a_lost_race_is_run_again_and_a_lost_answer_publishes_the_same_bytes() -> None:
    node = Scripted([{"error": "Fork"}, UnavailableError("no answer"), {"hash": "x"}], [{"error": "Block not found"}] * 2 + [{"confirmed": "true"}])
    attempt(node)
    assert len(node.published) == 3
    assert node.published[1] == node.published[2]


def test_an_old_answer_for_a_send_that_is_there_counts_as_sent() -> None:
    node = Scripted([{"error": "Invalid block balance for given subtype"}], [{"mine": True}, {"confirmed": "true"}])
    attempt(node)
    assert len(node.published) == 1


def test_an_equal_send_by_another_funder_is_not_taken_for_ones_own() -> None:
    node = Scripted([{"error": "Old block"}, {"hash": "x"}], [{"contents": {"signature": "00" * 64}}, {"confirmed": "true"}])
    attempt(node)
    assert len(node.published) == 2


def test_other_refusals_rollbacks_and_waiting_in_vain_are_told_apart() -> None:
    with pytest.raises(RefusedError, match="Gap previous"):
        attempt(Scripted([{"error": "Gap previous block"}], [{"confirmed": "true"}]))
    with pytest.raises(RefusedError, match="taken out"):
        attempt(Scripted([{"hash": "x"}], [{"confirmed": "false"}, {"error": "Block not found"}]))
    with pytest.raises(UnknownOutcomeError, match="not confirmed"):
        attempt(Scripted([{"hash": "x"}], [{"confirmed": "false"}]))
    with pytest.raises(UsageError, match="holds 1000 raw"):
        attempt(Scripted([], [{}]), raw=1001)
    with pytest.raises(NetworkMismatchError, match="genesis"):
        attempt(Scripted([], [{}], network="991C"))
