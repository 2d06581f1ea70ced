"""One connection at the door: a request reaches the application whole and within its limits, or is refused.

Everything between two bytes of a client is timed by one sweep over all connections; a request costs no task or timer besides its own task.
Stands on uvicorn's httptools protocol: its parser, flow control and writing of answers.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from collections import deque
from typing import Any, Final, cast

import httptools
from uvicorn._types import HTTPScope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tradeskill_plugins.relay.server.admission import Crowd
from tradeskill_plugins.relay.server.exchange import Exchange
from tradeskill_plugins.relay.server.peers import plain_ip
from tradeskill_plugins.relay.server.refusals import Refusal, Refused, bad_request, body_too_large, head_too_large, internal, late, target_too_long

__all__ = ["Connection"]

_LOG = logging.getLogger("tradeskill.relay.door")
# What the client may send next: a request, the rest of a head, the rest of a body, nothing that is looked at.
_REQUEST, _HEAD, _BODY, _NOTHING = range(4)
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"expect", b"upgrade"))
_CHUNK_SLACK: Final = 65_536  # bytes of chunk sizes a body may always have, besides as many as the body's limit
_MALFORMED: Final = bad_request("not a valid HTTP/1.1 request")


class _EnoughError(Exception):
    """This connection takes no further request; those before it are answered."""


class Connection(HttpToolsProtocol):
    """What a client does between connecting and leaving. Answers are given in the order of the requests, a refusal behind them."""

    def __init__(
        self, crowd: Crowd, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.crowd = crowd
        self.peer = ""
        self.proxy = False
        self._limits = crowd.settings
        self._reading = _REQUEST
        self._since = crowd.clock()  # when _reading became what it is, or the last answer went out
        self._begun = 0
        self._wire = 0  # bytes of the message that is being read, as far as they were looked at
        self._room = 0  # bytes its head may still have
        self._declared: int | None = None
        self._chunked = False
        self._upgrade = False
        self._version = "1.1"
        self._last = False  # no further request after this one
        self._body = bytearray()
        self._answering: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._refusal: Refusal | None = None  # to be said after the answers before it
        self._unread = 0  # bytes of answers in our hands at the last sweep
        self._stuck_since = self._behind_since = 0.0

    # --- coming and going

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a transport of TCP, as uvicorn says too
        super().connection_made(transport)
        self.peer = (plain_ip(self.client[0]) or self.client[0]) if self.client else ""
        self.proxy = self.crowd.proxies.trusts(self.peer)
        refusal = self.crowd.admit(self)
        if refusal is not None:
            self._reading = _NOTHING
            transport.write(refusal.wire(self.server_state.default_headers))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.leave(self)
        self.connections.discard(self)
        self._reading = _NOTHING
        self._queue.clear()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        self.flow.resume_writing()  # whoever waits to write learns that it is over
        self.parser = None  # type: ignore[assignment]  # as uvicorn does: parser and protocol hold each other

    def waiting_since(self) -> float | None:
        """See `Guest`."""
        return None if self._answering is not None else self._since

    def give_way(self) -> None:
        """See `Guest`."""
        self.transport.abort()

    def shutdown(self) -> None:
        """The door closes: an idle connection ends, an answer or a body on its way is the last one, streams are told."""
        self._last = True
        if self._answering is not None:
            self._queue.clear()
            self._reading = _NOTHING
            self._answering.keep_alive = False
            self._answering.message_event.set()
        elif self._reading != _BODY:
            self.transport.close()

    # --- reading

    def data_received(self, data: bytes) -> None:
        if self._reading == _NOTHING:
            self._drop(len(data))
            return
        begun, before = self._begun, self._reading
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._reading = _NOTHING
        except httptools.HttpParserError as error:
            self._stumbled(error.__context__)
        else:
            if self._reading in (_HEAD, _BODY):
                self._weigh(len(data), new=self._begun - begun, idle=before == _REQUEST)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # as asyncio has it: true keeps the way to the client open
        """The client sends no more. What it asked for it is told, but a stream ends: its client is gone, as far as anybody knows."""
        last = self._queue[-1] if self._queue else self._answering
        if last is None or last.response_started:
            return None
        last.keep_alive = False
        self._reading = _NOTHING
        return True

    def _stumbled(self, cause: BaseException | None) -> None:
        """The parser stopped: by itself, or because of what one of our callbacks raised."""
        if isinstance(cause, _EnoughError):
            self._reading = _NOTHING
            return
        if cause is None or isinstance(cause, httptools.HttpParserError):
            self.refuse(_MALFORMED)
        elif isinstance(cause, Refused):
            self.refuse(cause.refusal)
        else:
            _LOG.error("request could not be read", exc_info=cause)
            self.refuse(internal())

    def _weigh(self, size: int, *, new: int, idle: bool) -> None:
        """Count what an unfinished message has on the wire: unfinished headers and chunk sizes are shown to nobody else."""
        if new == 0:
            self._wire += size
        elif new == 1 and idle:
            self._wire = size
        limits = self._limits
        if self._reading == _HEAD and self._wire > limits.head_bytes:
            self.refuse(head_too_large(limits.head_bytes, limits.headers))
        elif self._wire > limits.head_bytes + 2 * limits.body_bytes + _CHUNK_SLACK:
            self.refuse(bad_request("the body came in too small chunks"))

    def on_message_begin(self) -> None:
        if self._last or (self._limits.requests_per_connection is not None and self._begun >= self._limits.requests_per_connection):
            raise _EnoughError
        self._begun += 1
        self._wire = 0
        self._reading = _HEAD
        self._since = self.crowd.clock()
        self._room = self._limits.head_bytes
        self._declared = None
        self._chunked = self._upgrade = self.expect_100_continue = False
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self._limits.target_bytes:
            raise Refused(target_too_long(self._limits.target_bytes))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading != _HEAD:
            raise Refused(bad_request("headers after the body are not taken"))
        self._room -= len(name) + len(value) + 4
        if self._room < 0 or len(self.headers) >= self._limits.headers:
            raise Refused(head_too_large(self._limits.head_bytes, self._limits.headers))
        name = name.lower()
        value = value.rstrip(b" \t")  # white space around a value is none of it; the parser takes only what stands before
        self.headers.append((name, value))
        if name in _FRAMING:
            self._frame(name, value)

    def _frame(self, name: bytes, value: bytes) -> None:
        """Where does the body end: said once, in one way, or refused. The parser refuses most of it as well."""
        if name == b"content-length":
            if self._declared is not None or not value.isdigit() or len(value) > 18:
                raise Refused(bad_request("Content-Length must be one whole number, once"))
            self._declared = int(value)
        elif name == b"transfer-encoding":
            if self._chunked or value.lower() != b"chunked":
                raise Refused(bad_request("Transfer-Encoding can only be chunked, once"))
            self._chunked = True
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        else:
            self._upgrade = True
        if self._chunked and self._declared is not None:
            raise Refused(bad_request("Content-Length and Transfer-Encoding exclude each other"))

    def on_headers_complete(self) -> None:
        self._version = version = self.parser.get_http_version()
        if version != "1.1" and (version != "1.0" or self._chunked):
            raise Refused(bad_request("HTTP/1.1, or HTTP/1.0 without chunks, is spoken here"))
        if (self._upgrade or self.parser.get_method() == b"CONNECT") and self.parser.should_upgrade():
            # the parser takes what follows for another protocol; ours goes on, so a body would be read as the next request
            if self._declared or self._chunked or self.parser.get_method() == b"CONNECT":
                raise Refused(bad_request("no other protocol is spoken here"))
            self._last = True
        self._last = self._last or version == "1.0" or not self.parser.should_keep_alive()
        if self._declared is not None and self._declared > self._limits.body_bytes:
            raise Refused(body_too_large(self._declared, self._limits.body_bytes))
        self._reading = _BODY
        if self._declared or self._chunked:
            self._since = self.crowd.clock()
            if self.expect_100_continue and self._answering is None:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > self._limits.body_bytes:
            raise Refused(body_too_large(len(self._body), self._limits.body_bytes))

    def on_message_complete(self) -> None:
        if len(self._queue) >= self._limits.pipelined:
            raise Refused(bad_request("too many requests before their answers"))
        self._reading = _REQUEST
        exchange = self._exchange()
        if self._answering is None:
            self._answer(exchange)
        else:
            self._queue.append(exchange)
            self.flow.pause_reading()

    # --- answering

    def _exchange(self) -> Exchange:
        path, _, query = self.url.partition(b"?")
        if path[:1] != b"/":
            parsed = httptools.parse_url(self.url)
            path, query = parsed.path or b"", parsed.query or b""
        text = path.decode("ascii")
        ip = self.peer
        if self.proxy:
            ip = self.crowd.proxies.client(ip, [value for name, value in self.headers if name == b"x-forwarded-for"])
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self._version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": self.parser.get_method().decode("ascii"),
            "root_path": "",
            "path": urllib.parse.unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "headers": self.headers,
            "tradeskill.target": self.url,
            "tradeskill.ip": ip,
        }
        exchange = Exchange(
            self.crowd,
            scope=cast("HTTPScope", scope),
            transport=self.transport,
            flow=self.flow,
            logger=_LOG,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=not self._last and self._begun != self._limits.requests_per_connection,
            on_response=self.on_response_complete,
        )
        if self._body:
            exchange.body, self._body = self._body, bytearray()
        return exchange

    def _answer(self, exchange: Exchange) -> None:
        self._answering = exchange
        task = self.loop.create_task(exchange.run_asgi(self.app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._answering = None
        if self.transport.is_closing():
            return
        if self._queue:
            self._answer(self._queue.popleft())
        elif self._refusal is not None:
            self._say(self._refusal)
            return
        elif self._reading == _REQUEST:
            self._since = self.crowd.clock()
        if not self._queue:
            self.flow.resume_reading()

    # --- refusing

    def refuse(self, refusal: Refusal) -> None:
        """Read no further; say so once the requests before it are answered, and end."""
        self.crowd.refuse(refusal)
        self._reading = _NOTHING
        self._body.clear()
        if self._answering is None:
            self._say(refusal)
        else:
            self._refusal = refusal
            self.flow.pause_reading()

    def _say(self, refusal: Refusal) -> None:
        """The last words. What the client still sends is let in for a while and dropped: closing on it would take the words from its hands."""
        self.transport.write(refusal.wire(self.server_state.default_headers))
        self.transport.write_eof()
        self._wire = 0
        self._since = self.crowd.clock()
        self._refusal = refusal
        self.flow.resume_reading()

    def _drop(self, size: int) -> None:
        self._wire += size
        if self._wire > 4 * self._limits.body_bytes:
            self.transport.abort()

    # --- time

    def sweep(self, now: float) -> None:
        """End what took too long. Called about once a `tick`."""
        if self._too_slow_a_reader(now):
            self.transport.abort()
            return
        limits, waited = self._limits, now - self._since
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self._since = now  # it is ours to go on, not the client's
        elif self._reading == _HEAD:
            if waited > limits.head_seconds:
                self.refuse(late("head", limits.head_seconds))
        elif self._reading == _BODY:
            if waited > limits.body_seconds:
                self.refuse(late("body", limits.body_seconds))
        elif self._answering is None:
            if self._reading == _NOTHING:
                if waited > limits.linger_seconds:
                    self.transport.abort()
            elif waited > (limits.keep_alive_seconds if self._begun else limits.head_seconds):
                self.transport.close()

    def _too_slow_a_reader(self, now: float) -> bool:
        left = self.transport.get_write_buffer_size()
        if left == 0:
            self._unread = 0
            return False
        if self._unread == 0:
            self._behind_since = self._stuck_since = now
        elif left < self._unread:
            self._stuck_since = now
        self._unread = left
        return now - self._stuck_since > self._limits.unread_seconds or now - self._behind_since > self._limits.behind_seconds
