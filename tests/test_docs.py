"""The pages tell the truth: every block that can run runs, in real processes; every file, command, key and module they name is there.

A fenced block carries a comment above it that says what it is. A block without one fails, so none is skipped silently; those that are not run are listed
below with the reason that the page gives too. One file on purpose: the pages are one promise, and the terminals serve several of its tests.
"""

from __future__ import annotations

import ast
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tradeskill.config import load_config
from tradeskill.configvalues import Place
from tradeskill.faces.cli import COMMANDS
from tradeskill.money import format_amounts
from tradeskill.policy.sealed import parse_policy
from tradeskill.strictyaml import parse_yaml

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SKILL-SPEC.md", "docs/protocol.md", "docs/receipts.md", "docs/plugins.md", "docs/rails.md")
BLOCK = re.compile(r"(?:^<!-- ([^\n]*?) -->\n)?^```([a-z]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PATIENCE = 60.0  # seconds for anything that should take a few

# page, first line -> why nobody runs it here
NOT_RUN = {
    ("README.md", "make demo    # one agent hires another, offline, on an embedded network"): "both set up an environment of their own first; CI runs them",
}


@dataclass(frozen=True)
class Block:
    page: str
    mark: str  # the comment above
    language: str
    text: str

    @property
    def name(self) -> str:
        """What `run: NAME` or `plugin: NAME` names."""
        return re.split(r"[:,] ?", self.mark)[1]

    @property
    def until(self) -> str:
        match = re.search(r'until "(.*)"', self.mark)
        return match.group(1) if match else ""


def blocks(*kinds: str) -> list[Block]:
    found = [Block(page, *match.groups(default="")) for page in PAGES for match in BLOCK.finditer((ROOT / page).read_text("utf-8"))]
    return [block for block in found if not kinds or block.mark.startswith(kinds)]


def block(kind: str, name: str = "") -> Block:
    (found,) = [b for b in blocks(kind) if not name or b.name == name]
    return found


def test_every_block_of_the_pages_says_what_it_is_and_is_looked_at_here() -> None:
    looked_at = ("run: ", "output of: ", "file: ", "yaml: ", "plugin: ", "run with the plugin", "toml: ", "not run: ", "figure")
    assert [(b.page, b.text.splitlines()[0]) for b in blocks() if not b.mark.startswith(looked_at)] == []
    for page in PAGES:
        assert (ROOT / page).read_text("utf-8").count("```") == 2 * len([b for b in blocks() if b.page == page]), page
    assert {b.name for b in blocks("run: ")} == {"setup", "ledger", "seller", "buyer", "afterwards", "python", "agents", "relay", "stall", "customer", "author"}


def test_a_block_that_is_not_run_has_its_reason_here_too() -> None:
    assert {(b.page, b.text.splitlines()[0]): b.mark.removeprefix("not run: ") for b in blocks("not run: ")} == NOT_RUN


def test_a_file_shown_on_a_page_is_that_file() -> None:
    for shown in blocks("file: "):
        assert shown.text == (ROOT / shown.name).read_text("utf-8"), shown.name
    assert [b.name for b in blocks("file: ")] == ["examples/buyer.py"]


def test_the_ten_line_buyer_has_ten_lines() -> None:
    lines = (ROOT / "examples" / "buyer.py").read_text("utf-8").splitlines()
    code = [line for line in lines if line.strip() and not line.startswith(("import ", "from ", '"""'))]
    assert len(code) <= 10


def test_the_configuration_shown_is_one(tmp_path: Path) -> None:
    readme, rails = blocks("yaml: loaded as a configuration")
    (tmp_path / "rails.yaml").write_text(rails.text)
    (offer,) = load_config(tmp_path / "rails.yaml").offers
    assert format_amounts(offer.price) == "0.001 XNO or 21 sat"
    (tmp_path / "config.yaml").write_text(readme.text)
    config = load_config(tmp_path / "config.yaml")
    assert (config.market.plugin, config.market.settings) == ("embedded", {"path": "market.db"})
    assert format_amounts(config.buyer.cap_total or ()) == "1 XNO"
    policy = parse_policy(parse_yaml(block("yaml: loaded as a policy").text, "policy.yaml"), Place(tmp_path / "policy.yaml")).policy
    assert policy.rails == ("cashu", "nano")


def masked(text: str) -> list[str]:
    """The lines without what differs from run to run; in one order, because some things happen at once."""
    text = re.sub(r"nano_[13][13456789abcdefghijkmnopqrstuwxyz]{59}", "ADDRESS", text)
    text = re.sub(r"\b[0-9a-fA-F]{64}\b", "HASH", text)
    text = re.sub(r"\b[0-9a-f]{16}…", "KEY", text)
    text = re.sub(r":[0-9]+$", ":PORT", text, flags=re.MULTILINE)
    text = re.sub(r"^ *[0-9.]+ (m?s) ", r"TIME \1", text, flags=re.MULTILINE)
    text = re.sub(r"jobs run (?:in bubblewrap|as plain processes): .*", "jobs run as they can be here", text)
    return sorted(line.strip() for line in text.strip().splitlines())


def test_the_output_shown_is_what_the_demo_says() -> None:
    shown = block("output of: ")
    command = [sys.executable, "-m", *shown.name.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert masked(done.stderr) == masked(shown.text)


def test_a_market_that_lies_about_the_quote_gets_nothing_out_of_the_demo() -> None:
    command = [sys.executable, "-m", "tradeskill", "demo", "--tamper", "quote", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert (found["status"], found["payment_hash"], found["seller_received_raw"]) == ("abandoned", None, "0")


# The three terminals, in real processes


class Terminal:
    """A bash in a session of its own; `say` reads what it printed, `end` leaves nothing of it behind."""

    def __init__(self, script: str, folder: Path, environment: dict[str, str]) -> None:
        command = ["bash", "-euo", "pipefail", "-c", script]
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.printed = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.decode("utf-8", "replace"))
        self._lines.put(None)

    def read_until(self, words: str) -> str:
        """All that was printed, once `words` were among it; AssertionError when it ends or falls silent before."""
        while words not in self.printed:
            line = self._next()
            assert line is not None, f"it ended without saying {words!r}:\n{self.printed}"
            self.printed += line
        return self.printed

    def read_all(self) -> str:
        while (line := self._next()) is not None:
            self.printed += line
        return self.printed

    def _next(self) -> str | None:
        try:
            return self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"it says nothing more:\n{self.printed}") from None

    def interrupt(self) -> int:
        """Ctrl-C, and the exit code."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(PATIENCE)

    def code(self) -> int:
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                continue
        self._reader.join(5)
        assert self._process.stdout is not None
        if not self._reader.is_alive():
            self._process.stdout.close()


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass
class Trade:
    """The README's terminals, played once. The only change to its blocks is other ports, in the ways listed in `elsewhere`."""

    folder: Path
    environment: dict[str, str]
    ports: tuple[int, int, int, int]
    said: dict[str, str]  # what each block printed
    seller_code: int

    def where(self) -> dict[str, Any]:
        """In the buyer's terminal."""
        environment = {**self.environment, "TRADESKILL_HOME": "./buyer"}
        return {"cwd": self.folder, "env": environment, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": PATIENCE}

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "tradeskill", *words], **self.where(), check=False)


def elsewhere(text: str, rpc: int, ws: int, web: int, relay: int) -> str:
    """The block on ports that are free here instead of the ones that a reader's machine has free."""
    text = re.sub(r"^tradeskill devnet$", f"tradeskill devnet --rpc-port {rpc} --ws-port {ws}", text, flags=re.MULTILINE)
    text = re.sub(r"^tradeskill relay serve$", f"tradeskill relay serve --port {relay}", text, flags=re.MULTILINE)
    text = text.replace("tradeskill init ", f"tradeskill init --rpc http://127.0.0.1:{rpc} --ws ws://127.0.0.1:{ws} ")
    text = text.replace('"1 XNO"\n', f'"1 XNO" --rpc http://127.0.0.1:{rpc}\n')
    return text.replace("8000", str(web)).replace("8402", str(relay)).replace("127.0.0.1:7076", f"127.0.0.1:{rpc}").replace("127.0.0.1:7078", f"127.0.0.1:{ws}")


def environment_here() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRADESKILL_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def trade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trade]:
    start = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", start / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    ports = rpc, ws, web, relay = free_ports(4)
    environment = environment_here()
    subprocess.run(["bash", "-euc", block("run: ", "setup").text], cwd=start, env=environment, check=True, timeout=PATIENCE)
    folder = start / "try"
    (folder / "seller.yaml").write_text(elsewhere((folder / "seller.yaml").read_text("utf-8"), *ports))
    own = plugin_files(folder / "plugins")
    environment["PYTHONPATH"] = str(own)

    with ExitStack() as stack:

        def terminal(*names: str, more: str = "") -> Terminal:
            script = "".join(f"echo '== {name}'\n{elsewhere(block('run: ', name).text, *ports)}" for name in names) + more
            opened = Terminal(script, folder, environment)
            stack.callback(opened.end)
            return opened

        terminal("ledger").read_until(block("run: ", "ledger").until)
        seller = terminal("seller")
        seller.read_until(block("run: ", "seller").until)
        for name in ("relay", "stall"):
            terminal(name).read_until(block("run: ", name).until)
        with_plugin = "echo '== plugin'\n" + block("run with the plugin").text
        with_plugin += "echo '== customer'\n" + elsewhere(block("run: ", "customer").text, *ports)
        buyer = terminal("buyer", "afterwards", "python", "agents", more=with_plugin + "echo '== end'\nkill %1\n")
        said = buyer.read_until("== end\n")
        assert buyer.code() == 0
        code = seller.interrupt()
        parts = re.split(r"^== ([a-z]+)\n", said, flags=re.MULTILINE)
        told = dict(zip(parts[1::2], parts[2::2], strict=True))
        yield Trade(folder, environment, (rpc, ws, web, relay), {**told, "seller": seller.read_all()}, code)


def test_the_buyer_gets_its_markdown(trade: Trade) -> None:
    said = trade.said["buyer"]
    assert "# Reading a rain gauge over a serial line" in said
    for state in ("quoted", "verified", "reserved", "accepted", "paid", "received"):
        assert f"  {state}\n" in said
    (listed,) = re.findall(r"^[0-9a-f-]{36}.*$", said, re.MULTILINE)
    assert "0.001 XNO" in listed
    assert "Web page to Markdown" in listed


def test_the_buyer_at_the_relay_gets_its_markdown_too_and_nothing_is_wrong(trade: Trade) -> None:
    said = trade.said["customer"]
    assert "# Die Brücke" in said or "Brücke" in said
    assert "  received\n" in said
    assert re.search(r"^ok   relay  .* is one of ours ", said, re.MULTILINE)
    assert "FAIL" not in said


def test_afterwards_the_commands_say_what_happened(trade: Trade) -> None:
    said = trade.said["afterwards"]
    assert "received" in said
    assert "0.999 XNO" in said
    assert "FAIL" not in said
    assert "web-extract: 1 jobs, 0.001 XNO" in said


def test_the_buyer_in_python_prints_its_page(trade: Trade) -> None:
    assert "# 湯守の一日" in trade.said["python"]


def test_an_agent_sees_the_tools_and_hires_with_them(trade: Trade) -> None:
    said = trade.said["agents"]
    assert "buyer.hire(offer_id, input, max, label, wait)" in said
    assert "  received\n# " in said  # what the agent over MCP was told, and got
    hired = json.loads(said.splitlines()[-1])
    assert (hired["state"], hired["money"]) == ("received", "spent")
    assert hired["next"] == "buyer.result"


def test_a_skill_of_a_third_party_is_called_like_ours(trade: Trade) -> None:
    assert json.loads(trade.said["plugin"])["price"] == "0.001 XNO"
    assert "bargain.cheapest(tag)" in trade.said["agents"]


def test_ctrl_c_ends_the_seller_in_good_order(trade: Trade) -> None:
    assert trade.seller_code == 0
    assert "stopped; jobs: 4 delivered" in trade.said["seller"]


def test_the_same_hire_again_returns_the_same_purchase_and_pays_nothing(trade: Trade) -> None:
    (line,) = re.findall(r"^tradeskill hire .*$", block("run: ", "buyer").text, re.MULTILINE)
    before = json.loads(trade.command("wallet", "balance", "--json").stdout)
    again = subprocess.run(["bash", "-euc", elsewhere(line, *trade.ports)], **trade.where(), check=True)  # the seller is not even there any more
    assert "# Reading a rain gauge over a serial line" in again.stdout
    assert json.loads(trade.command("wallet", "balance", "--json").stdout) == before
    assert before["available_raw"] == str(996 * 10**27)


def test_without_yes_and_without_a_terminal_nothing_is_paid(trade: Trade) -> None:
    done = trade.command("hire", "markdown", "--input", '{"url": "http://127.0.0.1:1/"}', "--password-file", "password")
    assert done.returncode == 5
    assert "--yes" in done.stderr
    assert "no money moved" in done.stderr


# Plugins


def plugin_files(folder: Path) -> Path:
    """The package of docs/plugins.md as an installed one: its files, and metadata with the entry points that the page shows."""
    for shown in blocks("plugin: "):
        path = folder / shown.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shown.text)
    points = re.findall(r'^(\w+) = "([\w.]+)"$', block("toml: ").text, re.MULTILINE)
    info = folder / "bargain-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bargain\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tradeskill]\n" + "".join(f"{name} = {module}\n" for name, module in points))
    return folder


def test_the_plugin_shown_keeps_its_contracts_and_its_backend_refuses_a_wrong_setting(tmp_path: Path) -> None:
    folder = plugin_files(tmp_path / "plugins")
    environment = {**environment_here(), "PYTHONPATH": str(folder)}
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", str(folder), "-c", "/dev/null"]
    command = [sys.executable, "-m", "pytest", *options, "test_bargain.py"]
    tests = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert tests.returncode == 0, tests.stdout[-3000:]
    assert re.search(r"\b(\d+) passed in", tests.stdout), tests.stdout
    code = """
import asyncio
from pathlib import Path
from tradeskill.contracts import PluginContext
from tradeskill.errors import ConfigError
from tradeskill.plugins import Plugins
from tradeskill.signing import Identity
from tradeskill.world import World
plugin = Plugins().require("slowly", "backend")
context = PluginContext("slowly", "dev", Path("x"), World(), Identity(bytes(32)), lambda: "")
plugin.open_backend({"seconds": 0}, context)
try:
    plugin.open_backend({"seconds": "long"}, context)
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout == "backend slowly: seconds 'long' is not a number from 0 to 60\n"


# What the pages name


@pytest.mark.parametrize("page", [*PAGES, "SECURITY.md", "examples/README.md"])
def test_every_link_to_a_file_leads_to_one(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text) if not link.startswith("http")]
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_named_in_passing_exists(page: str) -> None:
    named = re.findall(r"`((?:core|wallet|plugins|skills|tests|tools|docs|examples)/[\w./-]*[\w/])`", (ROOT / page).read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_named_is_one(page: str) -> None:
    """`tradeskill X` with an X that the command line knows (its own, or one of our plugins')."""
    known = {*COMMANDS, "cashu", "devnet", "relay", "wallet"}
    text = (ROOT / page).read_text("utf-8")
    named = set(re.findall(r"(?:`|^|\$\()tradeskill ([a-z]+)", text, re.MULTILINE))
    assert named <= known, named - known


def has_code(path: Path) -> bool:
    return path.name != "__init__.py" or any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(path.read_text("utf-8")).body)


@pytest.mark.parametrize("package", ["core/tradeskill", "wallet/tradeskill_wallet", "plugins/tradeskill_plugins", "skills/tradeskill_skills"])
def test_the_map_of_rooms_names_every_module_once_and_no_other(package: str) -> None:
    """A package's `__init__.py` is a room of its own only where it holds code."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    section = re.search(rf"^### {package}\n(.*?)(?=^##)", text, re.DOTALL | re.MULTILINE)
    assert section is not None
    named = [name for row in re.findall(r"^\| (`[^|]*)\|", section.group(1), re.MULTILINE) for name in re.findall(r"`([\w/]+\.py)`", row)]
    modules = {path.relative_to(ROOT / package).as_posix() for path in (ROOT / package).rglob("*.py") if has_code(path)}
    assert len(named) == len(set(named))
    assert set(named) == modules


def test_every_name_the_architecture_gives_with_a_file_is_in_that_file() -> None:
    """`FILE`, `name` (and `name`) in the tables, and `FILE::test`."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    pairs = [(file, name) for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", text)]
    for file, names in re.findall(r"`([\w/]+\.py)`,? ((?:(?: and )?`\w+`)+)", text):
        pairs += [(file, name) for name in re.findall(r"`(\w+)`", names)]
    assert len(pairs) >= 10
    homes = [ROOT, ROOT / "core" / "tradeskill", ROOT / "skills" / "tradeskill_skills"]
    for file, name in pairs:
        path = next((home / file for home in homes if (home / file).is_file()), None)
        assert path is not None, file
        assert re.search(rf"^ *(?:async )?def {name}\b", path.read_text("utf-8"), re.MULTILINE), (file, name)
    assert all((ROOT / file).is_file() for file in re.findall(r"`(tests/[\w/]+\.py)(?:::\w+)?`", text))


def test_every_invariant_is_on_the_page_and_has_its_judge() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    judges = set(re.findall(r"^def (i[1-8]_\w+)", (ROOT / "tests" / "simulation" / "invariants.py").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"`(i[1-8]_\w+)`", text)) == judges
    assert re.findall(r"^\| (I\d) \|", text, re.MULTILINE) == [f"I{number}" for number in range(1, 9)]


def test_make_help_tells_of_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    targets = set(phony.group(1).split()) - {"help"}
    told = set(re.findall(r"make ([a-z-]+)", "\n".join(line for line in makefile.splitlines() if line.startswith("\t@echo"))))
    assert targets == told
    assert targets == set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) - {"help"}


def test_the_readme_begins_with_its_two_commands() -> None:
    first = blocks()[0]
    assert [line.split("#")[0].strip() for line in first.text.splitlines()] == ["make demo", "make test"]
