"""What ours adds to the protocol: capabilities, signed documents, fence, decline, proof, inline results. Black-box, over real HTTP."""

from __future__ import annotations

import base64
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.relay_started import Stand, place_for, stand
from tests.relay_wire import ADDRESS, PLAIN_OFFER, Answer, Floor, as_json, inline, iso, plain_quote, sha256, wire_offer_id
from tradeskill.model import Result

MINUTE = 60_000


@pytest.fixture(scope="module", params=["ours", "postgres"])
def ours(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param, place_for(request.param, request)) as made:
        yield made


@pytest.fixture
def floor(ours: Stand) -> Iterator[Floor]:
    with ours.wire() as wire:
        yield Floor.at(wire)


def reason(answer: Answer) -> str:
    return str((answer.details or {}).get("reason"))


def test_capabilities_are_open_and_say_what_is_there(floor: Floor) -> None:
    found = floor.wire.send("GET", "/v1/capabilities").ok
    assert list(found) == ["tradeskill", "relay_id", "network", "time_ms", "capabilities", "limits"]
    assert found["tradeskill"] == 1
    assert re.fullmatch(r"[0-9a-f]{16}", found["relay_id"])
    assert found["network"] in ("dev", "test", "live", None)
    assert found["time_ms"] == floor.now_ms()
    assert found["capabilities"] == {
        "market_fence": True,
        "decline": True,
        "payment_proof": 16384,
        "invoices": 8,
        "inline_result": 196608,
        "cursor": True,
        "events": True,
        "offers": ["get", "update", "deactivate"],
        "documents": True,
    }
    assert found["limits"] == {"body": 307200, "request_payload": 65536, "error": 8192, "ip": None, "key": None, "strict": None, "window_ms": 60000}


def test_the_limits_in_force_are_told(tmp_path: Path) -> None:
    with stand("ours", tmp_path / "relay.db", limits=True) as made, made.wire() as wire:
        limits = wire.send("GET", "/v1/capabilities").ok["limits"]
        assert (limits["ip"], limits["key"], limits["strict"], limits["window_ms"]) == (120, 60, 30, 60_000)


def test_a_relay_keeps_its_id_and_another_has_another(tmp_path: Path) -> None:
    ids = []
    for name in ("a.db", "a.db", "b.db"):
        with stand("ours", tmp_path / name) as made, made.wire() as wire:
            ids.append(wire.send("GET", "/v1/capabilities").ok["relay_id"])
    assert ids[0] == ids[1] != ids[2]


def test_every_answer_carries_the_sign_of_ours(floor: Floor) -> None:
    answers = [floor.wire.send("GET", target) for target in ("/health", "/ready", "/metrics", "/docs", "/docs/json", "/v1/offers", "/v1/jobs", "/nowhere")]
    answers += [
        floor.wire.post(floor.buyer, "/v1/jobs"),
        floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER),
        floor.wire.post(floor.buyer, "/v1/jobs", b"{"),
    ]
    assert [answer.headers.get("x-tradeskill") for answer in answers] == ["1"] * len(answers)
    assert [answer.status for answer in answers[:6]] == [200] * 6


def test_metrics_have_labels_that_no_caller_chooses(floor: Floor) -> None:
    for name in ("AAAA", "BBBB"):
        floor.wire.send("GET", f"/v1/jobs/{name}?q={name}")
        floor.wire.send("GET", f"/{name}", headers={"user-agent": name, "host": name})
        floor.wire.send(name, "/v1/offers")
    answer = floor.wire.send("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    text = answer.body.decode()
    assert "# TYPE" in text
    assert not re.search("AAAA|BBBB", text)
    assert floor.seller.key not in text


def test_the_openapi_text_names_every_endpoint(floor: Floor) -> None:
    found = floor.wire.send("GET", "/docs/json").ok
    assert found["openapi"].startswith("3.")
    actions = ("quote", "decline", "accept", "payment", "lock", "deliver", "cancel")
    paths = {re.sub(r"\{[^}]*\}", "{}", path) for path in found["paths"]}
    wanted = {"/health", "/ready", "/metrics", "/v1/capabilities", "/v1/offers", "/v1/offers/{}", "/v1/jobs", "/v1/jobs/{}", "/v1/events", "/v1/results/{}"}
    assert wanted | {f"/v1/jobs/{{}}/{action}" for action in actions} <= paths


# requests and quotes


def test_a_signed_request_is_kept_and_its_nonce_opens_one_job(floor: Floor) -> None:
    offer = floor.signed_offer()
    document = floor.request_document(offer, nonce="n-1", value={"url": "http://a/"})
    first = floor.wire.post(floor.buyer, "/v1/jobs", floor.request_body(document))
    assert (first.status, first.job["request"], first.job["request_payload"]) == (201, as_json(document), {})
    assert first.job["offer_id"] == wire_offer_id(offer.offer_id)
    again = floor.wire.post(floor.buyer, "/v1/jobs", floor.request_body(document))
    assert (again.status, again.job) == (201, first.job)
    other = floor.wire.post(floor.buyer, "/v1/jobs", floor.request_body(floor.request_document(offer, nonce="n-1", value=5)))
    assert (other.status, other.code) == (409, "invalid_state")
    found = floor.wire.get(floor.buyer, "/v1/jobs?request_nonce=n-1").ok
    assert ([job["job_id"] for job in found["jobs"]], found["total"], list(found)) == ([first.job["job_id"]], 1, ["jobs", "limit", "offset", "total"])
    for party, nonce in ((floor.buyer, "n-2"), (floor.seller, "n-1"), (floor.stranger, "n-1")):
        found = floor.wire.get(party, f"/v1/jobs?request_nonce={nonce}").ok
        assert (found["jobs"], found["total"]) == ([], 0)


def test_a_signed_request_must_be_the_buyer_s_and_for_this_offer(floor: Floor) -> None:
    offer, other = floor.signed_offer(), floor.signed_offer()
    document = floor.request_document(offer)
    assert floor.wire.post(floor.stranger, "/v1/jobs", floor.request_body(document)).status in (400, 403)
    assert floor.wire.post(floor.buyer, "/v1/jobs", floor.request_body(document, offer_id=wire_offer_id(other.offer_id))).code == "validation_error"
    assert floor.wire.post(floor.buyer, "/v1/jobs", floor.request_body(floor.request_document(offer, seller=floor.stranger.key))).status == 400
    forged = as_json(document) | {"signature": "0" * 128}
    assert reason(floor.wire.post(floor.buyer, "/v1/jobs", floor.request_body(document, request=forged))) == "refused.untrusted"
    missing = floor.request_body(document)
    del missing["request_payload"]
    assert floor.wire.post(floor.buyer, "/v1/jobs", missing).code == "validation_error"
    assert floor.wire.get(floor.buyer, "/v1/jobs").ok["total"] == 0


def test_a_signed_quote_fills_the_plain_fields(floor: Floor) -> None:
    request, job = floor.signed_request()
    document = floor.quote_document(request, job["job_id"], minutes=10)
    quoted = floor.act(floor.seller, job["job_id"], "quote", {"quote": as_json(document)}).job
    assert (quoted["status"], quoted["quote"], quoted["invoices"]) == ("quoted", as_json(document), document.body["invoices"])
    assert (quoted["quote_amount_raw"], quoted["quote_invoice_address"]) == ("5", ADDRESS)
    assert quoted["quote_expires_at"] == iso(floor.now_ms() + 10 * MINUTE)
    assert floor.see(floor.buyer, job["job_id"]) == quoted


@pytest.mark.parametrize("name", ["quote_amount_raw", "quote_invoice_address", "quote_expires_at"])
def test_the_plain_fields_of_a_quote_must_agree_with_the_document(floor: Floor, name: str) -> None:
    request, job = floor.signed_request()
    document = floor.quote_document(request, job["job_id"], minutes=10)
    fields = {"quote_amount_raw": "5", "quote_invoice_address": ADDRESS, "quote_expires_at": iso(floor.now_ms() + 10 * MINUTE)}
    other = {"quote_amount_raw": "6", "quote_invoice_address": "thief", "quote_expires_at": iso(floor.now_ms() + 11 * MINUTE)}
    answer = floor.act(floor.seller, job["job_id"], "quote", fields | {"quote": as_json(document), name: other[name]})
    assert (answer.status, answer.code) == (400, "validation_error"), answer
    assert floor.act(floor.seller, job["job_id"], "quote", fields | {"quote": as_json(document)}).status == 200


def test_a_quote_on_another_rail_leaves_the_nano_fields_empty(floor: Floor) -> None:
    request, job = floor.signed_request()
    invoices: Any = [dict(floor.quote_document(request, job["job_id"]).body["invoices"][0]) | {"rail": "cashu", "unit": "sat"}]  # type: ignore[index]  # a list
    document = floor.quote_document(request, job["job_id"], invoices=invoices)
    quoted = floor.act(floor.seller, job["job_id"], "quote", {"quote": as_json(document)}).job
    assert (quoted["quote_amount_raw"], quoted["quote_invoice_address"], quoted["invoices"]) == (None, None, invoices)


def test_a_signed_quote_must_be_the_seller_s_and_for_this_job(floor: Floor) -> None:
    request, job = floor.signed_request()
    job_id = job["job_id"]
    good = floor.quote_document(request, job_id)
    stranger_s = floor.stranger.identity.sign("quote", good.body)
    past = floor.quote_document(request, job_id, minutes=-1)
    late = floor.quote_document(request, job_id, minutes=61)
    for document in (stranger_s, floor.quote_document(request, str(uuid.uuid4())), past, floor.quote_document(request, job_id, buyer=floor.stranger.key)):
        answer = floor.act(floor.seller, job_id, "quote", {"quote": as_json(document)})
        assert answer.status in (400, 403, 409), answer
    assert floor.see(floor.buyer, job_id)["status"] == "requested"
    answer = floor.act(floor.seller, job_id, "quote", {"quote": as_json(late)})
    assert answer.code == "validation_error" or answer.job["quote_expires_at"] <= iso(floor.now_ms() + 60 * MINUTE)


def test_decline_is_a_cancel_by_the_seller_with_an_error(floor: Floor) -> None:
    for state in ("requested", "quoted"):
        job = floor.in_state(state)["job_id"]
        for wrong in ({}, {"code": "busy"}, {"message": "x"}, {"code": 5, "message": "x"}, {"code": "", "message": "x"}):
            assert floor.act(floor.seller, job, "decline", wrong).code == "validation_error"
        declined = floor.act(floor.seller, job, "decline", {"code": "busy", "message": "later"}).job
        assert (declined["status"], declined["error"], declined["canceled_by"]) == ("canceled", {"code": "busy", "message": "later"}, "seller")
        assert declined["cancel_reason"] is None
    canceled = floor.act(floor.buyer, floor.accepted()["job_id"], "cancel", {"reason": "why not"}).job
    assert (canceled["error"], canceled["canceled_by"], canceled["cancel_reason"]) == (None, "buyer", "why not")
    assert floor.act(floor.buyer, floor.requested()["job_id"], "cancel").job["cancel_reason"] is None


def test_a_payment_may_carry_a_rail_and_a_proof(floor: Floor) -> None:
    job = floor.accepted()
    for wrong in ({"payment_rail": ""}, {"payment_rail": "r" * 33}, {"payment_proof": 5}, {"payment_proof": "p" * 16_385}, {"payment_proof": "é" * 8_193}):
        answer = floor.act(floor.buyer, job["job_id"], "payment", {"payment_tx_hash": "H"} | wrong)
        assert answer.status in (400, 413), answer
    paid = floor.act(floor.buyer, job["job_id"], "payment", {"payment_tx_hash": "H", "payment_rail": "cashu", "payment_proof": "p" * 16_384}).job
    assert (paid["payment_tx_hash"], paid["payment_rail"], paid["payment_proof"]) == ("H", "cashu", "p" * 16_384)
    assert floor.paid()["payment_rail"] == "nano"
    assert job["accepted_at"] == iso(floor.now_ms())


# lock and delivery


def test_a_lock_has_a_fence_that_stays_while_it_is_renewed_and_grows_when_it_is_taken_anew(floor: Floor, ours: Stand) -> None:
    job = floor.paid()["job_id"]
    first = floor.act(floor.seller, job, "lock").ok
    assert list(first) == ["job", "market_fence", "lock_expires_in_ms"]
    assert (first["job"]["market_fence"], first["lock_expires_in_ms"]) == (first["market_fence"], 5 * MINUTE)
    ours.clock.advance(MINUTE)
    assert floor.act(floor.seller, job, "lock").ok["market_fence"] == first["market_fence"]
    ours.clock.advance(5 * MINUTE)
    second = floor.act(floor.seller, job, "lock").ok["market_fence"]
    assert second > first["market_fence"]
    stale = floor.act(floor.seller, job, "deliver", {"result_url": "https://u", "market_fence": first["market_fence"]})
    assert (stale.status, stale.code, reason(stale)) == (409, "invalid_state", "state.stale_fence")
    for wrong in (str(second), second + 0.5, True, -1, 2**70):
        answer = floor.act(floor.seller, job, "deliver", {"result_url": "https://u", "market_fence": wrong})
        assert answer.status in (400, 409), answer
    ours.clock.advance(6 * MINUTE)
    assert floor.act(floor.seller, job, "deliver", {"result_url": "https://u"}).code == "invalid_state"  # the lock ran out
    delivered = floor.act(floor.seller, job, "deliver", {"result_url": "https://u", "market_fence": second})  # nobody took it since
    assert delivered.job["status"] == "delivered"


@pytest.mark.parametrize("size", [0, 1, 196_608])
def test_an_inline_result_is_kept_and_served_at_an_address_that_cannot_be_guessed(floor: Floor, size: int) -> None:
    data = os.urandom(size)
    request, quote, lock = floor.signed_running()
    job_id = lock["job"]["job_id"]
    receipt = floor.receipt_document(request, quote, job_id, Result(data, "image/png"))
    body = {"market_fence": lock["market_fence"], "result": inline(data, "image/png"), "receipt": as_json(receipt)}
    job = floor.act(floor.seller, job_id, "deliver", body).job
    wanted = {"media_type": "image/png", "size": size, "sha256": sha256(data)}
    assert job["result"] == wanted | {"data": base64.b64encode(data).decode()}
    assert job["receipt"] == as_json(receipt)
    assert job["result_payload"] is None
    assert floor.see(floor.buyer, job_id) == job
    assert floor.wire.get(floor.buyer, "/v1/jobs").ok["jobs"][0]["result"] == wanted  # lists go without the data
    assert re.fullmatch(re.escape(floor.wire.url.rstrip("/")) + r"/v1/results/[A-Za-z0-9_-]{22,}", job["result_url"])
    served = floor.wire.send("GET", job["result_url"].removeprefix(floor.wire.url.rstrip("/")))
    assert (served.status, served.body) == (200, data)
    assert served.headers["x-content-type-options"] == "nosniff"  # a stranger's bytes under our name
    assert "attachment" in served.headers["content-disposition"] or "sandbox" in served.headers.get("content-security-policy", "")
    for token in ("x", job_id, job["result_url"][-22:-1] + "A" * 9):
        assert floor.wire.send("GET", f"/v1/results/{token}").status in (400, 404)


def test_a_served_result_runs_nothing_in_a_browser(floor: Floor) -> None:
    job = floor.running()["job_id"]
    page = b"<script>alert(1)</script>"
    delivered = floor.act(floor.seller, job, "deliver", {"result": inline(page, "text/html\r\nSet-Cookie: a=b")})
    if delivered.status == 400:
        delivered = floor.act(floor.seller, job, "deliver", {"result": inline(page, "text/html")})
    served = floor.wire.send("GET", delivered.job["result_url"].removeprefix(floor.wire.url.rstrip("/")))
    assert served.body == page
    assert "set-cookie" not in served.headers
    unsafe = not served.headers["content-type"].startswith("text/html")
    assert unsafe or "sandbox" in served.headers.get("content-security-policy", "") or "attachment" in served.headers.get("content-disposition", "")


def test_a_delivery_is_a_result_or_a_url_or_an_error(floor: Floor) -> None:
    request, quote, lock = floor.signed_running()
    job, fence = lock["job"]["job_id"], {"market_fence": lock["market_fence"]}
    receipt = as_json(floor.receipt_document(request, quote, job, Result(b"r", "text/plain")))
    error = {"code": "a", "message": "b"}
    result: Any = inline(b"r")
    for wrong in (
        fence,
        {"receipt": receipt},
        {"result": result, "result_url": "https://u"},
        {"result": result, "error": error},
        {"error": error, "receipt": receipt},
        {"result": {"media_type": "text/plain"}},
        {"result": {"data": ""}},
        {"result": result | {"more": 1}},
        {"result": result | {"media_type": ""}},
        {"result": result | {"data": "a"}},
        {"result": result | {"data": "a==="}},
        {"result": result | {"data": "é"}},
        {"result": result | {"data": "cg==\n"}},
        {"result": result | {"data": 5}},
        {"result": "text"},
        {"result": result, "receipt": receipt | {"signature": "0" * 128}},
        {"result": result, "receipt": as_json(floor.stranger.identity.sign("receipt", receipt["body"]))},  # type: ignore[arg-type]  # an object
        {"result_url": "https://a", "receipt": receipt | {"signature": "0" * 128}},
        {"result_url": "https://a", "receipt": as_json(floor.seller.identity.sign("receipt", receipt["body"] | {"job_id": "another"}))},  # type: ignore[operator]  # an object
    ):
        answer = floor.act(floor.seller, job, "deliver", fence | wrong)
        assert answer.status in (400, 403), (wrong, answer)
    too_large = floor.act(floor.seller, job, "deliver", fence | {"result": inline(b"x" * 196_609)})
    assert too_large.status in (400, 413), too_large
    assert floor.see(floor.buyer, job)["status"] == "running"
    done = floor.act(floor.seller, job, "deliver", fence | {"result_url": "https://a.example/#r", "receipt": receipt}).job
    assert (done["status"], done["result_url"], done["receipt"], done["result"]) == ("delivered", "https://a.example/#r", receipt, None)


def test_revisions_count_every_change_and_nothing_else(floor: Floor, ours: Stand) -> None:
    job = floor.requested()
    job_id = job["job_id"]
    revisions = [job["revision"]]
    for party, action, body in (
        (floor.seller, "quote", plain_quote()),
        (floor.buyer, "accept", {}),
        (floor.buyer, "payment", {"payment_tx_hash": "H"}),
        (floor.seller, "lock", {}),
        (floor.seller, "lock", {}),
        (floor.seller, "deliver", {"result_url": "https://u"}),
    ):
        floor.act(floor.stranger, job_id, action, body)
        floor.see(floor.buyer, job_id)
        revisions.append(floor.act(party, job_id, action, body).job["revision"])
    assert revisions == list(range(revisions[0], revisions[0] + 7))


def test_a_relay_of_one_network_takes_no_document_of_another(tmp_path: Path) -> None:
    with stand("ours", tmp_path / "relay.db", network="dev") as made, made.wire() as wire:
        assert wire.send("GET", "/v1/capabilities").ok["network"] == "dev"
        floor = Floor.at(wire)
        request, job = floor.signed_request()
        floor.network = "live"
        answers = [
            wire.post(floor.seller, "/v1/offers", floor.offer_body(floor.offer_document())),
            wire.post(floor.buyer, "/v1/jobs", floor.request_body(floor.buyer.identity.sign("request", {**request.body, "network": "live", "nonce": "x"}))),
            floor.act(floor.seller, job["job_id"], "quote", {"quote": as_json(floor.quote_document(request, job["job_id"], network="live"))}),
        ]
        for answer in answers:
            assert (answer.status, answer.code, reason(answer)) == (400, "validation_error", "network_mismatch"), answer
        floor.offer()  # a plain one has no network
