"""What a failed call is told: money and way out for every error there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli_stage import Home
from tradeskill import errors
from tradeskill.answers import failure_of

EVERY = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_says_whether_money_moved_and_what_to_do(kind: type[errors.TradeskillError]) -> None:
    """S36: money and next."""
    told = failure_of(kind("words"))
    assert (told["code"], told["message"], told["exit_code"]) == (kind.code, "words", kind.exit_code)
    assert told["money"] in ("not moved", "unknown")
    assert len(told["next"]) > 5


def test_unknown_is_never_rounded_to_not_moved_where_the_call_could_spend() -> None:
    """S37: unknown."""
    for kind in (errors.UnavailableError, errors.UnknownOutcomeError, errors.StorageError, errors.StateError, errors.RefusedError):
        assert failure_of(kind("x"))["money"] == "unknown"
        assert failure_of(kind("x", money="not moved"))["money"] == "not moved"


def test_what_the_error_knows_of_its_purchase_comes_first() -> None:
    told = failure_of(errors.UnavailableError("x", money="spent", next="wait"))
    assert (told["money"], told["next"]) == ("spent", "wait")
    assert failure_of(errors.UsageError("x", money="a lie", next=5))["money"] == "not moved"


def test_a_cap_is_not_to_be_got_around() -> None:
    assert "owner" in failure_of(errors.PolicyError("x"))["next"]


def test_a_call_from_the_command_line_takes_json_from_stdin_and_file_and_says_what_is_missing(tmp_path: Path) -> None:
    home = Home(tmp_path, {"TRADESKILL_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"})
    (tmp_path / "wish.json").write_text('{"query": "x"}')
    for arguments, stdin in (("-", "{}"), ("@-", "{}"), (f"@{tmp_path / 'wish.json'}", ""), ("{}", "")):
        done = home.run("call", "buyer.search", "--json", arguments, stdin=stdin)
        done.failed(3, "no profile", "tradeskill init")
        told = json.loads(done.out)["error"]
        assert (told["code"], told["money"]) == ("not_found", "not moved")
        assert told["next"]
