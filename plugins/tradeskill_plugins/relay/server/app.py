"""The relay's application: from one HTTP request to its answer, through the protocol's checks in the protocol's order. See docs/relay.md.

IP rate limit · body · key, time, nonce, signature · then, in one durable step (desk.py): nonce, key rate limit, idempotency, the call itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tradeskill.errors import InputError, TradeskillError, UsageError
from tradeskill.world import World
from tradeskill_plugins.market.book import Book
from tradeskill_plugins.relay import signed_http, wire
from tradeskill_plugins.relay.rawjson import Member, NotAnObjectError, members
from tradeskill_plugins.relay.server import endpoints, lists, logs, tables
from tradeskill_plugins.relay.server.charging import Charging
from tradeskill_plugins.relay.server.desk import Answer, Call, Desk, Turn
from tradeskill_plugins.relay.server.endpoints import Asked, Endpoint
from tradeskill_plugins.relay.server.events import Hub
from tradeskill_plugins.relay.server.pages import Pages
from tradeskill_plugins.relay.server.rejections import Rejection, rejection_of
from tradeskill_plugins.relay.server.watching import Watching

__all__ = ["Relay", "Serving"]

log = logging.getLogger("tradeskill.relay")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON: Final = b"application/json; charset=utf-8"
_PLAIN: Final = ((b"x-tradeskill", b"1"), (b"x-content-type-options", b"nosniff"))


@dataclass(frozen=True)
class Serving:
    """What the owner sets. `base`: the URL that clients reach this relay at, without a slash at its end; it stands in result URLs."""

    base: str = "http://127.0.0.1:8402"
    streams: int = 400
    streams_per_key: int = 4


@dataclass
class _Request:
    """What is known of one request, growing as the checks go on."""

    method: str
    target: bytes
    path: str
    query: bytes
    ip: str
    headers: dict[bytes, bytes]
    request_id: str
    endpoint: Endpoint | None = None
    path_id: str = ""
    job: str = ""


class Relay:
    """An ASGI application. Needs `tradeskill.target` and `tradeskill.ip` in its scope (door.py puts them there)."""

    def __init__(self, desk: Desk, hub: Hub, pages: Pages, charging: Charging, watching: Watching, world: World, serving: Callable[[], Serving]) -> None:
        """`serving` is asked at each request: the port, and so the base URL, is known only once the door is open."""
        self._desk, self._hub, self._pages, self._charging, self._watching = desk, hub, pages, charging, watching
        self._world, self._serving = world, serving
        self._totals = lists.Totals()
        self._open: dict[str, Callable[[_Request], Awaitable[_Out]]] = {
            "health": self._health,
            "ready": self._ready,
            "metrics": self._metrics,
            "docs": self._docs,
            "openapi": self._openapi,
            "capabilities": self._capabilities,
            "list_offers": self._list_offers,
            "get_offer": self._get_offer,
            "get_result": self._get_result,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = _request(scope, self._world)
        status = 500
        try:
            found = endpoints.find(request.method, request.path)
            if found is not None:
                request.endpoint, request.path_id = found
            await self._charge_ip(request)
            if request.endpoint is None:
                raise Rejection("not_found", f"there is no {request.method[:16]} {request.path[:100]} here: see /docs")
            if request.endpoint.kind == "stream":
                status = await self._stream(request, receive, send)
                return
            if request.endpoint.kind == "open":
                out = await self._open[request.endpoint.name](request)
            else:
                out = _said(await self._signed(request, await _body(request, receive)))
            status = out.status
            await _respond(send, out, request)
        except Rejection as rejection:
            status = rejection.status
            await self._reject(send, request, rejection)
        except TradeskillError as error:
            said = rejection_of(error)
            status = said.status
            if status >= 500:
                log.error("request not served", extra={"request_id": request.request_id, "reason": error.code}, exc_info=error)
            await self._reject(send, request, said)
        except Exception:  # whatever it is, the caller gets words without our inside, and the log all of it
            log.exception("request failed", extra={"request_id": request.request_id})
            await self._reject(send, request, Rejection("internal", "the relay failed inside: send the same request again later"))
        finally:
            self._watching.answered(request.endpoint, request.method, status, time.perf_counter() - started, request.request_id, request.job)

    async def _reject(self, send: Send, request: _Request, rejection: Rejection) -> None:
        self._watching.refused(rejection.code)
        out = _Out(rejection.status, rejection.body().encode(), JSON, tuple((n.lower().encode(), v.encode()) for n, v in rejection.headers.items()))
        await _respond(send, out, request)

    # signed calls

    async def _charge_ip(self, request: _Request) -> None:
        if request.path.startswith("/v1/"):
            refused = await self._charging.ip(request.ip, request.endpoint.bucket if request.endpoint is not None else "default")
            if refused is not None:
                raise refused

    async def _signed(self, request: _Request, body: bytes) -> Answer:
        endpoint = request.endpoint
        assert endpoint is not None
        parsed, trouble = _parsed(request, body)
        claim = self._authenticated(request, body)
        act = _raising(trouble) if trouble is not None else self._prepared(endpoint, request, claim.key, parsed)
        key = request.headers.get(b"idempotency-key") if endpoint.method != "GET" else None
        refused = await self._charging.key(claim.key, endpoint.bucket)
        answer = await self._desk.turn(
            Call(claim.key, claim.nonce, request.method, request.target, body, None if key is None else _ascii(key).strip(), refused, act)
        )
        if answer.moved is not None:
            request.job, before, after = answer.moved
            self._watching.moved(before, after)
        return answer

    def _authenticated(self, request: _Request, body: bytes) -> signed_http.Claimed:
        try:
            claim = signed_http.claimed(request.headers)
            now = self._world.now_ms() // 1000
            if abs(now - claim.timestamp) > signed_http.MAX_SKEW:
                message = f"your clock and the relay's differ by {claim.timestamp - now} s, {signed_http.MAX_SKEW} at most: set your clock"
                raise Rejection("auth.timestamp_skew", message, {"server_time": now})
            signed_http.verify(claim, request.method, request.target, request.headers[b"x-molt-timestamp"], body)
        except signed_http.WrongSignature as wrong:
            raise Rejection("auth.invalid_signature", str(wrong)) from wrong
        return claim

    def _prepared(self, endpoint: Endpoint, request: _Request, caller: str, parsed: dict[str, Member]) -> Callable[[Turn], Answer]:
        """The step; what is wrong with the request already is said in the step's place, after nonce and limits."""
        assert endpoint.prepare is not None
        try:
            return endpoint.prepare(Asked(caller, request.path_id, request.query, parsed, self._world, self._serving().base, self._totals))
        except (TradeskillError, Rejection) as error:
            return _raising(error)

    # the stream

    async def _stream(self, request: _Request, receive: Receive, send: Send) -> int:
        body = await _body(request, receive)
        claim = self._authenticated(request, body)
        last_id = _ascii(request.headers.get(b"last-event-id", b"")) or lists.query_of(request.query).get("cursor", "")

        def admit(turn: Turn) -> Answer:
            self._hub.check(turn.book, claim.key, last_id)
            return Answer(200, turn.book.market_id())

        refused = await self._charging.key(claim.key, "default")
        call = Call(claim.key, claim.nonce, request.method, request.target, body, None, refused, admit)
        market_id = (await self._desk.turn(call)).body
        with self._watching.stream(claim.key, self._serving()):
            await _start_stream(send, request)
            try:
                await self._hub.send(claim.key, market_id, last_id, partial(_send_text, send), receive)
            except TradeskillError as error:  # the stream has begun, so all that is left to say is its end: its reader comes again
                log.warning("stream ended", extra={"request_id": request.request_id, "reason": error.code})
                await _send_text(send, "", False)
        return 200

    # open calls

    async def _health(self, request: _Request) -> _Out:
        return _Out(200, b'{"ok":true}')

    async def _ready(self, request: _Request) -> _Out:
        await self._desk.read(lambda book: book.position(), quick=True)
        return _Out(200, b'{"ok":true}')

    async def _metrics(self, request: _Request) -> _Out:
        text, kind = await self._watching.rendered()
        return _Out(200, text, kind)

    async def _docs(self, request: _Request) -> _Out:
        return _Out(200, self._pages.human, b"text/html; charset=utf-8", ((b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),))

    async def _openapi(self, request: _Request) -> _Out:
        return _Out(200, self._pages.openapi(self._serving().base))

    async def _capabilities(self, request: _Request) -> _Out:
        relay_id, network = await self._desk.read(lambda book: (book.market_id(), book.network()), quick=True)
        return _Out(200, self._pages.capabilities(relay_id, network, self._world.now_ms()))

    async def _list_offers(self, request: _Request) -> _Out:
        query = lists.query_of(request.query)
        asked = lists.search_of(query)
        return _Out(200, (await self._desk.read(lambda book: lists.offers_page(book, query, asked, self._totals, self._world.now_ms()))).encode())

    async def _get_offer(self, request: _Request) -> _Out:
        return _Out(200, (await self._desk.read(lambda book: endpoints.open_offer(book, request.path_id), quick=True)).encode())

    async def _get_result(self, request: _Request) -> _Out:
        """A stranger's bytes: for saving, never for this origin's pages."""

        def find(book: Book) -> bytes | None:
            rows = book.rows(tables.LINK, (request.path_id,))
            return book.result(rows[0]["job_id"]) if rows else None

        data = await self._desk.read(find)
        if data is None:
            raise Rejection("not_found", "there is no such result")
        headers = ((b"content-disposition", b"attachment"), (b"content-security-policy", b"sandbox; default-src 'none'"), (b"cache-control", b"private"))
        return _Out(200, data, b"application/octet-stream", headers)


@dataclass(frozen=True)
class _Out:
    status: int
    body: bytes
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def _said(answer: Answer) -> _Out:
    return _Out(answer.status, answer.body.encode(), headers=tuple((n.lower().encode(), v.encode()) for n, v in answer.headers.items()))


def _request(scope: Scope, world: World) -> _Request:
    target: bytes = scope["tradeskill.target"]
    path, _, query = target.partition(b"?")
    headers: dict[bytes, bytes] = {}
    twice: list[bytes] = []
    for name, value in scope["headers"]:
        if name in headers:
            twice.append(name)
        headers[name] = value
    for name in twice:  # a header sent twice was not sent: nobody may choose which of the two counts
        headers.pop(name, None)
    if b"idempotency-key" in twice:
        headers[b"idempotency-key"] = b""  # refused further on: whoever sends two wants a repeat to be safe, so the call is not done without any
    shown = path.decode("latin-1")
    return _Request(scope["method"], target, shown, query, scope["tradeskill.ip"], headers, logs.request_id(headers.get(b"x-request-id"), world))


async def _body(request: _Request, receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Rejection("validation_error", "the request broke off")
        part = message.get("body", b"")
        size += len(part)
        if size > wire.MAX_BODY:
            raise Rejection("payload_too_large", f"the body exceeds {wire.MAX_BODY} bytes", {"bytes": size, "maxBytes": wire.MAX_BODY})
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _parsed(request: _Request, body: bytes) -> tuple[dict[str, Member], UsageError | None]:
    """The body's members. What is no JSON is refused at once; JSON that is no object is its call's trouble."""
    if not body:
        return {}, None
    kind = request.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Rejection("validation_error", "a body must be sent as Content-Type: application/json", status=415)
    try:
        return members(body), None
    except NotAnObjectError as error:
        return {}, error
    except InputError as error:
        raise Rejection("validation_error", str(error), {"reason": error.code}) from error


def _raising(error: Exception) -> Callable[[Turn], Answer]:
    def act(turn: Turn) -> Answer:
        raise error

    return act


def _ascii(value: bytes) -> str:
    return value.decode("latin-1")


async def _respond(send: Send, out: _Out, request: _Request) -> None:
    headers = [
        (b"content-type", out.kind),
        (b"content-length", str(len(out.body)).encode()),
        (b"x-request-id", request.request_id.encode()),
        *_PLAIN,
        *out.headers,
    ]
    await send({"type": "http.response.start", "status": out.status, "headers": headers})
    await send({"type": "http.response.body", "body": out.body})


async def _start_stream(send: Send, request: _Request) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-request-id", request.request_id.encode()), *_PLAIN]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send_text(send: Send, text: str, more: bool) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": more})
