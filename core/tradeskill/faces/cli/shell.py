"""What all commands share: the options every one has, opening the profile, JSON on stdout, errors as one line with an exit code."""

from __future__ import annotations

import inspect
import json
import os
import stat
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar

import typer

from tradeskill.errors import InputError, SecretError, TradeskillError

if TYPE_CHECKING:
    from tradeskill.model import Json
    from tradeskill.policy import Question
    from tradeskill.profile import Profile

__all__ = [
    "AsJson",
    "PasswordFile",
    "Verbose",
    "confirm",
    "data",
    "example",
    "group",
    "load_profile",
    "logs",
    "only_data_on_stdout",
    "passphrase_from",
    "password_from",
    "printable",
    "read_input",
    "report",
    "run",
    "say",
    "show",
    "show_entry",
    "with_example",
]

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on stdout; logs go to stderr.")]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="File with the profile's password in its first line (or TRADESKILL_PASSWORD_FILE).", show_default=False)
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every step to stderr.")]


def example(*lines: str) -> Callable[[T], T]:
    """Add examples to a command's help."""

    def add(function: T) -> T:
        function.__doc__ = with_example(inspect.cleandoc(function.__doc__ or ""), *lines)
        return function

    return add


def with_example(text: str, *lines: str) -> str:
    """A help text with examples below it, each on a line of its own (`\b` keeps it so), however narrow the terminal is."""
    return f"{text}\n\n\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def group(text: str, *examples: str) -> typer.Typer:
    """A command that has commands of its own."""
    return typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=with_example(text, *examples))


def logs(verbose: bool) -> None:
    """For commands that go on for long: what they meet on the way, on stderr."""
    import logging

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("httpx", "httpcore", "websockets", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def password_from(file: Path | None, *, confirm: bool = False) -> Callable[[], str]:
    """From `--password-file`, TRADESKILL_PASSWORD_FILE or the terminal; SecretError when there is none of them."""

    def ask() -> str:
        from tradeskill.config import read_environment

        path = file or read_environment(os.environ).password_file
        if path is not None:
            return _first_line(path)
        if not sys.stdin.isatty():
            raise SecretError("a password is needed and there is no terminal to ask at: give --password-file FILE or set TRADESKILL_PASSWORD_FILE")
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True))

    return ask


def passphrase_from(file: Path | None, *, confirm: bool = False) -> str:
    """The policy's: from its own file or the terminal, never from where the profile's password comes from. SecretError when there is neither."""
    if file is not None:
        return _first_line(file)
    if not sys.stdin.isatty():
        raise SecretError("the owner's passphrase is needed and there is no terminal to ask at: give --passphrase-file FILE; nothing was changed")
    return str(typer.prompt("Owner's passphrase", hide_input=True, confirmation_prompt=confirm, err=True))


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            line = stream.readline(4096)
    except OSError as error:
        raise SecretError(f"password file {path} cannot be read: {error.strerror}") from error
    if stat.S_ISREG(mode) and mode & 0o077:
        say(f"warning: password file {path} can be read by others: chmod 600 {path}")
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    if not text:
        raise SecretError(f"password file {path} is empty: write the password in its first line")
    return text


def load_profile(password_file: Path | None = None, overlay: Path | None = None) -> Profile:
    from tradeskill.config import read_environment
    from tradeskill.profile import Profile

    environment = read_environment(os.environ)
    profile = Profile.load(environment.home, password_from(password_file), network=environment.network, overlay=overlay)
    if sys.stdin.isatty():
        profile.ask_owner = _ask_owner
    return profile


async def _ask_owner(question: Question) -> bool:
    """At the terminal; blocks, so that of several payments one is asked for at a time. `--yes` does not answer it."""
    sys.stderr.write(f"Your policy wants to be asked. {printable(question.text)} [y/N]: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def run(main: Callable[[], Coroutine[Any, Any, T]], *, as_json: bool = False) -> T:
    """Run a command's body; errors of ours end the program as one line with their exit code, Ctrl-C with 130.

    With `as_json`, what is printed meanwhile goes to stderr, whoever prints it: `show` alone writes to stdout.
    """
    import asyncio
    import logging

    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(message)s")  # a short command says what matters itself; no effect after `logs`
    try:
        with only_data_on_stdout() if as_json else nullcontext():
            return asyncio.run(main())
    except TradeskillError as error:
        raise typer.Exit(report(error, as_json)) from error
    except KeyboardInterrupt as error:
        say("interrupted; nothing is lost: the same command goes on where this one stopped")
        raise typer.Exit(130) from error


@contextmanager
def only_data_on_stdout() -> Iterator[None]:
    """While plugins' code runs: what it prints, and what processes print that it starts, goes to stderr. `data()` is the real stdout meanwhile."""
    global _data  # there is one stdout
    if _data is not None:
        yield
        return
    real = sys.stdout
    real.flush()
    kept: int | None = None
    with suppress(OSError, ValueError):  # a test's stdout is no file
        if real.fileno() == 1:
            kept = os.dup(1)
            os.dup2(2, 1)
    _data = real if kept is None else os.fdopen(os.dup(kept), "w", encoding=real.encoding, errors=real.errors)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, written, _data = real, _data, None
        if kept is not None:
            with suppress(BrokenPipeError):
                written.close()
            os.dup2(kept, 1)
            os.close(kept)


_data: TextIO | None = None


def data() -> TextIO:
    """Where the answer goes."""
    return _data or sys.stdout


def report(error: TradeskillError, as_json: bool) -> int:
    """One line on stderr (and with --json an object on stdout); returns the exit code."""
    say(f"error: {printable(str(error))}")
    if as_json:
        from tradeskill.answers import failure_of

        show({"error": failure_of(error)})
    return error.exit_code


def confirm(question: str, again: str, what: str) -> None:
    """Ask; RefusedError for a no, and where nobody can be asked."""
    from tradeskill.errors import RefusedError

    if not sys.stdin.isatty():
        raise RefusedError(f"nobody is there to confirm {what}: repeat `{again}` with --yes; no money moved")
    sys.stderr.write(f"{question} [y/N]: ")  # typer's own puts a part of the question on stdout, which is for data
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RefusedError("not confirmed; no money moved")


def say(text: str) -> None:
    """For people: stderr, so that stdout stays data."""
    typer.echo(text, err=True)


def show(value: Any) -> None:
    """One JSON value on stdout."""
    out = data()
    out.write(json.dumps(value, ensure_ascii=False, indent=2 if out.isatty() else None) + "\n")
    with suppress(BrokenPipeError):
        out.flush()


def show_entry(entry: Mapping[str, Any], as_json: bool) -> None:
    """One object: as JSON, or a line for each of its values that is there."""
    if as_json:
        show(entry)
        return
    width = max(map(len, entry), default=0) + 2
    for name, value in entry.items():
        if value not in (None, [], {}, ""):
            typer.echo(f"{name:{width}}{printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}")


def printable(text: str) -> str:
    """Text from strangers without terminal escapes, line breaks or look-alike control characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def read_input(text: str, what: str = "--input") -> Json:
    """`JSON`, `@FILE` or `@-` (stdin) as a value; InputError naming what is wrong."""
    from tradeskill.signing import parse_json

    if text == "@-":
        return parse_json(sys.stdin.buffer.read(1 << 20), f"{what} (stdin)")
    if text.startswith("@"):
        try:
            return parse_json(Path(text[1:]).read_bytes(), f"{what} (file {text[1:]})")
        except OSError as error:
            raise InputError(f"{what}: file {text[1:]} cannot be read: {error.strerror}") from error
    return parse_json(text, what)
