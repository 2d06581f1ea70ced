"""docs/relay.md tells the truth: its tables are the code's, its examples run, its fields stand in that order."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tests.cli_stage import PASSWORD
from tests.relay_started import PATIENCE, relay_process
from tests.relay_wire import Floor, Party, Wire
from tests.test_docs import BLOCK, environment_here
from tradeskill.faces.cli import COMMANDS, app
from tradeskill_plugins.relay import packing, wire
from tradeskill_plugins.relay.client import settings
from tradeskill_plugins.relay.server.admission import DoorSettings
from tradeskill_plugins.relay.server.endpoints import ENDPOINTS
from tradeskill_plugins.relay.server.logs import FIELDS
from tradeskill_plugins.relay.server.metrics import Market, Metrics
from tradeskill_plugins.relay.server.serving import RelaySettings

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "relay.md"
TEXT = PAGE.read_text("utf-8")
BLOCKS = {mark: (language, text) for mark, language, text in (match.groups(default="") for match in BLOCK.finditer(TEXT))}
URL = "http://127.0.0.1:8402"  # where the page's relay is


def section(title: str) -> str:
    """What stands under a heading, up to the next of any depth."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in it, without their heads."""
    tables = re.findall(r"^\|[^\n]*\n\|[-| ]+\|\n((?:^\|[^\n]*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for table in tables for line in table.splitlines()]


def code(cell: str) -> str:
    return cell.strip("`")


def test_every_block_of_the_page_says_what_it_is_but_for_the_start_that_needs_a_network() -> None:
    assert set(BLOCKS) == {"", "run: meet", "run: backup", "run: vector", "output of: vector", "yaml: of a profile"}
    assert BLOCKS[""][1].startswith("pip install 'tradeskill[relay]'\ntradeskill relay serve\n")
    assert TEXT.count("```") == 2 * len(BLOCKS)


def test_every_link_leads_somewhere_and_every_command_is_one() -> None:
    links = [link for link in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", TEXT) if not link.startswith("http")]
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
    assert set(re.findall(r"(?:`|^)tradeskill ([a-z]+)", TEXT, re.MULTILINE)) <= {*COMMANDS, "relay"}
    assert [name for name in re.findall(r"`((?:deploy|docs)/[\w./-]*)`", TEXT) if not (ROOT / name).exists()] == []


# tables


def test_every_option_is_on_the_page_with_its_default() -> None:
    command: Any = typer.main.get_command(app)
    context = command.make_context("tradeskill", [], resilient_parsing=True)
    for name in ("relay", "serve"):
        command = command.get_command(context, name)
        context = type(context)(command, info_name=name, parent=context)
    shown = {code(cells[0]): code(cells[1]) for cells in rows(section("Options of `tradeskill relay serve`"))}
    wanted = {}
    for parameter in command.params:
        name = "--no-limits" if parameter.name == "limits" else parameter.opts[0]
        wanted[name] = str(parameter.default) if parameter.default not in (None, "", False, True) else ""
    words = {"--data": "relay.db", "--public-url": "where it listens", "--network": "any", "--proxy": "none"}  # where the default is no value
    assert shown == wanted | words


def test_every_call_is_on_the_page_as_it_is() -> None:
    shown = [tuple(cells) for cells in rows(section("Calls")) if len(cells) == 3]
    assert shown == [(f"`{e.method} {e.path}`", "open" if e.kind == "open" else "signed", e.about) for e in ENDPOINTS]


def test_every_error_code_is_on_the_page_with_its_status() -> None:
    assert [(code(cells[0]), int(cells[1])) for cells in rows(section("Errors"))] == list(wire.CODES.items())


def test_every_metric_is_on_the_page_with_its_labels() -> None:
    metrics = Metrics([])
    metrics.watch(lambda: Market())
    metrics.request("x", "GET", 200, 0.1)
    metrics.transition(None, "requested")
    wanted: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        names = {label for sample in family.samples for label in sample.labels} - {"le"}
        wanted[f"{family.name}_total" if family.type == "counter" else family.name] = names
    shown = {code(cells[0]): set(cells[1].replace(" ", "").split(",")) - {""} for cells in rows(section("Run it for real"))}
    assert shown == wanted


def test_every_field_of_a_log_line_that_the_page_names_is_one() -> None:
    told = re.search(r"A request has (.*?)\. Never", section("Run it for real"), re.DOTALL)
    assert told is not None
    assert set(re.findall(r"`([a-z_]+)`", told[1])) <= set(FIELDS)


def test_every_setting_and_every_allowance_of_a_client_is_on_the_page() -> None:
    assert {code(cells[0]) for cells in rows(section("A client's profile"))} == set(settings.KEYS)
    assert {code(cells[0]) for cells in rows(section("Our clients at an old relay")) if len(cells) == 2} >= set(settings.ALLOWANCES)
    written = yaml.safe_load(BLOCKS["yaml: of a profile"][1])["market"]
    read = settings.read_settings({name: value for name, value in written.items() if name != "plugin"})
    assert (written["plugin"], read.url) == ("relay", "https://relay.example")
    assert read.upload is not None


def test_the_limits_on_the_page_are_those_that_hold() -> None:
    door, serving = DoorSettings(), RelaySettings("x")
    assert door.body_bytes == wire.MAX_BODY
    for number in (wire.MAX_BODY, wire.MAX_REQUEST, wire.MAX_ERROR, wire.MAX_URL, wire.MAX_PROOF, wire.INLINE_RESULT, door.target_bytes, door.head_bytes):
        assert f"{number:,}" in TEXT, number
    for words in (
        f"{door.headers} headers",
        f"{door.head_seconds:.0f} s for the head, {door.body_seconds:.0f} s for the body",
        f"{door.connections} connections, {door.connections_per_ip} from one address",
        f"{serving.streams:,} event streams, {serving.streams_per_key} for one key",
        f"cut off after {door.unread_seconds:.0f} s",
        f"up to {door.drain_seconds:.0f} s",
        f"remembers it for {wire.NONCE_MS // 60_000} minutes",
        f"within {wire.IDEMPOTENCY_MS // 3_600_000} hours",
    ):
        assert words in TEXT, words


def test_the_marks_in_an_old_relay_s_fields_are_those_that_are_written() -> None:
    text = section("Our clients at an old relay")
    assert [mark for mark in (packing.TAG, packing.PAYLOAD_KEY, packing.QUOTE_PROVIDER, "[tso1.", "q1.<nonce>", "tsr1.<body>") if mark not in text] == []


# what runs


def test_the_vector_s_code_prints_what_the_page_shows() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKS["run: vector"][1]], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout == BLOCKS["output of: vector"][1]


def test_the_examples_work_at_a_relay_and_its_copy_is_one_that_serves(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o600)
    environment = environment_here() | {"TRADESKILL_PASSWORD_FILE": str(tmp_path / "password")}
    with relay_process(tmp_path / "relay.db") as relay, closing(Wire(relay.url)) as client:
        made = Floor.at(client).offer(title="To be kept")
        for name in ("run: meet", "run: backup"):
            script = BLOCKS[name][1].replace(URL, relay.url)
            done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
            assert done.returncode == 0, done.stdout + done.stderr
    with relay_process(tmp_path / "copy.db") as relay, closing(Wire(relay.url)) as client:
        assert client.get(Party(), f"/v1/offers/{made['offer_id']}").offer["title"] == "To be kept"
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("kind", ["offer", "job"])
def test_the_fields_stand_on_the_page_in_the_order_in_which_they_are_sent(kind: str, tmp_path: Path) -> None:
    told = re.search(rf"<!-- fields: {kind} -->(.*?)<!-- end -->", TEXT, re.DOTALL)
    assert told is not None
    with relay_process(tmp_path / "relay.db") as relay, closing(Wire(relay.url)) as client:
        sent = Floor.at(client).offer() if kind == "offer" else Floor.at(client).requested()
    assert re.findall(r"`([a-z_]+)`", told[1]) == list(sent)
