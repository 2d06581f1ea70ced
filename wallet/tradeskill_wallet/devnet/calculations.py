"""Actions that only compute: keys, addresses, units, hashes, thresholds, and checking and making work."""

from __future__ import annotations

import re
from typing import Final

from tradeskill.money import MAX_RAW
from tradeskill_wallet.devnet.answers import Action, Answer, upper
from tradeskill_wallet.devnet.chain import Chain
from tradeskill_wallet.devnet.ledger import Ledger
from tradeskill_wallet.devnet.request import Legacy, Refused, Request
from tradeskill_wallet.devnet.wire import decode_account, decode_hash, decode_u64
from tradeskill_wallet.devnet.work import WorkPool
from tradeskill_wallet.primitives import ZERO, StateBlock, Thresholds, derive_key, encode_address, public_key, work_value

__all__ = ["CALCULATIONS", "work_generate"]

_TOO_HARD: Final = "Difficulty above config limit or below publish threshold"
_MAX_MULTIPLIER: Final = 64  # the node's own limit for work asked over RPC
_RAW_PER_NANO: Final = 10**30
_LEADING_NUMBER: Final = re.compile(r"\s*([+-]?)([0-9]{1,20})", re.ASCII)


def _account_key(chain: Chain, request: Request) -> Answer:
    return {"key": upper(request.account())}


def _account_get(chain: Chain, request: Request) -> Answer:
    key = decode_hash(request.text("key"))
    if key is None:
        raise Refused("Bad public key")
    return {"account": encode_address(key)}


def _validate_account_number(chain: Chain, request: Request) -> Answer:
    return {"valid": "0" if decode_account(request.text("account")) is None else "1"}


def _key_fields(secret: bytes) -> Answer:
    public = public_key(secret)
    return {"private": upper(secret), "public": upper(public), "account": encode_address(public)}


def _key_expand(chain: Chain, request: Request) -> Answer:
    secret = decode_hash(request.text("key"))
    if secret is None:
        raise Refused("Bad private key")
    return _key_fields(secret)


def _deterministic_key(chain: Chain, request: Request) -> Answer:
    seed, index = decode_hash(request.text("seed")), _LEADING_NUMBER.match(request.text("index"))
    if seed is None:
        raise Refused("Bad seed")
    if index is None or int(index.group(2)) >= 1 << 64:
        raise Refused("Invalid index")
    number = -int(index.group(2)) if index.group(1) == "-" else int(index.group(2))
    return _key_fields(derive_key(seed, number % (1 << 32)))


def _block_hash(chain: Chain, request: Request) -> Answer:
    block = request.block()
    if isinstance(block, Legacy):
        raise Refused("Block is invalid")
    return {"hash": block.hash_hex}


def _nano_to_raw(chain: Chain, request: Request) -> Answer:
    amount = request.amount()
    result = amount * _RAW_PER_NANO % (MAX_RAW + 1)
    if result <= amount:
        raise Refused("Amount too big")
    return {"amount": str(result)}


def _raw_to_nano(chain: Chain, request: Request) -> Answer:
    return {"amount": str(request.amount() // _RAW_PER_NANO)}


# --- work


def _active_difficulty(chain: Chain, request: Request) -> Answer:
    send, receive = f"{chain.ledger.thresholds.epoch_2:016x}", f"{chain.ledger.thresholds.epoch_2_receive:016x}"
    answer: Answer = {
        "deprecated": "1",
        "network_minimum": send,
        "network_receive_minimum": receive,
        "network_current": send,
        "network_receive_current": receive,
        "multiplier": "1",
    }
    if request.flag("include_trend", default=False):
        answer["difficulty_trend"] = ["1.000000000000000"]
    return answer


def _multiplier(value: int, base: int) -> str:
    """How many times harder than the base threshold, as the node prints it."""
    distance = -value % (1 << 64)
    return f"{(-base % (1 << 64)) / distance:.15f}" if distance else "inf"


def _difficulty(request: Request, base: int) -> int:
    """What `difficulty` or, before it, `multiplier` asks for; the base threshold when neither is given."""
    if request.optional("version") not in (None, "work_1"):
        raise Refused("Bad work version")
    text = request.optional("difficulty")
    difficulty = base if text is None else decode_u64(text)
    if difficulty is None:
        raise Refused("Bad difficulty")
    factor = request.optional("multiplier")
    if factor is None:
        return difficulty
    try:
        multiplier = float(factor) if factor.strip() == factor and "_" not in factor else 0.0
    except ValueError:
        multiplier = 0.0
    if not multiplier > 0.0:
        raise Refused("Bad multiplier")
    return max(0, (1 << 64) - int((-base % (1 << 64)) / multiplier)) % (1 << 64)


def _work_validate(chain: Chain, request: Request) -> Answer:
    thresholds = chain.ledger.thresholds
    block_hash, work = request.hash(), request.work()
    difficulty = _difficulty(request, thresholds.epoch_2)
    value = work_value(block_hash, f"{work:016x}")
    answer: Answer = {"valid": "1" if value >= difficulty else "0"} if request.has("difficulty") else {}
    return answer | {
        "valid_all": "1" if value >= thresholds.epoch_2 else "0",
        "valid_receive": "1" if value >= thresholds.epoch_2_receive else "0",
        "difficulty": f"{value:016x}",
        "multiplier": _multiplier(value, thresholds.epoch_2),
    }


def _needed(ledger: Ledger, block: StateBlock, thresholds: Thresholds) -> int:
    """The threshold this very block would have to reach, from what the ledger knows; the base one when it knows too little."""
    previous = ledger.entries.get(block.previous) if block.previous != ZERO else None
    epoch = previous.epoch if previous else 0
    if previous is not None and block.balance < previous.balance:
        return thresholds.needed(epoch, receive=False)
    waiting = ledger.receivable(block.account, block.link)
    if waiting is not None:
        return thresholds.needed(max(epoch, waiting.epoch), receive=True)
    return thresholds.needed(epoch, receive=False) if previous is not None else thresholds.epoch_2


async def work_generate(chain: Chain, pool: WorkPool, request: Request) -> Answer:
    """Search for work; `pool` makes it cancellable. The difficulty follows the given block, if any."""
    thresholds = chain.ledger.thresholds
    if request.has("account"):
        request.account(request.text("account"))
    block_hash = request.hash()
    difficulty = _difficulty(request, thresholds.epoch_2)
    hardest = (1 << 64) - int((-thresholds.epoch_2 % (1 << 64)) / _MAX_MULTIPLIER)
    if not thresholds.entry <= difficulty <= hardest:
        raise Refused(_TOO_HARD)
    if request.has("block"):
        block = request.block()
        if isinstance(block, Legacy) or block.root != block_hash:
            raise Refused("Root mismatch for block")
        if not request.has("difficulty") and not request.has("multiplier"):
            difficulty = _needed(chain.ledger, block, thresholds)
        if work_value(block.root, block.work) >= difficulty:
            raise Refused("Provided work is already enough for given difficulty")
    work = await pool.generate(block_hash, difficulty)
    if work is None:
        raise Refused("Cancelled")
    value = work_value(block_hash, work)
    return {"hash": upper(block_hash), "work": work, "difficulty": f"{value:016x}", "multiplier": _multiplier(value, thresholds.epoch_2)}


CALCULATIONS: Final[dict[str, Action]] = {
    "account_get": _account_get,
    "account_key": _account_key,
    "active_difficulty": _active_difficulty,
    "block_hash": _block_hash,
    "deterministic_key": _deterministic_key,
    "key_expand": _key_expand,
    "nano_to_raw": _nano_to_raw,
    "raw_to_nano": _raw_to_nano,
    "validate_account_number": _validate_account_number,
    "work_validate": _work_validate,
}
