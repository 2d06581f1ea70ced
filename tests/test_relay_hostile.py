"""Requests that nobody sends by mistake: never a 5xx, never a traceback, never a relay that grows. And schemathesis over the relay's own OpenAPI text.

Two ways to break a request: before it is signed (it passes the door, and the rules have to hold), and in its bytes on the wire (it may not even be HTTP).
Every mutation comes from a seed, and a request that is answered wrongly is told in full.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.relay_started import RelayProcess, relay_process
from tests.relay_wire import PLAIN_OFFER, Floor, Party, Wire, as_bytes, as_json, inline, plain_quote

ROOT = Path(__file__).parent.parent
GROWTH = 96 * 2**20  # bytes that a relay may grow by under fire
PATIENCE = 0.05  # seconds for an answer to bytes that may be no whole request
INSIDE = re.compile(rb"traceback|sqlite3?\.|psycopg|\bselect \b|\binsert into\b|file \"/|tradeskill_plugins", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """A request that is right as it stands."""

    party: Party
    method: str
    target: str
    body: bytes


@dataclass
class Report:
    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0


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


# mutations


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


def answer_to(wire: Wire, request: bytes) -> bytes:
    """The first bytes of what comes back: nothing when the relay just hangs up or waits for more."""
    with socket.create_connection((wire.host, wire.port), 20) as connection:
        with suppress(OSError):  # it may hang up while we are still sending; what it said is there all the same
            connection.sendall(request)
        got = b""
        try:
            while len(got) < 65_536 and b"text/event-stream" not in got and not _whole(got):
                if not select.select([connection], [], [], PATIENCE if not got else 2)[0]:
                    break
                more = connection.recv(65_536)
                if not more:
                    break
                got += more
        except OSError:
            pass
        return got


def _whole(got: bytes) -> bool:
    head, separator, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    return bool(separator and length and len(body) >= int(length[1]))


def bombard(relay: RelayProcess, count: int, seed: int, threads: int = 4) -> Report:
    """`count` broken requests; what came of them."""
    report, lock = Report(), threading.Lock()
    with Wire(relay.url) as wire:
        good = samples(Floor.at(wire))
        for sample in good:  # also warms the relay up, before it is weighed
            if sample.target != "/v1/events":
                wire.call(sample.party, sample.method, sample.target, sample.body)
    before = relay.resident_bytes()

    def fire(number: int) -> None:
        rng = random.Random(seed * 1_000 + number)
        with Wire(relay.url) as wire:
            for n in range(count // threads + (number < count % threads)):
                sample = rng.choice(good)
                if rng.random() < 0.75 and sample.target != "/v1/events":
                    request = broken_before_signing(rng, sample, wire)
                    got = _kept_alive(wire, request)
                else:
                    request = broken_on_the_wire(rng, sample, wire)
                    got = answer_to(wire, request)
                status = got[9:12].decode("latin-1") if got.startswith(b"HTTP/1.") else "none"
                fault = status.startswith("5") or (INSIDE.search(got.partition(b"\r\n\r\n")[2]) is not None and b"/docs" not in request[:30])
                with lock:
                    report.requests += 1
                    report.statuses[status] += 1
                    if fault and len(report.faults) < 20:
                        report.faults.append(f"seed {seed}, {number}.{n}: {request[:1_500]!r} -> {got[:600]!r}")

    with ThreadPoolExecutor(threads) as pool:
        for one in [pool.submit(fire, number) for number in range(threads)]:
            one.result()
    with Wire(relay.url) as wire:
        if wire.send("GET", "/health").status != 200:
            report.faults.append("not healthy afterwards")
    report.grown = relay.resident_bytes() - before
    if report.grown > GROWTH:
        report.faults.append(f"grown by {report.grown} bytes")
    if "Traceback" in relay.said():
        report.faults.append(relay.said()[-3_000:])
    return report


def _kept_alive(wire: Wire, request: bytes) -> bytes:
    """A request whose framing is right, on a connection that is kept; the answer as it would look on the wire."""
    try:
        answer = wire.exchange(request, request.partition(b" ")[0].decode("latin-1"))
    except OSError:
        return b""
    return b"HTTP/1.1 %d X\r\n\r\n" % answer.status + answer.body


def schemathesis(url: str, seconds: int, seed: int, folder: Path) -> list[str]:
    """Schemathesis over the relay's own description, every request signed; what it found: 5xx and answers that took over a second."""
    found = folder / "found.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", url.rstrip("/") + "/docs/json", "--url", url.rstrip("/"), "--max-time", str(seconds)]
    command += ["--checks", "not_a_server_error", "--max-response-time", "1.0", "--seed", str(seed), "--no-color", "--continue-on-failure"]
    command += ["--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off"]
    command += ["--report-json-path", str(found), "--exclude-path", "/v1/events"]  # a stream has no end to wait for
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.relay_signing_hook", "TRADESKILL_RELAY_URL": url, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONWARNINGS", None)
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=seconds + 240)
    if ended.returncode == 0:
        return []
    return [line for line in ended.stdout.splitlines() if line.strip()][-60:] + ended.stderr.splitlines()[-20:]


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    with relay_process(tmp_path / "relay.db", "--no-limits") as started:
        yield started


def test_no_broken_request_breaks_the_relay(relay: RelayProcess) -> None:
    report = bombard(relay, 2_000, seed=1)
    assert report.faults == []
    assert report.requests == 2_000
    assert set(report.statuses) >= {"200", "400", "401", "404"}


def test_a_query_of_any_kind_is_never_a_5xx(relay: RelayProcess) -> None:
    with Wire(relay.url) as wire:
        party = Party()
        for piece in QUERY_PIECES:
            for target in (f"/v1/offers?{piece}", f"/v1/jobs?{piece}"):
                answer = wire.call(party, "GET", target)
                assert answer.status in (200, 400, 404, 414), (target, answer)


def test_schemathesis_finds_no_server_error_and_nothing_slow(relay: RelayProcess, tmp_path: Path) -> None:
    assert schemathesis(relay.url, 10, 1, tmp_path) == []
    described = {urllib.parse.unquote(path) for path in json.loads(_fetch(relay.url, "/docs/json"))["paths"]}
    assert len(described) >= 15


def _fetch(url: str, target: str) -> bytes:
    with Wire(url) as wire:
        return wire.send("GET", target).body
