"""The double of the old relay does wrong what the old one did wrong, and bends where a test asks it to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.old_relay import JOB_FIELDS, OldRelay, running_old_relay
from tests.relay_wire import PLAIN_OFFER, Floor, Wire, iso
from tradeskill.testing.market_contract import SteppedClock

MINUTE = 60_000


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def relay(clock: SteppedClock) -> Iterator[OldRelay]:
    with running_old_relay(world=clock, limits=False) as made:
        yield made


@pytest.fixture
def floor(relay: OldRelay, clock: SteppedClock) -> Iterator[Floor]:
    with Wire(relay.url, clock) as wire:
        yield Floor.at(wire)


def test_it_has_none_of_what_ours_adds(floor: Floor) -> None:
    for target in ("/v1/capabilities", "/v1/events", "/ready", f"/v1/offers/{floor.offer()['offer_id']}"):
        answer = floor.wire.get(floor.buyer, target)
        assert (answer.status, "x-tradeskill" in answer.headers) == (404, False)
    job = floor.running()
    assert list(job) == JOB_FIELDS
    assert floor.act(floor.seller, job["job_id"], "decline", {"code": "busy", "message": ""}).status == 404
    answer = floor.act(floor.seller, job["job_id"], "deliver", {"result_url": "https://a", "market_fence": 1})
    assert answer.code == "validation_error"
    assert floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER | {"document": {}}).status == 201  # dropped without a word
    assert "job" in floor.act(floor.seller, job["job_id"], "lock", {"market_fence": 1}).ok


def test_a_buyer_may_cancel_what_is_paid_and_pay_two_jobs_with_one_hash(floor: Floor) -> None:
    jobs = [floor.accepted()["job_id"] for _ in range(2)]
    for job in jobs:
        floor.act(floor.buyer, job, "payment", {"payment_tx_hash": "H"}).done()
    assert floor.act(floor.buyer, jobs[0], "cancel").job["status"] == "canceled"


def test_nothing_expires_until_somebody_accepts_and_a_payment_never(floor: Floor, clock: SteppedClock) -> None:
    quoted, accepted = floor.quoted()["job_id"], floor.accepted()["job_id"]
    clock.advance(120 * MINUTE)
    assert floor.see(floor.buyer, quoted)["status"] == "quoted"
    assert floor.act(floor.buyer, quoted, "accept").code == "invalid_state"
    assert floor.see(floor.buyer, quoted)["status"] == "expired"
    assert floor.act(floor.buyer, accepted, "payment", {"payment_tx_hash": "H"}).status == 200


def test_paging_by_offset_loses_a_job_that_changes_meanwhile(floor: Floor, clock: SteppedClock) -> None:
    jobs = [floor.requested()["job_id"] for _ in range(4)]
    since = iso(floor.now_ms() - 1)
    first = floor.wire.get(floor.buyer, f"/v1/jobs?limit=2&updated_after={since}").ok["jobs"]
    floor.act(floor.buyer, jobs[0], "cancel").done()  # moves to the end, and the others move up
    second = floor.wire.get(floor.buyer, f"/v1/jobs?limit=2&offset=2&updated_after={since}").ok["jobs"]
    assert jobs[2] not in [job["job_id"] for job in first + second]


@pytest.mark.parametrize("target", ["/v1/jobs/1", "/v1/jobs?role=buyer&role=seller", "/v1/jobs?offset=99999999999999999999", "/v1/jobs?status=%00"])
def test_it_trips_over_what_it_did_not_expect_and_says_too_much(floor: Floor, target: str) -> None:
    answer = floor.wire.get(floor.buyer, target)
    assert (answer.status, answer.code) == (500, "internal_error")


def test_an_answer_can_be_made_to_lie(floor: Floor, relay: OldRelay) -> None:
    job = floor.quoted()["job_id"]

    def lie(path: str, value: Any) -> Any:
        value["job"]["quote_invoice_address"] = "thief"
        return value

    relay.mutate = lie
    assert floor.see(floor.buyer, job)["quote_invoice_address"] == "thief"
    assert floor.wire.get(floor.stranger, f"/v1/jobs/{job}").code == "forbidden"  # errors stay as they are
    relay.mutate = None
    assert floor.see(floor.buyer, job)["quote_invoice_address"] != "thief"


def test_an_answer_can_be_lost_before_and_after_the_deed(floor: Floor, relay: OldRelay) -> None:
    floor.wire.reopens = False
    job = floor.quoted()["job_id"]
    relay.before = lambda method, path: "drop" if path.endswith("accept") else None
    with pytest.raises(ConnectionError):
        floor.act(floor.buyer, job, "accept")
    assert floor.see(floor.buyer, job)["status"] == "quoted"
    relay.before, relay.after = None, lambda method, path: "drop" if path.endswith("accept") else None
    with pytest.raises(ConnectionError):
        floor.act(floor.buyer, job, "accept", idempotency="k")
    relay.after = None
    assert floor.see(floor.buyer, job)["status"] == "accepted"
    assert floor.act(floor.buyer, job, "accept", idempotency="k").headers["idempotency-replayed"] == "true"
    assert [call.path for call in relay.calls].count(f"/v1/jobs/{job}/accept") == 3


def test_502_may_follow_success(floor: Floor, relay: OldRelay) -> None:
    job = floor.quoted()["job_id"]
    relay.after = lambda method, path: 502 if path.endswith("accept") else None
    answer = floor.act(floor.buyer, job, "accept")
    assert (answer.status, answer.headers["content-type"]) == (502, "text/html")
    assert floor.see(floor.buyer, job)["status"] == "accepted"


def test_it_can_be_slow(floor: Floor, relay: OldRelay) -> None:
    relay.delay = lambda method, path: 0.2 if path == "/v1/offers" else 0.0
    started = time.monotonic()
    floor.wire.send("GET", "/v1/offers").done()
    assert time.monotonic() - started >= 0.2
