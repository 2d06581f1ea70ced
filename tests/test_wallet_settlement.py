"""settlement: what counts as paid, from honest and from lying answers."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeskill.model import Invoice, Payment, PaymentStatus
from tradeskill.money import MAX_RAW, Amount
from tradeskill_wallet.primitives import GENESIS_HASH, ZERO, StateBlock, derive_key, encode_address, public_key
from tradeskill_wallet.settlement import Answers, Seen, judge, weigh

CAPTURES = Path(__file__).parent / "captures"
SECRET = derive_key(bytes(32), 7)
SENDER = public_key(SECRET)
OURS = public_key(derive_key(bytes(32), 8))
OTHER = public_key(derive_key(bytes(32), 9))
NOW = 1_700_000_000_000
SECONDS = NOW // 1000
GENESIS = encode_address(OTHER)


def entry(block: StateBlock, **changes: Any) -> dict[str, Any]:
    contents = {**block.to_json(), "work": "0" * 16}
    return {"contents": contents, "confirmed": "true", "subtype": "send", "local_timestamp": str(SECONDS), "height": "2", **changes}


def chain(amount: int, start: int = 10**6, salt: int = 0, link: bytes = OURS) -> tuple[StateBlock, StateBlock]:
    """A sender's block and the send after it."""
    before = StateBlock(SENDER, salt.to_bytes(32, "big"), OTHER, start, ZERO)
    send = StateBlock(SENDER, before.hash, OTHER, start - amount, link)
    return before.signed(SECRET, os.urandom), send.signed(SECRET, os.urandom)


def seen(amount: int = 100, salt: int = 1, link: bytes = OURS, **changes: Any) -> Seen:
    before, send = chain(amount, salt=salt, link=link)
    return Seen(send.hash_hex, entry(send, **changes), entry(before, subtype="receive"))


def bill(amount: int = 100, expires_at: int = NOW + 60_000) -> Invoice:
    return Invoice("nano", "dev", "invoice", "job", encode_address(OURS), Amount(amount, "raw"), expires_at)


def verdict(*answers: Answers, amount: int = 100, needed: int = 1, known: tuple[Payment, ...] = (), expires_at: int = NOW + 60_000) -> PaymentStatus:
    return judge(bill(amount, expires_at), answers, now_ms=NOW, needed=needed, known=known)


def one(*sends: Seen, node: str = "a", problem: str = "") -> Answers:
    return Answers(node, sends, problem)


# --- one send


def test_an_honest_confirmed_send_is_final_with_the_amount_of_its_balances() -> None:
    weighed = weigh(seen(100), OURS)
    assert (weighed.verdict, weighed.amount, weighed.sender, weighed.seen_at) == ("final", 100, encode_address(SENDER), NOW)


@pytest.mark.parametrize("said", ["false", "True", "TRUE", "1", " true", "true\n", "", None, True, 1, ["true"]])
def test_only_exactly_the_string_true_is_confirmed(said: object) -> None:
    assert weigh(seen(confirmed=said), OURS).verdict == "pending"


def test_a_missing_confirmed_flag_is_not_confirmed() -> None:
    send = seen()
    assert isinstance(send.info, dict)
    info = {key: value for key, value in send.info.items() if key != "confirmed"}
    assert weigh(Seen(send.hash, info, send.previous), OURS).verdict == "pending"


def test_the_amount_a_node_claims_beside_the_block_is_ignored() -> None:
    assert weigh(seen(100, balance="0", link_as_account="x"), OURS).amount == 100
    assert weigh(spoil("info.amount", "999999")(seen(100)), OURS).amount == 100


def test_a_send_to_somebody_else_is_foreign_even_if_link_as_account_says_otherwise() -> None:
    send = seen(link=OTHER)
    assert isinstance(send.info, dict)
    contents = send.info["contents"]
    assert isinstance(contents, dict)
    contents["link_as_account"] = encode_address(OURS)
    assert weigh(send, OURS).verdict == "foreign"


def spoil(path: str, value: object) -> Callable[[Seen], Seen]:
    def change(send: Seen) -> Seen:
        root = {"info": copy.deepcopy(send.info), "previous": copy.deepcopy(send.previous)}
        *parents, last = path.split(".")
        place: Any = root
        for name in parents:
            place = place[name]
        place[last] = value
        return Seen(send.hash, root["info"], root["previous"])

    change.__name__ = f"{path}={str(value)[:20]}"
    return change


LIES = [
    spoil("info", "text"), spoil("info", []), spoil("info.contents", None), spoil("info.contents", "block as text"),
    spoil("info.contents.balance", "0"), spoil("info.contents.balance", "1e5"), spoil("info.contents.balance", 5), spoil("info.contents.balance", str(2**128)),
    spoil("info.contents.link", OTHER.hex()), spoil("info.contents.account", GENESIS), spoil("info.contents.account", "nano_bad"),
    spoil("info.contents.previous", "00"), spoil("info.contents.representative", encode_address(SENDER)), spoil("info.contents.signature", "0" * 128),
    spoil("info.contents.signature", ""), spoil("info.subtype", "receive"), spoil("info.subtype", None),
    spoil("previous", None), spoil("previous", "text"), spoil("previous", {}), spoil("previous.contents", None),
    spoil("previous.contents.balance", str(MAX_RAW)), spoil("previous.contents.balance", "x"), spoil("previous.contents.account", GENESIS),
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_an_answer_that_contradicts_itself_is_bogus_and_makes_the_invoice_unknown(lie: Callable[[Seen], Seen]) -> None:
    send = lie(seen())
    assert weigh(send, OURS).verdict == "bogus"
    status = verdict(one(send))
    assert (status.state, status.payments) == ("unknown", ())
    assert status.detail


def test_a_block_of_another_hash_than_asked_for_is_bogus() -> None:
    before, send = chain(100)
    assert weigh(Seen("AB" * 32, entry(send), entry(before)), OURS).verdict == "bogus"


def test_a_block_before_of_another_account_is_bogus() -> None:
    stranger = StateBlock(OTHER, ZERO, OTHER, 500, ZERO)
    send = StateBlock(SENDER, stranger.hash, OTHER, 400, OURS).signed(SECRET, os.urandom)
    assert weigh(Seen(send.hash_hex, entry(send), entry(stranger)), OURS).verdict == "bogus"


def test_a_block_whose_balance_does_not_go_down_sends_nothing() -> None:
    assert weigh(seen(0), OURS).verdict == "foreign"
    first = StateBlock(SENDER, ZERO, OTHER, 10, OURS).signed(SECRET, os.urandom)
    assert weigh(Seen(first.hash_hex, entry(first)), OURS).verdict == "foreign"


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({"type": "send", "destination": encode_address(OURS), "balance": "00"}, "review"),
        ({"type": "send", "destination": encode_address(OTHER)}, "foreign"),
        ({"type": "send", "destination": "nonsense"}, "bogus"),
        ({"type": "send"}, "bogus"),
        ({"type": "open"}, "foreign"),
        ({"type": "receive"}, "foreign"),
        ({}, "foreign"),
        ({"type": ["state"]}, "foreign"),
    ],
)
def test_a_legacy_block_is_never_counted_and_never_crashes(contents: dict[str, Any], expected: str) -> None:
    send = Seen("AB" * 32, {"contents": contents, "confirmed": "true"})
    assert weigh(send, OURS).verdict == expected
    assert verdict(one(send)).state == ("none" if expected == "foreign" else "unknown")


def test_a_send_after_a_legacy_block_is_for_review() -> None:
    send = spoil("previous.contents", {"type": "receive"})(seen())
    assert weigh(send, OURS).verdict == "review"
    assert "look at it yourself" in verdict(one(send)).detail


def test_a_real_nodes_legacy_genesis_block_is_handled() -> None:
    answer = json.loads((CAPTURES / "014-block_info-genesis-legacy-open.json").read_text())["response"]
    assert weigh(Seen("04270D7F11C4B2B472F2854C5A59F2A7E84226CE9ED799DE75744BD7D85FC9D9", answer), OURS).verdict == "foreign"


def test_a_real_nodes_send_weighs_what_the_node_said() -> None:
    send = json.loads((CAPTURES / "101-block_info-send-confirmed.json").read_text())
    unconfirmed = json.loads((CAPTURES / "040-block_info-send-unconfirmed.json").read_text())
    account = bytes.fromhex(send["response"]["contents"]["link"])
    name = send["request"]["hash"]
    assert weigh(Seen(name, send["response"]), account).verdict == "bogus"  # without the block before it nothing is believed
    before = weigh(Seen(name, unconfirmed["response"], None), account)
    assert "does not show the block before" in before.reason


@pytest.mark.parametrize("stamp", ["0", "", None, 5, "-1", "1e9", "99999999999999", "x"])
def test_a_useless_timestamp_means_now_and_never_a_crash(stamp: object) -> None:
    send = seen(local_timestamp=stamp)
    assert weigh(send, OURS).seen_at == 0
    status = verdict(one(send))
    assert (status.state, status.payments[0].received_at, status.late) == ("paid", NOW, False)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda c: st.lists(c, max_size=3) | st.dictionaries(
    st.sampled_from(["contents", "type", "state", "account", "balance", "subtype", "confirmed"]) | st.text(max_size=3), c, max_size=4), max_leaves=8))
@settings(max_examples=200)  # fmt: skip
def test_no_json_makes_the_judgement_crash_or_pay(value: Any) -> None:
    assert verdict(one(Seen("AB" * 32, value, value))).state in ("none", "unknown")


# --- one invoice


def test_no_sends_is_none_and_an_absent_one_too() -> None:
    assert verdict(one()) == PaymentStatus("none")
    assert verdict(one(Seen("AB" * 32, None))) == PaymentStatus("none")


def test_unconfirmed_money_is_pending_and_not_a_payment() -> None:
    assert verdict(one(seen(confirmed="false"))) == PaymentStatus("pending")


def test_distinct_sends_add_up_exactly_and_a_repeated_one_counts_once() -> None:
    first, second = seen(60, salt=1), seen(50, salt=2)
    status = verdict(one(first, second, first), one(first, second, node="b"))
    assert (status.state, status.surplus, sorted(p.amount.value for p in status.payments)) == ("paid", 10, [50, 60])


def test_one_raw_short_is_partial_and_one_raw_over_is_surplus() -> None:
    assert verdict(one(seen(99))).state == "partial"
    assert verdict(one(seen(100))).surplus == 0
    assert verdict(one(seen(101))).surplus == 1


def test_partial_money_beside_unconfirmed_money_stays_partial() -> None:
    assert verdict(one(seen(40, salt=1), seen(60, salt=2, confirmed="false"))).state == "partial"


def test_lateness_looks_at_the_money_that_completed_the_amount() -> None:
    early, late = seen(60, salt=1, local_timestamp=str(SECONDS - 100)), seen(60, salt=2, local_timestamp=str(SECONDS - 10))
    deadline = NOW - 50_000
    assert verdict(one(early, late), amount=60, expires_at=deadline).late is False
    assert verdict(one(early, late), amount=61, expires_at=deadline).late is True
    assert verdict(one(early), amount=100, expires_at=deadline).late is False
    assert verdict(one(late), amount=100, expires_at=deadline) == PaymentStatus("partial", verdict(one(late)).payments, late=True)


def test_of_several_timestamps_the_earliest_counts() -> None:
    early = seen()
    later = spoil("info.local_timestamp", str(SECONDS + 500))(early)
    assert verdict(one(later), one(early, node="b")).payments[0].received_at == NOW


def test_payments_known_before_need_no_node_and_keep_their_time() -> None:
    known = Payment(seen().hash, Amount(100, "raw"), NOW - 5, "nano_x")
    status = verdict(one(problem="away"), known=(known,))
    assert (status.state, status.payments) == ("paid", (known,))


def test_a_known_payment_is_not_counted_again_when_a_node_shows_it() -> None:
    send = seen(100)
    known = Payment(send.hash, Amount(100, "raw"), NOW - 5)
    assert verdict(one(send), known=(known,)).payments == (known,)


@pytest.mark.parametrize("sends", [(), (seen(40),), (seen(confirmed="false"),)])
def test_a_node_in_trouble_never_makes_an_invoice_unpaid(sends: tuple[Seen, ...]) -> None:
    status = verdict(one(*sends, problem="lags"))
    assert (status.state, status.detail) == ("unknown", "a: lags")


def test_enough_money_is_paid_even_while_the_node_lags() -> None:
    assert verdict(one(seen(100), problem="lags")).state == "paid"


def test_one_good_node_is_enough_when_one_is_needed() -> None:
    assert verdict(one(problem="away"), one(node="b")).state == "none"


def test_nobody_asked_is_unknown() -> None:
    assert verdict().state == "unknown"


def test_two_needed_nodes_must_both_call_it_final() -> None:
    send = seen()
    unconfirmed = spoil("info.confirmed", "false")(send)
    absent = Seen(send.hash, None)
    assert verdict(one(send), one(send, node="b"), needed=2).state == "paid"
    for other in (one(unconfirmed, node="b"), one(absent, node="b"), one(node="b"), one(node="b", problem="away")):
        status = verdict(one(send), other, needed=2)
        assert (status.state, status.payments) == ("unknown", ())
    assert verdict(one(unconfirmed), one(unconfirmed, node="b"), needed=2).state == "pending"
    assert verdict(one(), one(node="b"), needed=2).state == "none"


def test_one_node_that_answers_twice_is_still_one_node() -> None:
    assert verdict(one(seen()), one(seen()), needed=2).state == "unknown"


def test_a_liar_is_outvoted_by_an_honest_node() -> None:
    send = seen()
    liar = spoil("info.contents.balance", "5")(send)
    assert verdict(one(liar), one(send, node="b")).state == "paid"
    assert verdict(one(liar), one(Seen(send.hash, None), node="b")).state == "unknown"


def test_more_money_than_exists_is_unknown() -> None:
    known = tuple(Payment(str(n), Amount(MAX_RAW, "raw"), NOW) for n in range(2))
    assert verdict(one(), known=known).state == "unknown"


def test_the_largest_amount_there_is_is_exact() -> None:
    before = StateBlock(SENDER, ZERO, OTHER, MAX_RAW, ZERO)
    send = StateBlock(SENDER, before.hash, OTHER, 0, OURS).signed(SECRET, os.urandom)
    status = verdict(one(Seen(send.hash_hex, entry(send), entry(before))), amount=MAX_RAW)
    assert (status.state, status.surplus) == ("paid", 0)


@pytest.mark.parametrize("genesis", GENESIS_HASH.values())
def test_the_first_send_of_all_is_counted_from_all_the_money(genesis: str) -> None:
    send = StateBlock(SENDER, bytes.fromhex(genesis), OTHER, MAX_RAW - 100, OURS).signed(SECRET, os.urandom)
    legacy = {"contents": {"type": "open"}}
    assert weigh(Seen(send.hash_hex, entry(send), legacy), OURS).amount == 100
