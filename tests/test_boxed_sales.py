"""Whole sales of what runs in a sandbox or a container: hired, paid, run there, delivered with a receipt; and once, though the seller is killed meanwhile."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.cli_stage import PATIENCE, Home, Stage, shout
from tests.podman import Engine
from tradeskill.sqlite import connector

T = TypeVar("T")
LIMITS = {"seconds": 120, "memory": "128M", "output": "1M"}
WAITS = "while [ ! -e {go} ]; do sleep 0.05; done; echo {mark}; cat"


@dataclass
class Hire:
    """`hire` in a process of its own, as a job is to be watched meanwhile."""

    process: subprocess.Popen[str]

    def result(self) -> Any:
        out, err = self.process.communicate(timeout=2 * PATIENCE)
        assert self.process.returncode == 0, err
        return json.loads(out)


@contextmanager
def hiring(home: Home, name: str) -> Iterator[Hire]:
    wish = [sys.executable, "-m", "tradeskill", "hire", name, "--input", '{"text": "hello"}', "--yes", "--max", "0.01 XNO", "--json"]
    process = subprocess.Popen(wish, env=home.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield Hire(process)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def eventually(look: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + PATIENCE
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
    return found


def starts(seller: Home, job_id: str) -> list[int]:
    """The attempts that the seller's journal has of a job."""
    return journalled(seller, "SELECT attempt FROM starts WHERE job_id = ?", job_id)


def money(seller: Home, offer: str) -> list[str]:
    """What became of each payment for an offer."""
    return journalled(seller, "SELECT payments.state FROM payments JOIN fulfilments USING (job_id) WHERE offer_name = ?", offer)


def journalled(seller: Home, question: str, word: str) -> list[Any]:
    connection = connector(seller.path / "journal.db", "the journal")()
    try:
        return [row[0] for row in connection.execute(question, (word,)).fetchall()]
    finally:
        connection.close()


def verified(buyer: Home, job_id: str, folder: Path, seller_key: str) -> Any:
    """What a stranger says who has the receipt and the result in files."""
    receipt = folder / f"{job_id}.json"
    receipt.write_text(buyer.run("receipt", "show", job_id, "--with-result").ok().out)
    return buyer.json("receipt", "verify", str(receipt), "--seller", seller_key)


class InContainers:
    """Offers whose jobs run in containers of a real engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.keys: dict[str, Any] = {"backends": {"container": {"image": engine.image, "socket": engine.socket}}}

    def offer(self, name: str, folder: Path) -> dict[str, Any]:
        script = WAITS.format(go="/scratch/go", mark=name)
        return shout(name, trusted=False, pure=False, backend="container", isolation="container", run=["sh", "-c", script], limits=LIMITS, folder=str(folder))

    def running(self, seller: str, name: str) -> str | None:
        """The container that runs the seller's job, with when it was started."""
        filters = ("--filter", f"label=tradeskill.owner={seller}", "--filter", "status=running")
        shown = self._engine.command("ps", *filters, "--format", "{{.Names}} {{.StartedAt}}")
        return shown.strip() or None

    def go(self, found: str, folder: Path) -> None:
        eventually(lambda: self._touched(found.split()[0]), "the container can be told to go on")

    def _touched(self, name: str) -> str | None:
        """Podman cannot do it in the very moment in which somebody else asks for the container."""
        try:
            return self._engine.command("exec", name, "touch", "/scratch/go") or "done"
        except subprocess.CalledProcessError:
            return None

    def check_once(self, found: str) -> None:
        assert self._engine.starts(found.split()[0]) == 1
        eventually(lambda: None if found.split()[0] in str(self._engine.containers()) else "gone", "the container is removed")


class InSandboxes:
    """Offers whose jobs run under bubblewrap."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}

    def offer(self, name: str, folder: Path) -> dict[str, Any]:
        script = WAITS.format(go="/job/program/go", mark=name)
        return shout(name, trusted=False, pure=False, isolation="sandbox", run=["sh", "-c", script], limits=LIMITS, folder=str(folder))

    def running(self, seller: str, name: str) -> str | None:
        """The shell that runs the seller's job, with when it was started."""
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words, stat = (place / "cmdline").read_bytes(), (place / "stat").read_text()
            except OSError:
                continue
            if name.encode() in words and " (sh) " in stat:
                return f"{place.name} {stat.rpartition(')')[2].split()[19]}"
        return None

    def go(self, found: str, folder: Path) -> None:
        (folder / "go").touch()

    def check_once(self, found: str) -> None:
        eventually(lambda: None if Path("/proc", found.split()[0]).exists() else "gone", "the job has ended")


@pytest.fixture(params=["bubblewrap", "container"])
def place(request: pytest.FixtureRequest) -> InContainers | InSandboxes:
    if request.param == "container":
        return InContainers(request.getfixturevalue("podman"))
    if shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed: apt install bubblewrap")
    return InSandboxes()


def test_the_job_of_a_seller_that_is_killed_runs_on_and_once_and_is_delivered(place: InContainers | InSandboxes, stage: Stage, tmp_path: Path) -> None:
    name = f"box-{type(place).__name__.lower()}"
    folder = tmp_path / "program"
    folder.mkdir(mode=0o755)
    seller, buyer = stage.profile("stranger-seller"), stage.funded("stranger-buyer")
    config = stage.config(name, [place.offer(name, folder)], **place.keys)
    with seller.selling(config) as first:
        key = first.ready["seller"]
        with hiring(buyer, name) as hire:
            running = eventually(lambda: place.running(key, name), "the job runs")
            first.process.send_signal(signal.SIGKILL)
            first.process.wait(PATIENCE)
            assert place.running(key, name) == running
            with seller.selling(config):
                assert place.running(key, name) == running
                place.go(running, folder)
                bought = hire.result()
                assert bought["result"]["text"] == f'{name}\n{{"text":"hello"}}'
                assert starts(seller, bought["job_id"]) == [1]
                place.check_once(running)
    checked = verified(buyer, bought["job_id"], tmp_path, key)
    assert (checked["receipt_verified"], checked["result_checked"]) == (True, True)


def test_a_job_is_sold_from_a_container_and_one_that_fails_there_is_paid_back(podman: Engine, stage: Stage, tmp_path: Path) -> None:
    seller, buyer = stage.profile("stranger-seller"), stage.funded("stranger-buyer")
    box = {"trusted": False, "pure": False, "backend": "container", "isolation": "container", "limits": LIMITS}
    upper = ["python", "-I", "-S", "-c", "import json, sys; print(json.load(sys.stdin)['text'].upper())"]
    offers = [shout("contained", run=upper, **box), shout("contained-not", run=["sh", "-c", "exit 3"], **box)]
    wish = ("--input", '{"text": "hello"}', "--yes", "--max", "0.01 XNO", "--json")
    with seller.selling(stage.config("contained", offers, **InContainers(podman).keys)) as worker:
        failed = buyer.run("hire", "contained-not", *wish)
        assert (failed.code, failed.json["error"]["code"]) == (1, "exit"), failed
        bought = buyer.run("hire", "contained", *wish).ok().json
        assert (bought["state"], bought["money"], bought["result"]["text"]) == ("received", "spent", "HELLO\n")
        checked = verified(buyer, bought["job_id"], tmp_path, worker.ready["seller"])
        assert (checked["receipt_verified"], checked["result_checked"]) == (True, True)
        eventually(lambda: money(seller, "contained-not") == ["refunded"] or None, "what was paid for the failed job goes back")
    assert starts(seller, bought["job_id"]) == [1]

