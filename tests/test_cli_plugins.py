"""The commands `plugins`, `plugins check` and `plugins new`: what they show, and what they say when something is wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.cli_stage import Home
from tradeskill.faces.cli.plugins import show_verdict
from tradeskill.testing.installed import ClauseResult, Verdict

ACME = """
from tradeskill.hookspecs import hookimpl

@hookimpl
def tradeskill_open_market(settings, context):
    raise NotImplementedError
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRADESKILL_")}
    return Home(tmp_path, {**environment, "TRADESKILL_HOME": str(tmp_path / "home")})


def test_the_list_says_of_each_plugin_what_it_is_and_what_it_says_of_itself(home: Home) -> None:
    listed = {entry["name"]: entry for entry in home.json("plugins")}
    assert set(listed["nano"]) == {"name", "kinds", "package", "version", "origin", "api", "capabilities", "manifest", "notes", "error"}
    assert listed["nano"]["manifest"]["spends"] == ["Nano that the wallet holds"]
    assert (listed["nano"]["kinds"], listed["nano"]["api"], listed["nano"]["notes"], listed["nano"]["error"]) == (["wallet"], 1, [], None)
    assert listed["buyer"]["manifest"] is None
    plain, more = home.run("plugins").ok().out, home.run("plugins", "--verbose").ok().out
    assert "spends: Nano that the wallet holds" in more
    assert "spends: " not in plain
    assert "push_to_address = True" in plain


def test_a_check_ends_with_what_it_found(home: Home) -> None:
    done = home.run("plugins", "check", "buyer").ok()
    assert "S-01  holds         It can run and has tools" in done.out
    assert done.err == "running the tests of buyer: tradeskill.testing.any_skill\nbuyer: keeps its contract: 9 hold\n"


def test_clauses_that_were_tried_twice_are_told_apart_and_a_broken_one_says_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    clauses = tuple(ClauseResult("W-01", status, "A", reason, tests) for status, reason, tests in (("holds", "", "TestOne"), ("FAILED", "1 == 2", "TestTwo")))
    show_verdict(Verdict("acme", "acme-pay", "1", clauses, (), ("acme_pay.conformance",)), ["mint=a b"])
    out, err = capsys.readouterr()
    more = f"{sys.executable} -m pytest --pyargs acme_pay.conformance --tradeskill-with 'mint=a b'"
    assert out.splitlines() == ["TestOne:", "W-01  holds         A", "TestTwo:", "W-01  FAILED        A — 1 == 2"]
    assert err.splitlines() == ["acme: BREAKS its contract: 1 hold, 1 FAILED (W-01)", f"with every traceback: {more}"]


def test_what_is_not_installed_or_brings_no_tests_cannot_be_checked(home: Home) -> None:
    done = home.run("plugins", "check", "nope")
    assert done.err == done.failed(3, "'nope'", "tradeskill plugins") + "\n"
    info = home.path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tradeskill]\nacme = acme\n")
    (home.path / "acme.py").write_text(ACME)
    home.process("plugins", "check", "acme", environment={"PYTHONPATH": str(home.path)}).failed(9, "acme 1.0", "brings no tests", "tradeskill.kit")


@pytest.mark.parametrize("given", ["mint", "=x", "mint=", "Mint=x", "a b=c"])
def test_what_is_given_is_a_name_and_a_value(home: Home, given: str) -> None:
    home.run("plugins", "check", "buyer", "--with", given).failed(2, "--with", repr(given), "NAME=VALUE")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("wallet", "Acme"), 2, ("'Acme'", "a-z")),
        (("purse", "acme"), 2, ("'purse'", "wallet, market, backend, skill")),
        (("wallet", "nano"), 2, ("nano", "taken")),
        (("skill", "weather-today"), 2, ("'weather-today'",)),
    ],
)
def test_a_new_plugin_that_cannot_be_is_one_line_and_writes_nothing(home: Home, arguments: tuple[str, str], code: int, words: tuple[str, ...]) -> None:
    home.run("plugins", "new", *arguments, "--to", str(home.path)).failed(code, *words)
    assert list(home.path.iterdir()) == []


def test_a_new_plugin_is_a_folder_and_is_never_written_over(home: Home) -> None:
    made = home.json("plugins", "new", "market", "acme-fair", "--to", str(home.path))
    folder = Path(made["folder"])
    assert folder == home.path / "tradeskill-acme-fair"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "README.md",
        "pyproject.toml",
        "src/tradeskill_acme_fair/__init__.py",
        "src/tradeskill_acme_fair/conformance.py",
        "src/tradeskill_acme_fair/market.py",
        "tests/test_acme_fair.py",
    }
    assert [path for path in folder.rglob("*") if path.is_file() and "@@" in path.read_text("utf-8")] == []
    home.run("plugins", "new", "wallet", "acme-fair", "--to", str(home.path)).failed(2, str(folder), "there already")
    (home.path / "file").write_text("")
    home.run("plugins", "new", "wallet", "acme-fair", "--to", str(home.path / "file")).failed(10, "cannot be written")
