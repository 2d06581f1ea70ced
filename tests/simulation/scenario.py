"""Who trades how in one schedule, and what is about to go wrong: drawn from a seed, or written by a test."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from tradeskill.allocation import Terms
from tradeskill.money import Amount
from tradeskill.seller import SellerSettings

from .faults import CRASHES, KINDS, ONCE

__all__ = ["COINS", "PRICE", "UNITS", "Scenario", "drawn"]

PRICE: Final = Amount(10**27 + 7, "raw")  # no float holds it
COINS: Final = Amount(211, "sat")  # on the second rail
UNITS: Final = {"fake": "raw", "coin": "sat"}  # by rail

_PAUSES: Final = (  # where a worker falls asleep: mostly while it holds a job
    "seller.lock",
    "seller.start-intent",
    "seller.backend-create",
    "seller.backend-create",
    "seller.finished",
    "seller.collected",
    "seller.receipt-signed",
    "seller.heartbeat",
    "seller.deliver-sent",
    "",
)


def _settings() -> SellerSettings:
    return SellerSettings(quote_ttl_ms=300_000, poll_seconds=5.0)


@dataclass(frozen=True)
class Scenario:
    """The default is one honest job without any trouble."""

    faults: Mapping[str, float] = field(default_factory=dict)  # kind -> how likely at each opportunity; deeds are done once
    faults_until: float = 100.0  # seconds
    crash: tuple[str, str] | None = None  # (before | after, label)
    crash_countdown: int = 0  # so many times it passes first
    stray_crashes: float = 0.0  # how likely at any label
    again: float = 0.0  # how likely at any label once it has crashed
    restarts: tuple[float, ...] = (0.5,)  # seconds until a dead process is started again
    pause_at: str = ""  # the label where `process.paused` happens
    workers: int = 1
    wishes: tuple[tuple[int, str], ...] = ((0, "http://site/0"),)  # (buyer, url)
    caps: tuple[int | None, ...] = (None,)  # one a buyer
    pure: bool = True
    work: Literal["done", "failed"] = "done"  # what becomes of the first execution
    work_seconds: tuple[float, ...] = (0.2,)
    confirm_after: float = 0.15
    settings: SellerSettings = field(default_factory=_settings)
    capacity: tuple[int, int] = (100, 100)
    collects: bool = False  # the owner sweeps now and then
    gone_at: str = ""  # the state in which the first buyer walks away
    rails: tuple[str, ...] = ("fake",)  # what the seller takes, each at its own price
    buyers_rails: tuple[tuple[str, ...], ...] = (("fake",),)  # what each buyer has, favourite first


def drawn(seed: int, rng: random.Random) -> Scenario:
    """Seeds go round through all crashes and all kinds, so that each is aimed at equally often."""
    crash, kind = CRASHES[seed % len(CRASHES)], KINDS[seed % len(KINDS)]
    faults = dict.fromkeys(rng.sample(KINDS, rng.choice((0, 1, 2, 3, 4))), 0.05) | {kind: 0.8 if kind in ONCE else 0.3}
    label = crash[1]
    buyers = 2 if rng.random() < 0.15 else 1
    jobs = max(buyers, rng.choices((1, 2, 3, 4), (65, 20, 9, 6))[0])
    long_work = label == "seller.heartbeat" or rng.random() < 0.1
    plain = Scenario(
        faults=faults,
        faults_until=rng.choice((3.0, 20.0, 100.0, 400.0)),
        crash=crash,
        crash_countdown=rng.choice((0, 0, 0, 1, 2)),
        stray_crashes=rng.choice((0.0, 0.0, 0.005, 0.02)),
        restarts=(0.0, 0.5, 5.0, 70.0),
        pause_at=rng.choice(_PAUSES),
        workers=2 if rng.random() < (0.85 if "process.paused" in faults else 0.12) else 1,
        wishes=tuple((i % buyers, f"http://site/{i}") for i in range(jobs)),
        caps=tuple(rng.choice((None, None, None, PRICE.value, 3 * PRICE.value - 1)) for _ in range(buyers)),
        pure=rng.random() < 0.6,
        work="failed" if label.startswith("refund") else "done",
        work_seconds=(7.0, 12.0, 70.0) if long_work else (0.0, 0.0, 0.2, 3.0),
        confirm_after=rng.choice((0.15, 0.15, 0.5, 3.0)),
        settings=SellerSettings(
            quote_ttl_ms=300_000,
            terms=Terms(late=rng.choice(("run", "refund")), surplus=rng.choice(("keep", "refund")), refund_minimum={"raw": rng.choice((1, 1, 50))}),
            uncertain=rng.choice(("refund", "review")),
            poll_seconds=rng.choice((5.0, 15.0, 30.0)),
            heartbeat_seconds=5.0 if long_work else 20.0,
        ),
        capacity=rng.choice(((100, 100), (100, 100), (100, 100), (2, 1))),
        collects=label.startswith(("sweep", "receive")) or rng.random() < 0.1,
        gone_at=rng.choice(("accepted", "accepted", "paid")) if "buyer.gone" in faults else "",
        buyers_rails=(("fake",),) * buyers,
    )
    if rng.random() < 0.6:
        return plain
    ways = (("fake", "coin"), ("coin", "fake"), ("coin", "fake"), ("coin",), ("fake",))
    return replace(plain, rails=rng.choice((("fake", "coin"), ("fake", "coin"), ("coin",))), buyers_rails=tuple(rng.choice(ways) for _ in range(buyers)))
