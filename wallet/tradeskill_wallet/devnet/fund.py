"""The faucet from outside: a genesis send over plain RPC, against this dev ledger or any real node in dev mode."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Final

from tradeskill.errors import NetworkMismatchError, RefusedError, UnavailableError, UnknownOutcomeError, UsageError
from tradeskill_wallet.devnet.genesis import GENESIS_ACCOUNT, GENESIS_SECRET
from tradeskill_wallet.primitives import GENESIS_HASH, THRESHOLDS, StateBlock, Thresholds, decode_address, encode_address, parse_hash

__all__ = ["Ask", "asker", "fund"]

Ask = Callable[[Mapping[str, object]], dict[str, object]]  # a request's fields to the answer's; raises UnavailableError

_SECONDS: Final = 10.0
_MAX_ANSWER: Final = 1024 * 1024
_ATTEMPTS: Final = 50  # somebody else funding at the same time takes the place on the chain; then we queue up behind
_LOST_RACE: Final = ("Fork", "Old block", "Invalid block balance for given subtype")


def asker(url: str) -> Ask:
    """An Ask for a node's RPC address. Raises UsageError if it is not http://HOST:PORT."""
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port:
        raise UsageError(f"RPC address {url!r} is not http://HOST:PORT")
    host = parts.hostname

    def ask(fields: Mapping[str, object]) -> dict[str, object]:
        connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
        try:
            connection.request("POST", parts.path or "/", json.dumps(fields), {"Content-Type": "application/json"})
            text = connection.getresponse().read(_MAX_ANSWER + 1)
            answer = json.loads(text) if len(text) <= _MAX_ANSWER else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnavailableError(f"node {url} does not answer ({type(error).__name__}): is it running? try `tradeskill devnet`") from error
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise UnavailableError(f"node {url} answered {fields.get('action')} with something else than an object")
        return answer

    return ask


def fund(
    ask: Ask,
    address: str,
    raw: int,
    *,
    work: Callable[[bytes, int], str],
    random_bytes: Callable[[int], bytes],
    sleep: Callable[[float], None],
    patience_seconds: float = 60.0,
) -> str:
    """Send raw from genesis, wait until the send is confirmed, return its hash. Every call sends again.

    Raises UsageError on a bad address or amount, NetworkMismatchError unless the node runs on the dev genesis, RefusedError when
    the node refuses the send, UnknownOutcomeError when it is published but not confirmed in time, UnavailableError without a node.
    """
    destination = decode_address(address)
    thresholds = _thresholds(ask)
    for _ in range(_ATTEMPTS):
        block = _signed(ask, destination, raw, thresholds, work, random_bytes)
        answer = _publish(ask, block)
        problem = answer.get("error")
        if problem is None or (problem in _LOST_RACE and _arrived(ask, block)):
            return _confirmed(ask, block, sleep, patience_seconds)
        if problem not in _LOST_RACE:
            raise RefusedError(f"the node refused the send to {address}: {problem}")
    raise UnavailableError(f"{_ATTEMPTS} sends to {address} lost the race for the genesis chain: try again")


def _thresholds(ask: Ask) -> Thresholds:
    version = ask({"action": "version"})
    if version.get("network_identifier") != GENESIS_HASH["dev"]:
        raise NetworkMismatchError(f"node is on network {version.get('network')!r} with another genesis: only a dev ledger has a faucet")
    return THRESHOLDS["dev" if version.get("network") == "dev" else "live"]


def _signed(
    ask: Ask, destination: bytes, raw: int, thresholds: Thresholds, work: Callable[[bytes, int], str], random_bytes: Callable[[int], bytes]
) -> StateBlock:
    info = ask({"action": "account_info", "account": encode_address(GENESIS_ACCOUNT), "representative": "true"})
    try:
        frontier, balance = parse_hash(info["frontier"]), int(str(info["balance"]))
        epoch, representative = int(str(info["account_version"])), decode_address(str(info["representative"]))
    except (KeyError, ValueError, UsageError) as error:
        raise UnavailableError(f"node told nothing usable of the genesis account: {info.get('error', 'fields missing')}") from error
    if not 0 < raw <= balance:
        raise UsageError(f"amount {raw} raw cannot be sent: the genesis account holds {balance} raw")
    block = StateBlock(GENESIS_ACCOUNT, frontier, representative, balance - raw, destination)
    return block.with_work(work(block.root, thresholds.needed(epoch, receive=False))).signed(GENESIS_SECRET, random_bytes)


def _publish(ask: Ask, block: StateBlock) -> dict[str, object]:
    """Publish; when no answer comes, look whether it arrived and publish the same bytes once more."""
    request = {"action": "process", "json_block": "true", "subtype": "send", "block": block.to_json()}
    try:
        return ask(request)
    except UnavailableError:
        if _arrived(ask, block):
            return {"hash": block.hash_hex}
        return ask(request)


def _info(ask: Ask, block: StateBlock) -> dict[str, object]:
    return ask({"action": "block_info", "json_block": "true", "hash": block.hash_hex})


def _arrived(ask: Ask, block: StateBlock) -> bool:
    """Whether the ledger holds this very block. Two funders can make equal blocks (same place, amount, account); signatures always differ."""
    contents = _info(ask, block).get("contents")
    return isinstance(contents, dict) and contents.get("signature") == block.signature.hex().upper()


def _confirmed(ask: Ask, block: StateBlock, sleep: Callable[[float], None], patience: float) -> str:
    waited, pause, asked = 0.0, 0.02, False
    while True:
        info = _info(ask, block)
        if info.get("confirmed") == "true":
            return block.hash_hex
        if info.get("error") == "Block not found":
            raise RefusedError(f"send {block.hash_hex} was taken out of the ledger again: fund again")
        if waited >= patience:
            raise UnknownOutcomeError(f"send {block.hash_hex} is published but not confirmed after {patience:g} s: ask the node for it later")
        if not asked and waited > 1.0:  # a node that is slow to start elections by itself
            asked = True
            ask({"action": "block_confirm", "hash": block.hash_hex})
        sleep(pause)
        waited, pause = waited + pause, min(pause * 1.5, 0.5)
