"""Idempotency keys: what is replayed, what conflicts, what is never kept, and what a restart leaves. Black-box, over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.relay_started import Stand, place_for, stand
from tests.relay_wire import PLAIN_OFFER, Answer, Floor, as_bytes, plain_quote

DAY = 24 * 3_600_000


@pytest.fixture(scope="module", params=["ours", "postgres", "old"])
def either(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param, place_for(request.param, request)) as made:
        yield made


@pytest.fixture
def floor(either: Stand) -> Iterator[Floor]:
    with either.wire() as wire:
        yield Floor.at(wire)


@pytest.fixture(scope="module", params=["ours", "postgres"])
def ours(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param, place_for(request.param, request)) as made:
        yield made


@pytest.fixture
def our_floor(ours: Stand) -> Iterator[Floor]:
    with ours.wire() as wire:
        yield Floor.at(wire)


def replayed(answer: Answer, first: Answer) -> bool:
    if answer.headers.get("idempotency-replayed") != "true":
        return False
    assert (answer.status, answer.body) == (first.status, first.body)
    assert "idempotency-replayed" not in first.headers
    return True


def test_the_same_request_again_gets_the_first_answer_byte_for_byte(floor: Floor, either: Stand) -> None:
    offer = floor.offer()["offer_id"]
    body = {"offer_id": offer, "request_payload": {"a": [1]}}
    first = floor.wire.post(floor.buyer, "/v1/jobs", body, idempotency="k")
    assert first.headers["idempotency-key"] == "k"
    job = first.job["job_id"]
    either.clock.advance(1000)
    floor.act(floor.seller, job, "quote", plain_quote()).done()
    assert replayed(floor.wire.post(floor.buyer, "/v1/jobs", body, idempotency="k"), first)
    assert floor.wire.get(floor.buyer, "/v1/jobs").ok["total"] == 1
    accepted = floor.act(floor.buyer, job, "accept", idempotency="k2")
    assert replayed(floor.act(floor.buyer, job, "accept", idempotency="k2"), accepted)
    assert floor.act(floor.buyer, job, "accept", idempotency="k3").code == "invalid_state"


def test_another_request_with_the_key_is_a_conflict(floor: Floor) -> None:
    body = as_bytes(PLAIN_OFFER)
    first = floor.wire.post(floor.seller, "/v1/offers", body, idempotency="k")
    assert first.status == 201
    for target, other in (("/v1/offers", body + b" "), ("/v1/offers?", body), ("/v1/jobs", body)):
        answer = floor.wire.post(floor.seller, target, other, idempotency="k")
        assert (answer.status, answer.code) == (409, "idempotency_conflict"), target
    assert replayed(floor.wire.post(floor.seller, "/v1/offers", body, idempotency="k"), first)


def test_a_key_belongs_to_its_signer(floor: Floor) -> None:
    made = {floor.wire.post(party, "/v1/offers", PLAIN_OFFER, idempotency="k").offer["seller_pubkey"] for party in (floor.buyer, floor.seller)}
    assert made == {floor.buyer.key, floor.seller.key}


def test_an_idempotency_key_has_1_to_128_characters(floor: Floor) -> None:
    for length, status in ((1, 201), (128, 201), (129, 400)):
        assert floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER, idempotency="k" * length).status == status
    assert floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER, idempotency="").status in (201, 400)


def test_two_idempotency_keys_are_none_that_could_be_kept(our_floor: Floor) -> None:
    body = as_bytes(PLAIN_OFFER)
    signed = our_floor.seller.headers("POST", "/v1/offers", body, now_ms=our_floor.now_ms())
    answer = our_floor.wire.send("POST", "/v1/offers", body, [*signed.items(), ("idempotency-key", "a"), ("idempotency-key", "b")])
    assert (answer.status, answer.code) == (400, "validation_error"), answer
    assert our_floor.wire.send("GET", f"/v1/offers?seller_pubkey={our_floor.seller.key}").ok["total"] == 0


def test_a_reading_call_ignores_the_key(floor: Floor) -> None:
    answers = [floor.wire.call(floor.buyer, "GET", target, idempotency="k") for target in ("/v1/jobs", "/v1/jobs?limit=1", "/v1/jobs")]
    assert [(answer.status, answer.headers.get("idempotency-replayed")) for answer in answers] == [(200, None)] * 3


def test_a_key_is_kept_for_24_hours(floor: Floor, either: Stand) -> None:
    first = floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER, idempotency="k")
    either.clock.advance(DAY - 1)
    assert replayed(floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER, idempotency="k"), first)
    either.clock.advance(1)
    assert floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER, idempotency="k").offer["offer_id"] != first.offer["offer_id"]


def test_what_failed_is_not_kept(our_floor: Floor) -> None:
    job = our_floor.accepted()["job_id"]
    assert our_floor.act(our_floor.seller, job, "lock", idempotency="lock").code == "invalid_state"
    assert our_floor.act(our_floor.buyer, job, "payment", {}, idempotency="pay").code == "validation_error"
    paid = our_floor.act(our_floor.buyer, job, "payment", {"payment_tx_hash": "H"}, idempotency="pay")  # another body, and no conflict
    assert (paid.status, paid.headers.get("idempotency-replayed")) == (200, None)
    locked = our_floor.act(our_floor.seller, job, "lock", idempotency="lock")  # the same bytes, done now
    assert (locked.status, locked.headers.get("idempotency-replayed")) == (200, None)
    assert our_floor.act(our_floor.stranger, job, "lock", idempotency="s").code == "forbidden"
    assert our_floor.act(our_floor.stranger, job, "cancel", idempotency="s").code == "forbidden"


def test_the_old_relay_keeps_what_failed(tmp_path: Path) -> None:
    with stand("old", tmp_path) as made, made.wire() as wire:
        floor = Floor.at(wire)
        job = floor.accepted()["job_id"]
        refused = floor.act(floor.seller, job, "lock", idempotency="lock")
        floor.act(floor.buyer, job, "payment", {"payment_tx_hash": "H"}).done()
        assert replayed(floor.act(floor.seller, job, "lock", idempotency="lock"), refused)


def test_of_the_same_request_at_once_one_is_done_and_the_others_are_replays_or_told_to_wait(either: Stand) -> None:
    with either.wire() as wire:
        floor = Floor.at(wire)
        body = {"offer_id": floor.offer()["offer_id"], "request_payload": {}}
        for trial in range(10):
            barrier, answers = threading.Barrier(6), []

            def go(trial: int = trial, barrier: Any = barrier, answers: Any = answers) -> None:
                with either.wire() as mine:
                    barrier.wait(20)
                    answers.append(mine.post(floor.buyer, "/v1/jobs", body, idempotency=f"k{trial}"))

            threads = [threading.Thread(target=go) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            first = [answer for answer in answers if answer.status == 201 and "idempotency-replayed" not in answer.headers]
            assert len(first) == 1, answers
            for answer in answers:
                assert answer is first[0] or answer.code == "idempotency_in_progress" or replayed(answer, first[0])
            assert wire.get(floor.buyer, "/v1/jobs?limit=1").ok["total"] == trial + 1


def test_a_restart_forgets_no_key(tmp_path: Path) -> None:
    file = tmp_path / "relay.db"
    with stand("ours", file) as made, made.wire() as wire:
        floor = Floor.at(wire)
        job = floor.accepted()["job_id"]
        body = {"payment_tx_hash": "H", "payment_proof": "p"}
        first = floor.act(floor.buyer, job, "payment", body, idempotency="pay")
        assert first.status == 200
        before = floor.see(floor.buyer, job)
    with stand("ours", file, clock=made.clock) as made, made.wire() as wire:
        floor.wire = wire
        assert replayed(floor.act(floor.buyer, job, "payment", body, idempotency="pay"), first)
        assert floor.act(floor.buyer, job, "payment", body | {"payment_tx_hash": "G"}, idempotency="pay").code == "idempotency_conflict"
        assert floor.see(floor.buyer, job) == before
