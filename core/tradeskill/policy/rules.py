"""The spending rules as values, and the judgement of one intended spend by them: pure, exact, every refusal with its rule and how far over.

The classes are the definition of policy.yaml: reading, checking, comparing and docs/policy.md follow their fields.
"""
# ruff: noqa: RUF009 - setting() returns a dataclasses.field, which is not shared between instances

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from fractions import Fraction
from math import ceil
from typing import Any, Final, Literal

from tradeskill import configvalues as v
from tradeskill.configvalues import Place, Shape, section, setting
from tradeskill.errors import AmountError
from tradeskill.money import MAX_RAW, UNITS, Amount, format_amount, parse_amount

__all__ = [
    "WINDOWS",
    "Allowed",
    "Ask",
    "Cap",
    "CapTable",
    "Intended",
    "Lists",
    "Policy",
    "Rate",
    "Refused",
    "Spent",
    "Verdict",
    "judge",
    "loosened",
    "over_caps",
    "read_policy",
]

WINDOWS: Final[Mapping[str, int]] = {"hour": 3_600_000, "day": 86_400_000, "month": 30 * 86_400_000}  # milliseconds, sliding
WORDS: Final[Mapping[str, str]] = {
    "payment": "cap per payment",
    "job": "cap per job",
    "seller": "cap per seller",
    "offer": "cap per offer",
    "hour": "cap per hour",
    "day": "cap per day",
    "month": "cap per 30 days",
    "total": "total cap",
    "first_use": "cap for a first purchase from this seller",
}


# what the owner writes


@dataclass(frozen=True)
class Cap:
    """At most `most`. `over`: units besides its own that count into it, converted by the policy's rates."""

    most: Amount
    over: tuple[str, ...] = ()

    @property
    def units(self) -> frozenset[str]:
        return frozenset((self.most.unit, *self.over))


@dataclass(frozen=True)
class Rate:
    """`of` is worth `worth`; both above zero, in different units. It holds in both directions, exactly."""

    of: Amount
    worth: Amount


def _unit(value: Any, place: Place) -> str:
    if not isinstance(value, str) or value not in UNITS:
        raise place.error(f"takes one of {', '.join(UNITS)}", value)
    return UNITS[value][0]


@dataclass(frozen=True, kw_only=True)
class _CapText:
    most: Amount = setting(v.amount(), "The cap.")
    over: tuple[str, ...] = setting(v.list_of(Shape(f"one of {', '.join(UNITS)}", _unit), 8, 1, unique="."), "What else counts into it.")


def _cap(value: Any, place: Place) -> Cap:
    if not isinstance(value, dict):
        return Cap(v.amount().read(value, place))
    text = section(_CapText, value, place)
    if text.most.unit in text.over:
        raise place.key("over").error(f"names {text.most.unit}, which is the cap's own unit; name only others")
    return Cap(text.most, text.over)


def _rate(value: Any, place: Place) -> Rate:
    sides = value.split(" = ") if isinstance(value, str) else []
    try:
        rate = Rate(*map(parse_amount, sides)) if len(sides) == 2 else None
    except AmountError as error:
        raise place.error(str(error)) from error
    if rate is None or rate.of.unit == rate.worth.unit or 0 in (rate.of.value, rate.worth.value):
        raise place.error('takes two amounts above zero in different units, such as "1 XNO = 1500 sat"', value)
    return rate


def _time(value: Any, place: Place) -> int:
    try:
        if not isinstance(value, str) or re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", value, re.ASCII) is None:
            raise ValueError
        return round(datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()) * 1000
    except ValueError as error:
        raise place.error("takes a time such as 2027-01-31T12:00:00Z (UTC)", value) from error


_CAPS: Final = v.list_of(Shape('an amount such as "0.01 XNO", or `{most: "0.01 XNO", over: [sat]}`', _cap), 8, 1)
_NAMES: Final = v.optional(v.list_of(v.text(256), 10_000, unique="."))


@dataclass(frozen=True, kw_only=True)
class CapTable:
    """What may be spent. A kind of cap that is written refuses every unit that none of its caps names or counts in."""

    payment: tuple[Cap, ...] = setting(_CAPS, "One payment.", ())
    job: tuple[Cap, ...] = setting(_CAPS, "All payments for one job.", ())
    seller: tuple[Cap, ...] = setting(_CAPS, "All payments ever to one seller (or to one address).", ())
    offer: tuple[Cap, ...] = setting(_CAPS, "All payments ever for one offer.", ())
    hour: tuple[Cap, ...] = setting(_CAPS, "Any 3,600 seconds.", ())
    day: tuple[Cap, ...] = setting(_CAPS, "Any 86,400 seconds.", ())
    month: tuple[Cap, ...] = setting(_CAPS, "Any 30 days.", ())
    total: tuple[Cap, ...] = setting(_CAPS, "All spending of the profile.", ())
    first_use: tuple[Cap, ...] = setting(_CAPS, "One payment to a seller that was not pinned and has delivered nothing yet.", ())


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Who and what. `sellers` holds public keys in hex; for `wallet send`, `sweep --to` and refunds by hand, addresses."""

    sellers: tuple[str, ...] | None = setting(_NAMES, "Sellers' keys, or addresses.", None)
    offers: tuple[str, ...] | None = setting(_NAMES, "Offer ids.", None)
    tags: tuple[str, ...] | None = setting(_NAMES, "Tags of offers; one that is on the list is enough.", None)
    markets: tuple[str, ...] | None = setting(_NAMES, "Markets, by plugin name, or by the path or URL of the configuration.", None)


def _section_of(kind: type[Any]) -> Callable[[Any, Place], Any]:
    return lambda value, place: section(kind, value, place)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the owner allows. All of it holds at once, beside the caps of config.yaml; what is left out does not limit."""

    caps: CapTable = setting(Shape("a mapping, see `caps`", _section_of(CapTable)), "Caps.", CapTable())
    rates: tuple[Rate, ...] = setting(
        v.list_of(Shape('such as "1 XNO = 1500 sat"', _rate), 16), "What one unit is worth in another, for caps with `over`. Never fetched.", ()
    )
    allow: Lists = setting(
        Shape("a mapping, see `allow` and `deny`", _section_of(Lists)),
        "Where a list is given, only what is on it. Money that is sent without an offer then needs its address in `sellers`.",
        Lists(),
    )
    deny: Lists = setting(Shape("a mapping, see `allow` and `deny`", _section_of(Lists)), "What is on a list is refused, whatever `allow` says.", Lists())
    ask_above: tuple[Amount, ...] = setting(
        v.list_of(v.amount(), 8, unique="unit"), "The owner is asked before a larger payment, and before any in a unit that is not named here.", ()
    )
    rails: tuple[str, ...] | None = setting(
        v.optional(v.list_of(v.slug(), 16, 1, unique=".")),
        "The payment rails that money may leave by. Where a quote can be paid by several, the first of them that its money and the caps allow.",
        None,
    )
    signed_quotes: bool = setting(v.flag(), "Whether a purchase needs a quote that its seller signed.", True)
    expires_at: int | None = setting(v.optional(Shape("a time such as 2027-01-31T12:00:00Z", _time)), "From then on nothing is spent.", None)
    frozen: bool = setting(v.flag(), "Nothing is spent.", False)


def read_policy(value: Any, place: Place) -> Policy:
    """A policy from its YAML value. ConfigError naming file and key; also where a cap needs a rate that is not there, or two rates contradict."""
    policy = section(Policy, value, place)
    pairs = [frozenset((rate.of.unit, rate.worth.unit)) for rate in policy.rates]
    for index, pair in enumerate(pairs):
        if pair in pairs[:index]:
            raise place.key("rates").item(index).error(f"is a second rate between {' and '.join(sorted(pair))}; keep one")
    for kind in fields(CapTable):
        for index, cap in enumerate(getattr(policy.caps, kind.name)):
            missing = [unit for unit in cap.over if frozenset((unit, cap.most.unit)) not in pairs]
            if missing:
                where = place.key("caps").key(kind.name).item(index)
                raise where.error(f"counts {missing[0]} into {cap.most.unit}, but `rates` has no rate between them; write one")
    return policy


# the judgement


@dataclass(frozen=True)
class Intended:
    """One spend that somebody wants. `seller`: a key, or the address that money is sent to without an offer. `job` "": a job of its own."""

    spend_id: str
    amount: Amount
    seller: str = ""
    offer: str = ""
    tags: tuple[str, ...] = ()
    markets: tuple[str, ...] = ()
    rail: str = ""  # "": not known yet, as before a quote; nothing is reserved for it under `rails`
    kind: Literal["purchase", "send", "sweep", "refund"] = "purchase"
    job: str = ""
    signed: bool = True


@dataclass(frozen=True)
class Spent:
    """What counts as spent before it, by kind of cap and unit (reserved and unknown included), and when: `clock` is the largest ever seen."""

    clock: int = 0
    by: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    first_use: bool = False


@dataclass(frozen=True)
class Allowed:
    pass


@dataclass(frozen=True)
class Refused:
    """`rule` names it as policy.yaml does. `over_by` in the smallest unit of the cap, None where the rule is no cap."""

    rule: str
    why: str
    over_by: int | None = None
    unit: str = ""


@dataclass(frozen=True)
class Ask:
    rule: str
    why: str


Verdict = Allowed | Refused | Ask


def judge(policy: Policy, wish: Intended, spent: Spent) -> Verdict:
    """The first rule that refuses, in the order of this function; Ask only where none does."""
    return (
        _stopped(policy, spent)
        or _listed(policy, wish)
        or over_caps(policy.caps, policy.rates, wish.amount, spent)
        or _asks(policy, wish.amount)
        or Allowed()
    )


def _stopped(policy: Policy, spent: Spent) -> Refused | None:
    if policy.frozen:
        return Refused("frozen", "the policy is frozen: `tradeskill policy unfreeze` (the owner's passphrase)")
    if policy.expires_at is not None and spent.clock >= policy.expires_at:
        return Refused("expires_at", "the policy has expired: `tradeskill policy set` with a later time (the owner's passphrase)")
    return None


def _listed(policy: Policy, wish: Intended) -> Refused | None:
    if wish.kind == "purchase" and policy.signed_quotes and not wish.signed:
        return Refused("signed_quotes", "the quote is not signed by its seller")
    if policy.rails is not None and wish.rail not in policy.rails and (wish.rail or wish.spend_id):
        return Refused("rails", f"money may leave by {' and '.join(policy.rails)} only, not by {wish.rail or 'a rail that is not named'}")
    values: dict[str, tuple[str, ...]] = {"sellers": (wish.seller,), "offers": (wish.offer,), "tags": wish.tags, "markets": wish.markets}
    for name, found in values.items():
        for value in found:
            if value in (getattr(policy.deny, name) or ()):
                return Refused(f"deny.{name}", f"{value} is denied")
    if wish.kind != "purchase":
        restricted = [name for name in values if getattr(policy.allow, name) is not None]
        if restricted and wish.seller not in (policy.allow.sellers or ()):
            return Refused("allow.sellers", f"only what is listed is paid: the address {wish.seller} is not in `allow.sellers`")
        return None
    for name, found in values.items():
        listed = getattr(policy.allow, name)
        if listed is not None and not set(found) & set(listed):
            return Refused(f"allow.{name}", f"only listed {name} are allowed, {' and '.join(found) or 'none'} is not listed")
    return None


def over_caps(caps: CapTable, rates: tuple[Rate, ...], amount: Amount, spent: Spent) -> Refused | None:
    """The first cap that `amount`, on top of what was spent, would exceed, and by how much; sums are rational and rounded up once."""
    for kind in WORDS:
        table: tuple[Cap, ...] = getattr(caps, kind)
        if not table or (kind == "first_use" and not spent.first_use):
            continue
        meant = [cap for cap in table if amount.unit in cap.units]
        if not meant:
            named = ", ".join(sorted({unit for cap in table for unit in cap.units}))
            return Refused(f"caps.{kind}", f"{WORDS[kind]} is set in {named} only, this payment is in {amount.unit}: set a cap in {amount.unit}")
        before = spent.by.get(kind, {})
        for cap in meant:
            value = sum(
                (_worth(before.get(unit, 0) + (amount.value if unit == amount.unit else 0), unit, cap.most.unit, rates) for unit in cap.units), Fraction(0)
            )
            over = ceil(value) - cap.most.value
            if over > 0:
                why = f"{WORDS[kind]} is {cap.most}: {amount} would exceed it by {_shown(over, cap.most.unit)}"
                return Refused(f"caps.{kind}", why, over, cap.most.unit)
    return None


def _worth(value: int, unit: str, in_unit: str, rates: tuple[Rate, ...]) -> Fraction:
    if unit == in_unit:
        return Fraction(value)
    rate = next(rate for rate in rates if {rate.of.unit, rate.worth.unit} == {unit, in_unit})
    per = Fraction(rate.worth.value, rate.of.value)  # units of `worth` for one of `of`
    return value * (per if rate.of.unit == unit else 1 / per)


def _shown(value: int, unit: str) -> str:
    return format_amount(Amount(value, unit)) if value <= MAX_RAW else f"{value} {unit}"


def _asks(policy: Policy, amount: Amount) -> Ask | None:
    if not policy.ask_above:
        return None
    limit = next((limit for limit in policy.ask_above if limit.unit == amount.unit), None)
    if limit is None:
        return Ask("ask_above", f"payments in {amount.unit} are asked for")
    return Ask("ask_above", f"payments above {limit} are asked for, this is {amount}") if amount.value > limit.value else None


# comparing two policies


def loosened(old: Policy, new: Policy) -> tuple[str, ...]:
    """The keys by which `new` may allow something that `old` does not; empty: `new` is as tight or tighter. In doubt a key is named."""
    keys = [f"caps.{kind.name}" for kind in fields(CapTable) if not _caps_within(getattr(new.caps, kind.name), getattr(old.caps, kind.name))]
    if {rate for rate in old.rates if _uses(old.caps, rate)} - set(new.rates):
        keys.append("rates")
    for name in ("sellers", "offers", "tags", "markets"):
        before, after = getattr(old.allow, name), getattr(new.allow, name)
        if before is not None and (after is None or set(after) - set(before)):
            keys.append(f"allow.{name}")
        if set(getattr(old.deny, name) or ()) - set(getattr(new.deny, name) or ()):
            keys.append(f"deny.{name}")
    if old.allow.sellers is None and new.allow.sellers and any(getattr(old.allow, name) is not None for name in ("offers", "tags", "markets")):
        keys.append("allow.sellers")  # an address on it may be sent money to, which no list allowed before
    limits = {limit.unit: limit.value for limit in new.ask_above}
    if old.ask_above and (not limits or any(limits.get(limit.unit, 0) > limit.value for limit in old.ask_above) or limits.keys() - _units(old.ask_above)):
        keys.append("ask_above")
    if old.rails is not None and (new.rails is None or set(new.rails) - set(old.rails)):
        keys.append("rails")
    if old.signed_quotes and not new.signed_quotes:
        keys.append("signed_quotes")
    if old.expires_at is not None and (new.expires_at is None or new.expires_at > old.expires_at):
        keys.append("expires_at")
    if old.frozen and not new.frozen:
        keys.append("frozen")
    return tuple(keys)


def _units(amounts: tuple[Amount, ...]) -> set[str]:
    return {amount.unit for amount in amounts}


def _uses(caps: CapTable, rate: Rate) -> bool:
    pair = {rate.of.unit, rate.worth.unit}
    return any(cap.most.unit in pair and pair & set(cap.over) for kind in fields(CapTable) for cap in getattr(caps, kind.name))


def _caps_within(new: tuple[Cap, ...], old: tuple[Cap, ...]) -> bool:
    if not old:
        return True
    payable, before = ({unit for cap in table for unit in cap.units} for table in (new, old))
    if not new or payable - before:
        return False
    return all(
        any(cap.most.unit == was.most.unit and cap.most.value <= was.most.value and cap.units >= was.units for cap in new)
        for was in old
        if was.units & payable
    )
