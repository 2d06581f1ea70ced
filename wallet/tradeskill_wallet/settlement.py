"""Is this invoice paid? A pure judgement over what nodes answered; every answer is recomputed here and none is believed as it stands.

A send counts when its recomputed hash is the one asked for, its account's key signed it, its link is the invoice's public key, the amount that its own and
its previous block's contents differ by is positive, and the node says confirmed with exactly the string "true".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tradeskill.errors import AmountError, UsageError
from tradeskill.model import Invoice, Json, Payment, PaymentStatus
from tradeskill.money import MAX_RAW, Amount, parse_raw, total
from tradeskill_wallet.primitives import GENESIS_HASH, ZERO, StateBlock, decode_address, encode_address

__all__ = ["Answers", "Seen", "Weighed", "judge", "weigh"]

FIRST_BLOCKS: Final = frozenset(bytes.fromhex(block) for block in GENESIS_HASH.values())  # legacy blocks, but all the money is known to be there
MAX_TIMESTAMP: Final = 1 << 40  # seconds; beyond it a timestamp is nonsense


@dataclass(frozen=True)
class Seen:
    """What one node shows of one send: its `block_info` entry and that of the block before it; None where it knows no such block."""

    hash: str
    info: Json
    previous: Json = None


@dataclass(frozen=True)
class Answers:
    """One node's word on one invoice. `problem`: why it could not be asked or cannot be trusted to be complete ("" when it can)."""

    node: str
    sends: tuple[Seen, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Weighed:
    """One send after recomputation. `absent`: the node does not know it. `bogus`: the node's answer contradicts itself. `foreign`: a real send,
    not to this account. `review`: a legacy block, which cannot be recomputed here."""

    verdict: Literal["final", "pending", "absent", "foreign", "bogus", "review"]
    reason: str = ""
    amount: int = 0
    sender: str = ""
    seen_at: int = 0  # ms by the node's clock; 0 unknown


def weigh(seen: Seen, account: bytes) -> Weighed:
    """Judge one send to `account` (a public key) from one node's contents. Never raises on hostile input."""
    if seen.info is None:
        return Weighed("absent")
    if not isinstance(seen.info, dict):
        return Weighed("bogus", f"block {seen.hash} is not an object")
    contents = seen.info.get("contents")
    if not isinstance(contents, dict):
        return Weighed("bogus", f"block {seen.hash} has no contents")
    if contents.get("type") != "state":
        return _legacy(seen.hash, contents, account)
    try:
        block = StateBlock.from_json(contents)
    except (UsageError, AmountError) as error:
        return Weighed("bogus", f"block {seen.hash}: {error}")
    if block.hash_hex != seen.hash:
        return Weighed("bogus", f"block {seen.hash} has contents that hash to {block.hash_hex}")
    if not block.verified():
        return Weighed("bogus", f"block {seen.hash} is not signed by its account")
    if block.link != account:
        return Weighed("foreign", f"block {seen.hash} does not send to this account")
    before = _balance_before(seen, block)
    if isinstance(before, Weighed):
        return before
    if block.balance >= before:
        return Weighed("foreign", f"block {seen.hash} sends nothing: its balance does not go down")
    if seen.info.get("subtype") != "send":
        return Weighed("bogus", f"block {seen.hash} is a send, but the node calls it {str(seen.info.get('subtype'))[:20]!r}")
    verdict: Literal["final", "pending"] = "final" if seen.info.get("confirmed") == "true" else "pending"
    return Weighed(verdict, "", before - block.balance, encode_address(block.account), _timestamp(seen.info))


def judge(
    invoice: Invoice,
    answers: Sequence[Answers],
    *,
    now_ms: int,
    needed: int = 1,
    known: Sequence[Payment] = (),
) -> PaymentStatus:
    """The state of an invoice from the answers of one or more nodes.

    `needed`: how many nodes must call a send final. `known`: payments found final before (final never reverts). Whatever is not certain is
    `unknown`, never "not paid": a node that could not be asked or lags, nodes that contradict each other or themselves, legacy blocks.
    """
    account = decode_address(invoice.address)
    payments = {payment.payment_id: payment for payment in known}
    doubts: list[str] = []
    if sum(not a.problem for a in answers) < needed:
        doubts = [f"{a.node}: {a.problem}" for a in answers if a.problem] or [f"{needed} nodes are needed, {len(answers)} were asked"]
    pending = False
    for send, weights in _by_send(answers, account).items():
        if send in payments:
            continue
        final = [w for w in weights if w.verdict == "final"]
        if len(final) >= needed:
            seen_at = min((w.seen_at for w in final if w.seen_at), default=now_ms)
            payments[send] = Payment(send, Amount(final[0].amount, invoice.amount.unit), seen_at, final[0].sender)
            continue
        strange = next((w for w in weights if w.verdict in ("bogus", "review")), None)
        if strange is not None:
            doubts.append(strange.reason)
        elif final:
            doubts.append(f"block {send}: {len(final)} of {needed} nodes call it final")
        elif any(w.verdict == "pending" for w in weights):
            pending = True
    return _sum_up(invoice, sorted(payments.values(), key=lambda p: (p.received_at, p.payment_id)), pending, doubts)


def _sum_up(invoice: Invoice, payments: Sequence[Payment], pending: bool, doubts: Sequence[str]) -> PaymentStatus:
    final, due = tuple(payments), invoice.amount.value
    try:
        paid = total([p.amount.value for p in final])
    except AmountError:  # more than all the money there is
        return PaymentStatus("unknown", detail="the payments shown add up to more than 2^128 - 1 raw")
    in_time = sum(p.amount.value for p in final if p.received_at <= invoice.expires_at)
    detail = "; ".join(doubts)
    if paid >= due:
        return PaymentStatus("paid", final, surplus=paid - due, late=in_time < due, detail=detail)
    if doubts:
        return PaymentStatus("unknown", final, detail=detail)
    if paid:
        return PaymentStatus("partial", final, late=in_time < paid)
    return PaymentStatus("pending" if pending else "none")


def _by_send(answers: Sequence[Answers], account: bytes) -> dict[str, list[Weighed]]:
    """Each hash once a node, however often a node repeats it."""
    weights: dict[str, dict[str, Weighed]] = {}
    for answer in answers:
        for seen in answer.sends:
            weights.setdefault(seen.hash, {}).setdefault(answer.node, weigh(seen, account))
    return {send: list(by_node.values()) for send, by_node in weights.items()}


def _balance_before(seen: Seen, block: StateBlock) -> int | Weighed:
    """The sender's balance before the send, from the previous block's own contents, found by its hash."""
    if block.previous == ZERO:
        return 0  # an account's first block cannot send
    if block.previous in FIRST_BLOCKS:
        return MAX_RAW
    contents = seen.previous.get("contents") if isinstance(seen.previous, dict) else None
    if not isinstance(contents, dict):
        return Weighed("bogus", f"block {seen.hash}: the node does not show the block before it")
    if contents.get("type") != "state":
        return Weighed("review", f"block {seen.hash} follows a legacy block: its amount cannot be recomputed, look at it yourself")
    try:
        previous = StateBlock.from_json(contents)
    except (UsageError, AmountError) as error:
        return Weighed("bogus", f"block before {seen.hash}: {error}")
    if previous.hash != block.previous or previous.account != block.account:
        return Weighed("bogus", f"block {seen.hash}: what the node shows as the block before it is another one")
    return previous.balance


def _legacy(block_hash: str, contents: Mapping[str, Json], account: bytes) -> Weighed:
    if contents.get("type") == "send":
        try:
            if decode_address(str(contents.get("destination"))) == account:
                return Weighed("review", f"block {block_hash} is a legacy send to this account: look at it yourself")
        except UsageError as error:
            return Weighed("bogus", f"block {block_hash}: {error}")
    return Weighed("foreign", f"block {block_hash} is of legacy type {str(contents.get('type'))[:20]!r}")


def _timestamp(info: Mapping[str, Json]) -> int:
    try:
        seconds = parse_raw(info.get("local_timestamp"))
    except AmountError:
        return 0
    return seconds * 1000 if seconds < MAX_TIMESTAMP else 0
