"""The README's three terminals as real processes: a dev ledger, profiles in homes of their own, a seller at work. Nothing outlives the session."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from unittest import mock

from tradeskill.faces.cli import run

PATIENCE = 60.0  # seconds; a bound for a machine that is busy, not a duration that anything takes
PASSWORD = "correct horse"

SHOUT = {
    "name": "shout",
    "title": "Shouting",
    "tags": ["text"],
    "price": "0.001 XNO",
    "input": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}, "additionalProperties": False},
    "trusted": True,
    "run": [sys.executable, "-I", "-c", "import json, sys; print(json.load(sys.stdin)['text'].upper())"],
    "pure": True,
    "capacity": {"jobs": 50, "per_buyer": 50},
}


def shout(name: str, **changes: Any) -> dict[str, Any]:
    """The same work under a name, and only that name, of its own: all sellers of a stage share one market."""
    return {**SHOUT, "name": name, "title": name.capitalize(), "tags": [], **changes}


ADVICE = {**{name: SHOUT[name] for name in ("price", "input", "capacity")}, "name": "advice", "title": "Advice, by hand", "tags": ["talk"]}


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """All of stdout as one JSON value."""
        return json.loads(self.out)

    def ok(self) -> Done:
        assert self.code == 0, f"{' '.join(self.arguments)}: exit {self.code}\n{self.out}\n{self.err}"
        return self

    def failed(self, code: int, *words: str) -> str:
        """The one line that it said on stderr, which holds `words`; no traceback."""
        assert self.code == code, f"{' '.join(self.arguments)}: exit {self.code}, not {code}\n{self.out}\n{self.err}"
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert [word for word in words if word not in lines[0]] == [], lines[0]
        return lines[0]


@dataclass
class Home:
    """One profile's folder, and commands run as its owner."""

    path: Path
    environment: dict[str, str]

    def run(self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> Done:
        """The command in this process: the same entry, the same exit, without the half second that Python and its imports take to start."""
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), io.StringIO()
        typed = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
        with (
            mock.patch.dict(os.environ, {**self.environment, **(environment or {})}, clear=True),
            mock.patch.object(sys, "stdin", typed),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                run(arguments)
                code: Any = None
            except SystemExit as ended:
                code = ended.code
        assert isinstance(code, int), f"{arguments} ended without a code: {code!r}"
        return Done(arguments, code, out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]  # the BytesIO made above

    def process(self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None, **options: Any) -> Done:
        """The command as a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "tradeskill", *arguments],
            input=stdin,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            **options,
        )
        return Done(arguments, done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str) -> Any:
        return self.run(*arguments, "--json").ok().json

    @contextlib.contextmanager
    def selling(self, *arguments: str) -> Iterator[Worker]:
        """`tradeskill sell` until the block ends; then it is killed, unless it was asked to end before."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tradeskill", "sell", *arguments, "--json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            yield Worker(process, _line(process))
        finally:
            process.kill()
            process.communicate(timeout=PATIENCE)


@dataclass(frozen=True)
class Worker:
    process: subprocess.Popen[str]
    ready: dict[str, Any]

    def ended(self, code: int = 0) -> dict[str, Any]:
        """What it printed last, once it ended by itself or by a signal sent before."""
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == code, err
        return dict(json.loads(out.splitlines()[-1]))


@dataclass
class Stage:
    folder: Path
    ledger: subprocess.Popen[str]
    rpc: str
    ws: str
    homes: dict[str, Home] = field(default_factory=dict)

    def profile(self, name: str, *options: str) -> Home:
        """A home with a profile on this stage's ledger and market; the same name again gives the same."""
        if name not in self.homes:
            home = self.home(name)
            home.process("init", "--non-interactive", "--rpc", self.rpc, "--ws", self.ws, "--market", str(self.folder / "market.db"), *options).ok()
            self.homes[name] = home
        return self.homes[name]

    def home(self, name: str) -> Home:
        """A home without a profile yet."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TRADESKILL_")}
        environment |= {"TRADESKILL_HOME": str(self.folder / name), "TRADESKILL_PASSWORD_FILE": str(self.password_file(PASSWORD))}
        return Home(self.folder / name, environment)

    def password_file(self, password: str, name: str = "password") -> Path:
        path = self.folder / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(password + "\n")
        return path

    def funded(self, name: str, amount: str = "10 XNO") -> Home:
        """A profile with money that it can spend."""
        new, home = name not in self.homes, self.profile(name)
        if new:
            address = home.json("wallet", "address")["address"]
            home.run("devnet", "fund", address, amount, "--rpc", self.rpc).ok()
            home.json("wallet", "receive")
        return home

    def config(self, name: str, offers: Sequence[Mapping[str, Any]], **keys: Any) -> str:
        """A file for `sell CONFIG`."""
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({"network": "dev", "offers": list(offers), **keys}))  # JSON is YAML
        return str(path)


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tradeskill", "devnet", "--rpc-port", "0", "--ws-port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = _line(process)
        yield Stage(folder, process, ready["rpc"], ready["ws"])
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        stream: IO[str] | None = process.stderr
        raise AssertionError(f"it ended before it was ready: {stream.read() if stream is not None else ''}")
    return dict(json.loads(line))
