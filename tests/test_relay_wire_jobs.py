"""Every endpoint of a job's way: what it answers, who may call it and in which state, how long and how late. Black-box, over real HTTP.

Past 400 lines because it is one table of states, fields and times, in the order of a job's life.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.old_relay import JOB_FIELDS, OFFER_FIELDS
from tests.relay_started import Stand, place_for, stand
from tests.relay_wire import ADDRESS, PLAIN_OFFER, Answer, Floor, Wire, as_bytes, iso, plain_quote

MINUTE = 60_000
OUR_JOB_FIELDS = [
    *("revision", "accepted_at", "canceled_by", "cancel_reason", "request", "quote", "invoices", "payment_rail", "payment_proof", "market_fence"),
    *("receipt", "result"),
]
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
BODIES: dict[str, Any] = {
    "quote": plain_quote(),
    "accept": {},
    "payment": {"payment_tx_hash": "AB" * 32},
    "lock": {},
    "deliver": {"result_url": "https://a.example/r"},
    "fail": {"error": {"code": "exit", "message": "1"}},
    "cancel": {"reason": "changed my mind"},
    "decline": {"code": "busy", "message": "later"},
}
SELLERS = ("quote", "lock", "deliver", "fail", "decline")
# what may be done in each state; anything else is 409
MOVES: dict[str, dict[str, str]] = {
    "requested": {"quote": "quoted", "cancel": "canceled", "decline": "canceled"},
    "quoted": {"accept": "accepted", "cancel": "canceled", "decline": "canceled"},
    "accepted": {"payment": "accepted", "cancel": "canceled"},
    "paid": {"lock": "running"},
    "running": {"lock": "running", "deliver": "delivered", "fail": "failed"},
    "delivered": {},
    "failed": {},
    "canceled": {},
}


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


def do(floor: Floor, action: str, job_id: str, who: Any = None) -> Answer:
    party = who or (floor.seller if action in SELLERS else floor.buyer)
    return floor.act(party, job_id, "deliver" if action == "fail" else action, BODIES[action])


def fields_of(stand: Stand, names: list[str], more: list[str]) -> list[str]:
    return names + (more if stand.ours else [])


# what is answered


def test_an_offer_has_its_fields_in_order(floor: Floor, either: Stand) -> None:
    body = PLAIN_OFFER | {"tags": ["web", "Ärger"], "pricing_mode": "fixed", "fixed_price_raw": "1" * 40}
    answer = floor.wire.post(floor.seller, "/v1/offers", body)
    assert answer.status == 201
    assert list(answer.json) == ["offer"]
    offer = answer.offer
    assert list(offer)[:9] == OFFER_FIELDS
    if either.ours:
        assert list(offer)[9:] == ["updated_at", "document"]
        assert offer["document"] is None
    assert UUID.fullmatch(offer["offer_id"])
    now = iso(floor.now_ms())
    assert {name: offer[name] for name in OFFER_FIELDS[1:]} == {
        "seller_pubkey": floor.seller.key,
        **body,
        "active": True,
        "created_at": now,
    }
    assert floor.offer(active=False)["active"] is False
    assert floor.offer()["tags"] == []
    assert floor.offer(fixed_price_raw=None)["fixed_price_raw"] is None
    assert floor.offer()["offer_id"] != floor.offer()["offer_id"]


def test_a_job_has_its_fields_in_order_from_the_request_to_the_delivery(floor: Floor, either: Stand) -> None:
    names, now = fields_of(either, JOB_FIELDS, OUR_JOB_FIELDS), iso(floor.now_ms())
    offer = floor.offer()
    answer = floor.wire.post(floor.buyer, "/v1/jobs", {"offer_id": offer["offer_id"], "request_payload": {"a": 1}})
    assert answer.status == 201
    job = answer.job
    expected: dict[str, Any] = dict.fromkeys(JOB_FIELDS)
    expected |= {"job_id": job["job_id"], "offer_id": offer["offer_id"], "seller_pubkey": floor.seller.key, "buyer_pubkey": floor.buyer.key}
    expected |= {"status": "requested", "request_payload": {"a": 1}, "created_at": now, "updated_at": now, "payment_provider": "berrypay"}

    def holds(job: Any, **changes: Any) -> None:
        expected.update(changes, updated_at=iso(floor.now_ms()))
        assert list(job) == names
        assert {name: job[name] for name in JOB_FIELDS} == expected
        for party in (floor.buyer, floor.seller):
            assert floor.see(party, job["job_id"]) == job

    holds(job)
    assert UUID.fullmatch(job["job_id"])
    job_id = job["job_id"]

    def step(action: str, body: Any, party: Any, **changes: Any) -> None:
        either.clock.advance(1001)
        answer = floor.act(party, job_id, action, body)
        assert answer.status == 200
        more = ["market_fence", "lock_expires_in_ms"] if action == "lock" and either.ours else []
        assert list(answer.json) == ["job", *more]
        holds(answer.job, **changes)

    until = iso(floor.now_ms() + 20 * MINUTE)
    quote = plain_quote(quote_expires_at=until, payment_charge_id="c", payment_charge_address="d", payment_provider="mine")
    step("quote", quote, floor.seller, status="quoted", **quote)
    step("accept", {}, floor.buyer, status="accepted")
    step("payment", {"payment_tx_hash": "H"}, floor.buyer, payment_tx_hash="H")
    locked_until = iso(floor.now_ms() + 1001 + 5 * MINUTE)
    step("lock", {}, floor.seller, status="running", lock_owner=floor.seller.key, lock_expires_at=locked_until)
    renewed_until = iso(floor.now_ms() + 1001 + 5 * MINUTE)
    step("lock", {}, floor.seller, lock_expires_at=renewed_until)
    step("deliver", {"result_url": "ftp://any/scheme"}, floor.seller, status="delivered", result_url="ftp://any/scheme")


def test_a_failed_job_shows_its_error_and_a_canceled_one_none(floor: Floor) -> None:
    error = {"code": "exit", "message": "1", "details": {"log": "..."}}
    job = floor.act(floor.seller, floor.running()["job_id"], "deliver", {"error": error}).job
    assert (job["status"], job["error"], job["result_url"]) == ("failed", error, None)
    canceled = floor.act(floor.buyer, floor.quoted()["job_id"], "cancel", {"reason": "changed my mind"}).job
    assert (canceled["status"], canceled["error"]) == ("canceled", None)


def test_a_quote_runs_15_minutes_unless_it_says_otherwise(floor: Floor) -> None:
    assert floor.quoted()["quote_expires_at"] == iso(floor.now_ms() + 15 * MINUTE)
    assert floor.quoted(quote_expires_at=iso(floor.now_ms() + 60 * MINUTE))["quote_expires_at"] == iso(floor.now_ms() + 60 * MINUTE)
    seconds = iso(floor.now_ms() + 9 * MINUTE)[:19]
    assert floor.quoted(quote_expires_at=seconds + "Z")["quote_expires_at"] == seconds + ".000Z"
    assert floor.quoted(quote_expires_at=seconds + ".123456Z")["quote_expires_at"] == seconds + ".123Z"
    job = floor.requested()["job_id"]
    for wrong in (iso(floor.now_ms() + 60 * MINUTE + 1), iso(floor.now_ms() - 1), "tomorrow", "", 1_700_000_000_000, "2026-02-30T00:00:00Z", seconds):
        assert floor.act(floor.seller, job, "quote", plain_quote(quote_expires_at=wrong)).code == "validation_error", wrong
    assert floor.act(floor.seller, job, "quote", plain_quote(quote_expires_at=None)).status == 200


# who may, and in which state


@pytest.mark.parametrize("state", MOVES)
def test_in_each_state_what_may_be_done_is_done_and_anything_else_is_409(our_floor: Floor, state: str) -> None:
    for action in BODIES:
        job = our_floor.in_state(state)
        answer = do(our_floor, action, job["job_id"])
        wanted = MOVES[state].get(action)
        if wanted is None:
            assert (answer.status, answer.code) == (409, "invalid_state"), (state, action, answer)
            assert our_floor.see(our_floor.buyer, job["job_id"]) == job
        else:
            assert answer.job["status"] == wanted
            assert answer.job["revision"] == job["revision"] + 1


@pytest.mark.parametrize("state", MOVES)
def test_the_old_relay_differs_only_where_it_is_known_to(tmp_path: Path, state: str) -> None:
    with stand("old", tmp_path) as made, made.wire() as wire:
        floor = Floor.at(wire)
        for action in BODIES:
            if action != "decline":
                answer = do(floor, action, floor.in_state(state)["job_id"])
                lax = (state, action) == ("paid", "cancel")
                assert (answer.status == 200) == (action in MOVES[state] or lax), (state, action, answer)


@pytest.mark.parametrize("state", MOVES)
def test_the_other_party_and_a_stranger_are_403_in_every_state(floor: Floor, either: Stand, state: str) -> None:
    job = floor.in_state(state)["job_id"]
    for action in BODIES:
        if action == "decline" and not either.ours:
            continue
        for party in (floor.stranger, floor.buyer if action in SELLERS else floor.seller):
            answer = do(floor, action, job, party)
            assert (answer.status, answer.code) == (403, "forbidden"), (state, action, answer)
    assert (floor.wire.get(floor.stranger, f"/v1/jobs/{job}").status) == 403


def test_schema_comes_before_404_before_403_before_409(floor: Floor) -> None:
    done = floor.delivered()["job_id"]
    nobody = str(uuid.uuid4())
    for action in ("quote", "payment", "deliver"):
        assert floor.act(floor.stranger, nobody, action, {}).code == "validation_error"  # schema before 404
        assert floor.act(floor.stranger, done, action, {}).code == "validation_error"  # before 403
    for action in ("quote", "accept", "payment", "lock", "deliver", "fail", "cancel"):
        assert (do(floor, action, nobody).status, do(floor, action, nobody).code) == (404, "not_found")
        assert do(floor, action, done, floor.stranger).code == "forbidden"  # before 409
        assert do(floor, action, done).code == "invalid_state"
    assert floor.wire.get(floor.buyer, f"/v1/jobs/{nobody}").code == "not_found"


def test_a_job_needs_an_offer_that_is_there_and_up(floor: Floor) -> None:
    body: dict[str, Any] = {"request_payload": {}}
    assert floor.wire.post(floor.buyer, "/v1/jobs", body | {"offer_id": str(uuid.uuid4())}).status == 404
    down = floor.offer(active=False)["offer_id"]
    assert floor.wire.post(floor.buyer, "/v1/jobs", body | {"offer_id": down}).status in (404, 409)


def test_a_repeated_step_is_409_except_that_a_lock_is_renewed(floor: Floor) -> None:
    job = floor.requested()["job_id"]
    for action in ("quote", "accept", "payment"):
        assert do(floor, action, job).status == 200
        assert do(floor, action, job).code == "invalid_state"
    assert [do(floor, "lock", job).status for _ in range(3)] == [200] * 3
    assert do(floor, "deliver", job).status == 200
    assert do(floor, "deliver", job).code == "invalid_state"
    gone = floor.requested()["job_id"]
    assert [do(floor, "cancel", gone).status for _ in range(2)] == [200, 409]


# how much


LONG: list[tuple[str, str, Any, Any]] = [  # action, field, the longest that passes, the shortest that does not
    ("offer", "title", "t" * 120, "t" * 121),
    ("offer", "title", "t", ""),
    ("offer", "description", "d" * 2000, "d" * 2001),
    ("offer", "description", "d", ""),
    ("offer", "tags", [f"t{n}" for n in range(16)], [f"t{n}" for n in range(17)]),
    ("offer", "tags", ["t" * 32], ["t" * 33]),
    ("offer", "tags", [], [""]),
    ("quote", "quote_amount_raw", "9" * 40, "9" * 41),
    ("quote", "quote_amount_raw", "1", ""),
    ("quote", "quote_amount_raw", "1", 1),
    ("quote", "quote_amount_raw", "1", "-1"),
    ("quote", "quote_amount_raw", "1", "1.0"),
    ("quote", "quote_amount_raw", "1", "\uff11"),
    ("quote", "quote_amount_raw", "1", " 1"),
    ("quote", "quote_invoice_address", "a" * 128, "a" * 129),
    ("quote", "quote_invoice_address", "a", ""),
    ("quote", "payment_charge_id", "a" * 128, "a" * 129),
    ("quote", "payment_charge_address", "a" * 128, "a" * 129),
    ("quote", "payment_provider", "a" * 32, "a" * 33),
    ("payment", "payment_tx_hash", "a" * 128, "a" * 129),
    ("payment", "payment_tx_hash", "a", ""),
    ("deliver", "result_url", "https:".ljust(2048, "u"), "https:".ljust(2049, "u")),
    ("deliver", "result_url", "data:,", ""),
    ("cancel", "reason", "r" * 200, "r" * 201),
]
BEFORE = {"quote": "requested", "payment": "accepted", "deliver": "running", "cancel": "requested"}


@pytest.mark.parametrize(("action", "field", "fits", "not_any_more"), LONG, ids=[f"{row[0]}-{row[1]}-{n}" for n, row in enumerate(LONG)])
def test_each_field_has_its_limit(floor: Floor, action: str, field: str, fits: Any, not_any_more: Any) -> None:
    if action == "offer":
        assert floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER | {field: not_any_more}).code == "validation_error"
        assert floor.offer(**{field: fits})[field] == fits
        return
    job, party = floor.in_state(BEFORE[action])["job_id"], floor.seller if action in SELLERS else floor.buyer
    wrong = floor.act(party, job, action, BODIES[action] | {field: not_any_more})
    assert (wrong.status, wrong.code) == (400, "validation_error"), wrong
    assert floor.act(party, job, action, BODIES[action] | {field: fits}).status == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"pricing_mode": "fixed"},
        {"pricing_mode": "fixed", "fixed_price_raw": None},
        {"pricing_mode": "fixed", "fixed_price_raw": ""},
        {"pricing_mode": "fixed", "fixed_price_raw": "1" * 41},
        {"pricing_mode": "fixed", "fixed_price_raw": 5},
        {"pricing_mode": "quote", "fixed_price_raw": "5"},
        {"pricing_mode": "barter"},
        {"pricing_mode": None},
        {"title": None},
        {"title": 5},
        {"tags": "web"},
        {"tags": [1]},
        {"active": "true"},
        {"active": 1},
    ],
    ids=str,
)
def test_an_offer_that_does_not_fit_is_400(floor: Floor, changes: dict[str, Any]) -> None:
    assert floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER | changes).code == "validation_error"


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("jobs", {}),
        ("jobs", {"offer_id": 5, "request_payload": {}}),
        ("jobs", {"offer_id": "OFFER"}),
        ("jobs", {"offer_id": "OFFER", "request_payload": []}),
        ("jobs", {"offer_id": "OFFER", "request_payload": "{}"}),
        ("jobs", {"offer_id": "OFFER", "request_payload": None}),
        ("quote", {"quote_amount_raw": "1"}),
        ("quote", {"quote_invoice_address": ADDRESS}),
        ("payment", {}),
        ("payment", {"payment_tx_hash": 5}),
        ("deliver", {}),
        ("deliver", {"result_url": "https://u", "error": {"code": "a", "message": "b"}}),
        ("deliver", {"error": {"code": "a"}}),
        ("deliver", {"error": {"message": "a"}}),
        ("deliver", {"error": {"code": "", "message": "b"}}),
        ("deliver", {"error": {"code": "a", "message": 5}}),
        ("deliver", {"error": "broken"}),
        ("deliver", {"error": {"code": "a", "message": "b", "more": 1}}),
        ("deliver", {"result_url": "https://u", "more": 1}),
        ("deliver", {"result_url": 5}),
        ("cancel", {"reason": 5}),
    ],
    ids=str,
)
def test_a_body_that_does_not_fit_is_400_and_changes_nothing(floor: Floor, action: str, body: dict[str, Any]) -> None:
    if action == "jobs":
        answer = floor.wire.post(floor.buyer, "/v1/jobs", {k: floor.offer()["offer_id"] if v == "OFFER" else v for k, v in body.items()})
        assert (answer.status, answer.code) == (400, "validation_error"), answer
        return
    job = floor.in_state(BEFORE[action])
    answer = floor.act(floor.seller if action in SELLERS else floor.buyer, job["job_id"], action, body)
    assert (answer.status, answer.code) == (400, "validation_error"), answer
    assert floor.see(floor.buyer, job["job_id"]) == job


@pytest.mark.parametrize("url", ["u", "javascript:alert(1)", "JavaScript:alert(1)", "file:///etc/passwd", "https://a b", "//a", "/a", "https:", "\u00e9:x"])
def test_a_result_url_is_one_that_a_buyer_may_open(our_floor: Floor, url: str) -> None:
    job = our_floor.running()["job_id"]
    assert our_floor.act(our_floor.seller, job, "deliver", {"result_url": url}).code == "validation_error"


def test_what_is_too_large_is_413_and_says_by_how_much(floor: Floor) -> None:
    def too_large(answer: Answer, size: int, most: int) -> None:
        assert (answer.status, answer.code, answer.details) == (413, "payload_too_large", {"bytes": size, "maxBytes": most}), answer

    offer = floor.offer()["offer_id"]
    for filler, size in (("x", 1), ("é", 2)):  # bytes are counted, not characters

        def request(most: int, filler: str = filler, size: int = size) -> Answer:
            payload = {"x": filler * ((most - 8) // size) + "x" * ((most - 8) % size)}
            assert len(as_bytes(payload)) == most
            return floor.wire.post(floor.buyer, "/v1/jobs", {"offer_id": offer, "request_payload": payload})

        assert request(65_536).status == 201
        too_large(request(65_537), 65_537, 65_536)
    job = floor.running()["job_id"]
    error = {"code": "e", "message": "x" * (8192 - len('{"code":"e","message":""}'))}
    too_large(floor.act(floor.seller, job, "deliver", {"error": error | {"message": error["message"] + "x"}}), 8193, 8192)
    assert floor.act(floor.seller, job, "deliver", {"error": error}).status == 200
    body = as_bytes(PLAIN_OFFER)
    assert floor.wire.post(floor.seller, "/v1/offers", body + b" " * (307_200 - len(body))).status == 201
    too_large(floor.wire.post(floor.seller, "/v1/offers", body + b" " * (307_201 - len(body))), 307_201, 307_200)


# how late


def test_a_quote_that_ran_out_is_expired_for_whoever_looks(our_floor: Floor, ours: Stand) -> None:
    job = our_floor.quoted(quote_expires_at=iso(our_floor.now_ms() + MINUTE))["job_id"]
    ours.clock.advance(MINUTE - 1)
    assert our_floor.see(our_floor.seller, job)["status"] == "quoted"
    ours.clock.advance(1)
    assert our_floor.see(our_floor.seller, job)["status"] == "expired"  # nobody acted
    assert do(our_floor, "accept", job).code == "invalid_state"
    listed = our_floor.wire.get(our_floor.buyer, "/v1/jobs?status=expired").ok
    assert ([row["job_id"] for row in listed["jobs"]], listed["total"]) == ([job], 1)


def test_a_quote_may_be_accepted_until_its_last_millisecond(floor: Floor, either: Stand) -> None:
    for wait, status in ((MINUTE - 2, 200), (MINUTE + 1, 409)):
        job = floor.quoted(quote_expires_at=iso(floor.now_ms() + MINUTE))["job_id"]
        either.clock.advance(wait)
        assert do(floor, "accept", job).status == status
    assert floor.see(floor.buyer, job)["status"] == "expired"


def test_an_accepted_job_that_is_not_paid_for_expires_after_30_minutes(our_floor: Floor, ours: Stand) -> None:
    early, late = our_floor.accepted()["job_id"], our_floor.accepted()["job_id"]
    ours.clock.advance(30 * MINUTE - 1)
    assert do(our_floor, "payment", early).status == 200
    ours.clock.advance(1)
    assert our_floor.see(our_floor.buyer, late)["status"] == "expired"
    assert do(our_floor, "payment", late).code == "invalid_state"
    ours.clock.advance(60 * MINUTE)
    assert our_floor.see(our_floor.buyer, early)["status"] == "accepted"  # paid for: never


def test_a_lock_is_one_s_own_for_5_minutes_and_renewed_within_them(floor: Floor, either: Stand) -> None:
    for wait, status in ((5 * MINUTE - 2, 200), (5 * MINUTE + 1, 409)):
        job = floor.running()["job_id"]
        either.clock.advance(wait)
        assert do(floor, "deliver", job).status == status
    assert do(floor, "lock", job).job["lock_expires_at"] == iso(floor.now_ms() + 5 * MINUTE)
    either.clock.advance(4 * MINUTE)
    assert do(floor, "lock", job).status == 200
    either.clock.advance(4 * MINUTE)
    assert do(floor, "deliver", job).status == 200


def test_each_time_is_over_at_its_very_millisecond(our_floor: Floor, ours: Stand) -> None:
    for state, wait, action in (("quoted", 15 * MINUTE, "accept"), ("accepted", 30 * MINUTE, "payment"), ("running", 5 * MINUTE, "deliver")):
        early, late = our_floor.in_state(state)["job_id"], our_floor.in_state(state)["job_id"]
        ours.clock.advance(wait - 1)
        assert do(our_floor, action, early).status == 200
        ours.clock.advance(1)
        assert do(our_floor, action, late).code == "invalid_state"


def test_one_payment_hash_pays_one_job_of_a_buyer_but_a_stranger_cannot_take_it_away(our_floor: Floor) -> None:
    first, second = our_floor.accepted()["job_id"], our_floor.accepted()["job_id"]
    assert do(our_floor, "payment", first).status == 200
    assert do(our_floor, "payment", second).code == "invalid_state"
    other = Floor.at(our_floor.wire)
    assert do(other, "payment", other.accepted()["job_id"]).status == 200


@pytest.mark.parametrize("action", ["accept", "payment", "lock", "cancel", "quote", "deliver"])
def test_a_rejected_step_leaves_the_job_as_it_was(our_floor: Floor, action: str) -> None:
    job = our_floor.delivered()
    assert do(our_floor, action, job["job_id"]).status == 409
    assert our_floor.see(our_floor.seller, job["job_id"]) == job


def test_times_are_shown_to_the_millisecond_in_utc(floor: Floor, either: Stand) -> None:
    either.clock.advance(7 + 1000 - floor.now_ms() % 1000)
    job = floor.running()
    assert all(TIME.fullmatch(job[name]) for name in ("quote_expires_at", "lock_expires_at", "created_at", "updated_at"))
    assert job["created_at"].endswith(".007Z")


def test_an_empty_body_counts_as_an_empty_object(floor: Floor) -> None:
    job = floor.quoted()["job_id"]
    assert floor.act(floor.buyer, job, "accept", b"").status == 200


def test_health_says_ok(either: Stand) -> None:
    with Wire(either.url) as wire:
        assert wire.send("GET", "/health").json == {"ok": True}
