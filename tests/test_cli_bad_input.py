"""One table of what people and scripts get wrong, each with the code and the words that answer it: one line, no traceback, nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import PASSWORD, PATIENCE, SHOUT, Done, Home, Stage, shout
from tradeskill.errors import StorageError
from tradeskill.faces.results import save_result
from tradeskill.profile import Profile

NOBODY = "http://127.0.0.1:1"  # a port that nothing listens on
GOOD = "nano_3e3j5tkog48pnny9dmfzj1r16pg8t1e76dz5tmac6iq689wyjfpiij4txtdo"
BAD_CHECKSUM = GOOD[:-1] + ("1" if GOOD[-1] != "1" else "3")


class Shelf:
    """A buyer's and a seller's profile on a node that does not answer; the seller's offer is on the market."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        password = folder / "password"
        password.write_text(PASSWORD + "\n")
        password.chmod(0o600)
        self.password = password
        self.seller, self.buyer = self.home("seller"), self.home("buyer")
        for home in (self.seller, self.buyer):
            home.run("init", "--non-interactive", "--rpc", NOBODY, "--ws", "", "--market", str(folder / "market.db")).ok()
        self.offers = self.file("offers.yaml", json.dumps({"network": "dev", "offers": [SHOUT]}))
        asyncio.run(self._publish())

    def home(self, name: str) -> Home:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TRADESKILL_")}
        return Home(self.folder / name, {**environment, "TRADESKILL_HOME": str(self.folder / name), "TRADESKILL_PASSWORD_FILE": str(self.password)})

    def file(self, name: str, text: str, mode: int = 0o600) -> str:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def copy(self, source: Home, name: str) -> Home:
        shutil.copytree(source.path, self.folder / name)
        return self.home(name)

    async def _publish(self) -> None:
        async with Profile.load(self.seller.path, lambda: PASSWORD, overlay=Path(self.offers)) as profile:
            await (await profile.seller()).publish()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


def hire(*options: str) -> tuple[str, ...]:
    return ("hire", "shout", "--yes", *options)


WRONG: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    # what was typed
    "no such command": (("sell-it",), 2, ("sell-it", "sell", "--help")),
    "no such option": (("jobs", "--stat", "x"), 2, ("--stat", "--state", "tradeskill jobs --help")),
    "argument missing": (("hire",), 2, ("offer", "tradeskill hire --help")),
    "option without its value": (("hire", "x", "--input"), 2, ("--input",)),
    "not a number": (("jobs", "--limit", "many"), 2, ("--limit", "many")),
    "out of range": (("demo", "--jobs", "0"), 2, ("--jobs", "'0'")),
    "unknown choice": (("demo", "--tamper", "everything"), 2, ("--tamper", "everything", "receipt")),
    "unknown network": (("init", "--network", "main"), 2, ("main", "dev, test, live")),
    "live by accident": (("init", "--network", "live"), 2, ("--live",)),
    "profile exists": (("init", "--non-interactive"), 2, ("holds a profile", "TRADESKILL_HOME")),
    "not a day": (("earnings", "--since", "01.02.2026"), 2, ("01.02.2026", "YYYY-MM-DD")),
    "no such day": (("earnings", "--until", "2026-02-30"), 2, ("2026-02-30",)),
    "not a key": (("identity", "pin", "alice", "--label", "x"), 2, ("alice", "64")),
    "not a label": (("identity", "pin", "ab" * 32, "--label", "\x1b[31m"), 2, ("label",)),
    # amounts and addresses
    **{
        f"max {text!r}": (hire("--input", '{"text": "x"}', "--max", text), 2, ("amount", "XNO"))
        for text in ("1e3 XNO", "5", " 5 XNO", "5 XNO ", "１２ XNO", "-1 XNO", "+1 XNO", "1,5 XNO", "1_0 XNO", ".5 XNO", "5 BTC", "5 xno", "5  XNO")
    },
    "max above 2^128 - 1": (hire("--input", '{"text": "x"}', "--max", f"{2**128} raw"), 2, ("2^128",)),
    "max too fine": (hire("--input", '{"text": "x"}', "--max", "0.0000000000000000000000000000001 XNO"), 2, ("30 decimal places",)),
    **{f"send {text!r}": (("wallet", "send", GOOD, text, "--yes"), 2, ("amount",)) for text in ("1e3", " 5", "１２", str(2**128), "0 raw", "5 sat")},
    "send minus": (("wallet", "send", "--yes", "--", GOOD, "-1"), 2, ("amount", "-1")),
    "bad checksum": (("wallet", "send", BAD_CHECKSUM, "1 raw", "--yes"), 2, (BAD_CHECKSUM, "checksum")),
    "bad checksum to sweep to": (("wallet", "sweep", "--to", BAD_CHECKSUM, "--yes"), 2, (BAD_CHECKSUM,)),
    "not an address": (("wallet", "send", "bob", "1 raw", "--yes"), 2, ("bob", "nano_")),
    "the burn address": (("wallet", "send", "nano_1111111111111111111111111111111111111111111111111111hifc8npp", "1 raw", "--yes"), 2, ("burn",)),
    "bad checksum to fund": (("devnet", "fund", BAD_CHECKSUM, "1 XNO", "--rpc", NOBODY), 2, (BAD_CHECKSUM,)),
    # inputs
    "not JSON": (hire("--input", "{text: x}"), 2, ("--input", "JSON")),
    "duplicate keys": (hire("--input", '{"text": "x", "text": "y"}'), 2, ("duplicate key 'text'",)),
    "not a JSON number": (hire("--input", '{"text": NaN}'), 2, ("--input", "NaN")),
    "half a surrogate": (hire("--input", '{"text": "\\ud800"}'), 2, ("--input",)),
    "too deep": (hire("--input", "[" * 100_000), 2, ("--input",)),
    "of the wrong type": (hire("--input", '{"text": 5}'), 2, ("input.text", "5", "string")),
    "with a key too many": (hire("--input", '{"text": "x", "colour": "red"}'), 2, ("colour",)),
    "with a key too few": (hire("--input", "{}"), 2, ("text",)),
    "from no file": (hire("--input", "@nowhere.json"), 2, ("nowhere.json", "No such file")),
    "arguments that are no object": (("call", "buyer.search", "[]"), 2, ("JSON object",)),
    "argument unknown": (("call", "buyer.search", '{"words": "x"}'), 2, ("words", "query")),
    "argument of the wrong type": (("call", "buyer.search", '{"limit": "10"}'), 2, ("limit",)),
    "not a receipt": (("receipt", "verify", __file__), 2, (Path(__file__).name, "JSON")),
    # what is not there
    "no such offer": (("hire", "nothing", "--yes", "--input", "{}"), 3, ("nothing", "tradeskill offers")),
    "no such job": (("job", "nothing"), 3, ("nothing", "tradeskill jobs")),
    "no such receipt": (("receipt", "show", "nothing"), 3, ("nothing",)),
    "no such receipt file": (("receipt", "verify", "nothing.json"), 3, ("nothing.json",)),
    "no such payment": (("review", "refund", "nothing"), 3, ("nothing",)),
    "no such tool": (("call", "buyer.steal"), 3, ("buyer.steal", "buyer.hire")),
    "no such skill": (("call", "thief.steal"), 3, ("thief",)),
    "no such backup": (("restore", "nothing.tar.gz"), 2, ("not empty", "TRADESKILL_HOME")),
    "no such configuration": (("sell", "nothing.yaml"), 2, ("nothing.yaml",)),
    "nothing to sell": (("sell",), 2, ("offers", "config.yaml")),
    # what may not be
    "a seed into a pipe": (("wallet", "backup", "--show-seed"), 5, ("--to",)),
    "a seed without being asked for": (("wallet", "backup"), 5, ("--show-seed",)),
    "a backup over a file": (("backup", __file__), 2, ("exists", "new file")),
    # what cannot be reached
    "balance without a node": (("wallet", "balance"), 6, (NOBODY, "running")),
    "send without a node": (("wallet", "send", GOOD, "1 raw", "--yes"), 6, (NOBODY,)),
    "hire without a node": (hire("--input", '{"text": "x"}'), 6, (NOBODY,)),
    "scan without a node": (("wallet", "scan"), 6, (NOBODY,)),
    "fund without a node": (("devnet", "fund", GOOD, "1 XNO", "--rpc", NOBODY), 6, (NOBODY, "tradeskill devnet")),
}


def contents(home: Home) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file() and path.suffix not in (".db-wal", ".db-shm") and path.suffix != ".db"}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_wish_is_answered_in_one_line(shelf: Shelf, name: str) -> None:
    arguments, code, words = WRONG[name]
    before = contents(shelf.buyer)
    shelf.buyer.run(*arguments).failed(code, *words)
    assert contents(shelf.buyer) == before


@pytest.mark.parametrize("name", ["no such option", "max '5'", "not JSON", "no such job", "balance without a node"])
def test_with_json_the_same_answer_is_an_object_on_stdout(shelf: Shelf, name: str) -> None:
    arguments, code, words = WRONG[name]
    done = shelf.buyer.run(*arguments, "--json")
    line = done.failed(code, *words)
    assert done.json["error"]["exit_code"] == code
    assert line == f"error: {done.json['error']['message']}"


def test_every_code_that_answers_is_in_the_documented_table() -> None:
    page = (Path(__file__).parent.parent / "docs" / "errors.md").read_text("utf-8")
    documented = {int(cells[2]) for line in page.splitlines() if line.startswith("| `") and (cells := line.split("|"))}
    answered = {code for _, code, _ in WRONG.values()} | {case[2] for case in (*CONFIGS.values(), *ENVIRONMENTS.values())} | {7}
    assert answered <= documented
    assert {2, 3, 5, 6, 7, 8, 10} <= answered


def test_nothing_was_bought_by_all_that(shelf: Shelf) -> None:
    assert shelf.buyer.json("jobs") == {"bought": [], "sold": []}


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], str], tuple[str, ...], int, tuple[str, ...]]] = {
    "not YAML": (lambda c: "network: dev\nmarket: {plugin: embedded\n", ("jobs",), 2, ("config.yaml", "line 3")),
    "a tab": (lambda c: "network: dev\n\tmarket: x\n", ("jobs",), 2, ("config.yaml", "line 2")),
    "unknown key": (lambda c: json.dumps({**c, "walets": []}), ("jobs",), 2, ("config.yaml", "walets", "'wallets'")),
    "a key twice": (lambda c: "network: dev\nnetwork: dev\n", ("jobs",), 2, ("config.yaml", "line 2", "'network'")),
    "a secret": (lambda c: json.dumps({**c, "password": "hunter2"}), ("jobs",), 2, ("config.yaml", "password", "--password-file")),
    "a number for an amount": (lambda c: json.dumps({**c, "buyer": {"cap_total": 5}}), ("jobs",), 2, ("buyer.cap_total", "5", "XNO")),
    "unknown market": (lambda c: json.dumps({**c, "market": {"plugin": "bazaar"}}), ("offers",), 3, ("market", "'bazaar'")),
    "a wallet as the market": (lambda c: json.dumps({**c, "market": {"plugin": "nano"}}), ("offers",), 3, ("'nano'", "wallet")),
    "unknown wallet": (lambda c: json.dumps({**c, "wallets": [{"plugin": "gold"}]}), ("wallet", "balance"), 3, ("'gold'",)),
    "a wallet without a node": (lambda c: json.dumps({**c, "wallets": [{"plugin": "nano"}]}), ("wallet", "balance"), 2, ("rpc",)),
    "a node that is no URL": (lambda c: json.dumps({**c, "wallets": [{"plugin": "nano", "rpc": "localhost"}]}), ("wallet", "balance"), 2, ("localhost",)),
    "no wallet": (lambda c: json.dumps({**c, "wallets": []}), ("wallet", "balance"), 3, ("wallets", "config.yaml")),
    "unknown backend": (
        lambda c: json.dumps({**c, "offers": [{**SHOUT, "backend": "abacus"}]}),
        ("sell", "--exit-when-idle", "1"),
        3,
        ("backend", "'abacus'"),
    ),
    "an untrusted program": (
        lambda c: json.dumps({**c, "offers": [{**SHOUT, "backend": "process", "trusted": False}]}),
        ("sell",),
        2,
        ("offers[0].trusted", "process"),
    ),
    "a price of nothing": (lambda c: json.dumps({**c, "offers": [{**SHOUT, "price": "0 XNO"}]}), ("sell",), 2, ("offers[0].price",)),
    "a foreign network": (lambda c: json.dumps({**c, "network": "test"}), ("jobs",), 8, ("'dev'", "'test'")),
    "a market in no folder": (lambda c: json.dumps({**c, "market": {"plugin": "embedded", "path": "/proc/none/market.db"}}), ("offers",), 10, ("/proc/none",)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_wrong_configuration_names_file_key_and_value(shelf: Shelf, tmp_path: Path, name: str) -> None:
    write, arguments, code, words = CONFIGS[name]
    home = shelf.copy(shelf.seller, f"config-{list(CONFIGS).index(name)}")
    good = {"network": "dev", "market": {"plugin": "embedded", "path": str(shelf.folder / "market.db")}, "wallets": [{"plugin": "nano", "rpc": [NOBODY]}]}
    (home.path / "config.yaml").write_text(write(good))
    home.run("jobs")
    assert "hunter2" not in home.run(*arguments).failed(code, *words)


SECRETS: dict[str, tuple[Callable[[Shelf, Home], dict[str, str]], tuple[str, ...]]] = {
    "wrong password": (lambda s, h: {"TRADESKILL_PASSWORD_FILE": s.file("wrong", "guess\n")}, ("password",)),
    "empty password file": (lambda s, h: {"TRADESKILL_PASSWORD_FILE": s.file("empty", "")}, ("empty", "first line")),
    "blank first line": (lambda s, h: {"TRADESKILL_PASSWORD_FILE": s.file("blank", "\npw\n")}, ("blank", "first line")),
    "no such password file": (lambda s, h: {"TRADESKILL_PASSWORD_FILE": "/nowhere/pw"}, ("/nowhere/pw", "No such file")),
    "a folder as password file": (lambda s, h: {"TRADESKILL_PASSWORD_FILE": str(s.folder)}, ("Is a directory",)),
    "readable seed": (lambda s, h: _chmod(h.path / "wallets/nano/seed.json", 0o644), ("seed.json", "chmod 600")),
    "truncated seed": (lambda s, h: _cut(h.path / "wallets/nano/seed.json"), ("seed.json", "backup")),
    "no seed": (lambda s, h: _gone(h.path / "wallets/nano/seed.json"), ("seed.json", "restore")),
    "readable key": (lambda s, h: _chmod(h.path / "identity.json", 0o640), ("identity.json", "chmod 600")),
    "truncated key": (lambda s, h: _cut(h.path / "identity.json"), ("identity.json", "backup")),
    "no key": (lambda s, h: _gone(h.path / "identity.json"), ("identity.json", "backup")),
    "no public key": (lambda s, h: _gone(h.path / "identity.pub"), ("identity.pub", "backup")),
}


def _chmod(path: Path, mode: int) -> dict[str, str]:
    path.chmod(mode)
    return {}


def _cut(path: Path) -> dict[str, str]:
    path.write_bytes(path.read_bytes()[:100])
    return {}


def _gone(path: Path) -> dict[str, str]:
    path.unlink()
    return {}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_cannot_be_used_is_named_and_left_as_it_is(shelf: Shelf, name: str) -> None:
    spoil, words = SECRETS[name]
    home = shelf.copy(shelf.buyer, f"secret-{list(SECRETS).index(name)}")
    (home.path / "wallets/nano/wallet.db").unlink()  # so that the seed is needed to open the wallet; the key is needed to sign
    environment = spoil(shelf, home)
    before = contents(home)
    found = [home.run("call", "seller.register_offer", "--config", shelf.offers, environment=environment) for _ in range(2)]
    assert found[0].failed(7, *words) == found[1].failed(7, *words)
    assert contents(home) == before


ENVIRONMENTS: dict[str, tuple[dict[str, str], tuple[str, ...], int, tuple[str, ...]]] = {
    "another network is meant": ({"TRADESKILL_NETWORK": "test"}, ("jobs",), 8, ("'dev'", "'test'")),
    "no network of that name": ({"TRADESKILL_NETWORK": "main"}, ("jobs",), 2, ("TRADESKILL_NETWORK", "main")),
    "no profile": ({"TRADESKILL_HOME": "/nowhere/home"}, ("jobs",), 3, ("/nowhere/home", "tradeskill init")),
    "an empty home": ({"TRADESKILL_HOME": ""}, ("jobs",), 2, ("TRADESKILL_HOME",)),
    "a misspelled variable": ({"TRADESKILL_PASWORD_FILE": "x"}, ("jobs",), 2, ("TRADESKILL_PASWORD_FILE", "TRADESKILL_PASSWORD_FILE")),
    "a crash at no label": ({"TRADESKILL_CRASH_AT": "before:lunch"}, ("jobs",), 2, ("before:lunch", "seller.lock")),
    "a home where nothing can be": ({"TRADESKILL_HOME": "/proc/none/home"}, ("init", "--non-interactive"), 10, ("/proc/none/home",)),
    "no backup there": ({"TRADESKILL_HOME": "/nowhere/home"}, ("restore", "nothing.tar.gz"), 3, ("nothing.tar.gz",)),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_wrong_environment_is_answered_in_one_line(shelf: Shelf, name: str) -> None:
    environment, arguments, code, words = ENVIRONMENTS[name]
    shelf.buyer.run(*arguments, environment=environment).failed(code, *words)


def test_init_without_a_terminal_and_a_password_makes_nothing(shelf: Shelf) -> None:
    home = shelf.home("unmade")
    del home.environment["TRADESKILL_PASSWORD_FILE"]
    home.run("init", "--non-interactive").failed(7, "--password-file", "TRADESKILL_PASSWORD_FILE")
    home.run("init").failed(7, "--password-file")
    assert not home.path.exists()


def test_a_port_in_use_is_named(shelf: Shelf) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        shelf.buyer.process("devnet", "--rpc-port", port, "--ws-port", "0").failed(2, port, "port")


def test_a_node_of_another_network_stops_what_would_move_money(shelf: Shelf, stage: Stage) -> None:
    home = shelf.home("on-test")
    home.run("init", "--non-interactive", "--network", "test", "--rpc", stage.rpc, "--ws", "", "--market", str(shelf.folder / "test.db"))
    home.run("wallet", "balance").failed(8, stage.rpc, "dev", "test")


# full disks


def limited(home: Home, size: int, *arguments: str) -> Done:
    """The command in a process whose files may not grow past `size` bytes: as with a full disk, the write fails half-way."""
    done = subprocess.run(
        [sys.executable, "-m", "tradeskill", *arguments],
        env={**home.environment, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size)),
    )
    return Done(arguments, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB where root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False).returncode != 0:
        yield folder
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True, capture_output=True)


def filled(folder: Path) -> Path:
    """Take all that is left of the disk."""
    path = folder / "filler"
    with path.open("wb") as file:
        try:
            while os.fstatvfs(file.fileno()).f_bavail and file.tell() < 2**21:
                file.write(bytes(4096))
                file.flush()
        except OSError:
            pass
    return path


def test_init_on_a_full_disk_leaves_nothing_half_made(shelf: Shelf) -> None:
    home = shelf.home("full")
    limited(home, 0, "init", "--non-interactive", "--rpc", NOBODY, "--ws", "").failed(10, "full")
    assert not home.path.exists()
    limited(home, 300, "init", "--non-interactive", "--rpc", NOBODY, "--ws", "").failed(10, "full")
    assert not home.path.exists()


def test_a_backup_that_does_not_fit_is_not_kept(shelf: Shelf) -> None:
    target = shelf.folder / "backup.tar.gz"
    limited(shelf.buyer, 200, "backup", str(target)).failed(10, "backup.tar.gz")
    assert not target.exists()


def test_a_purchase_that_cannot_be_written_down_is_not_made_and_is_made_once_there_is_space(stage: Stage, tiny: Path) -> None:
    rich = stage.funded("buyer")
    home = Home(tiny / "home", {**rich.environment, "TRADESKILL_HOME": str(tiny / "home")})
    if not tiny.is_mount():
        pytest.skip("only root can mount a small disk")
    home.process("init", "--non-interactive", "--rpc", stage.rpc, "--ws", stage.ws, "--market", str(stage.folder / "market.db")).ok()
    address = home.json("wallet", "address")["address"]
    rich.run("wallet", "send", address, "0.01 XNO", "--yes").ok()
    filler = filled(tiny)
    with stage.profile("disk-seller").selling(stage.config("disk", [shout("disk")])):
        wish = ("hire", "disk", "--input", '{"text": "space"}', "--yes", "--max", "0.01 XNO")
        home.process(*wish).failed(10, "space")
        filler.unlink()
        assert home.process(*wish, "--json").ok().json["result"]["text"] == "SPACE\n"
    available = int(home.json("wallet", "balance")["available_raw"])
    assert available == 10**28 - 10**27


def test_a_result_that_does_not_fit_leaves_the_earlier_one_whole(tiny: Path) -> None:
    if not tiny.is_mount():
        pytest.skip("only root can mount a small disk")
    (path,) = save_result(b"x" * 1000, "text/plain", "job", tiny / "out")
    filled(tiny)
    with pytest.raises(StorageError, match="--output"):
        save_result(b"y" * 100_000, "text/plain", "job", tiny / "out")
    assert path.read_bytes() == b"x" * 1000
    assert list((tiny / "out").iterdir()) == [path]
