"""The backend `textworks` keeps the backend's contract (the class imported here), and its hooks say what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tradeskill.contracts import PluginContext
from tradeskill.errors import ConfigError
from tradeskill.plugins import Plugins
from tradeskill.signing import Identity
from tradeskill.world import World

from tradeskill_textworks.conformance import TestTextworks
from tradeskill_textworks.works import WORKS, BadTextError, done

__all__ = ["TestTextworks"]


def test_it_is_found_and_says_what_it_is() -> None:
    (report,) = [report for report in Plugins().report() if report.name == "textworks"]
    assert (report.error, report.kinds, report.notes) == (None, ("backend",), ())


def test_a_setting_that_there_is_none_of_is_refused_by_name(tmp_path: Path) -> None:
    context = PluginContext("textworks", "dev", tmp_path, World(), Identity(bytes(32)), lambda: "")
    with pytest.raises(ConfigError, match="unknown key 'colour'"):
        Plugins().require("textworks", "backend").open_backend({"colour": "red"}, context)


@pytest.mark.parametrize(
    ("work", "data", "made"),
    [
        ("upper", b'"gr\xc3\xbc\xc3\x9f dich"', "GRÜSS DICH"),
        ("sort", b'{"text": "b\\nC\\na"}', "a\nb\nC"),
        ("count", b'{"text": "To be or not to be"}', '{"words": 6, "different": 4}'),
        ("copy", b"[1]", "[1]"),
    ],
)
def test_each_work_makes_what_it_says(work: str, data: bytes, made: str) -> None:
    assert done(work, data)[0].decode() == made


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'{"text": 5}', b"\xff"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    for work in set(WORKS) - {"copy", "repeat"}:
        with pytest.raises(BadTextError):
            done(work, data)
