"""An agent pays the start of the program on every call: what may be imported for which answer, and what it may take, as ratios in one run."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from tests.cli_stage import PASSWORD, PATIENCE, SHOUT, Home
from tradeskill.profile import create_profile
from tradeskill.world import World

ROUNDS = 7
TYPER_PROGRAM = '''import typer

app = typer.Typer()


@app.command()
def main(name: str = "world", loud: bool = False) -> None:
    """Greet."""
    print(f"hello {name}")


app()
'''
# Only a command that needs one of these may pay for it.
HEAVY = {
    "nanopy",
    "httpx",
    "httpcore",
    "websockets",
    "jsonschema",
    "sqlite_utils",
    "rich",
    "segno",
    "tenacity",
    "argon2",
    "requests",
    "mcp",
    "tradeskill_wallet",
    "tradeskill.journal",
    "tradeskill.buyer",
    "tradeskill.seller",
    "tradeskill.faces.cli.selling",
    "tradeskill.faces.cli.home",
    "platformdirs",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A buyer's profile, and a market file with an offer on it."""
    folder = tmp_path_factory.mktemp("start")
    market = {"plugin": "embedded", "path": str(folder / "market.db")}
    wallet = {"plugin": "nano", "rpc": ["http://127.0.0.1:1"]}
    create_profile(folder / "home", {"network": "dev", "market": market, "wallets": [wallet]}, "dev", PASSWORD, World())
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRADESKILL_")}
    made = Home(folder / "home", {**environment, "TRADESKILL_HOME": str(folder / "home"), "TRADESKILL_PASSWORD_FILE": str(folder / "password")})
    (folder / "offers.yaml").write_text(json.dumps({"network": "dev", "offers": [SHOUT]}))
    made.run("call", "seller.register_offer", "--config", str(folder / "offers.yaml")).ok()
    return made


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Of the processor: what else the machine does at the time hardly counts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=PATIENCE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ratio(ours: list[str], theirs: list[str], environment: dict[str, str]) -> float:
    """Medians of rounds in turn, after one that nobody counts, so that a busy machine slows both alike."""
    taken: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS + 1):
        taken["theirs"].append(seconds(theirs, environment))
        taken["ours"].append(seconds(ours, environment))
    return median(taken["ours"][1:]) / median(taken["theirs"][1:])


def loaded(arguments: list[str], home: Home) -> set[str]:
    """Modules in the process when the command ended."""
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        f"sys.argv = ['tradeskill', *{arguments!r}]\n"
        "from tradeskill.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=home.environment, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_version_is_told_before_typer_is_imported(home: Home) -> None:
    modules = loaded(["--version"], home)
    assert modules & {"typer", "pydantic", "asyncio", "importlib.metadata"} == set()
    done = home.process("--version").ok()
    assert done.out.startswith("tradeskill 0.")
    assert home.run("--version").ok().out == done.out


def test_the_version_takes_less_than_three_times_an_empty_program(home: Home) -> None:
    script = str(Path(sys.executable).parent / "tradeskill")
    assert ratio([script, "--version"], [sys.executable, "-c", "pass"], home.environment) < 3


def test_a_search_loads_nothing_heavy(home: Home) -> None:
    assert home.json("offers")[0]["title"] == "Shouting"
    modules = loaded(["offers", "--json"], home)
    assert {name for name in modules if name in HEAVY or name.partition(".")[0] in HEAVY} == set()


@pytest.mark.parametrize("arguments", [["--help"], ["hire", "--help"], ["earnings", "--help"]])
def test_a_help_loads_no_market_and_no_wallet(home: Home, arguments: list[str]) -> None:
    modules = loaded(arguments, home)
    assert {name for name in modules if name.partition(".")[0] in ("nanopy", "httpx", "websockets", "sqlite3", "nacl", "yaml", "asyncio")} == set()


def test_a_search_takes_less_than_one_and_a_half_times_a_program_of_one_command(home: Home, tmp_path: Path) -> None:
    program = tmp_path / "greet.py"
    program.write_text(TYPER_PROGRAM)
    script = str(Path(sys.executable).parent / "tradeskill")
    # with nothing compiled beforehand ours would be read as text each time, which theirs (installed) is not
    environment = {**home.environment, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    tries = (ratio([script, "offers", "--json"], [sys.executable, str(program)], environment) for _ in range(3))  # a core shared with others is noisy
    assert any(found < 1.5 for found in tries)


def test_garbage_is_collected_again_once_a_command_runs(home: Home) -> None:
    code = (
        "import gc, typer\n"
        "from tradeskill.faces.cli import app\n"
        "gc.disable()\n"
        "typer.main.get_command(app)(['skills'], standalone_mode=False)\n"
        "assert gc.isenabled()\n"
    )
    subprocess.run([sys.executable, "-c", code], env=home.environment, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
