"""A relay's rows, read field by field: whatever has another shape is an UntrustedError naming the field. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tradeskill.errors import UntrustedError, UsageError
from tradeskill.model import Job, JobError, JobState, Json, Result, SignedDocument
from tradeskill.signing import digest, document_from_json
from tradeskill_plugins.relay.wire import JOB_STATES, MAX_ERROR, read_time

__all__ = [
    "Row",
    "Seen",
    "document_in",
    "error_in",
    "integer_in",
    "key_in",
    "object_in",
    "result_in",
    "rows_in",
    "state_in",
    "text_in",
    "time_in",
]

Row = Mapping[str, Json]
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Seen:
    """A job as the relay shows it, with what a `Job` has no place for. `result_url`: where the result is, if it is not in the job."""

    job: Job
    canceled_by: str | None = None
    cancel_reason: str = ""
    result_url: str | None = None


def object_in(value: Row, name: str) -> Row:
    found = value.get(name)
    if not isinstance(found, dict):
        raise UntrustedError(f"the relay's answer has no {name}")
    return found


def rows_in(value: Row, name: str, most: int) -> list[Row]:
    """A list of objects, not longer than asked for."""
    found = value.get(name)
    if not isinstance(found, list) or len(found) > most:
        raise UntrustedError(f"the relay's answer has no list {name} of at most {most}")
    return [row for row in found if isinstance(row, dict)]


def text_in(row: Row, name: str, most: int = 4096) -> str | None:
    """None where it is null or left out."""
    value = row.get(name)
    if value is None or (isinstance(value, str) and len(value) <= most):
        return value
    raise UntrustedError(f"{name} is no text of at most {most} characters")


def key_in(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or _KEY.fullmatch(value) is None:
        raise UntrustedError(f"{name} is no key")
    return value


def time_in(row: Row, name: str) -> int | None:
    """Milliseconds; None where it is null or left out."""
    if row.get(name) is None:
        return None
    try:
        return read_time(name, row[name])
    except UsageError as error:
        raise UntrustedError(str(error)) from error


def integer_in(row: Row, name: str) -> int | None:
    value = row.get(name)
    if value is None or (type(value) is int and 0 <= value < 2**53):
        return value
    raise UntrustedError(f"{name} is no whole number")


def state_in(row: Row) -> JobState:
    value = row.get("status")
    for state in JOB_STATES:
        if value == state:
            return state
    raise UntrustedError("status is none of the protocol's")


def document_in(row: Row, name: str) -> SignedDocument | None:
    """Its shape only: whoever acts on it verifies it."""
    value = row.get(name)
    return None if value is None else document_from_json(value)


def error_in(row: Row) -> JobError | None:
    value = row.get("error")
    if not isinstance(value, dict):
        return None
    code, message = value.get("code"), value.get("message")
    return JobError(code[:128] if isinstance(code, str) else "failed", message[:MAX_ERROR] if isinstance(message, str) else "")


def result_in(row: Row) -> Result | None:
    """A result that came with the job, if its bytes are the ones it says."""
    value = row.get("result")
    if not isinstance(value, dict) or not isinstance(value.get("data"), str):
        return None
    media_type, data = value.get("media_type"), value["data"]
    try:
        found = base64.b64decode(str(data), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UntrustedError("the result is not base64") from error
    if not isinstance(media_type, str) or value.get("sha256") != digest(found):
        raise UntrustedError("the result is not the one that its hash names")
    return Result(found, media_type)
