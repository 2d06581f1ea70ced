"""Actions that look at the node itself: version, telemetry, quorum, supply, elections."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from tradeskill.money import MAX_RAW
from tradeskill_wallet.devnet.answers import Action, Answer, shown_block, upper
from tradeskill_wallet.devnet.chain import Chain
from tradeskill_wallet.devnet.genesis import GENESIS, GENESIS_ACCOUNT
from tradeskill_wallet.devnet.request import Refused, Request
from tradeskill_wallet.devnet.wire import decode_hex, decode_unsigned, dump
from tradeskill_wallet.primitives import BURN, ZERO, encode_address, public_key, sign

__all__ = ["NODE"]

# Funds the real network counts as never circulating, besides genesis and what was burned.
_SET_ASIDE: Final = (
    bytes.fromhex("059F68AAB29DE0D3A27443625C7EA9CDDB6517A8B76FE37727EF6A4D76832AD5"),
    bytes.fromhex("8E319CE6F3025E5B2DF66DA7AB1467FE48F1679C13DD43BFDB29FA2E9FC40D3B"),
)


def _version(chain: Chain, request: Request) -> Answer:
    # What the recorded node said, so that a client which looks at versions behaves as it would there.
    return {
        "rpc_version": "1",
        "store_version": "24",
        "protocol_version": "21",
        "node_vendor": "Nano V28.0",
        "store_vendor": "LMDB 0.9.70",
        "network": chain.network,
        "network_identifier": GENESIS.hash_hex,
        "build_info": '9efd84972 "GNU C++ version " "12.2.0" "BOOST 108100" BUILT "Nov 21 2026"',
    }


def _uptime(chain: Chain, request: Request) -> Answer:
    return {"seconds": str((chain.clock.now_ms() - chain.started_ms) // 1000)}


def _available_supply(chain: Chain, request: Request) -> Answer:
    held = sum(chain.view.balance_of(account, confirmed=False)[0] for account in (GENESIS_ACCOUNT, *_SET_ASIDE))
    return {"available": str(MAX_RAW - held - chain.view.balance_of(BURN, confirmed=False)[1])}


def _confirmation_quorum(chain: Chain, request: Request) -> Answer:
    answer: Answer = {
        "quorum_delta": str(402 * 10**35),
        "online_weight_quorum_percent": "67",
        "online_weight_minimum": str(6 * 10**37),
        "online_stake_total": "0",
        "trended_stake_total": str(6 * 10**37),
        "peers_stake_total": "0",
    }
    return answer | {"peers": []} if request.flag("peer_details", default=False) else answer


def _telemetry(chain: Chain, request: Request) -> Answer:
    if request.has("address") or request.has("port"):
        if not (request.has("address") and request.has("port")):
            raise Refused("Both port and address required")
        if not 0 < (decode_unsigned(request.text("port")) or 0) < 65536:
            raise Refused("Invalid port")
        raise Refused("Peer not found")
    if request.flag("raw", default=False):
        return {"metrics": []}
    ledger, secret = chain.view, blake2b(b"tradeskill devnet", digest_size=32).digest()
    node_id = "node_" + encode_address(public_key(secret))[5:]
    answer: Answer = {
        "block_count": str(len(ledger.entries)),
        "cemented_count": str(ledger.cemented),
        "unchecked_count": str(len(ledger.unchecked)),
        "account_count": str(len(ledger.accounts)),
        "bandwidth_cap": "10485760",
        "peer_count": "0",
        "protocol_version": "21",
        **_uptime_field(chain),
        "genesis_block": GENESIS.hash_hex,
        "major_version": "28",
        "minor_version": "0",
        "patch_version": "0",
        "pre_release_version": "99",
        "maker": "0",
        "timestamp": str(chain.clock.now_ms()),
        "active_difficulty": f"{ledger.thresholds.epoch_2:016x}",
        "node_id": node_id,
    }
    said = blake2b(dump(answer).encode(), digest_size=32).digest()
    return answer | {"signature": upper(sign(secret, said, chain.world.random_bytes))}


def _uptime_field(chain: Chain) -> Answer:
    return {"uptime": str((chain.clock.now_ms() - chain.started_ms) // 1000)}


def _confirmation_info(chain: Chain, request: Request) -> Answer:
    root = decode_hex(request.text("root"), 64)
    if root is None:
        raise Refused("Invalid root hash")
    first, previous = root[:32], root[32:]  # a first block's root is its account
    below = chain.view.entries.get(previous)
    account = chain.view.accounts.get(first)
    winner = below.successor if below else account.open_block if account else ZERO
    entry = chain.view.entries.get(winner)
    if entry is None or not chain.confirmation.active(entry):
        raise Refused("Active confirmation not found")
    tally: Answer = {"tally": "0"}
    if request.flag("contents", default=True):
        tally["contents"] = shown_block(request, entry.block)
    if request.flag("representatives", default=False):
        tally["representatives"] = {}
    winning = upper(winner)
    totals: Answer = {"total_tally": "0", "final_tally": "0"}
    return {"announcements": "0", "voters": "0", "last_winner": winning, **totals, "blocks": {winning: tally}}


NODE: Final[dict[str, Action]] = {
    "available_supply": _available_supply,
    "confirmation_info": _confirmation_info,
    "confirmation_quorum": _confirmation_quorum,
    "telemetry": _telemetry,
    "uptime": _uptime,
    "version": _version,
}
