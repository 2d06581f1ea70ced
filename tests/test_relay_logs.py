"""Logs that can be kept: one JSON object a line, allowed fields only, nothing that a client wrote or that is secret."""

from __future__ import annotations

import io
import json
import logging
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.relay_door_stage import open_door, run
from tradeskill.testing.virtual_time import VirtualWorld
from tradeskill.world import World
from tradeskill_plugins.relay.server.logs import FIELDS, JsonLines, json_handler, request_id

KEY, SIGNATURE, SEED = os.urandom(32).hex(), os.urandom(64).hex(), os.urandom(32).hex()
PAYLOAD = '{"question": "what nobody else may know"}'


def line(
    msg: object = "request answered", *, name: str = "tradeskill.relay", error: BaseException | None = None, args: Any = (), **extra: object
) -> dict[str, Any]:
    record = logging.LogRecord(name, logging.INFO, __file__, 1, msg, args, (type(error), error, error.__traceback__) if error else None)
    record.__dict__.update(extra)
    text = JsonLines().format(record)
    assert text.isascii()
    assert text.isprintable()
    shown: dict[str, Any] = json.loads(text)
    return shown


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_a_line_has_its_fields_in_order_and_its_time_in_milliseconds() -> None:
    told = line(request_id="r-1", endpoint="jobs.lock", status=200, ms=1.23456, job_id="j-1", key=KEY, replayed=False)
    assert list(told) == ["time", "level", "event", "request_id", "job_id", "endpoint", "status", "ms", "key", "replayed"]
    assert (told["level"], told["event"], told["ms"], told["key"]) == ("info", "request answered", 1.235, KEY[:8])
    assert len(told["time"]) == len("2026-01-01T00:00:00.000Z")


def test_a_field_that_is_not_allowed_or_not_of_its_kind_is_left_out() -> None:
    told = line(
        payload=PAYLOAD, body=b"x", headers={}, status="200", ms=float("nan"), count=True, job_id="two words", key="not hex", endpoint=None, bytes=1 << 70
    )
    assert list(told) == ["time", "level", "event"]


@pytest.mark.parametrize("secret", [KEY, SIGNATURE, SEED, SEED.upper(), PAYLOAD, "a" * 86], ids=["key", "signature", "seed", "capitals", "payload", "token"])
def test_payloads_signatures_seeds_and_whole_keys_appear_nowhere(secret: str) -> None:
    error = raised(ValueError(f"no such thing: {secret}"))
    lines = [
        line("failed", error=error),
        line(f"failed {secret}", error=error),
        line("failed %s", args=(secret,)),
        line(secret),
        line(f"Task exception was never retrieved {secret}", name="asyncio"),
        line("GET %s", name="httpx", args=(secret,)),
        line(ValueError(secret), name="uvicorn.error"),
        line("x", name=f"tradeskill.{secret}"),
        line("x", name=secret),
        line("request answered", **dict.fromkeys(FIELDS, secret)),
        line("request answered", **dict.fromkeys(FIELDS, f"{secret} and {secret}")),
        line("request answered", payload=secret, body=secret.encode(), signature=secret, pubkey=secret, stack_info=secret),
    ]
    for told in lines:
        assert secret not in json.dumps(told)
        assert secret[:16] not in json.dumps(told)


def test_a_failure_is_told_by_its_type_and_place() -> None:
    told = line("application failed", error=raised(KeyError(PAYLOAD)))
    assert told["error"] == "KeyError"
    assert told["at"][-1].startswith("test_relay_logs.py:")
    assert told["at"][-1].endswith(" raised")


def test_the_text_of_foreign_loggers_is_not_shown_but_that_they_spoke_is() -> None:
    assert line("anything at all", name="asyncio")["event"] == "message of asyncio"
    assert line("anything at all", name="tradeskillful")["event"] == "message of tradeskillful"


@given(st.text(max_size=80))
def test_whatever_text_comes_in_a_line_stays_one_line_of_ascii(text: str) -> None:
    line(text, name=text, **dict.fromkeys(FIELDS, text))
    line(text, args=(text,), error=raised(ValueError(text)))


def test_control_characters_and_newlines_do_not_get_into_a_line() -> None:
    told = line("good\nbad", name="tradeskill\n{}", job_id="a\nb", request_id="\x1b[31m", endpoint="\x7f")
    assert list(told) == ["time", "level", "event"]
    assert told["event"] == "message"


def test_the_handler_writes_one_line_a_record() -> None:
    stream = io.StringIO()
    logger = logging.Logger("tradeskill.relay")
    logger.addHandler(json_handler(stream))
    logger.info("request answered", extra={"status": 200})
    logger.error("application failed", exc_info=ValueError("x\ny"))
    lines = stream.getvalue().splitlines()
    assert [json.loads(each)["event"] for each in lines] == ["request answered", "application failed"]


def test_a_request_keeps_its_own_id_or_gets_a_new_one() -> None:
    world = VirtualWorld(1)
    for kept in (b"a", b"r" * 64, b"{$!~}"):
        assert request_id(kept, world) == kept.decode()
    made = [request_id(header, world) for header in (None, b"", b"r" * 65, b"a b", b"a\n", b"a\tb", b"\xff", "é".encode())]
    assert len(set(made)) == len(made)
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in made)
    assert request_id(None, World()) != request_id(None, World())


def test_what_goes_wrong_at_the_door_is_logged_without_what_was_sent() -> None:
    stream = io.StringIO()
    handler = json_handler(stream)
    root = logging.getLogger()
    root.addHandler(handler)

    async def main() -> None:
        async with open_door() as door:
            await (await door.call()).get(f"/fail?{SEED}", f"X-Molt-Signature: {SIGNATURE}\r\n")
            await (await door.call()).get(f"/\x01{SEED}")

    try:
        run("asyncio", main())
    finally:
        root.removeHandler(handler)
    told = [json.loads(each) for each in stream.getvalue().splitlines()]
    assert [(each["event"], each.get("error")) for each in told] == [("application failed", "ValueError")]
    assert SEED[:12] not in stream.getvalue()
    assert "secret" not in stream.getvalue()
