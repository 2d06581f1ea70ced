"""The conformance kit on all our own plugins, as anybody runs it: `tradeskill plugins check NAME`, each in a process of its own.

These runs are the contract tests of nano, cashu, the embedded market on a file, the relay on a file, and the three backends; tests/ has them nowhere else.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests import mint, podman
from tests.kit_table import OURS
from tests.podman import Engine
from tradeskill.errors import NotFoundError
from tradeskill.testing.backend_contract import BackendContract
from tradeskill.testing.clauses import clauses_of
from tradeskill.testing.installed import KIT_GROUP
from tradeskill.testing.market_contract import MarketContract
from tradeskill.testing.wallet_contract import WalletContract
from tradeskill_plugins.cashu import nutshell
from tradeskill_plugins.cashu.nutshell import INSTALL
from tradeskill_plugins.container.own_image import own_image

ROOT = Path(__file__).parent.parent
PATIENCE = 400.0  # seconds; a bound for a machine that is busy
AT_ONCE = 2  # checks; as many as the least machine has processors
LONGEST_FIRST = ("container", "relay", "nano", "cashu", "bubblewrap", "embedded", "process")
CONTRACTS = {"wallet": WalletContract, "market": MarketContract, "backend": BackendContract}

Said = dict[str, Any]


def check(name: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tradeskill", "plugins", "check", name, *options]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TRADESKILL_")}
    env = {**kept, "PYTHONWARNINGS": "error", **environment}
    return subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE)


def kept_by(engine: Engine) -> set[str]:
    """Its images, containers and volumes."""
    words = (("images", "--all", "--quiet", "--no-trunc"), ("ps", "--all", "--quiet", "--no-trunc"), ("volume", "ls", "--quiet"))
    return {name for each in words for name in engine.command(*each).split()}


@pytest.fixture(scope="module")
def before(request: pytest.FixtureRequest) -> set[str]:
    """What the engine kept before the kit came."""
    return set() if podman.missing() else kept_by(request.getfixturevalue("podman"))


@pytest.fixture(scope="module")
def checks(request: pytest.FixtureRequest, before: set[str]) -> Iterator[dict[str, Future[Said]]]:
    """What the kit says of each plugin that can be tried here, as it comes."""
    options: dict[str, tuple[str, ...]] = dict.fromkeys(LONGEST_FIRST, ())
    if podman.missing():
        del options["container"]
    else:
        options["container"] = ("--with", f"socket={request.getfixturevalue('podman').socket}")
    if mint.missing():
        del options["cashu"]

    def said(name: str) -> Said:
        done = check(name, *options[name], "--json")
        assert done.returncode in (0, 9), done.stderr[-3000:]
        found: Said = json.loads(done.stdout)
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(said, name) for name in options}


@pytest.fixture
def verdict(checks: dict[str, Future[Said]], name: str) -> Said:
    if name not in checks:
        pytest.skip(podman.missing() if name == "container" else mint.missing())
    return checks[name].result()


@pytest.mark.parametrize("name", LONGEST_FIRST)
def test_every_clause_of_its_contract_holds_or_is_declared_off_with_a_reason(verdict: Said, name: str) -> None:
    broken = [clause for clause in verdict.get("clauses", ()) if clause["status"] not in ("holds", "declared off")]
    assert broken == []
    assert verdict.get("error") is None
    assert (verdict["ok"], verdict["missing"], verdict["package"]) == (True, [], "tradeskill")
    found = {clause["tests"]: {} for clause in verdict["clauses"]}
    for clause in verdict["clauses"]:
        found[clause["tests"]][clause["number"]] = clause["reason"]
    (kind,) = [kind for kind, contract in CONTRACTS.items() if contract.__name__[0] == verdict["clauses"][0]["number"][0]]
    numbers = {each.number for each in clauses_of(CONTRACTS[kind]).values()}
    assert {tests: set(clauses) for tests, clauses in found.items()} == dict.fromkeys(OURS[name], numbers)
    for tests, clauses in found.items():
        expected = OURS[name][tests]
        assert {number: reason for number, reason in clauses.items() if reason} == expected.off
        assert sum(clause["status"] == "holds" for clause in verdict["clauses"] if clause["tests"] == tests) == expected.holds
        assert expected.holds + len(expected.off) == len(numbers)


def test_all_our_plugins_that_are_no_skills_are_in_the_table_and_bring_their_tests() -> None:
    ours = {point.name for point in metadata.entry_points(group="tradeskill") if point.value.startswith(("tradeskill_wallet", "tradeskill_plugins"))}
    assert set(OURS) == set(LONGEST_FIRST) == ours
    assert ours <= {point.name for point in metadata.entry_points(group=KIT_GROUP)}


def test_an_owners_engine_is_left_as_it_was(podman: Engine, before: set[str], checks: dict[str, Future[Said]]) -> None:
    checks["container"].result()
    assert kept_by(podman) - before == set()


# Where what they need is not here


def test_without_an_engine_nothing_is_tried_and_the_way_out_is_said(tmp_path: Path) -> None:
    done = check("container", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 9
    assert done.stdout == ""
    for words in ("was not tried", f"{tmp_path}/none.sock", "plugins check container --with socket=unix:///"):
        assert words in done.stderr


def test_an_image_that_is_named_by_its_tag_alone_is_refused(tmp_path: Path) -> None:
    done = check("container", "--with", "image=busybox:latest", "--with", f"socket={tmp_path}/none.sock")
    assert done.returncode == 9
    assert "was not tried" in done.stderr
    assert "'busybox:latest' is not pinned" in done.stderr


def test_an_image_of_this_machines_programs_has_them_all_or_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(fileobj=io.BytesIO(own_image(("sh", "cat")))) as archive:
        assert {"bin/sh", "bin/cat", "tmp", "proc"} <= set(archive.getnames())
    with pytest.raises(NotFoundError, match="no program no-such-program"):
        own_image(("sh", "no-such-program"))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NotFoundError, match="no Linux"):
        own_image(("sh",))


def test_without_a_mint_nothing_is_tried_and_the_way_out_is_said(tmp_path: Path) -> None:
    done = check("cashu", "--with", f"mint={tmp_path}")
    assert (done.returncode, done.stdout) == (9, "")
    for words in ("was not tried", str(tmp_path), f"pip install {INSTALL}", "plugins check cashu --with mint="):
        assert words in done.stderr


def test_the_mint_that_the_kit_names_is_the_one_that_make_builds() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (version,) = re.findall(r"^MINT := (\S+)$", makefile, re.MULTILINE)
    assert INSTALL.replace(version, "$(MINT)") in makefile


def test_a_mint_is_looked_for_beside_a_checkout_and_in_no_other_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert nutshell.of_checkout() == mint.ENVIRONMENT
    monkeypatch.setattr(nutshell, "__file__", str(tmp_path / "lib" / "tradeskill_plugins" / "cashu" / "nutshell.py"))
    assert nutshell.of_checkout() is None


def test_what_its_tests_do_not_take_is_refused_by_name(tmp_path: Path) -> None:
    done = check("cashu", "--with", "mnit=x", "--json")
    assert done.returncode == 2
    assert "take no mnit; what they take: mint=the folder" in json.loads(done.stdout)["error"]["message"]


def test_where_a_relay_cannot_be_served_its_tests_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from tradeskill_plugins.relay import conformance
    from tradeskill_plugins.relay.server import imports

    with monkeypatch.context() as patched:
        patched.setattr(imports, "missing", lambda: "uvloop")
        with pytest.raises(pytest.skip.Exception, match=r"needs uvloop: pip install 'tradeskill\[relay\]'"):
            importlib.reload(conformance)
    importlib.reload(conformance)


@pytest.mark.skipif(bool(mint.missing()), reason=mint.missing())
def test_ctrl_c_ends_the_mint_too_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tradeskill", "plugins", "check", "cashu"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # who runs the tests in the background may have it ignored
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, preexec_fn=heard, **pipes) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not (logs := list(tmp_path.glob("mint-*/mint.log"))) or b"running on" not in logs[0].read_bytes():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out) == (130, ""), err
    assert list(tmp_path.iterdir()) == []
