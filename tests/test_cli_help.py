"""The whole tree of commands, plugins' too: each explains itself with an example that parses, answers machines in JSON, and is completed by the shell."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any
from unittest import mock

import pytest
import typer

from tests.cli_stage import PATIENCE
from tradeskill.faces import cli
from tradeskill.faces.cli import COMMANDS, app, run

# Commands whose answer is JSON or a file anyway still take --json; these do not answer with data at all.
WITHOUT_JSON: frozenset[str] = frozenset()


def walk(command: Any, context: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    yield path, command, context
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        child = command.get_command(context, name)
        yield from walk(child, type(context)(child, info_name=name, parent=context), f"{path} {name}")


def tree() -> dict[str, tuple[Any, Any]]:
    root = typer.main.get_command(app)
    context = root.make_context("tradeskill", [], resilient_parsing=True)
    return {path: (command, context) for path, command, context in walk(root, context, "tradeskill")}


TREE = tree()
LEAVES = [path for path, (command, _) in TREE.items() if not getattr(command, "commands", None) and path != "tradeskill"]


def shown(path: str, width: int) -> str:
    out = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": str(width)}), contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        run([*path.split()[1:], "--help"])
    assert ended.value.code == 0
    return out.getvalue()


def examples(text: str) -> list[str]:
    block = text.partition("Example:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in block.splitlines() if line.strip()]


def test_the_tree_is_the_one_that_is_promised() -> None:
    top = {path.split()[1] for path in TREE if " " in path}
    assert top == {*COMMANDS, "cashu", "devnet", "relay", "wallet"}
    assert {path for path in TREE if path.count(" ") == 2} == {
        *(f"tradeskill wallet {name}" for name in ("address", "balance", "receive", "send", "sweep", "scan", "backup", "restore")),
        *(
            f"tradeskill cashu {name}"
            for name in ("add", "address", "balance", "receive", "inspect", "send", "mint", "melt", "mints", "doubts", "backup", "restore")
        ),
        *(f"tradeskill identity {name}" for name in ("show", "export", "pin")),
        *(f"tradeskill review {name}" for name in ("list", "show", "refund", "run", "keep")),
        *(f"tradeskill policy {name}" for name in ("show", "set", "allow", "deny", "freeze", "unfreeze", "passphrase", "grant", "grants", "revoke", "check")),
        *(f"tradeskill receipt {name}" for name in ("show", "export", "verify")),
        *(f"tradeskill spending {name}" for name in ("log", "export", "verify")),
        *(f"tradeskill skills {name}" for name in ("schema", "export", "validate", "new")),
        *(f"tradeskill plugins {name}" for name in ("check", "new")),
        "tradeskill devnet fund",
        "tradeskill relay serve",
    }


@pytest.mark.parametrize("path", TREE)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_command_explains_itself_with_an_example_whose_lines_are_whole(path: str, width: int) -> None:
    text = shown(path, width)
    about = text.partition("\n\n")[2].partition("\n\n")[0].strip()
    assert len(about) > 15
    lines = examples(text)
    assert lines, text
    assert [line for line in lines if "tradeskill" not in line] == []


@pytest.mark.parametrize("path", TREE)
def test_every_example_is_a_command_that_would_run(path: str) -> None:
    for line in examples(shown(path, 80)):
        words = [word for word in shlex.split(line, comments=True) if "=" not in word or not word.startswith("TRADESKILL_")]
        words = words[: words.index(">")] if ">" in words else words
        assert words[0] == "tradeskill", line
        command, context = TREE["tradeskill"]
        arguments, name = words[1:], "tradeskill"
        while arguments and hasattr(command, "get_command") and not arguments[0].startswith("-"):
            name = f"{name} {arguments.pop(0)}"
            command, context = TREE[name]
        if "--help" not in arguments and arguments:
            command.make_context(name, list(arguments), parent=context.parent)  # raises on what it would refuse


@pytest.mark.parametrize("path", TREE)
def test_the_list_of_commands_says_one_whole_thing_of_each(path: str) -> None:
    command, context = TREE[path]
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            short = command.get_command(context, name).get_short_help_str(62)
            assert short, name
            assert not short.endswith("..."), f"{path} {name}: {short}"


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_takes_json_and_every_option_says_what_it_does(path: str) -> None:
    command, _ = TREE[path]
    options = {name for parameter in command.params for name in parameter.opts}
    assert ("--json" in options) == (path not in WITHOUT_JSON)
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []


@pytest.mark.parametrize("path", ["tradeskill wallet", "tradeskill identity", "tradeskill receipt", "tradeskill review", "tradeskill relay"])
def test_a_group_alone_shows_its_help_and_counts_as_a_mistake(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(path.split()[1:])
    assert ended.value.code == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert "Commands:" in caught.err


# the shell


def complete(words: str) -> list[str]:
    environment = {"_TRADESKILL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    code = "from tradeskill.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("tradeskill d", ["demo", "doctor", "devnet"]),
        ("tradeskill wallet s", ["send", "sweep", "scan"]),
        ("tradeskill hire --dr", ["--dry-run"]),
        ("tradeskill devnet f", ["fund"]),
    ],
)
def test_the_shell_completes_commands_and_options_of_ours_and_of_plugins(words: str, found: list[str]) -> None:
    assert complete(words) == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed_for_a_shell(shell: str) -> None:
    environment = {**os.environ, "SHELL": f"/bin/{shell}", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tradeskill", "--show-completion", shell], env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert "_TRADESKILL_COMPLETE=complete_" + shell in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True, timeout=PATIENCE)


# plugins' commands


class Point(EntryPoint):
    """An entry point that is found; `load` does what a stranger's module does."""


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "tradeskill.commands")


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Mapping[str, list[EntryPoint]] = {
        "broken": [point("broken", "no_such_module:app")],
        "twice": [point("twice", "a:app"), point("twice", "b:app")],
    }
    monkeypatch.setattr(cli, "_plugin_commands", lambda: found)


@pytest.mark.usefixtures("strangers")
def test_a_plugin_s_command_that_does_not_load_takes_no_other_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["--help"])
    assert ended.value.code == 0
    listed = capsys.readouterr().out
    assert re.search(r"broken +\(does not load\)", listed)
    assert re.search(r"hire +Buy one job", listed)


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize(("name", "words"), [("broken", ("no_such_module", "uninstall")), ("twice", ("claimed", "uninstall"))])
def test_called_it_says_why(name: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run([name, "--anything", "5"])
    assert ended.value.code == 9
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert [word for word in words if word not in said] == []


def test_an_interrupted_question_changes_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise typer.Abort

    monkeypatch.setitem(COMMANDS, "plugins", "tests.test_cli_help:_asks")
    monkeypatch.setattr(typer, "confirm", interrupted)
    with pytest.raises(SystemExit) as ended:
        run(["plugins"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped; nothing was done\n"


def _asks() -> None:
    """Asks."""
    typer.confirm("Really?")


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m tradeskill skills --json | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[", "")
