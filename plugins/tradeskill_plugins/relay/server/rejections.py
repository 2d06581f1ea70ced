"""How a relay says no: the protocol's error shape, and what each of our own errors is called there. The one seam between the two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tradeskill.errors import (
    NetworkMismatchError,
    NotFoundError,
    RefusedError,
    StateError,
    TradeskillError,
    UnavailableError,
    UntrustedError,
    UsageError,
)
from tradeskill_plugins.relay.wire import CODES

__all__ = ["Rejection", "rejection_of"]


class Rejection(Exception):  # noqa: N818  # it is an answer, not a fault of ours
    """One answer that says no. `details` is an object or None; `headers` are added to the answer's."""

    def __init__(
        self, code: str, message: str, details: Mapping[str, Any] | None = None, *, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.details = code, details
        self.status = CODES[code] if status is None else status
        self.headers = dict(headers or {})

    def body(self) -> str:
        return json.dumps({"error": {"code": self.code, "message": str(self), "details": self.details}}, ensure_ascii=False, separators=(",", ":"))


def rejection_of(error: TradeskillError) -> Rejection:
    """What the caller is told of one of our errors. Its class decides; a fault of the relay's own says nothing of its inside."""
    reason = {"reason": error.code}
    if isinstance(error, UntrustedError | UsageError | NetworkMismatchError):
        return Rejection("validation_error", str(error), reason)
    if isinstance(error, NotFoundError):
        return Rejection("not_found", str(error), reason)
    if isinstance(error, RefusedError):
        return Rejection("forbidden", str(error), reason)
    if isinstance(error, StateError):
        return Rejection("invalid_state", str(error), reason)
    if isinstance(error, UnavailableError):
        return Rejection("unavailable", "the relay cannot reach its database right now: send the same request again", reason, headers={"Retry-After": "1"})
    return Rejection("internal", "the relay failed inside; nothing was acknowledged: send the same request again later")
