"""A job's input against the offer's schema, which may be a stranger's."""

from __future__ import annotations

import socket
import threading

import pytest

from tradeskill.agreement import MAX_INPUT, check_input
from tradeskill.errors import InputError
from tradeskill.model import Json

SCHEMA: dict[str, Json] = {
    "type": "object",
    "required": ["urls"],
    "properties": {"urls": {"type": "array", "items": {"type": "string"}}},
    "additionalProperties": False,
}


def test_what_fits_is_taken() -> None:
    check_input(SCHEMA, {"urls": ["http://a/", "http://b/"]})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "input: 'urls' is a required property"),
        ({"urls": "http://a/"}, "input.urls"),
        ({"urls": ["http://a/", 5]}, "input.urls[1]"),
        ({"urls": [], "more": 1}, "more"),
        ([], "input"),
        ({"urls": ["x" * MAX_INPUT]}, f"{MAX_INPUT} at most"),
        ({"urls": [], "n": float("nan")}, "no canonical JSON form"),
        ({"urls": [], "n": 2**60}, "write large integers as strings"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(value: Json, words: str) -> None:
    with pytest.raises(InputError) as caught:
        check_input(SCHEMA, value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [{"type": 5}, {"type": "objekt"}, {"pattern": "("}, {"$ref": "#/nowhere"}, {"$ref": "#"}, {"properties": {"urls": {"$ref": "urn:none"}}}],
    ids=str,
)
def test_a_schema_that_cannot_be_used_is_one_line(schema: dict[str, Json]) -> None:
    with pytest.raises(InputError, match="schema cannot be used"):
        check_input(schema, {"urls": "x"} if "pattern" not in schema else "x")


def test_nothing_that_a_schema_refers_to_is_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        visited = threading.Event()

        def watch() -> None:
            try:
                server.accept()[0].close()
                visited.set()
            except OSError:
                return

        server.settimeout(1)
        watcher = threading.Thread(target=watch)
        watcher.start()
        with pytest.raises(InputError, match="schema cannot be used"):
            check_input({"$ref": f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"}, {})
        server.close()
        watcher.join(5)
        assert not visited.is_set()
