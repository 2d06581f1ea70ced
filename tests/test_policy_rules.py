"""The rules, pure: what policy.yaml may say, how one spend is judged, and when a policy is looser than another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeskill.configvalues import Place
from tradeskill.errors import ConfigError
from tradeskill.money import MAX_RAW, Amount
from tradeskill.policy.rules import Allowed, Ask, Intended, Policy, Refused, Spent, judge, loosened, read_policy
from tradeskill.strictyaml import parse_yaml

PLACE = Place(Path("policy.yaml"))


def policy(**content: Any) -> Policy:
    return read_policy(content, PLACE)


def wish(value: int = 10, unit: str = "raw", **more: Any) -> Intended:
    return Intended("a", Amount(value, unit), **{"seller": "s", "offer": "o", "tags": ("t",), "markets": ("m", "url"), **more})


def refused(verdict: object) -> tuple[str, int | None]:
    assert isinstance(verdict, Refused)
    return verdict.rule, verdict.over_by


# what may be written


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"cap": {}}, ["cap", "did you mean 'caps'"]),
        ({"caps": {"payment": "1 XNO"}}, ["caps.payment", "takes a list"]),
        ({"caps": {"payment": []}}, ["caps.payment", "takes 1 to 8 entries"]),
        ({"caps": {"day": ["1"]}}, ["caps.day[0]", "NUMBER UNIT"]),
        ({"caps": {"day": [{"most": "1 XNO"}]}}, ["caps.day[0]", "over is missing"]),
        ({"caps": {"day": [{"most": "1 XNO", "over": ["EUR"]}]}}, ["caps.day[0].over[0]", "takes one of XNO"]),
        ({"caps": {"day": [{"most": "1 XNO", "over": ["raw"]}]}}, ["caps.day[0].over", "own unit"]),
        ({"caps": {"day": [{"most": "1 XNO", "over": ["sat"]}]}}, ["caps.day[0]", "no rate between them"]),
        ({"rates": ["1 XNO is 5 sat"]}, ["rates[0]", "1 XNO = 1500 sat"]),
        ({"rates": ["1 XNO = 5 raw"]}, ["rates[0]", "different units"]),
        ({"rates": ["0 XNO = 5 sat"]}, ["rates[0]", "above zero"]),
        ({"rates": ["x XNO = 5 sat"]}, ["rates[0]", "plain decimal"]),
        ({"rates": [5]}, ["rates[0]", "takes two amounts"]),
        ({"rates": ["1 XNO = 5 sat", "5 sat = 1 raw"]}, ["rates[1]", "second rate between raw and sat"]),
        ({"expires_at": "2027-02-30T00:00:00Z"}, ["expires_at", "takes a time"]),
        ({"expires_at": "tomorrow"}, ["expires_at", "takes a time"]),
        ({"ask_above": ["1 XNO", "2 raw"]}, ["ask_above[1]", "repeats"]),
        ({"allow": {"sellers": ["a", "a"]}}, ["allow.sellers[1]", "repeats"]),
        ({"deny": {"seller": []}}, ["deny.seller", "did you mean 'sellers'"]),
    ],
)
def test_what_is_wrong_is_named_with_its_key(content: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        policy(**content)
    assert str(error.value).startswith("policy.yaml: ")
    assert [word for word in words if word not in str(error.value)] == []


def test_the_example_of_the_page_is_a_policy() -> None:
    page = (Path(__file__).parent.parent / "docs" / "policy.md").read_text("utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    found = read_policy(parse_yaml(example, "docs/policy.md"), PLACE)
    assert refused(judge(found, wish(2 * 10**28, tags=("web",), rail="nano"), Spent())) == ("caps.payment", 10**28)


# the judgement


def test_a_policy_that_says_nothing_allows_everything() -> None:
    assert judge(policy(), wish(MAX_RAW, signed=True), Spent()) == Allowed()


@pytest.mark.parametrize("kind", ["payment", "job", "seller", "offer", "hour", "day", "month", "total"])
def test_each_cap_refuses_one_raw_over_and_says_how_far(kind: str) -> None:
    before = 0 if kind == "payment" else 90
    spent = Spent(by={} if kind == "payment" else {kind: {"raw": before}})
    strict = policy(caps={kind: [f"{before + 9} raw"]})
    assert refused(judge(strict, wish(10), spent)) == (f"caps.{kind}", 1)
    assert judge(strict, wish(9), spent) == Allowed()


def test_the_cap_for_strangers_holds_only_for_strangers() -> None:
    strict = policy(caps={"first_use": ["9 raw"]})
    assert refused(judge(strict, wish(), Spent(first_use=True))) == ("caps.first_use", 1)
    assert judge(strict, wish(), Spent()) == Allowed()


def test_a_unit_that_no_cap_of_a_kind_names_is_refused() -> None:
    found = judge(policy(caps={"day": ["1 XNO"]}), wish(1, "sat"), Spent())
    assert refused(found) == ("caps.day", None)
    assert isinstance(found, Refused)
    assert "set a cap in sat" in found.why


def test_a_cap_over_several_units_adds_them_by_its_rates_exactly_and_rounds_against_the_spender() -> None:
    strict = policy(caps={"day": [{"most": "10 raw", "over": ["sat"]}]}, rates=["1 raw = 3 sat"])
    assert judge(strict, wish(30, "sat"), Spent()) == Allowed()
    assert refused(judge(strict, wish(31, "sat"), Spent())) == ("caps.day", 1)  # a third of a raw is a raw
    assert judge(strict, wish(9), Spent(by={"day": {"sat": 3}})) == Allowed()
    assert refused(judge(strict, wish(9), Spent(by={"day": {"sat": 4}}))) == ("caps.day", 1)
    turned = policy(caps={"day": [{"most": "10 raw", "over": ["sat"]}]}, rates=["3 sat = 1 raw"])
    assert refused(judge(turned, wish(9), Spent(by={"day": {"sat": 4}}))) == ("caps.day", 1)


def test_how_far_over_is_said_also_beyond_what_an_amount_can_be() -> None:
    found = judge(policy(caps={"total": ["0 raw"]}), wish(MAX_RAW), Spent(by={"total": {"raw": MAX_RAW}}))
    assert refused(found) == ("caps.total", 2 * MAX_RAW)


@pytest.mark.parametrize(("name", "value"), [("sellers", "s"), ("offers", "o"), ("tags", "t"), ("markets", "url")])
def test_lists_allow_what_is_on_them_and_deny_wins(name: str, value: str) -> None:
    assert judge(policy(allow={name: [value]}), wish(), Spent()) == Allowed()
    assert refused(judge(policy(allow={name: []}), wish(tags=()), Spent())) == (f"allow.{name}", None)
    assert refused(judge(policy(allow={name: ["other"]}), wish(), Spent())) == (f"allow.{name}", None)
    assert refused(judge(policy(allow={name: [value]}, deny={name: [value]}), wish(), Spent())) == (f"deny.{name}", None)
    assert judge(policy(deny={name: ["other"]}), wish(), Spent()) == Allowed()


@pytest.mark.parametrize("name", ["sellers", "offers", "tags", "markets"])
def test_where_anything_is_listed_money_goes_without_an_offer_only_to_listed_addresses(name: str) -> None:
    send = Intended("a", Amount(1, "raw"), seller="nano_1", kind="send")
    assert judge(policy(), send, Spent()) == Allowed()
    assert refused(judge(policy(allow={name: ["x"]}), send, Spent())) == ("allow.sellers", None)
    assert judge(policy(allow={name: ["x"], "sellers": ["nano_1"]}), send, Spent()) == Allowed()


def test_a_frozen_or_expired_policy_refuses_whatever_else_it_says() -> None:
    assert refused(judge(policy(frozen=True), wish(), Spent())) == ("frozen", None)
    ends = policy(expires_at="1970-01-01T00:00:10Z")
    assert judge(ends, wish(), Spent(clock=9_999)) == Allowed()
    assert refused(judge(ends, wish(), Spent(clock=10_000))) == ("expires_at", None)


def test_a_purchase_needs_a_signed_quote_unless_the_owner_says_otherwise() -> None:
    assert refused(judge(policy(), wish(signed=False), Spent())) == ("signed_quotes", None)
    assert judge(policy(signed_quotes=False), wish(signed=False), Spent()) == Allowed()
    assert judge(policy(), Intended("a", Amount(1, "raw"), kind="send", signed=False), Spent()) == Allowed()


def test_the_owner_is_asked_above_the_threshold_and_in_units_that_have_none() -> None:
    asks = policy(ask_above=["10 raw"])
    assert judge(asks, wish(10), Spent()) == Allowed()
    assert isinstance(judge(asks, wish(11), Spent()), Ask)
    assert isinstance(judge(asks, wish(1, "sat"), Spent()), Ask)


def test_what_is_refused_is_not_asked_for() -> None:
    assert refused(judge(policy(ask_above=["0 raw"], caps={"payment": ["1 raw"]}), wish(10), Spent())) == ("caps.payment", 9)


# looser or tighter


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ({}, {"caps": {"day": ["1 raw"]}}, ()),
        ({"caps": {"day": ["1 raw"]}}, {}, ("caps.day",)),
        ({"caps": {"day": ["2 raw"]}}, {"caps": {"day": ["1 raw"]}}, ()),
        ({"caps": {"day": ["1 raw"]}}, {"caps": {"day": ["2 raw"]}}, ("caps.day",)),
        ({"caps": {"day": ["1 raw"]}}, {"caps": {"day": ["1 raw", "1 sat"]}}, ("caps.day",)),
        ({"caps": {"day": ["1 raw", "1 sat"]}}, {"caps": {"day": ["1 raw"]}}, ()),
        (
            {"caps": {"day": [{"most": "1 raw", "over": ["sat"]}]}, "rates": ["1 raw = 1 sat"]},
            {"caps": {"day": ["1 raw"]}},  # what was spent in sat would not count any more
            ("caps.day", "rates"),
        ),
        (
            {"caps": {"day": [{"most": "1 raw", "over": ["sat"]}]}, "rates": ["1 raw = 1 sat"]},
            {"caps": {"day": [{"most": "1 raw", "over": ["sat"]}]}, "rates": ["1 raw = 2 sat"]},
            ("rates",),
        ),
        ({"rates": ["1 raw = 1 sat"]}, {}, ()),
        ({}, {"allow": {"tags": ["a"]}}, ()),
        ({"allow": {"tags": ["a"]}}, {"allow": {"tags": []}}, ()),
        ({"allow": {"tags": ["a"]}}, {"allow": {"tags": ["a", "b"]}}, ("allow.tags",)),
        ({"allow": {"tags": ["a"]}}, {}, ("allow.tags",)),
        ({"allow": {"tags": ["a"]}}, {"allow": {"tags": ["a"], "sellers": ["x"]}}, ("allow.sellers",)),
        ({}, {"deny": {"offers": ["a"]}}, ()),
        ({"deny": {"offers": ["a"]}}, {}, ("deny.offers",)),
        ({}, {"ask_above": ["1 raw"]}, ()),
        ({"ask_above": ["1 raw"]}, {}, ("ask_above",)),
        ({"ask_above": ["1 raw"]}, {"ask_above": ["2 raw"]}, ("ask_above",)),
        ({"ask_above": ["1 raw"]}, {"ask_above": ["1 raw", "1 sat"]}, ("ask_above",)),
        ({"ask_above": ["1 raw", "1 sat"]}, {"ask_above": ["1 raw"]}, ()),
        ({}, {"rails": ["nano"]}, ()),
        ({"rails": ["nano", "cashu"]}, {"rails": ["cashu"]}, ()),
        ({"rails": ["nano", "cashu"]}, {"rails": ["cashu", "nano"]}, ()),
        ({"rails": ["nano"]}, {"rails": ["nano", "cashu"]}, ("rails",)),
        ({"rails": ["nano"]}, {}, ("rails",)),
        ({}, {"signed_quotes": False}, ("signed_quotes",)),
        ({"signed_quotes": False}, {}, ()),
        ({"expires_at": "2027-01-01T00:00:00Z"}, {}, ("expires_at",)),
        ({"expires_at": "2027-01-01T00:00:00Z"}, {"expires_at": "2027-01-01T00:00:01Z"}, ("expires_at",)),
        ({"expires_at": "2027-01-01T00:00:00Z"}, {"expires_at": "2026-01-01T00:00:00Z"}, ()),
        ({"frozen": True}, {}, ("frozen",)),
        ({}, {"frozen": True}, ()),
    ],
)
def test_what_loosens_a_policy_is_named(old: dict[str, Any], new: dict[str, Any], keys: tuple[str, ...]) -> None:
    assert loosened(policy(**old), policy(**new)) == keys


def test_money_leaves_by_the_rails_that_are_named_and_by_no_other() -> None:
    rule = policy(rails=["nano", "cashu"])
    assert judge(rule, wish(rail="cashu"), Spent()) == Allowed()
    assert judge(rule, wish(rail="bank", kind="send"), Spent()) == Refused("rails", "money may leave by nano and cashu only, not by bank")
    assert refused(judge(rule, wish(), Spent())) == ("rails", None)  # a spend that says no rail
    assert judge(rule, Intended("", Amount(10, "raw")), Spent()) == Allowed()  # only asked, before there is a quote
    assert judge(policy(), wish(rail="bank"), Spent()) == Allowed()


AMOUNTS = st.integers(0, 6)
UNITS = st.sampled_from(["raw", "sat", "msat"])
SINGLE = st.builds(lambda n, u: f"{n} {u}", AMOUNTS, UNITS)
SUMMED = st.builds(lambda n, u, o: {"most": f"{n} {u}", "over": sorted({"raw", "sat", "msat"} - {u})[: o + 1]}, AMOUNTS, UNITS, st.integers(0, 1))
TABLE = st.dictionaries(
    st.sampled_from(["payment", "seller", "day", "total", "first_use"]), st.lists(st.one_of(SINGLE, SUMMED), min_size=1, max_size=2), max_size=3
)
NAMES = st.lists(st.sampled_from(["s", "o", "t", "m", "x"]), unique=True, max_size=3)
LISTS = st.dictionaries(st.sampled_from(["sellers", "offers", "tags", "markets"]), NAMES, max_size=2)
CONTENT = st.fixed_dictionaries(
    {"rates": st.sampled_from([["1 raw = 2 sat", "3 sat = 1 msat", "1 raw = 1 msat"], ["1 raw = 3 sat", "3 sat = 1 msat", "1 raw = 1 msat"]])},
    optional={
        "caps": TABLE,
        "allow": LISTS,
        "deny": LISTS,
        "ask_above": st.lists(SINGLE, max_size=2, unique_by=lambda text: text.split(" ")[1]),
        "signed_quotes": st.booleans(),
        "rails": st.lists(st.sampled_from(["nano", "cashu", "bank"]), unique=True, min_size=1, max_size=3),
        "expires_at": st.sampled_from(["1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z"]),
        "frozen": st.booleans(),
    },
)
SUMS = st.dictionaries(UNITS, AMOUNTS)
WISHES = st.builds(
    Intended,
    st.just("a"),
    st.builds(Amount, AMOUNTS, UNITS),
    seller=st.sampled_from(["s", "x"]),
    offer=st.sampled_from(["o", "x"]),
    tags=st.sampled_from([(), ("t",), ("t", "x")]),
    markets=st.just(("m",)),
    rail=st.sampled_from(["", "nano", "cashu"]),
    kind=st.sampled_from(["purchase", "send"]),
    signed=st.booleans(),
)


@settings(deadline=None)
@given(CONTENT, CONTENT, WISHES, st.fixed_dictionaries(dict.fromkeys(("seller", "day", "total"), SUMS)), st.integers(0, 3000), st.booleans())
def test_what_a_tighter_policy_allows_the_old_one_allowed(
    old: dict[str, Any], new: dict[str, Any], intended: Intended, sums: dict[str, dict[str, int]], clock: int, first: bool
) -> None:
    before, after, spent = policy(**old), policy(**{**old, **new}), Spent(clock, sums, first)
    if loosened(before, after) == () and judge(after, intended, spent) == Allowed():
        assert judge(before, intended, spent) == Allowed()
