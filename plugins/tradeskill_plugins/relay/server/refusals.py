"""What the door says to a request that does not reach the application: status, code and words, in the protocol's error shape.

Source: the relay protocol `/v1`, docs/relay.md. Nothing in here repeats what a client sent; the application's own answers are in `rejections.py`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

__all__ = ["KINDS", "Refusal", "Refused", "bad_request", "body_too_large", "head_too_large", "internal", "late", "target_too_long", "unavailable"]

KINDS: Final = ("bad_request", "body_too_large", "head_too_large", "internal", "late", "target_too_long", "unavailable")


@dataclass(frozen=True)
class Refusal:
    """One answer of the door. `kind` (of KINDS) is for whoever counts; `code` is the protocol's, which has fewer."""

    kind: str
    status: int
    code: str
    message: str
    details: dict[str, int | str] | None = None
    retry_after: int | None = None

    def body(self) -> bytes:
        """The error's JSON."""
        return json.dumps({"error": {"code": self.code, "message": self.message, "details": self.details}}).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the answer; the connection ends with it."""
        again = [] if self.retry_after is None else [(b"retry-after", str(self.retry_after).encode())]
        length = str(len(self.body())).encode()
        made = secrets.token_hex(16).encode()  # of a request that was not read to its end nothing is echoed
        ours = [(b"x-tradeskill", b"1"), (b"x-request-id", made)]
        return [(b"content-type", b"application/json"), (b"content-length", length), *ours, *again, (b"connection", b"close")]

    def wire(self, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The whole answer as it goes over the wire; the server's own headers (`Date`) come first."""
        status = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode()
        return b"\r\n".join([status, *(b": ".join(pair) for pair in (*default_headers, *self.headers())), b"", self.body()])


class Refused(Exception):  # noqa: N818  # an answer more than a fault, raised out of the parser's callbacks
    """The request is answered with `refusal`, and its connection ends."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.kind)
        self.refusal = refusal


def bad_request(message: str) -> Refusal:
    """The request is no valid HTTP, or of a kind that this server does not speak."""
    return Refusal("bad_request", 400, "validation_error", message)


def late(what: str, seconds: float) -> Refusal:
    """The head or the body did not arrive in time. Nothing was done, so the same may be sent again."""
    return Refusal("late", 408, "unavailable", f"the {what} of the request did not arrive within {seconds:g} s")


def body_too_large(size: int, limit: int) -> Refusal:
    """`size`: what was declared, or how much had come when it was too much."""
    return Refusal("body_too_large", 413, "payload_too_large", f"a request body has at most {limit} bytes", {"bytes": size, "maxBytes": limit})


def target_too_long(limit: int) -> Refusal:
    """The path with its query is too long."""
    return Refusal("target_too_long", 414, "validation_error", f"a request target has at most {limit} bytes", {"maxBytes": limit})


def head_too_large(size: int, headers: int) -> Refusal:
    """Too many bytes before the body, or too many headers."""
    message = f"a request head has at most {size} bytes and {headers} headers"
    return Refusal("head_too_large", 431, "validation_error", message, {"maxBytes": size, "maxHeaders": headers})


def unavailable(message: str, scope: str, limit: int) -> Refusal:
    """No room now; the same later may do."""
    return Refusal("unavailable", 503, "unavailable", message, {"scope": scope, "limit": limit}, retry_after=1)


def internal() -> Refusal:
    """The application failed. What happened stands in the server's log and nowhere else."""
    return Refusal("internal", 500, "internal", "the relay failed on this request; whether it took effect is unknown, so ask again")
