"""A double of the relay that existed before ours, its faults included: the protocol /v1 in memory, over real HTTP. Past 400 lines because …

… it is one server in one piece: who tests a client against it wants to see all that it does wrong in one place. Each fault stands beside the line
that makes it. What a test may bend, on top of those: `mutate` (what an answer says), `before` and `after` (what becomes of a call), `delay`, `gap`.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import urllib.parse
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import h11
import rfc8785

from tradeskill.world import World
from tradeskill_plugins.relay.signed_http import WrongSignature, claimed, verify

BODY_MAX, PAYLOAD_MAX, ERROR_MAX = 307_200, 65_536, 8_192
MINUTE_US: Final = 60_000_000
QUOTE_TTL, QUOTE_TTL_MAX, LOCK_TTL = 15 * MINUTE_US, 60 * MINUTE_US, 5 * MINUTE_US
WINDOW_MS, NONCE_TTL_MS, IDEMPOTENCY_TTL_MS = 60_000, 600_000, 24 * 3_600_000
LIMITS: Final = {"ip": 120, "key": 60, "strict": 30}
SMALL_ORDER_KEY, SMALL_ORDER_SIGNATURE = "01" + "00" * 31, "01" + "00" * 63
JOB_FIELDS: Final = [
    *("job_id", "offer_id", "seller_pubkey", "buyer_pubkey", "status", "request_payload", "quote_amount_raw", "quote_invoice_address", "quote_expires_at"),
    *("payment_tx_hash", "lock_owner", "lock_expires_at", "result_payload", "error", "created_at", "updated_at", "payment_charge_id"),
    *("payment_charge_address", "payment_provider", "payment_sweep_tx_hash", "result_url"),
]
OFFER_FIELDS: Final = ["offer_id", "seller_pubkey", "title", "description", "tags", "pricing_mode", "fixed_price_raw", "active", "created_at"]
TIMES: Final = ("quote_expires_at", "lock_expires_at", "created_at", "updated_at")
STATUSES: Final = ("requested", "quoted", "accepted", "running", "delivered", "failed", "canceled", "expired")
JSON_TYPE: Final = ("content-type", "application/json; charset=utf-8")


class Fault(Exception):  # noqa: N818  # an answer, not an accident
    def __init__(self, status: int, code: str, message: str, details: Any = None, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body = {"error": {"code": code, "message": message, "details": details}}


class Lost(Exception):  # noqa: N818  # an event, not an accident
    """The connection ends without an answer."""


@dataclass
class Call:
    """One request as it came in. Tests find them all in `OldRelay.calls`."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    peer: str = ""
    key: str = ""
    value: Any = None

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass
class Answer:
    status: int
    body: bytes
    headers: list[tuple[str, str]] = field(default_factory=lambda: [JSON_TYPE])


class OldRelay:
    """In memory and on one event loop. `start` gives the base URL; whatever is set on it counts from the next call on.

    `mutate(path, value)`: what is answered instead of `value` (the decoded JSON of a 2xx). `before(method, path)` and `after(method, path)`: None, or
    "drop" (the connection ends) or a status like 502 answered as a proxy would, before anything was done or after all of it was. `delay(method, path)`:
    seconds until the answer. `gap`: seconds between reading a row and writing it, the door of every race.
    """

    def __init__(self, *, world: World | None = None, limits: bool = True, gap: float = 0.002, seller_default_provider: str = "berrypay") -> None:
        self.world, self.limits, self.gap, self.provider = world or World(), limits, gap, seller_default_provider
        self.mutate: Callable[[str, Any], Any] | None = None
        self.before: Callable[[str, str], str | int | None] | None = None
        self.after: Callable[[str, str], str | int | None] | None = None
        self.delay: Callable[[str, str], float] | None = None
        self.calls: list[Call] = []
        self.offers: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.url = ""
        self._nonces: dict[tuple[str, str], int] = {}
        self._kept: dict[tuple[str, str], dict[str, Any]] = {}
        self._windows: dict[tuple[str, str], tuple[int, int]] = {}
        self._ticks = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._metrics: dict[str, int] = {}

    async def start(self, port: int = 0) -> str:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self.url

    async def stop(self) -> None:
        """Nothing is kept: a relay started anew is an empty one."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def now_us(self) -> int:
        self._ticks = (self._ticks + 1) % 1000  # rows are told apart to the microsecond, answers show milliseconds
        return self.world.now_ms() * 1000 + self._ticks

    # connections

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, Lost):
                await self._serve(reader, writer)
        except asyncio.CancelledError:  # only `stop` cancels; the stream's own callback would report it as an accident
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        peer = writer.get_extra_info("peername")[0]
        while True:
            try:
                call = await self._read(connection, reader, peer)
            except h11.RemoteProtocolError as error:
                if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    await self._write(connection, writer, _json_answer(error.error_status_hint, {"error": {"code": "bad_request", "message": str(error)}}))
                return
            if call is None:
                return
            self.calls.append(call)
            answer = await self._answer(call)
            given = call.headers.get("x-request-id", "")
            answer.headers.append(("x-request-id", given if 0 < len(given) <= 64 else str(uuid.uuid4())))
            if call.key and "idempotency-key" in call.headers:
                answer.headers.append(("idempotency-key", call.headers["idempotency-key"]))
            await self._write(connection, writer, answer)
            if connection.our_state is h11.MUST_CLOSE or connection.their_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()

    async def _read(self, connection: h11.Connection, reader: asyncio.StreamReader, peer: str) -> Call | None:
        call, body = None, bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65_536))
            elif isinstance(event, h11.Request):
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                call = Call(event.method.decode(), event.target.decode("latin-1"), headers, b"", peer)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert call is not None
                call.body = bytes(body)
                return call
            else:  # the other side closed
                return None

    async def _write(self, connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer) -> None:
        headers = [*answer.headers, ("content-length", str(len(answer.body)))]
        for event in (h11.Response(status_code=answer.status, headers=headers), h11.Data(data=answer.body), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        await writer.drain()

    async def _answer(self, call: Call) -> Answer:
        self._metrics[call.path] = self._metrics.get(call.path, 0) + 1  # the fault: one row for each path that anybody ever asked for
        _interfere(self.before, call)
        try:
            answer = await self._checked(call)
        except Fault as fault:
            answer = _json_answer(fault.status, fault.body)
            answer.headers += fault.headers
        if self.delay is not None:
            await asyncio.sleep(self.delay(call.method, call.path))
        try:
            _interfere(self.after, call)
        except Fault as fault:
            return Answer(fault.status, b"<html><body><h1>Bad Gateway</h1></body></html>", [("content-type", "text/html")])
        if self.mutate is not None and answer.status < 300:
            return Answer(answer.status, _js_text(self.mutate(call.path, json.loads(answer.body))).encode(), answer.headers)
        return answer

    # the order of checks

    async def _checked(self, call: Call) -> Answer:
        if call.method == "GET" and call.path in ("/health", "/metrics", "/docs"):
            return _json_answer(200, {"ok": True} if call.path == "/health" else self._metrics)  # the fault: metrics are JSON with raw paths
        if call.path.startswith("/v1"):
            self._count("ip", call.peer, "strict" if _is_strict(call) else "ip")
        signed_body = self._parse(call)
        found = _route(call)
        if found is None:
            raise Fault(404, "not_found", f"Route {call.method}:{call.target} not found")
        handler, job_id = found
        if handler != "search":
            self._check_signature(call, signed_body)
            self._count("pubkey", call.key, "strict" if _is_strict(call) else "key")
        handle: Callable[[OldRelay, Call, str], Awaitable[tuple[int, Any]]] = getattr(type(self), "_" + handler)
        idempotency = call.headers.get("idempotency-key")
        if call.method != "POST" or idempotency is None:
            return await self._handled(handle, call, job_id)
        if not 1 <= len(idempotency) <= 128:
            raise Fault(400, "validation_error", "Idempotency-Key must be 1-128 characters")
        place, fingerprint = (call.key, idempotency), (call.method, call.target, call.body)
        known = self._kept.get(place)
        if known is not None and known["until"] > self.world.now_ms():
            if known["fingerprint"] != fingerprint:
                raise Fault(409, "idempotency_conflict", "Idempotency-Key was used with another request")
            if known["answer"] is None:
                raise Fault(409, "idempotency_in_progress", "A request with this Idempotency-Key is in progress")
            first: Answer = known["answer"]
            return Answer(first.status, first.body, [*first.headers, ("idempotency-replayed", "true")])
        kept = self._kept[place] = {"fingerprint": fingerprint, "answer": None, "until": self.world.now_ms() + IDEMPOTENCY_TTL_MS}
        try:
            answer = await self._handled(handle, call, job_id)
        except Fault as fault:
            answer = _json_answer(fault.status, fault.body)
        kept["answer"] = Answer(answer.status, answer.body, list(answer.headers))  # the fault: 4xx and 500 are kept like anything else
        return answer

    async def _handled(self, handle: Callable[[OldRelay, Call, str], Awaitable[tuple[int, Any]]], call: Call, job_id: str) -> Answer:
        status, value = await handle(self, call, job_id)
        return _json_answer(status, value)

    def _parse(self, call: Call) -> bytes:
        """The bytes that count as signed."""
        if len(call.body) > BODY_MAX:
            raise Fault(413, "payload_too_large", "Request body is too large", {"bytes": len(call.body), "maxBytes": BODY_MAX})
        kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not call.body:
            call.value = {}
        elif kind == "text/plain":
            call.value = call.body.decode("utf-8", "replace")
            return b""  # the fault: such a body is not covered by the signature
        elif kind == "application/json":
            try:
                call.value = _as_float64(json.loads(call.body))
            except (ValueError, RecursionError) as error:
                raise Fault(500, "internal_error", f"SyntaxError: {error}") from error  # the fault: 500, and it says too much
        else:
            raise Fault(415, "validation_error", "Unsupported Media Type")
        return call.body

    def _check_signature(self, call: Call, body: bytes) -> None:
        headers = {name.encode(): value.encode("latin-1") for name, value in call.headers.items()}
        try:
            claim = claimed(headers)
        except WrongSignature as error:
            raise Fault(401, "auth.invalid_signature", str(error)) from error
        now = self.world.now_ms() // 1000
        if abs(claim.timestamp - now) > 60:
            raise Fault(401, "auth.timestamp_skew", "Timestamp skew exceeds 60 seconds", {"server_time": now})
        if (claim.key, claim.signature) != (SMALL_ORDER_KEY, SMALL_ORDER_SIGNATURE):  # the fault: this one passes for every request
            try:
                verify(claim, call.method, call.target.encode("latin-1"), headers[b"x-molt-timestamp"], body)
            except WrongSignature as error:
                raise Fault(401, "auth.invalid_signature", str(error)) from error
        if self._nonces.get((claim.key, claim.nonce), 0) > self.world.now_ms():
            raise Fault(401, "auth.nonce_replay", "Nonce was used before")
        self._nonces[claim.key, claim.nonce] = self.world.now_ms() + NONCE_TTL_MS
        call.key = claim.key

    def _count(self, scope: str, who: str, kind: str) -> None:
        start, used = self._windows.get((kind + scope, who), (self.world.now_ms(), 0))
        if self.world.now_ms() - start >= WINDOW_MS:
            start, used = self.world.now_ms(), 0
        self._windows[kind + scope, who] = (start, used + 1)
        if self.limits and used >= LIMITS[kind]:
            left = max(1, -(-(start + WINDOW_MS - self.world.now_ms()) // 1000))
            details = {"scope": scope, "limit": LIMITS[kind], "window_ms": WINDOW_MS}
            raise Fault(429, "rate_limited", "Rate limit exceeded", details, (("retry-after", str(left)),))

    # handlers: each gets a call whose signature is right, and answers status and value. Unknown keys fall away except where it says otherwise.

    async def _search(self, call: Call, _: str) -> tuple[int, Any]:
        query = _query(call)
        q, tags = query.get("q", ""), [tag.strip() for tag in query.get("tags", "").split(",") if tag.strip()]
        mode, seller, active = query.get("pricing_mode"), query.get("seller_pubkey"), query.get("active", "true")
        if mode not in (None, "fixed", "quote") or active not in ("true", "false"):
            raise Fault(400, "validation_error", "Invalid query")
        # the fault: % and _ are wildcards
        pattern = re.compile("".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in q), re.IGNORECASE | re.DOTALL)
        found = [
            offer
            for offer in self.offers.values()
            if offer["active"] == (active == "true")
            and mode in (None, offer["pricing_mode"])
            and seller in (None, offer["seller_pubkey"])
            and all(tag in offer["tags"] for tag in tags)
            and (pattern.search(offer["title"]) or pattern.search(offer["description"]))
        ]
        found.sort(key=lambda offer: -offer["created_at"])
        return 200, _page("offers", [_shown(offer, OFFER_FIELDS) for offer in found], query, 20)

    async def _publish(self, call: Call, _: str) -> tuple[int, Any]:
        body = _object(call)
        tags, mode, price = body.get("tags", []), body.get("pricing_mode"), body.get("fixed_price_raw")
        _require(_text(body.get("title"), 1, 120), "title")
        _require(_text(body.get("description"), 1, 2000), "description")
        _require(isinstance(tags, list) and len(tags) <= 16 and all(_text(tag, 1, 32) for tag in tags), "tags")
        _require(mode in ("fixed", "quote"), "pricing_mode")
        _require(_digits(price) if mode == "fixed" else price is None, "fixed_price_raw")
        _require(isinstance(body.get("active", True), bool), "active")
        offer = {"offer_id": str(uuid.uuid4()), "seller_pubkey": call.key, "title": body["title"], "description": body["description"], "tags": tags}
        offer |= {"pricing_mode": mode, "fixed_price_raw": price, "active": body.get("active", True), "created_at": self.now_us()}
        self.offers[offer["offer_id"]] = offer
        return 201, {"offer": _shown(offer, OFFER_FIELDS)}

    async def _request(self, call: Call, _: str) -> tuple[int, Any]:
        body = _object(call)
        payload = body.get("request_payload")
        _require(isinstance(payload, dict), "request_payload")
        _check_bytes(payload, PAYLOAD_MAX)
        offer = self.offers.get(_uuid(body.get("offer_id")))
        if offer is None or not offer["active"]:
            raise Fault(404, "not_found", "Offer not found")
        now = self.now_us()
        job: dict[str, Any] = dict.fromkeys(JOB_FIELDS)
        job |= {"job_id": str(uuid.uuid4()), "offer_id": offer["offer_id"], "seller_pubkey": offer["seller_pubkey"], "buyer_pubkey": call.key}
        job |= {"status": "requested", "request_payload": _as_stored(payload), "payment_provider": self.provider, "created_at": now, "updated_at": now}
        self.jobs[job["job_id"]] = job
        return 201, {"job": _shown(job, JOB_FIELDS)}

    async def _list(self, call: Call, _: str) -> tuple[int, Any]:
        query = _query(call)
        role, statuses = query.get("role"), [status for status in query.get("status", "").split(",") if status]
        if role not in (None, "buyer", "seller") or any(status not in STATUSES for status in statuses):
            raise Fault(400, "validation_error", "Invalid query")
        sides = ("buyer_pubkey", "seller_pubkey") if role is None else (f"{role}_pubkey",)
        found = [job for job in self.jobs.values() if call.key in [job[side] for side in sides] and (not statuses or job["status"] in statuses)]
        if "updated_after" in query:
            # the fault: milliseconds are compared with microseconds, so that the last row comes again; and offsets over a moving order lose rows
            after = _time(query["updated_after"], "updated_after")
            found = sorted((job for job in found if job["updated_at"] > after), key=lambda job: job["updated_at"])
        else:
            found.sort(key=lambda job: -job["created_at"])
        return 200, _page("jobs", [_shown(job, JOB_FIELDS) for job in found], query, 50)

    async def _get(self, call: Call, job_id: str) -> tuple[int, Any]:
        return 200, {"job": _shown(self._job(call, job_id, "buyer", "seller"), JOB_FIELDS)}

    async def _quote(self, call: Call, job_id: str) -> tuple[int, Any]:
        body, now = _object(call), self.now_us()
        _require(_digits(body.get("quote_amount_raw")), "quote_amount_raw")
        _require(_text(body.get("quote_invoice_address"), 1, 128), "quote_invoice_address")
        for name, most in (("payment_charge_id", 128), ("payment_charge_address", 128), ("payment_provider", 32)):
            _require(body.get(name) is None or _text(body[name], 1, most), name)
        until = now + QUOTE_TTL if body.get("quote_expires_at") is None else _time(body["quote_expires_at"], "quote_expires_at")
        _require(now < until <= now + QUOTE_TTL_MAX, "quote_expires_at")
        changes = {name: body[name] for name in ("quote_amount_raw", "quote_invoice_address")} | {"quote_expires_at": until, "status": "quoted"}
        changes |= {name: body[name] for name in ("payment_charge_id", "payment_charge_address", "payment_provider") if body.get(name)}
        return await self._update(self._job(call, job_id, "seller"), ("requested",), changes)

    async def _accept(self, call: Call, job_id: str) -> tuple[int, Any]:
        _object(call)
        job = self._job(call, job_id, "buyer")
        if job["status"] == "quoted" and job["quote_expires_at"] < self.now_us():  # the fault: nowhere else does a quote ever expire
            job |= {"status": "expired", "updated_at": self.now_us()}
        return await self._update(job, ("quoted",), {"status": "accepted"})

    async def _payment(self, call: Call, job_id: str) -> tuple[int, Any]:
        tx_hash = _object(call).get("payment_tx_hash")
        _require(_text(tx_hash, 1, 128), "payment_tx_hash")
        job = self._job(call, job_id, "buyer")
        if job["payment_tx_hash"] is not None:
            raise Fault(409, "invalid_state", "Payment was submitted before")
        # the faults: no time limit for the payment, and one hash may pay any number of jobs
        return await self._update(job, ("accepted",), {"payment_tx_hash": tx_hash})

    async def _lock(self, call: Call, job_id: str) -> tuple[int, Any]:
        _object(call)
        job = self._job(call, job_id, "seller")
        if job["status"] == "accepted" and job["payment_tx_hash"] is None:
            raise Fault(409, "invalid_state", "Payment was not submitted")
        # the fault: the lock belongs to the seller's key, so every worker of the seller gets it
        return await self._update(job, ("accepted", "running"), {"status": "running", "lock_owner": call.key, "lock_expires_at": self.now_us() + LOCK_TTL})

    async def _deliver(self, call: Call, job_id: str) -> tuple[int, Any]:
        body = _object(call)
        url, error = body.get("result_url"), body.get("error")
        _require(set(body) <= {"result_url", "error"}, "unknown key")  # strict here, and nowhere else
        _require((url is None) != (error is None), "result_url or error")
        if error is not None:
            _require(isinstance(error, dict) and set(error) <= {"code", "message", "details"}, "error")
            _require(_text(error.get("code"), 1, 128) and _text(error.get("message"), 0, ERROR_MAX), "error")
            _check_bytes(error, ERROR_MAX)
        else:
            _require(_text(url, 1, 2048), "result_url")  # the fault: any scheme
        job = self._job(call, job_id, "seller")
        if job["status"] == "running" and job["lock_expires_at"] <= self.now_us():
            raise Fault(409, "invalid_state", "Lock expired")
        changes = {"status": "delivered", "result_url": url} if error is None else {"status": "failed", "error": _as_stored(error)}
        return await self._update(job, ("running",), changes)

    async def _cancel(self, call: Call, job_id: str) -> tuple[int, Any]:
        reason = _object(call).get("reason")
        _require(reason is None or _text(reason, 0, 200), "reason")
        # the fault: also when the payment is submitted
        return await self._update(self._job(call, job_id, "buyer"), ("requested", "quoted", "accepted"), {"status": "canceled"})

    def _job(self, call: Call, job_id: str, *roles: str) -> dict[str, Any]:
        job = self.jobs.get(_uuid(job_id))
        if job is None:
            raise Fault(404, "not_found", "Job not found")
        if call.key not in [job[f"{role}_pubkey"] for role in roles]:
            raise Fault(403, "forbidden", "Not your job")
        return job

    async def _update(self, job: dict[str, Any], states: tuple[str, ...], changes: dict[str, Any]) -> tuple[int, Any]:
        if job["status"] not in states:
            raise Fault(409, "invalid_state", f"Job is {job['status']}")
        await asyncio.sleep(self.gap)  # the fault: the state was looked at before, and is not looked at again when the row is written
        job |= {**changes, "updated_at": self.now_us()}
        return 200, {"job": _shown(job, JOB_FIELDS)}


@contextmanager
def running_old_relay(**settings: Any) -> Iterator[OldRelay]:
    """An old relay on a thread of its own, for tests that block."""
    relay, over = OldRelay(**settings), asyncio.Event()
    started: Future[asyncio.AbstractEventLoop] = Future()

    async def run() -> None:
        await relay.start()
        started.set_result(asyncio.get_running_loop())
        await over.wait()
        await relay.stop()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="old relay")
    thread.start()
    loop = started.result(20)
    try:
        yield relay
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)


def _interfere(rule: Callable[[str, str], str | int | None] | None, call: Call) -> None:
    wish = rule(call.method, call.path) if rule is not None else None
    if wish == "drop":
        raise Lost
    if wish is not None:
        raise Fault(int(wish), "bad_gateway", "Bad Gateway")


_ACTION = re.compile(r"/v1/jobs/([^/]*)/(quote|accept|payment|lock|deliver|cancel)")
_ONE = re.compile(r"/v1/jobs/([^/]+)")


def _route(call: Call) -> tuple[str, str] | None:
    fixed = {("GET", "/v1/offers"): "search", ("POST", "/v1/offers"): "publish", ("POST", "/v1/jobs"): "request", ("GET", "/v1/jobs"): "list"}
    if (call.method, call.path) in fixed:
        return fixed[call.method, call.path], ""
    if call.method == "POST" and (action := _ACTION.fullmatch(call.path)):
        return action[2], urllib.parse.unquote(action[1])
    if call.method == "GET" and (one := _ONE.fullmatch(call.path)):
        return "get", urllib.parse.unquote(one[1])
    return None


def _is_strict(call: Call) -> bool:
    return call.method == "POST" and call.path in ("/v1/jobs", "/v1/offers")


def _query(call: Call) -> dict[str, str]:
    pairs = urllib.parse.parse_qsl(call.target.partition("?")[2], keep_blank_values=True)
    query = {name: value.strip() for name, value in pairs}
    if len(query) != len(pairs) or any("\0" in value for value in query.values()):
        raise Fault(500, "internal_error", "TypeError: value.trim is not a function")  # the fault: 500 for what is the caller's mistake
    return query


def _page(name: str, rows: list[Any], query: dict[str, str], default: int) -> dict[str, Any]:
    limit, offset = (_leading_number(query.get(key), otherwise) for key, otherwise in (("limit", default), ("offset", 0)))
    if limit is None or offset is None or not 1 <= limit <= 100 or offset < 0:
        raise Fault(400, "validation_error", "Invalid limit or offset")
    if offset >= 2**63:
        raise Fault(500, "internal_error", 'error: value out of range for type bigint in "... LIMIT $3 OFFSET $4"')  # the fault: with SQL in it
    return {name: rows[offset : offset + limit], "limit": limit, "offset": offset, "total": len(rows)}


def _leading_number(text: str | None, otherwise: int) -> int | None:
    if text is None:
        return otherwise
    match = re.match(r"[+-]?[0-9]+", text, re.ASCII)  # the fault: `10abc` is 10
    return int(match[0]) if match else None


def _object(call: Call) -> dict[str, Any]:
    _require(isinstance(call.value, dict), "body")
    value: dict[str, Any] = call.value
    return value


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise Fault(400, "validation_error", f"Invalid {what}", {"field": what})


def _text(value: Any, low: int, high: int) -> bool:
    if not isinstance(value, str) or not low <= len(value) <= high:
        return False
    _check_storable(value)
    return True


def _check_storable(value: str) -> None:
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise Fault(500, "internal_error", 'error: invalid byte sequence for encoding "UTF8": INSERT INTO ...')  # the fault: with SQL in it


def _digits(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9]{1,40}", value, re.ASCII) is not None


def _uuid(value: Any) -> str:
    _require(isinstance(value, str), "id")
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value, re.ASCII):
        raise Fault(500, "internal_error", f'error: invalid input syntax for type uuid: "{value}" in SELECT * FROM jobs WHERE ...')  # the fault
    return str(value).lower()


def _time(text: Any, name: str) -> int:
    """Microseconds since the epoch."""
    _require(isinstance(text, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", text, re.ASCII) is not None, name)
    try:
        return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    except ValueError as error:
        raise Fault(400, "validation_error", f"Invalid {name}") from error


def _check_bytes(value: Any, most: int) -> None:
    size = len(_js_text(value).encode("utf-8", "surrogatepass"))
    if size > most:
        raise Fault(413, "payload_too_large", "Payload is too large", {"bytes": size, "maxBytes": most})


def _shown(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: _iso(row[name]) if name in TIMES and row[name] is not None else row[name] for name in names}


def _iso(microseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _as_float64(value: Any) -> Any:
    """The fault: numbers go through a double, so large ones lose their last digits and the largest become null."""
    if isinstance(value, bool) or not isinstance(value, int | float | list | dict):
        return value
    if isinstance(value, list):
        return [_as_float64(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_float64(item) for key, item in value.items()}
    try:
        number = float(value)
    except OverflowError:
        return None
    if number != number or number in (float("inf"), float("-inf")):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _as_stored(value: Any) -> Any:
    """The fault: keys come back shortest first, an empty list as an empty object."""
    if isinstance(value, str):
        _check_storable(value)
    if isinstance(value, list):
        return [_as_stored(item) for item in value] if value else {}
    if isinstance(value, dict):
        for key in value:
            _check_storable(key)
        return {key: _as_stored(value[key]) for key in sorted(value, key=lambda key: (len(key.encode()), key.encode()))}
    return value


def _js_text(value: Any) -> str:
    """JSON as JavaScript prints it: 1e21, not 1e+21 digits; no spaces; keys as they stand."""
    if isinstance(value, float):
        return rfc8785.dumps(value).decode()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_js_text, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_js_text(key)}:{_js_text(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _json_answer(status: int, value: Any) -> Answer:
    return Answer(status, _js_text(value).encode("utf-8", "replace"))
