"""What goes in comes out, byte for byte; what is no request is refused with a 4xx that tells nothing of the inside. Black-box, over real HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.relay_started import Stand, place_for, stand
from tests.relay_wire import PLAIN_OFFER, Answer, Floor, as_bytes, inline, plain_quote
from tradeskill.model import Result

# spelled as no JSON writer of ours would: key order, large and odd numbers, empty lists, escapes, spaces
ODD = '{ "z":1,"a":[ ],"n":12345678901234567890123,"f":1.0,"e":1E5,"m":-0,"s":"\\u00e9\\/\\n é","o":{"b":[],"a":{}},  "t":true,"x":null,"bb":0.10}'
NESTED = '{"a":' * 60 + "[]" + "}" * 60
INSIDE = re.compile(r"traceback|sqlite|psycopg|select |insert |file \"|\.py|tradeskill_plugins|exception|0x[0-9a-f]{6}", re.IGNORECASE)


@pytest.fixture(scope="module", params=["ours", "postgres"])
def ours(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param, place_for(request.param, request)) as made:
        yield made


@pytest.fixture
def floor(ours: Stand) -> Iterator[Floor]:
    with ours.wire() as wire:
        yield Floor.at(wire)


def refused(answer: Answer, status: int = 400, code: str = "validation_error") -> None:
    assert (answer.status, answer.code) == (status, code), answer
    assert list(answer.json) == ["error"]
    assert list(answer.json["error"]) == ["code", "message", "details"]
    assert answer.headers["x-tradeskill"] == "1"
    assert answer.headers.get("x-request-id") or answer.headers["connection"] == "close"  # the door's own refusals have none
    assert not INSIDE.search(answer.body.decode()), answer


@pytest.mark.parametrize("payload", [ODD, "{}", NESTED, '{"deep":[[[[]]]],"text":"\\ud83d\\ude00\\u0001"}'], ids=["odd", "empty", "nested", "pairs"])
def test_a_payload_comes_back_as_the_bytes_it_came_in(floor: Floor, payload: str) -> None:
    offer = floor.offer()["offer_id"]
    answer = floor.wire.post(floor.buyer, "/v1/jobs", f'{{"offer_id":"{offer}", "request_payload" : {payload} }}'.encode())
    assert answer.status == 201, answer
    assert answer.member("job", "request_payload") == payload
    for party in (floor.buyer, floor.seller):
        assert floor.wire.get(party, f"/v1/jobs/{answer.job['job_id']}").member("job", "request_payload") == payload
    for query in ("", "?cursor=", "?updated_after=2020-01-01T00:00:00.000Z"):
        listed = floor.wire.get(floor.seller, f"/v1/jobs{query}")
        assert f'"request_payload":{payload}' in listed.body.decode()


def test_the_details_of_an_error_come_back_as_the_bytes_they_came_in(floor: Floor) -> None:
    for details in (ODD, "[]", "null", "12345678901234567890", '"\\u00e9"'):
        job = floor.running()["job_id"]
        sent = f'{{"error":{{"code":"exit","message":"1","details": {details} }}}}'
        answer = floor.act(floor.seller, job, "deliver", sent.encode())
        assert answer.status == 200, answer
        for seen in (answer, floor.wire.get(floor.buyer, f"/v1/jobs/{job}")):
            assert json.loads(seen.member("job", "error")) == json.loads(sent)["error"]
            if details != "null":
                assert seen.member("job", "error", "details") == details


def test_documents_come_back_as_the_bytes_they_came_in(floor: Floor) -> None:
    def spelled(document: Any) -> str:
        """The same document in another spelling: spaces, escapes, another order of keys."""
        return json.dumps({"signature": document.signature, "kind": document.kind, "key": document.key, "body": document.body}, indent=1)

    offer = floor.offer_document(title="Ärger", description="d")
    body = floor.offer_body(offer)
    del body["document"]
    text = json.dumps(body)[:-1] + f', "document":{spelled(offer)}}}'
    made = floor.wire.post(floor.seller, "/v1/offers", text.encode())
    assert made.status == 201, made
    for seen in (made, floor.wire.send("GET", f"/v1/offers/{made.offer['offer_id']}")):
        assert seen.member("offer", "document") == spelled(offer)
    from tradeskill.agreement import read_offer

    request = floor.request_document(read_offer(offer), value={"z": 1, "a": [], "é": "\u00e9"})
    text = f'{{"offer_id":"{made.offer["offer_id"]}","request_payload":{{}},"request": {spelled(request)}}}'
    asked = floor.wire.post(floor.buyer, "/v1/jobs", text.encode())
    job = asked.job["job_id"]
    quote = floor.quote_document(request, job)
    quoted = floor.act(floor.seller, job, "quote", f'{{"quote":{spelled(quote)}}}'.encode())
    assert quoted.status == 200, quoted
    floor.act(floor.buyer, job, "accept").done()
    floor.act(floor.buyer, job, "payment", {"payment_tx_hash": "H"}).done()
    fence = floor.act(floor.seller, job, "lock").ok["market_fence"]
    receipt = floor.receipt_document(request, quote, job, Result(b"r", "text/plain"))
    text = f'{{"market_fence":{fence},"result":{json.dumps(inline(b"r"))},"receipt":{spelled(receipt)}}}'
    delivered = floor.act(floor.seller, job, "deliver", text.encode())
    assert delivered.status == 200, delivered
    for seen in (delivered, floor.wire.get(floor.buyer, f"/v1/jobs/{job}")):
        assert seen.member("job", "request") == spelled(request)
        assert seen.member("job", "quote") == spelled(quote)
        assert seen.member("job", "receipt") == spelled(receipt)


def test_the_double_of_the_old_relay_alters_payloads(tmp_path: Path) -> None:
    with stand("old", tmp_path) as made, made.wire() as wire:
        floor = Floor.at(wire)
        text = f'{{"offer_id":"{floor.offer()["offer_id"]}","request_payload":{ODD}}}'.encode()
        stored = wire.post(floor.buyer, "/v1/jobs", text).member("job", "request_payload")
    wanted = '{"a":{},"e":100000,"f":1,"m":0,"n":1.2345678901234568e+22,"o":{"a":{},"b":{}},"s":"é/\\n é","t":true,"x":null,"z":1,"bb":0.1}'
    assert stored == wanted


# what is no JSON


BROKEN = [
    b"{",
    b"}",
    b'{"a":1',
    b'{"a":1}}',
    b'{"a":1} x',
    b'{"a":1,}',
    b"{'a':1}",
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b'{"a":1e400}',
    b'{"a":-1e400}',
    b'{"a":01}',
    b'{"a":+1}',
    b'{"a":.5}',
    b'{"a":1,"a":2}',
    b'{"b":{"a":1,"a":2}}',
    b'{"a":"\\u0000"}',
    b'{"\\u0000":1}',
    b'{"a":"\x00"}',
    b'{"a":"\n"}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\udc00\\ud800"}',
    b'{"a":"\\x41"}',
    b'{"a":"\xff"}',
    b'{"a":"\xc0\x80"}',
    b'{"a":"\xed\xa0\x80"}',
    b'\xef\xbb\xbf{"a":1}',
    '{"a":1}'.encode("utf-16"),
    b"[]",
    b"null",
    b'"text"',
    b"5",
    b" ",
    b"\x00",
    b'{"a":' * 100 + b"1" + b"}" * 100,
    b"[" * 50_000 + b"]" * 50_000,
    b'{"a":' * 50_000,
    b'{"a":' + b"9" * 5_000 + b"}",
    b'{"' + b"k" * 100_000,
]


@pytest.mark.parametrize("body", BROKEN, ids=[f"{n}-{body[:14]!r}" for n, body in enumerate(BROKEN)])
def test_a_body_that_is_no_strict_json_object_is_400_everywhere(floor: Floor, body: bytes) -> None:
    job = floor.requested()["job_id"]
    for target in (
        "/v1/offers",
        "/v1/jobs",
        *(f"/v1/jobs/{job}/{action}" for action in ("quote", "accept", "payment", "lock", "deliver", "cancel", "decline")),
    ):
        refused(floor.wire.post(floor.seller, target, body))


def test_the_same_breakage_deep_inside_a_payload_is_400(floor: Floor) -> None:
    offer = floor.offer()["offer_id"]
    for inside in (b'"\\ud800"', b'"\\u0000"', b"1e999", b"NaN", b'{"a":1,"a":1}', b"[" * 70 + b"]" * 70, b"9" * 5_000):
        body = b'{"offer_id":"%s","request_payload":{"x":[%s]}}' % (offer.encode(), inside)
        refused(floor.wire.post(floor.buyer, "/v1/jobs", body))
    refused(floor.wire.post(floor.buyer, "/v1/jobs", b'{"offer_id":"%s","offer_id":"%s","request_payload":{}}' % (offer.encode(), offer.encode())))


def test_a_body_of_another_kind_is_415(floor: Floor) -> None:
    for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", "x"):
        answer = floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER, headers={"content-type": kind})
        refused(answer, 415)
    for kind in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        assert floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER, headers={"content-type": kind}).status == 201


def test_a_body_in_chunks_is_hashed_as_a_whole(floor: Floor) -> None:
    body = as_bytes(PLAIN_OFFER)
    signed = floor.seller.headers("POST", "/v1/offers", body, now_ms=floor.now_ms()) | {"content-type": "application/json"}
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:5], body[5:])) + b"0\r\n\r\n"
    head = floor.wire.request_bytes("POST", "/v1/offers", b"", {**signed, "transfer-encoding": "chunked"})
    assert floor.wire.exchange(head + chunks).status == 201


# what is no target


JOB_PATHS = ["/v1/jobs/{}", "/v1/jobs/{}/accept", "/v1/jobs/{}/quote"]
NO_IDS = [
    *("1", "x" * 36, "null", "%00", "%", "%zz", "%ff", "..%2f..", "..", "{job}%00", "{job}%20", "%20{job}", "{job}'", "' OR 1=1 --", "{job};", "*"),
    *("\u00e9", "x" * 3_000, "{job},{job}", "-", "00000000-0000-0000-0000-00000000000g", "{{}}"),
]


@pytest.mark.parametrize("name", NO_IDS)
def test_an_id_that_is_none_is_a_4xx(floor: Floor, name: str) -> None:
    job = floor.requested()["job_id"]
    for path in JOB_PATHS:
        target = path.format(name.replace("{job}", job).replace(" ", "%20")).encode()
        method, body = ("GET", b"") if path.endswith("{}") else ("POST", as_bytes(plain_quote() if "quote" in path else {}))
        answer = floor.wire.call(floor.buyer, method, target, body)
        assert answer.status in (400, 404), answer
        refused(answer, answer.status, {400: "validation_error", 404: "not_found"}[answer.status])


def test_an_id_in_capitals_or_encoded_is_the_same_job_or_a_4xx(floor: Floor) -> None:
    job = floor.requested()["job_id"]
    for name in (job.upper(), job.replace("-", "%2d"), f"%{ord(job[0]):02x}{job[1:]}"):
        answer = floor.wire.get(floor.buyer, f"/v1/jobs/{name}")
        assert answer.status in (400, 404) or answer.job["job_id"] == job, answer


TARGETS = [
    *(
        "/v1",
        "/v1/",
        "/",
        "//v1/offers",
        "/v1//offers",
        "/v1/offers/",
        "/v1/./offers",
        "/v1/jobs/../offers",
        "/v1/%6fffers",
        "/v1/offers%3fa=1",
        "/v1/offers%00",
    ),
    *(
        "/v2/offers",
        "/v1/job",
        "/v1/results/x",
        "/v1/results/..%2f..%2fetc%2fpasswd",
        "/v1/offers/..",
        "/favicon.ico",
        "/.env",
        "/docs/../metrics",
        "/%",
        "/v1/offers%00",
    ),
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_path_that_is_none_is_404_signed_or_not(floor: Floor, target: str) -> None:
    for answer in (floor.wire.get(floor.buyer, target), floor.wire.send("GET", target), floor.wire.post(floor.buyer, target)):
        assert answer.status in (400, 401, 404, 405), (target, answer)
        assert "x-tradeskill" in answer.headers
        assert not INSIDE.search(answer.body.decode()), answer


def test_a_method_that_is_not_offered_is_a_4xx(floor: Floor) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
        for target in ("/v1/jobs", "/health", "/v1/offers"):
            answer = floor.wire.call(floor.buyer, method, target)
            assert answer.status in (400, 401, 404, 405), (method, target, answer)
            assert not INSIDE.search(answer.body.decode()), answer


# unknown keys


def test_keys_that_nobody_knows_are_ignored_except_by_deliver(floor: Floor) -> None:
    more: dict[str, Any] = {"x": [1], "job_id": "y", "__proto__": {}, "status": "delivered"}
    offer = floor.wire.post(floor.seller, "/v1/offers", PLAIN_OFFER | more).offer
    assert "x" not in offer
    job = floor.wire.post(floor.buyer, "/v1/jobs", {"offer_id": offer["offer_id"], "request_payload": {}} | more).job
    assert (job["status"], "x" in job) == ("requested", False)
    for party, action, body in (
        (floor.seller, "quote", plain_quote()),
        (floor.buyer, "accept", {}),
        (floor.buyer, "payment", {"payment_tx_hash": "H"}),
        (floor.seller, "lock", {}),
    ):
        assert floor.act(party, job["job_id"], action, body | more).status == 200, action
    for key, value in more.items():
        refused(floor.act(floor.seller, job["job_id"], "deliver", {"result_url": "https://u", key: value}))
    canceled = floor.requested()["job_id"]
    assert floor.act(floor.buyer, canceled, "cancel", more).status == 200
