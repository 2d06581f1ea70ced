"""A client of the relay's wire for black-box tests: every byte of a request is the test's to choose.

`Wire` is one connection (kept alive, reopened when it was closed); each thread has its own. `Party` is a key that signs.
`Floor` is a buyer, a seller and a stranger with the shortest way to a job in any state. How a relay is started: relay_started.py.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import json
import os
import socket
import time
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tradeskill.agreement import read_offer, read_request, sign_offer, sign_quote, sign_receipt, sign_request
from tradeskill.model import Invoice, Json, Offer, Result, SignedDocument
from tradeskill.money import Amount
from tradeskill.signing import Identity, document_to_json
from tradeskill.world import World
from tradeskill_plugins.relay.signed_http import sign_request as sign_http

PATIENCE: Final = 30.0  # seconds for one answer
ADDRESS: Final = "nano_1111111111111111111111111111111111111111111111111111hifc8npp"
PLAIN_OFFER: Final[dict[str, Json]] = {"title": "Web page to Markdown", "description": "Any page, any language", "pricing_mode": "quote"}
UUID_SPACE: Final = uuid.UUID("6b0f3c52-6f0e-5d0e-9a53-2f1d2c6a7b10")
_NAMES = itertools.count(1)


class Answer:
    """One response. `headers`: lowercase names; the last of a repeated one."""

    def __init__(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self.status, self.body = status, body
        self.headers = {name.lower(): value for name, value in headers}

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:600]!r}>"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code, or "" of a success."""
        return "" if self.status < 400 else str(self.json["error"]["code"])

    @property
    def details(self) -> Any:
        return self.json["error"]["details"]

    @property
    def job(self) -> Any:
        return self.ok["job"]

    @property
    def offer(self) -> Any:
        return self.ok["offer"]

    @property
    def ok(self) -> Any:
        assert 200 <= self.status < 300, self
        return self.json

    def done(self) -> None:
        """AssertionError unless it is a success."""
        assert self.ok is not None

    def member(self, *path: str) -> str:
        """The exact text of one value of the body: `member("job", "request_payload")`."""
        from tradeskill_plugins.relay.rawjson import members

        text = self.body.decode()
        for name in path:
            text = members(text.encode())[name].text
        return text


class Party:
    """A seed, its key, and nonces that never repeat."""

    def __init__(self, seed: bytes | None = None) -> None:
        self.seed = seed or os.urandom(32)
        self.identity = Identity(self.seed)
        self.key = self.identity.key

    def headers(self, method: str, target: str | bytes, body: bytes, *, now_ms: int, nonce: str | None = None) -> dict[str, str]:
        raw = target if isinstance(target, bytes) else target.encode("latin-1")
        return sign_http(self.seed, method, raw, body, timestamp=now_ms // 1000, nonce=nonce or os.urandom(16).hex())


class Wire:
    """One connection to one relay. `world`: the clock that requests are dated by. `source`: the loopback address it comes from."""

    def __init__(self, url: str, world: World | None = None, source: str = "") -> None:
        parts = urllib.parse.urlsplit(url)
        self.url, self.host, self.port, self.world = url, parts.hostname or "127.0.0.1", parts.port or 80, world or World()
        self.source = source
        self.reopens = True  # whether a kept connection that turns out to be closed is opened anew without a word
        self._socket: socket.socket | None = None

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def another(self) -> Wire:
        return Wire(self.url, self.world, self.source)

    def exchange(self, request: bytes, method: str = "GET") -> Answer:
        """These bytes go out, one answer comes back. ConnectionError when the connection ends without one (what was done is then unknown)."""
        fresh = self._socket is None or not self.reopens
        try:
            return self._exchange(request, method)
        except (ConnectionResetError, BrokenPipeError):
            if fresh:
                raise
            return self._exchange(request, method)  # an idle connection was closed in between

    def _exchange(self, request: bytes, method: str) -> Answer:
        try:
            if self._socket is None:
                self._socket = socket.create_connection((self.host, self.port), PATIENCE, (self.source, 0) if self.source else None)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(request)
            response = http.client.HTTPResponse(self._socket, method=method)
            response.begin()
            answer = Answer(response.status, response.getheaders(), response.read())
        except BaseException as error:
            self.close()
            if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
                raise ConnectionError(f"no whole answer: {error!r}") from error
            raise
        if response.will_close:
            self.close()
        return answer

    def send(self, method: str, target: str | bytes, body: bytes = b"", headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()) -> Answer:
        """An unsigned request; `headers` are added to host and length, and replace them where they name them."""
        return self.exchange(self.request_bytes(method, target, body, headers), method)

    def request_bytes(self, method: str, target: str | bytes, body: bytes = b"", headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()) -> bytes:
        given = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        names = {name.lower() for name, _ in given}
        fields = [("host", f"{self.host}:{self.port}")] if "host" not in names else []
        if (body or method in ("POST", "PUT")) and not names & {"content-length", "transfer-encoding"}:
            fields.append(("content-length", str(len(body))))
        if body and "content-type" not in names:
            fields.append(("content-type", "application/json"))
        lines = [b"%s %s HTTP/1.1" % (method.encode(), target if isinstance(target, bytes) else target.encode("latin-1"))]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in [*fields, *given]]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    def call(
        self,
        party: Party,
        method: str,
        target: str | bytes,
        body: bytes | Mapping[str, Json] | None = None,
        *,
        idempotency: str | None = None,
        nonce: str | None = None,
        now_ms: int | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """A signed request. A mapping is sent as JSON. `headers` win over the signed ones; None takes one away."""
        raw = body if isinstance(body, bytes) else b"" if body is None else as_bytes(body)
        made: dict[str, str | None] = dict(party.headers(method, target, raw, now_ms=self.world.now_ms() if now_ms is None else now_ms, nonce=nonce))
        if idempotency is not None:
            made["idempotency-key"] = idempotency
        made |= headers or {}
        return self.send(method, target, raw, {name: value for name, value in made.items() if value is not None})

    def get(self, party: Party, target: str) -> Answer:
        return self.call(party, "GET", target)

    def post(self, party: Party, target: str, body: bytes | Mapping[str, Json] | None = None, **given: Any) -> Answer:
        return self.call(party, "POST", target, {} if body is None else body, **given)


def as_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def iso(now_ms: int) -> str:
    """A time as the wire shows it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ms // 1000)) + f".{now_ms % 1000:03d}Z"


def as_json(document: SignedDocument) -> dict[str, Json]:
    return document_to_json(document)


@dataclass
class Floor:
    """A buyer, a seller and a stranger before one relay, and the shortest way to a job in any state. Keys are fresh, so nobody else's rows are in the way."""

    wire: Wire
    buyer: Party
    seller: Party
    stranger: Party
    network: Any = "dev"

    @classmethod
    def at(cls, wire: Wire) -> Floor:
        return cls(wire, Party(), Party(), Party())

    def now_ms(self) -> int:
        return self.wire.world.now_ms()

    def act(self, party: Party, job_id: str, action: str, body: bytes | Mapping[str, Json] | None = None, **given: Any) -> Answer:
        return self.wire.post(party, f"/v1/jobs/{job_id}/{action}", body, **given)

    def see(self, party: Party, job_id: str) -> Any:
        return self.wire.get(party, f"/v1/jobs/{job_id}").job

    def offer(self, **changes: Json) -> Any:
        return self.wire.post(self.seller, "/v1/offers", PLAIN_OFFER | changes).offer

    def requested(self, payload: Json = None) -> Any:
        body: dict[str, Json] = {"offer_id": self.offer()["offer_id"], "request_payload": {"url": "http://a/"} if payload is None else payload}
        return self.wire.post(self.buyer, "/v1/jobs", body).job

    def quoted(self, **changes: Json) -> Any:
        return self.act(self.seller, self.requested()["job_id"], "quote", plain_quote(**changes)).job

    def accepted(self) -> Any:
        return self.act(self.buyer, self.quoted()["job_id"], "accept").job

    def paid(self) -> Any:
        return self.act(self.buyer, self.accepted()["job_id"], "payment", {"payment_tx_hash": os.urandom(32).hex().upper()}).job

    def running(self) -> Any:
        return self.act(self.seller, self.paid()["job_id"], "lock").job

    def delivered(self) -> Any:
        return self.act(self.seller, self.running()["job_id"], "deliver", {"result_url": "https://a.example/r"}).job

    def failed(self) -> Any:
        return self.act(self.seller, self.running()["job_id"], "deliver", {"error": {"code": "exit", "message": "1"}}).job

    def canceled(self) -> Any:
        return self.act(self.buyer, self.requested()["job_id"], "cancel").job

    def in_state(self, name: str) -> Any:
        return getattr(self, name)()

    # with our signed documents

    def offer_document(self, offer_id: str | None = None, **changes: Json) -> SignedDocument:
        made = sign_offer(
            self.seller.identity,
            offer_id=offer_id or f"o-{next(_NAMES)}-{self.seller.key[:8]}",
            network=self.network,
            title=str(PLAIN_OFFER["title"]),
            description=str(PLAIN_OFFER["description"]),
            tags=["web", "markdown"],
            prices=(Amount(5, "raw"),),
            input_schema={"type": "object"},
            pure=True,
            trusted=True,
            created_at=self.now_ms(),
        )
        return self.seller.identity.sign("offer", {**made.body, **changes}) if changes else made

    def offer_body(self, document: SignedDocument, /, **changes: Json) -> dict[str, Json]:
        """What is posted with the document: plain fields that agree with it."""
        body = document.body
        fields: dict[str, Json] = {"title": body["title"], "description": body["description"], "tags": body["tags"]}
        fields |= {"pricing_mode": "fixed", "fixed_price_raw": "5"} if body["price"] else {"pricing_mode": "quote"}
        return fields | {"document": as_json(document)} | changes

    def signed_offer(self, **changes: Json) -> Offer:
        document = self.offer_document(**changes)  # type: ignore[arg-type]  # offer_id is text
        self.wire.post(self.seller, "/v1/offers", self.offer_body(document)).done()
        return read_offer(document)

    def request_document(self, offer: Offer, nonce: str | None = None, value: Json = None, **changes: Json) -> SignedDocument:
        made = sign_request(
            self.buyer.identity, offer, input_value=value, refund_to={"nano": ADDRESS}, nonce=nonce or os.urandom(8).hex(), created_at=self.now_ms()
        )
        return self.buyer.identity.sign("request", {**made.body, **changes}) if changes else made

    def request_body(self, document: SignedDocument, /, **changes: Json) -> dict[str, Json]:
        return {"offer_id": wire_offer_id(str(document.body["offer_id"])), "request_payload": {}, "request": as_json(document)} | changes

    def signed_request(self, value: Json = None) -> tuple[SignedDocument, Any]:
        document = self.request_document(self.signed_offer(), value=value)
        return document, self.wire.post(self.buyer, "/v1/jobs", self.request_body(document)).job

    def quote_document(self, request: SignedDocument, job_id: str, minutes: float = 10, **changes: Json) -> SignedDocument:
        invoice = Invoice("nano", self.network, "i-1", job_id, ADDRESS, Amount(5, "raw"), 0)
        expires_at = self.now_ms() + int(minutes * 60_000)
        made = sign_quote(
            self.seller.identity, read_request(request, self.buyer.key), job_id=job_id, invoices=[invoice], expires_at=expires_at, nonce=os.urandom(8).hex()
        )
        return self.seller.identity.sign("quote", {**made.body, **changes}) if changes else made

    def signed_running(self) -> tuple[SignedDocument, SignedDocument, Any]:
        """A job under lock with its signed request and quote; the answer of the lock."""
        request, job = self.signed_request()
        quote = self.quote_document(request, job["job_id"])
        self.act(self.seller, job["job_id"], "quote", {"quote": as_json(quote)}).done()
        self.act(self.buyer, job["job_id"], "accept").done()
        self.act(self.buyer, job["job_id"], "payment", {"payment_tx_hash": os.urandom(32).hex()}).done()
        return request, quote, self.act(self.seller, job["job_id"], "lock").ok

    def receipt_document(self, request: SignedDocument, quote: SignedDocument, job_id: str, result: Result) -> SignedDocument:
        return sign_receipt(
            self.seller.identity,
            read_request(request, self.buyer.key),
            quote,
            job_id=job_id,
            rail="nano",
            payment_ids=["P"],
            amount=Amount(5, "raw"),
            result=result,
            delivered_at=self.now_ms(),
            fence=1,
        )


def plain_quote(**changes: Json) -> dict[str, Json]:
    return {"quote_amount_raw": "1000000000000000000000000000", "quote_invoice_address": ADDRESS} | changes


def inline(data: bytes, media_type: str = "text/plain") -> dict[str, Json]:
    return {"media_type": media_type, "data": base64.b64encode(data).decode()}


def wire_offer_id(offer_id: str) -> str:
    try:
        if str(uuid.UUID(offer_id)) == offer_id:
            return offer_id
    except ValueError:
        pass
    return str(uuid.uuid5(UUID_SPACE, offer_id))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
