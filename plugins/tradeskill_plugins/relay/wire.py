"""The relay protocol `/v1` in numbers and names: limits, error codes, times, ids. Server and client share it. Source: docs/relay.md."""

from __future__ import annotations

import re
import time
import uuid
from datetime import datetime
from functools import lru_cache
from typing import Final

from tradeskill.errors import UsageError

__all__ = [
    "CODES",
    "INLINE_RESULT",
    "JOB_STATES",
    "MAX_BODY",
    "MAX_ERROR",
    "MAX_PROOF",
    "MAX_REQUEST",
    "MAX_URL",
    "job_id",
    "offer_id_on_the_wire",
    "read_time",
    "show_time",
]

MAX_BODY: Final = 307_200
MAX_REQUEST: Final = 65_536  # bytes of request_payload
MAX_ERROR: Final = 8_192
MAX_URL: Final = 2_048
MAX_PROOF: Final = 16_384
INLINE_RESULT: Final = 196_608
NONCE_MS: Final = 10 * 60_000
IDEMPOTENCY_MS: Final = 24 * 3_600_000
MAX_KEY: Final = 128  # characters of an idempotency key
WINDOW_MS: Final = 60_000
PER_IP, PER_KEY, STRICT = 120, 60, 30  # requests in a window

JOB_STATES: Final = ("requested", "quoted", "accepted", "running", "delivered", "failed", "canceled", "expired")

# every code that an error can carry, with its HTTP status
CODES: Final[dict[str, int]] = {
    "auth.invalid_signature": 401,
    "auth.timestamp_skew": 401,
    "auth.nonce_replay": 401,
    "validation_error": 400,
    "forbidden": 403,
    "not_found": 404,
    "invalid_state": 409,
    "idempotency_conflict": 409,
    "idempotency_in_progress": 409,
    "payload_too_large": 413,
    "rate_limited": 429,
    "unavailable": 503,
    "internal": 500,
}

_OFFERS: Final = uuid.UUID("6b0f3c52-6f0e-5d0e-9a53-2f1d2c6a7b10")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?Z", re.ASCII)


def show_time(ms: int) -> str:
    """`YYYY-MM-DDTHH:MM:SS.mmmZ`."""
    return f"{_second(ms // 1000)}.{ms % 1000:03}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def read_time(name: str, value: object) -> int:
    """Milliseconds of an ISO 8601 time in UTC that ends in `Z`; finer digits are cut. UsageError naming the field otherwise."""
    if isinstance(value, str) and _TIME.fullmatch(value):
        head, _, fraction = value[:-1].partition(".")
        try:
            seconds = int(datetime.fromisoformat(head + "+00:00").timestamp())
        except ValueError:
            seconds = -1
        if seconds >= 0:
            return seconds * 1000 + int(fraction[:3].ljust(3, "0") or 0)
    raise UsageError(f"{name} must be a UTC time like 2026-01-31T12:00:00.000Z, not {str(value)[:40]!r}")


def job_id(name: str, value: object) -> str:
    """A UUID, in lower case. UsageError naming the field otherwise."""
    if isinstance(value, str) and _UUID.fullmatch(value.lower()):
        return value.lower()
    raise UsageError(f"{name} must be a UUID, not {str(value)[:60]!r}")


def offer_id_on_the_wire(offer_id: str) -> str:
    """Offers have UUIDs there: a signed offer's own id where that is one, else one made from it."""
    return offer_id if _UUID.fullmatch(offer_id) else str(uuid.uuid5(_OFFERS, offer_id))
