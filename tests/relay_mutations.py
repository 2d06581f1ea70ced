"""Requests that are right, and how they are broken: before they are signed, or in their bytes on the wire. Every break comes from a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.relay_wire import PLAIN_OFFER, Floor, Party, Wire, as_bytes, as_json, inline, plain_quote


@dataclass(frozen=True)
class Sample:
    """A request that is right as it stands."""

    party: Party
    method: str
    target: str
    body: bytes


def samples(floor: Floor) -> list[Sample]:
    """Every endpoint once or more, against jobs in the right states."""
    offer = floor.offer_document()
    body = as_bytes(floor.offer_body(offer))
    made = floor.signed_offer()
    request, job = floor.signed_request()
    quote = as_bytes({"quote": as_json(floor.quote_document(request, job["job_id"]))})
    lock = floor.signed_running()[2]
    actions: list[tuple[Party, str, str, Any]] = [
        (floor.seller, floor.requested()["job_id"], "quote", plain_quote(quote_expires_at="2030-01-01T00:00:00.000Z")),
        (floor.seller, floor.requested()["job_id"], "decline", {"code": "busy", "message": "later"}),
        (floor.buyer, floor.quoted()["job_id"], "accept", {}),
        (floor.buyer, floor.accepted()["job_id"], "payment", {"payment_tx_hash": "AB" * 32, "payment_rail": "nano", "payment_proof": "p"}),
        (floor.seller, floor.paid()["job_id"], "lock", {}),
        (floor.seller, floor.running()["job_id"], "deliver", {"result_url": "https://a.example/r"}),
        (floor.seller, floor.running()["job_id"], "deliver", {"error": {"code": "exit", "message": "1", "details": {"a": []}}}),
        (floor.seller, lock["job"]["job_id"], "deliver", {"result": inline(b"result"), "market_fence": lock["market_fence"]}),
        (floor.buyer, floor.requested()["job_id"], "cancel", {"reason": "no"}),
    ]
    found = [Sample(party, "POST", f"/v1/jobs/{job_id}/{action}", as_bytes(value)) for party, job_id, action, value in actions]
    found.append(Sample(floor.seller, "POST", f"/v1/jobs/{job['job_id']}/quote", quote))
    found.append(Sample(floor.seller, "POST", "/v1/offers", as_bytes(PLAIN_OFFER | {"tags": ["a", "b"]})))
    found.append(Sample(floor.seller, "POST", "/v1/offers", body))
    found.append(Sample(floor.seller, "PUT", f"/v1/offers/{floor.offer()['offer_id']}", as_bytes(PLAIN_OFFER)))
    found.append(Sample(floor.seller, "DELETE", f"/v1/offers/{floor.offer()['offer_id']}", b""))
    found.append(Sample(floor.buyer, "POST", "/v1/jobs", as_bytes({"offer_id": floor.offer()["offer_id"], "request_payload": {"n": 1.5, "a": ["x", None]}})))
    found.append(Sample(floor.buyer, "POST", "/v1/jobs", as_bytes(floor.request_body(floor.request_document(made, value={"url": "http://a/"})))))
    targets = [
        *("/v1/offers?q=web&tags=a,b&limit=5&offset=1&active=true&pricing_mode=quote", f"/v1/offers?seller_pubkey={floor.seller.key}"),
        *("/v1/jobs?status=requested,quoted&role=buyer&limit=3&offset=0", "/v1/jobs?updated_after=2024-01-01T00:00:00.000Z", "/v1/jobs?cursor=&limit=9"),
        *("/v1/jobs?request_nonce=n", f"/v1/jobs/{job['job_id']}", "/v1/capabilities", "/health", "/ready", "/metrics", "/docs", "/docs/json"),
        *("/v1/results/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", f"/v1/offers/{floor.offer()['offer_id']}", "/v1/events"),
    ]
    return found + [Sample(floor.buyer, "GET", target, b"") for target in targets]


NUMBERS = [b"-1", b"0", b"1e400", b"-0", b"9" * 400, b"1e-999", b"99999999999999999999", b"1.5", b"NaN", b"-Infinity", b"0x10", b"1_000", b"True", b"9" * 5_000]
STRINGS = [
    *(b'""', b'"\\u0000"', b'"\\ud800"', b'"\\udfff\\ud800"', b'"' + b"x" * 5_000 + b'"', b'"\xff\xfe"', '"\u202e\u0000"'.encode(), b'"\\x"', b'"\n"'),
    *('"\U0001f600"'.encode(), b'"%00"', b'"\' OR 1=1 --"', b'"9999-12-31T23:59:59.999Z"', b'"0000-00-00T00:00:00Z"', b'"2024-02-30T25:61:61Z"', b'"+5"'),
]
OTHERS = [b"null", b"[]", b"{}", b"true", b"[" * 200 + b"]" * 200, b'{"a":' * 100 + b"1" + b"}" * 100, b"", b"]", b'{"a":1,"a":2}', b"[" * 20_000]
VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|\[\]|\{\}')
QUERY_PIECES = [
    *(
        "limit=0",
        "limit=-1",
        "limit=99999999999999999999",
        "limit=1&limit=2",
        "limit=%00",
        "limit=1e9",
        "limit=%EF%BC%91",
        "offset=-1",
        "offset=9223372036854775808",
    ),
    *(
        "offset=999999999",
        "q=%",
        "q=%zz",
        "q=%ff%fe",
        "q=" + "a" * 3_000,
        "q=%22%27%5C",
        "q=*",
        "q=AND%20OR%20NEAR(",
        "q=_%25",
        "tags=" + "," * 500,
        "tags=%2C",
    ),
    *(
        "status=%00",
        "status=,,,",
        "role=",
        "updated_after=9999999999999",
        "updated_after=0001-01-01T00:00:00Z",
        "cursor=x",
        "cursor=" + "f" * 500,
        "active=TRUE",
    ),
    *(
        "request_nonce=" + "n" * 500,
        "request_nonce=%00",
        "=",
        "&&&",
        "a=b=c",
        "?",
        "q[]=1",
        "q=1;limit=2",
        "+=+",
        "seller_pubkey=%F0%9F%98%80",
        "pricing_mode=",
    ),
]


def flip(rng: random.Random, data: bytes, most: int = 4) -> bytes:
    made = bytearray(data)
    for _ in range(rng.randint(1, most)):
        if not made:
            break
        at, how = rng.randrange(len(made)), rng.randrange(4)
        if how == 0:
            made[at] = rng.randrange(256)
        elif how == 1:
            made[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            del made[at : at + rng.randint(1, 8)]
        else:
            made[at:at] = rng.choice([bytes([rng.randrange(256)]), b"\r\n", b"\x00", b"{", b'"', b"%", b":", b" "]) * rng.randint(1, 3)
    return bytes(made)


def other_value(rng: random.Random, body: bytes) -> bytes:
    """One value of the JSON text, or one of its keys, is something else."""
    places = list(VALUE.finditer(body))
    if not places:
        return rng.choice(OTHERS)
    place = rng.choice(places)
    return body[: place.start()] + rng.choice(rng.choice([NUMBERS, STRINGS, OTHERS])) + body[place.end() :]


def cut(rng: random.Random, body: bytes) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


def twice(rng: random.Random, body: bytes) -> bytes:
    """A key that comes twice, or the whole text does."""
    if len(body) < 3 or rng.random() < 0.3:
        return body + body
    key = re.search(rb'"[^"]*":', body)
    return body if key is None else b"{" + key[0] + rng.choice(NUMBERS + STRINGS + OTHERS) + b"," + body[1:]


def deep(rng: random.Random, body: bytes) -> bytes:
    levels = rng.choice([63, 64, 65, 66, 500, 5_000, 50_000])
    wrapped = b'{"a":' * levels + b"1" + b"}" * levels
    return wrapped if rng.random() < 0.5 else body[:-1] + b',"x":' + wrapped + b"}"


BODY_MUTATIONS: list[Callable[[random.Random, bytes], bytes]] = [flip, other_value, other_value, other_value, cut, twice, deep]


def other_target(rng: random.Random, target: str) -> bytes:
    path, _, query = target.partition("?")
    how = rng.randrange(5)
    if how == 0:
        return f"{path}?{'&'.join(rng.choices(QUERY_PIECES, k=rng.randint(1, 4)))}".encode()
    if how == 1:
        return f"{target}{'&' if query else '?'}{rng.choice(QUERY_PIECES)}".encode()
    if how == 2:  # some characters encoded, in odd ways
        odd = ["%{:02x}", "%{:02X}", "%25{:02x}", "%u00{:02x}", "%{:x}g"]
        return "".join(rng.choice(odd).format(ord(c)) if rng.random() < 0.15 else c for c in path).encode()
    if how == 3:
        parts = path.split("/")
        parts[rng.randrange(len(parts))] = rng.choice(["..", ".", "", "%00", "%2e%2e", "x" * 2_000, "%ff", "*", "%F0%9F", "-1", "0" * 36, "a;b=c"])
        return "/".join(parts).encode()
    return bytes(c if 33 <= c <= 126 or c >= 128 else 43 for c in flip(rng, target.encode()))


def broken_before_signing(rng: random.Random, sample: Sample, wire: Wire) -> bytes:
    method, target, body = sample.method, sample.target.encode(), sample.body
    if method == "GET" or rng.random() < 0.25:
        target = other_target(rng, sample.target)
    if method != "GET" or rng.random() < 0.05:
        body = rng.choice(BODY_MUTATIONS)(rng, body)
    if rng.random() < 0.02:
        method = rng.choice(["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "POST", "GET"])
    headers: dict[str, str] = dict(sample.party.headers(method, target, body, now_ms=wire.world.now_ms()))
    if rng.random() < 0.2:
        headers["idempotency-key"] = rng.choice(["k", "k" * 128, "k" * 129, "\u00ff", "a b", str(rng.randrange(50))])
    if rng.random() < 0.1:
        headers["x-request-id"] = rng.choice(["r" * 64, "r" * 65, "\u00e9", "a\tb", "'"])
    if rng.random() < 0.1:
        headers["last-event-id"] = rng.choice(["x", "0", "\u00ff", "f" * 500, "-1"])
    if rng.random() < 0.05:
        headers["content-type"] = rng.choice(["text/plain", "application/json; charset=utf-16", "", "application/json;;;", "multipart/form-data", "\u00ff"])
    return wire.request_bytes(method, target, body, headers)


def broken_on_the_wire(rng: random.Random, sample: Sample, wire: Wire) -> bytes:
    headers = sample.party.headers(sample.method, sample.target, sample.body, now_ms=wire.world.now_ms())
    whole = wire.request_bytes(sample.method, sample.target, sample.body, headers)
    head, separator, body = whole.partition(b"\r\n\r\n")
    how = rng.randrange(6)
    if how == 0:
        return flip(rng, head) + separator + body
    if how == 1:
        return flip(rng, whole, 10)
    if how == 2:
        return cut(rng, whole)
    if how == 3:  # a header too many, too long, or that says two things about the length
        line = rng.choice(
            [
                *(b"content-length: 5", b"content-length: -1", b"content-length: 5, 6", b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked"),
                *(b"x: " + b"y" * 70_000, b"x-molt-nonce: aa", b"host: other", b"expect: 100-continue", b"connection: upgrade\r\nupgrade: websocket"),
                *(b"upgrade: h2c", b" folded: x", b"no colon", b": empty", b"x\x00y: z", b"content-encoding: gzip", b"x: y\r\n" * 300),
            ]
        )
        return head + b"\r\n" + line + separator + body
    if how == 4:
        lines = head.split(b"\r\n")
        lines[0] = rng.choice(
            [
                *(
                    b"GET",
                    b"GET  /v1/offers HTTP/1.1",
                    b"GET /v1/offers",
                    b"GET /v1/offers HTTP/9.9",
                    b"GET /v1/offers HTTP/1.0",
                    b"GET http://x/v1/offers HTTP/1.1",
                ),
                *(
                    b"PRI * HTTP/2.0",
                    b"\x16\x03\x01",
                    b"GET /" + b"a" * 70_000 + b" HTTP/1.1",
                    b"G\xffT / HTTP/1.1",
                    b"GET /\xff\xfe HTTP/1.1",
                    b"OPTIONS * HTTP/1.1",
                ),
            ]
        )
        return b"\r\n".join(lines) + separator + body
    chunked = head.replace(b"content-length:", b"x-length:") + b"\r\ntransfer-encoding: chunked" + separator
    return (
        chunked
        + rng.choice([b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffffffffff\r\n", b"-1\r\n", b"5;" + b"x" * 20_000 + b"\r\nhello\r\n0\r\n\r\n"])
        + body
    )
