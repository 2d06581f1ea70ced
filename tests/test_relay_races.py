"""Calls that exclude each other, over HTTP at the same moment from connections of their own: one wins, always, and the loser leaves no trace.

The contests are those in which the old relay let both succeed, and a few more. `play` is also what the campaign runs, with more trials.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.old_relay import running_old_relay
from tests.relay_started import place_for, relay_process
from tests.relay_wire import PLAIN_OFFER, Answer, Floor, Party, Wire, as_bytes, iso, plain_quote

TRIALS = 8
JOBS = 25  # of each of four writers
WAIT = 60.0  # seconds until a stuck contest gives up

Body = Callable[[Floor, int], Mapping[str, Any]]


@dataclass(frozen=True)
class Contest:
    """`moves`: who, action and body, sent at once for a job in `state`."""

    state: str
    moves: tuple[tuple[str, str, Body], ...]
    same: bool = False  # all succeed, by one and the same lock


def _quote(floor: Floor, side: int) -> Mapping[str, Any]:
    return plain_quote(quote_amount_raw=str(side + 1), quote_expires_at=iso(floor.now_ms() + (side + 5) * 60_000))


def _payment(floor: Floor, side: int) -> Mapping[str, Any]:
    return {"payment_tx_hash": os.urandom(32).hex()}


def _result(floor: Floor, side: int) -> Mapping[str, Any]:
    return {"result_url": f"https://a.example/{side}"}


def _error(floor: Floor, side: int) -> Mapping[str, Any]:
    return {"error": {"code": "exit", "message": str(side)}}


def _nothing(floor: Floor, side: int) -> Mapping[str, Any]:
    return {}


def _refusal(floor: Floor, side: int) -> Mapping[str, Any]:
    return {"code": "busy", "message": str(side)}


CONTESTS: dict[str, Contest] = {
    "cancel against lock": Contest("paid", (("buyer", "cancel", _nothing), ("seller", "lock", _nothing))),
    "cancel against payment": Contest("accepted", (("buyer", "cancel", _nothing), ("buyer", "payment", _payment))),
    "two quotes": Contest("requested", (("seller", "quote", _quote), ("seller", "quote", _quote))),
    "two acceptances": Contest("quoted", (("buyer", "accept", _nothing), ("buyer", "accept", _nothing))),
    "two payments": Contest("accepted", (("buyer", "payment", _payment), ("buyer", "payment", _payment))),
    "deliver against deliver-error": Contest("running", (("seller", "deliver", _result), ("seller", "deliver", _error))),
    "two deliveries": Contest("running", (("seller", "deliver", _result), ("seller", "deliver", _result))),
    "eight locks": Contest("paid", tuple(("seller", "lock", _nothing) for _ in range(8)), same=True),
}
OUR_CONTESTS: dict[str, Contest] = {
    "accept against decline": Contest("quoted", (("buyer", "accept", _nothing), ("seller", "decline", _refusal))),
    "cancel against decline": Contest("requested", (("buyer", "cancel", _nothing), ("seller", "decline", _refusal))),
}


@dataclass
class Outcome:
    """What came of the trials of one contest. `faults`: what must not be, in words."""

    trials: int = 0
    both: int = 0
    faults: list[str] = field(default_factory=list)


class Ring:
    """Eight connections that send at the same moment, spread over all relays that share the data."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.pool = ThreadPoolExecutor(8)
        self.wires = [Wire(urls[n % len(urls)]) for n in range(8)]

    def __enter__(self) -> Ring:
        for wire in self.wires:
            wire.send("GET", "/health")  # connected before it counts
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()
        for wire in self.wires:
            wire.close()

    def at_once(self, calls: list[tuple[Party, str, bytes]]) -> list[Answer]:
        """Each call is signed first; then all bytes go out together."""
        barrier, ready = threading.Barrier(len(calls)), []
        for wire, (party, target, body) in zip(self.wires, calls, strict=False):
            ready.append(wire.request_bytes("POST", target, body, party.headers("POST", target, body, now_ms=wire.world.now_ms())))

        def send(side: int) -> Answer:
            barrier.wait(WAIT)
            return self.wires[side].exchange(ready[side], "POST")

        return [one.result(WAIT) for one in [self.pool.submit(send, side) for side in range(len(calls))]]


def play(urls: Sequence[str], contests: Mapping[str, Contest], trials: int) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {title: Outcome() for title in contests}
    with Ring(urls) as ring, Wire(urls[0]) as wire:
        for title, contest in contests.items():
            for _ in range(trials):
                _trial(Floor.at(wire), ring, contest, outcomes[title])
    return outcomes


def _trial(floor: Floor, ring: Ring, contest: Contest, outcome: Outcome) -> None:
    job = floor.in_state(contest.state)["job_id"]
    calls = [(getattr(floor, who), f"/v1/jobs/{job}/{action}", as_bytes(body(floor, side))) for side, (who, action, body) in enumerate(contest.moves)]
    answers = ring.at_once(calls)
    won = [answer for answer in answers if answer.status == 200]
    outcome.trials += 1
    odd = [answer for answer in answers if answer.status != 200 and (answer.status, answer.code) != (409, "invalid_state")]
    if odd:
        outcome.faults.append(f"neither 200 nor 409: {odd}")
    seen = floor.see(floor.buyer, job)
    if contest.same:
        if len(won) != len(answers):
            outcome.faults.append(f"{len(won)} of {len(answers)} succeeded")
        if len({answer.json.get("market_fence") for answer in won}) != 1:
            outcome.faults.append("more than one lock was given")
        return
    if len(won) > 1:
        outcome.both += 1
        outcome.faults.append(f"{len(won)} winners")
    elif not won:
        outcome.faults.append("no winner")
    elif won[0].job != seen:
        outcome.faults.append(f"the winner was told {won[0].job}, and this is there: {seen}")


# contests about more than one job


def play_claims(urls: Sequence[str], trials: int) -> dict[str, Outcome]:
    """What belongs to one of two, whoever comes first: a payment hash, a request's nonce, an offer's id, an HTTP nonce, an idempotency key."""
    outcomes = {title: Outcome() for title in ("one hash for two jobs", "one request nonce", "one offer id", "one HTTP nonce", "one idempotency key")}
    with Ring(urls) as ring, Wire(urls[0]) as wire:
        for _ in range(trials):
            for title, (answers, wanted) in _claims(Floor.at(wire), ring).items():
                outcomes[title].trials += 1
                found = sorted((answer.status, answer.code) for answer in answers if "idempotency-replayed" not in answer.headers)
                if found not in wanted:
                    outcomes[title].both += len([status for status, _ in found if status < 300]) > 1
                    outcomes[title].faults.append(str(found))
    return outcomes


def _claims(floor: Floor, ring: Ring) -> dict[str, tuple[list[Answer], list[list[tuple[int, str]]]]]:
    conflict = [(409, "invalid_state")]
    hash_body = as_bytes({"payment_tx_hash": os.urandom(32).hex()})
    hashes = ring.at_once([(floor.buyer, f"/v1/jobs/{floor.accepted()['job_id']}/payment", hash_body) for _ in range(2)])
    offer, nonce = floor.signed_offer(), os.urandom(8).hex()
    requests = [floor.request_body(floor.request_document(offer, nonce=nonce, value=side)) for side in range(2)]
    nonces = ring.at_once([(floor.buyer, "/v1/jobs", as_bytes(body)) for body in requests])
    shared = f"o-{os.urandom(8).hex()}"
    mine = floor.offer_document(shared)
    theirs = floor.stranger.identity.sign("offer", mine.body)
    offers = ring.at_once([(floor.seller, "/v1/offers", as_bytes(floor.offer_body(mine))), (floor.stranger, "/v1/offers", as_bytes(floor.offer_body(theirs)))])
    bodies = [as_bytes(PLAIN_OFFER | {"title": f"offer {side}"}) for side in range(2)]
    http_nonces = _with_headers(ring, floor.seller, bodies, nonce=os.urandom(16).hex())
    keys = _with_headers(ring, floor.seller, [bodies[0]] * 2, idempotency=os.urandom(16).hex())
    return {
        "one hash for two jobs": (hashes, [[(200, ""), *conflict]]),
        "one request nonce": (nonces, [[(201, ""), *conflict]]),
        "one offer id": (offers, [[(201, ""), (403, "forbidden")]]),
        "one HTTP nonce": (http_nonces, [[(201, ""), (401, "auth.nonce_replay")]]),
        "one idempotency key": (keys, [[(201, "")], [(201, ""), (409, "idempotency_in_progress")]]),
    }


def _with_headers(ring: Ring, party: Party, bodies: list[bytes], nonce: str | None = None, idempotency: str | None = None) -> list[Answer]:
    barrier = threading.Barrier(len(bodies))
    more = {} if idempotency is None else {"idempotency-key": idempotency}
    ready = []
    for wire, body in zip(ring.wires, bodies, strict=False):
        signed = party.headers("POST", "/v1/offers", body, now_ms=wire.world.now_ms(), nonce=nonce)
        ready.append(wire.request_bytes("POST", "/v1/offers", body, {**signed, **more}))

    def send(side: int) -> Answer:
        barrier.wait(WAIT)
        return ring.wires[side].exchange(ready[side], "POST")

    return [one.result(WAIT) for one in [ring.pool.submit(send, side) for side in range(len(bodies))]]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def relay_urls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """One relay on a file, or two on one PostgreSQL database."""
    place, logs = place_for(request.param, request), tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        count = 2 if request.param == "postgres" else 1
        yield [stack.enter_context(relay_process(place, "--no-limits", log=logs / f"{n}.log")).url for n in range(count)]


@pytest.mark.parametrize("title", [*CONTESTS, *OUR_CONTESTS])
def test_of_calls_that_exclude_each_other_one_wins(relay_urls: list[str], title: str) -> None:
    outcome = play(relay_urls, {title: (CONTESTS | OUR_CONTESTS)[title]}, TRIALS)[title]
    assert (outcome.trials, outcome.faults) == (TRIALS, [])


def test_what_can_belong_to_one_only_goes_to_one(relay_urls: list[str]) -> None:
    for title, outcome in play_claims(relay_urls, TRIALS).items():
        assert (outcome.trials, outcome.faults) == (TRIALS, []), title


def test_a_cursor_followed_while_others_write_misses_nothing(relay_urls: list[str]) -> None:
    buyer, seller = Party(), Party()
    with Wire(relay_urls[0]) as wire:
        offer = wire.post(seller, "/v1/offers", PLAIN_OFFER).offer["offer_id"]
    written: dict[str, int] = {}
    over = threading.Event()

    def write(side: int) -> None:
        with Wire(relay_urls[side % len(relay_urls)]) as wire:
            for n in range(JOBS):
                job = wire.post(buyer, "/v1/jobs", {"offer_id": offer, "request_payload": {}}).job
                if n % 2:
                    job = wire.post(seller, f"/v1/jobs/{job['job_id']}/quote", plain_quote()).job
                written[job["job_id"]] = job["revision"]

    def follow(side: int) -> dict[str, int]:
        """The last revision of each job that was shown; after the writers ended one more look is taken, from where the last one stopped."""
        seen: dict[str, int] = {}
        cursor, last = "", False
        with Wire(relay_urls[side % len(relay_urls)]) as wire:
            while True:
                page = wire.get(seller, f"/v1/jobs?limit=7&cursor={cursor}").ok
                cursor = page["cursor"]
                for job in page["jobs"]:
                    assert seen.get(job["job_id"], 0) < job["revision"]  # nothing comes twice, and nothing goes back
                    seen[job["job_id"]] = job["revision"]
                if not page["more"] and last:
                    return seen
                last = over.is_set()

    with ThreadPoolExecutor(6) as pool:
        followers = [pool.submit(follow, side) for side in range(2)]
        try:
            for one in [pool.submit(write, side) for side in range(4)]:
                one.result(WAIT)
        finally:
            over.set()
        for follower in followers:
            assert follower.result(WAIT) == written
    assert len(written) == 4 * JOBS


def test_the_double_of_the_old_relay_really_races(tmp_path: Path) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(running_old_relay(limits=False, gap=0.01)).url
        outcomes = play([url], {title: contest for title, contest in CONTESTS.items() if not contest.same}, 6)
        assert all(outcome.both > 0 for outcome in outcomes.values()), outcomes
