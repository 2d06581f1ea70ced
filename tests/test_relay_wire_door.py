"""What a request meets before any rule of the market: signature, order of checks, nonces, limits, ids. Black-box, over real HTTP."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.relay_started import Stand, stand
from tests.relay_wire import PLAIN_OFFER, Answer, Floor, Party, Wire, as_bytes

SMALL_ORDER_KEY, SMALL_ORDER_SIGNATURE = "01" + "00" * 31, "01" + "00" * 63
OFFER = as_bytes(PLAIN_OFFER)


@pytest.fixture(scope="module", params=["ours", "old"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(request.param, tmp_path_factory.mktemp("door") / "relay.db") as made:
        yield made


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand("ours", tmp_path_factory.mktemp("door") / "relay.db") as made:
        yield made


@pytest.fixture
def wire(either: Stand) -> Iterator[Wire]:
    with either.wire() as made:
        yield made


def test_the_vector_of_the_protocol_passes_the_signature_check(tmp_path: Path) -> None:
    for kind in ("ours", "old"):
        with stand(kind, tmp_path / "relay.db") as made, made.wire() as wire:
            assert made.clock.now_ms() == 1_700_000_000_000  # the vector's own time
            headers = {
                "X-Molt-PubKey": "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
                "X-Molt-Timestamp": "1700000000",
                "X-Molt-Nonce": "00112233445566778899aabbccddeeff",
                "X-Molt-Signature": "c0ba9f778b9657fc12892dc38f09064f3894ade4c07fa5432ce17c7b16d3b5cf"
                "dd965dc2ec7c60f746ee51944eb9af33d8aba5569a23a43a0ac9aa82dbbeda08",
            }
            answer = wire.send("POST", "/v1/offers?x=1", b'{"a":1}', headers)
            assert (answer.status, answer.code) == (400, "validation_error")  # signed well, then judged by the schema
            again = wire.send("POST", "/v1/offers?x=1", b'{"a":1}', headers)
            assert (again.status, again.code) == (401, "auth.nonce_replay")


@dataclass
class Plan:
    """One request in the making. Faults change it, and are laid over each other."""

    wire: Wire
    party: Party
    used_nonce: str
    used_key: str
    body: bytes = OFFER
    content_type: str = "application/json"
    skew: int = 0
    nonce: str = ""
    headers: dict[str, str | None] = field(default_factory=dict)
    forge: bool = False

    def send(self) -> Answer:
        now_ms = self.wire.world.now_ms() + self.skew
        made: dict[str, str | None] = dict(
            self.party.headers("POST", "/v1/offers", self.body, now_ms=now_ms, nonce=self.nonce or os.urandom(16).hex()),
        )
        if self.forge:
            made["x-molt-signature"] = "0" * 128
        made |= {"content-type": self.content_type} | self.headers
        return self.wire.send("POST", "/v1/offers", self.body, {name: value for name, value in made.items() if value is not None})


def _header(name: str, value: str | None) -> Callable[[Plan], None]:
    return lambda plan: plan.headers.update({name: value})


def _set(**values: object) -> Callable[[Plan], None]:
    return lambda plan: plan.__dict__.update(values)


def _replay(plan: Plan) -> None:
    plan.nonce = plan.used_nonce


def _conflict(plan: Plan) -> None:
    plan.headers["idempotency-key"] = plan.used_key


# in the order of the checks: the fault, what it does, and how its answer is known
FAULTS: list[tuple[str, Callable[[Plan], None], int, str, str]] = [
    ("body is not JSON", _set(body=b'{"title":'), 400, "validation_error", ""),
    ("key format", _header("x-molt-pubkey", "XY" * 32), 401, "auth.invalid_signature", "PubKey"),
    ("no time", _header("x-molt-timestamp", None), 401, "auth.invalid_signature", "Timestamp and"),
    ("signature format", _header("x-molt-signature", "ab"), 401, "auth.invalid_signature", "Signature must"),
    ("nonce format", lambda plan: _set(nonce="ab" * 15)(plan), 401, "auth.invalid_signature", "Nonce must"),
    ("time format", _header("x-molt-timestamp", "soon"), 401, "auth.invalid_signature", "unix seconds"),
    ("skew", _set(skew=-61_000), 401, "auth.timestamp_skew", ""),
    ("wrong signature", _set(forge=True), 401, "auth.invalid_signature", "fit the request"),
    ("nonce used", _replay, 401, "auth.nonce_replay", ""),
    ("idempotency conflict", _conflict, 409, "idempotency_conflict", ""),
    ("schema", _set(body=b'{"title":""}'), 400, "validation_error", ""),
]


def plan_for(wire: Wire) -> Plan:
    party, nonce, key = Party(), os.urandom(16).hex(), os.urandom(8).hex()
    other = as_bytes(PLAIN_OFFER | {"title": "Another"})
    assert wire.post(party, "/v1/offers", other, nonce=nonce, idempotency=key).status == 201
    return Plan(wire, party, nonce, key)


def judge(plan: Plan, number: int, ours: bool) -> None:
    answer = plan.send()
    title, _, status, code, message = FAULTS[number]
    if title == "body is not JSON" and not ours:
        assert answer.status == 500
        return
    assert (answer.status, answer.code) == (status, code), (title, answer)
    assert message in answer.json["error"]["message"], (title, answer)


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[fault[0] for fault in FAULTS])
def test_each_fault_has_its_answer(wire: Wire, either: Stand, number: int) -> None:
    plan = plan_for(wire)
    FAULTS[number][1](plan)
    judge(plan, number, either.ours)


def test_of_two_faults_the_earlier_check_answers(wire: Wire, either: Stand) -> None:
    for first, second in itertools.combinations(range(len(FAULTS)), 2):
        titles = (FAULTS[first][0], FAULTS[second][0])
        if titles in (("body is not JSON", "schema"), ("no time", "time format"), ("nonce format", "nonce used")):
            continue  # the two cannot be in one request
        plan = plan_for(wire)
        for number in (second, first):  # the earlier one is laid on top
            FAULTS[number][1](plan)
        judge(plan, first, either.ours)


@pytest.mark.parametrize("name", ["x-molt-pubkey", "x-molt-timestamp", "x-molt-nonce", "x-molt-signature"])
def test_a_signed_header_missing_or_in_capitals_is_refused(wire: Wire, name: str) -> None:
    party = Party()
    assert wire.get(party, "/v1/jobs").status == 200
    assert wire.call(party, "GET", "/v1/jobs", headers={name: None}).code == "auth.invalid_signature"
    made = party.headers("GET", "/v1/jobs", b"", now_ms=wire.world.now_ms(), nonce="ab" * 16)
    if made[name] != made[name].upper():
        assert wire.send("GET", "/v1/jobs", headers=made | {name: made[name].upper()}).code == "auth.invalid_signature"
    assert wire.send("GET", "/v1/jobs", headers={header.upper(): value for header, value in made.items()}).status == 200  # names are free


@pytest.mark.parametrize("name", ["x-molt-pubkey", "x-molt-timestamp", "x-molt-nonce", "x-molt-signature"])
def test_a_signed_header_sent_twice_is_refused(ours: Stand, name: str) -> None:
    with ours.wire() as wire:
        made = Party().headers("GET", "/v1/jobs", b"", now_ms=wire.world.now_ms())
        assert wire.send("GET", "/v1/jobs", headers=[*made.items(), (name, made[name])]).status in (400, 401)


def test_a_signature_counts_for_its_method_target_time_nonce_body_and_key_only(wire: Wire) -> None:
    floor = Floor.at(wire)
    made = floor.buyer.headers("POST", "/v1/jobs/x/cancel?a=1", b"{}", now_ms=floor.now_ms())
    changes: list[tuple[str, str, bytes, dict[str, str]]] = [
        ("PUT", "/v1/jobs/x/cancel?a=1", b"{}", {}),
        ("POST", "/v1/jobs/x/cancel?a=1&", b"{}", {}),
        ("POST", "/v1/jobs/x/cancel", b"{}", {}),
        ("POST", "/v1/jobs/x/%63ancel?a=1", b"{}", {}),
        ("POST", "/v1/jobs/x/cancel?a=1", b"{} ", {}),
        ("POST", "/v1/jobs/x/cancel?a=1", b"", {}),
        ("POST", "/v1/jobs/x/cancel?a=1", b"{}", {"x-molt-timestamp": str(floor.now_ms() // 1000 + 1)}),
        ("POST", "/v1/jobs/x/cancel?a=1", b"{}", {"x-molt-nonce": "ab" * 16}),
        ("POST", "/v1/jobs/x/cancel?a=1", b"{}", {"x-molt-pubkey": floor.seller.key}),
    ]
    for method, target, body, headers in changes:
        answer = wire.send(method, target, body, made | headers)
        assert (answer.status, answer.code) in ((401, "auth.invalid_signature"), (404, "not_found"), (405, "not_found")), (method, target, answer)
    for target in ("/v1/jobs?", "/v1/jobs?limit=%31", "/v1/jobs?limit=1&limi%74=1"):
        assert wire.get(floor.buyer, target).status != 401, target


def test_what_is_not_open_must_be_signed(wire: Wire) -> None:
    job = Floor.at(wire).requested()["job_id"]
    for target in ("/health", "/metrics", "/docs", "/v1/offers"):
        assert wire.send("GET", target).status == 200
    actions = [("POST", f"/v1/jobs/{job}/{action}") for action in ("quote", "accept", "payment", "lock", "deliver", "cancel")]
    for method, target in [("POST", "/v1/offers"), ("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", f"/v1/jobs/{job}"), *actions]:
        answer = wire.send(method, target, b"{}" if method == "POST" else b"")
        assert (answer.status, answer.code) == (401, "auth.invalid_signature"), target


def test_60_seconds_of_skew_are_allowed_and_61_are_not(wire: Wire) -> None:
    party, now_ms = Party(), wire.world.now_ms()
    for seconds, status in ((-60, 200), (60, 200), (-61, 401), (61, 401)):
        answer = wire.call(party, "GET", "/v1/jobs", now_ms=now_ms + seconds * 1000)
        assert answer.status == status
        if status == 401:
            assert answer.code == "auth.timestamp_skew"
            assert answer.details == {"server_time": now_ms // 1000}


def test_a_nonce_is_used_up_by_a_later_error_but_not_by_a_bad_signature(wire: Wire) -> None:
    party, nonce = Party(), "ab" * 16
    assert wire.post(party, "/v1/offers", OFFER, nonce=nonce, headers={"x-molt-signature": "0" * 128}).code == "auth.invalid_signature"
    assert wire.post(party, "/v1/offers", OFFER, nonce=nonce, now_ms=wire.world.now_ms() - 61_000).code == "auth.timestamp_skew"
    assert wire.post(party, "/v1/offers", b'{"title":""}', nonce=nonce).code == "validation_error"
    assert wire.post(party, "/v1/offers", OFFER, nonce=nonce).code == "auth.nonce_replay"
    assert wire.post(Party(), "/v1/offers", OFFER, nonce=nonce).status == 201  # a nonce belongs to a key


def test_a_nonce_of_32_to_64_digits_counts_once_for_ten_minutes(either: Stand, wire: Wire) -> None:
    party = Party()
    for length, status in ((31, 401), (32, 200), (64, 200), (65, 401)):
        assert wire.call(party, "GET", "/v1/jobs", nonce="c" * length).status == status
    either.clock.advance(599_999)
    assert wire.call(party, "GET", "/v1/jobs", nonce="c" * 32).code == "auth.nonce_replay"


def test_a_used_nonce_is_known_after_a_restart(tmp_path: Path) -> None:
    party, nonce = Party(), "ab" * 16
    with stand("ours", tmp_path / "relay.db") as made, made.wire() as wire:
        assert wire.call(party, "GET", "/v1/jobs", nonce=nonce).status == 200
    with stand("ours", tmp_path / "relay.db", clock=made.clock) as made, made.wire() as wire:
        assert wire.call(party, "GET", "/v1/jobs", nonce=nonce).code == "auth.nonce_replay"


def test_a_key_of_small_order_is_refused(ours: Stand, tmp_path: Path) -> None:
    forged: dict[str, str | None] = {"x-molt-pubkey": SMALL_ORDER_KEY, "x-molt-signature": SMALL_ORDER_SIGNATURE}
    with ours.wire() as wire:
        assert wire.post(Party(), "/v1/offers", OFFER, headers=forged).code == "auth.invalid_signature"
    with stand("old", tmp_path) as old, old.wire() as wire:
        assert wire.post(Party(), "/v1/offers", OFFER, headers=forged).status == 201  # what the old one does wrong


def test_a_request_id_of_up_to_64_characters_is_echoed_and_any_other_is_made_anew(wire: Wire) -> None:
    assert wire.send("GET", "/health", headers={"X-Request-Id": "r" * 64}).headers["x-request-id"] == "r" * 64
    made = [wire.send("GET", "/health", headers=headers).headers["x-request-id"] for headers in ({}, {"X-Request-Id": "r" * 65}, {"X-Request-Id": ""})]
    assert len(set(made)) == 3
    assert all(0 < len(name) <= 64 and not name.startswith("r") for name in made)
    assert wire.send("POST", "/v1/jobs", b"{}", {"X-Request-Id": "abc"}).headers["x-request-id"] == "abc"  # of errors as well


@pytest.mark.parametrize("value", ["a\rset-cookie: x=y", "a\nset-cookie: x=y", "a\r\nset-cookie: x=y", "a\0b", "a\x1bb", "\u00ff", "a\tb"])
@pytest.mark.parametrize("name", ["idempotency-key", "x-request-id"])
def test_a_header_that_is_echoed_stays_in_its_line(ours: Stand, name: str, value: str) -> None:
    with ours.wire() as wire:
        answer = wire.post(Party(), "/v1/offers", OFFER, headers={name: value})
        assert answer.status in (201, 400)
        assert "set-cookie" not in answer.headers
        assert not {"\r", "\n", "\0", "\x1b"} & set(answer.headers.get(name, ""))


# limits


@pytest.fixture(params=["ours", "old"])
def limited(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with stand(request.param, tmp_path / "relay.db", limits=True) as made:
        yield made


def refused(answer: Answer, scope: str, limit: int) -> None:
    assert (answer.status, answer.code) == (429, "rate_limited"), answer
    assert answer.details == {"scope": scope, "limit": limit, "window_ms": 60_000}
    assert re.fullmatch(r"[1-9][0-9]?", answer.headers["retry-after"])
    assert int(answer.headers["retry-after"]) <= 60


def test_an_address_gets_120_requests_a_minute_and_what_is_outside_v1_is_free(limited: Stand) -> None:
    with limited.wire() as wire, limited.wire("127.0.0.2") as elsewhere:
        for _ in range(120):
            assert wire.send("GET", "/v1/offers").status == 200
        answer = wire.send("GET", "/v1/offers")
        refused(answer, "ip", 120)
        refused(wire.send("GET", "/v1/jobs", b"{not json", {"x-molt-pubkey": "?"}), "ip", 120)  # before any other check
        assert wire.send("GET", "/health").status == 200
        assert elsewhere.send("GET", "/v1/offers").status == 200
        limited.clock.advance(1000 * int(answer.headers["retry-after"]))
        assert wire.send("GET", "/v1/offers").status == 200


def test_a_key_gets_60_requests_a_minute_from_wherever_it_comes(limited: Stand) -> None:
    party = Party()
    with limited.wire() as wire, limited.wire("127.0.0.2") as elsewhere:
        for n in range(60):
            assert (wire, elsewhere)[n % 2].get(party, "/v1/jobs").status == 200
        nonce = os.urandom(16).hex()
        answer = elsewhere.call(party, "GET", "/v1/jobs", nonce=nonce)
        refused(answer, "pubkey", 60)
        assert elsewhere.call(party, "GET", "/v1/jobs", nonce=nonce).code == "auth.nonce_replay"  # the refused one used its nonce up
        assert wire.get(Party(), "/v1/jobs").status == 200
        assert wire.call(party, "GET", "/v1/jobs", headers={"x-molt-signature": "0" * 128}).code == "auth.invalid_signature"
        limited.clock.advance(1000 * int(answer.headers["retry-after"]))
        assert wire.get(party, "/v1/jobs").status == 200


def test_offers_and_jobs_are_opened_30_times_a_minute_together(limited: Stand) -> None:
    with limited.wire() as wire, limited.wire("127.0.0.2") as second, limited.wire("127.0.0.3") as third:
        seller = Party()
        offer = wire.post(seller, "/v1/offers", OFFER).offer["offer_id"]
        for n in range(29):
            body = OFFER if n % 2 else as_bytes({"offer_id": offer, "request_payload": {}})
            assert (second, third)[n % 2].post(seller, "/v1/offers" if n % 2 else "/v1/jobs", body).status == 201
        refused(second.post(seller, "/v1/offers", OFFER), "pubkey", 30)
        refused(second.post(seller, "/v1/jobs", {"offer_id": offer, "request_payload": {}}), "pubkey", 30)
        assert second.get(seller, "/v1/jobs").status == 200  # another bucket
        for _ in range(29):
            assert wire.post(Party(), "/v1/offers", OFFER).status == 201
        refused(wire.post(Party(), "/v1/offers", OFFER), "ip", 30)
        assert wire.send("GET", "/v1/offers").status == 200
