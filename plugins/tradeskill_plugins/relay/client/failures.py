"""A relay's errors as ours: by its code, and by details.reason where it is one of ours. Pure. What a relay says is a stranger's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from tradeskill.errors import (
    AmountError,
    IllegalStepError,
    InputError,
    NetworkMismatchError,
    NotFoundError,
    RefusedError,
    StaleFenceError,
    StateError,
    TradeskillError,
    UnavailableError,
    UntrustedError,
    UsageError,
)
from tradeskill.model import Json

__all__ = ["Failure", "date_ms", "error_of", "is_stuck", "is_transient", "read_failure"]

# A relay may say which of these it meant, and no other: it must not make a client believe that, say, its own disk is broken.
REASONS: Final[Mapping[str, type[TradeskillError]]] = {
    kind.code: kind
    for kind in (
        UsageError,
        AmountError,
        InputError,
        NotFoundError,
        StateError,
        IllegalStepError,
        StaleFenceError,
        RefusedError,
        UntrustedError,
        NetworkMismatchError,
    )
}
STATUSES: Final[Mapping[int, type[TradeskillError]]] = {
    400: UsageError,
    401: RefusedError,
    403: RefusedError,
    404: NotFoundError,
    405: UsageError,
    409: StateError,
    410: NotFoundError,
    413: UsageError,
    414: UsageError,
    415: UsageError,
    422: UsageError,
    431: UsageError,
}
IN_PROGRESS: Final = "idempotency_in_progress"
SKEW: Final = "auth.timestamp_skew"
REPLAY: Final = "auth.nonce_replay"
LONGEST: Final = 200


@dataclass(frozen=True)
class Failure:
    """An answer that is no success. `replayed`: it is what an earlier try of the same request was told."""

    status: int
    code: str
    message: str
    details: Mapping[str, Json]
    replayed: bool
    server_ms: int | None  # the relay's clock, where it says


def read_failure(status: int, value: Json, headers: Mapping[str, str]) -> Failure:
    """Of anything at all: what is not an error of the protocol has the code ""."""
    error = value.get("error") if isinstance(value, dict) else None
    fields = error if isinstance(error, dict) else {}
    code, message, details = fields.get("code"), fields.get("message"), fields.get("details")
    known = details if isinstance(details, dict) else {}
    seconds = known.get("server_time")
    server_ms = seconds * 1000 if type(seconds) is int and 0 <= seconds < 10**12 else date_ms(headers)
    replayed = headers.get("idempotency-replayed", "").strip().lower() == "true"
    return Failure(status, code if isinstance(code, str) else "", shown(message), known, replayed, server_ms)


def date_ms(headers: Mapping[str, str]) -> int | None:
    """The `Date` header, which knows whole seconds."""
    try:
        return round(parsedate_to_datetime(headers.get("date", "")).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError):
        return None


def is_transient(failure: Failure) -> bool:
    """Whether the same request, sent again, may be answered otherwise: the relay is busy, in trouble, or still at it."""
    if failure.replayed:
        return failure.code == IN_PROGRESS
    return failure.status >= 500 or failure.status in (408, 425, 429) or failure.code in (IN_PROGRESS, REPLAY)


def is_stuck(failure: Failure) -> bool:
    """Whether the idempotency key is spent on an answer that says nothing: an old relay replays its own accidents, or is "in progress" for a day."""
    return failure.code == IN_PROGRESS or (failure.replayed and failure.status >= 500)


def error_of(failure: Failure, what: str, now_ms: int) -> TradeskillError:
    """What a caller is told of a refusal. `what` names the request; `now_ms` is the local clock, for the case that it is the clock."""
    said = failure.message or failure.code or f"status {failure.status}"
    if failure.code == SKEW:
        return UnavailableError(f"{what}: {_skew(failure, now_ms)}", status=failure.status, wire=failure.code)
    if 300 <= failure.status < 400:
        return UnavailableError(f"{what}: the relay sends elsewhere (status {failure.status}), which is not followed: give its own address in market.url")
    reason = failure.details.get("reason")
    kind = REASONS.get(reason) if isinstance(reason, str) else None
    if kind is None:
        kind = STATUSES.get(failure.status, RefusedError)
    return kind(f"{what}: {said}", status=failure.status, wire=failure.code)


def shown(text: object) -> str:
    """A stranger's text on one line, without what a terminal would obey."""
    if not isinstance(text, str):
        return ""
    plain = "".join(c if c.isprintable() else " " for c in text[: 2 * LONGEST])
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


def _skew(failure: Failure, now_ms: int) -> str:
    if failure.server_ms is None:
        return "this machine's clock and the relay's differ by more than 60 s: set the clock"
    seconds = round((now_ms - failure.server_ms) / 1000)
    way = "ahead of" if seconds > 0 else "behind"
    return f"this machine's clock is {abs(seconds)} s {way} the relay's, 60 s at most may be between them: set the clock"
