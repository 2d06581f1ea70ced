"""Containers outlive whoever watches them: workers, watchers and engines die, answers are lost, and still one start has one outcome.

Past 400 lines because it is one catalogue of deaths and losses, on one engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.podman import Engine
from tradeskill.contracts import ExecutionStatus, Limits, Task
from tradeskill.errors import NotFoundError, RefusedError, StateError, UnavailableError, UnknownOutcomeError
from tradeskill.world import World
from tradeskill_plugins.container.backend import ContainerBackend
from tradeskill_plugins.container.settings import Settings

T = TypeVar("T")
LIMITS = Limits(seconds=40, memory=128 * 2**20, output=2**20)
STEP = 'while [ ! -e "$TRADESKILL_OUTPUT/../go" ]; do sleep 0.05; done'


def shell(script: str, stdin: bytes = b"") -> Task:
    return Task(("sh", "-c", script), stdin, details={"owner": "me"})


def drive(home: Path, engine: Engine, scenario: Callable[[ContainerBackend], Awaitable[T]], socket_url: str = "") -> T:
    async def run() -> T:
        backend = ContainerBackend(home, World(), "me", Settings(engine.image, socket_url or engine.socket))
        await backend.open()
        try:
            return await asyncio.wait_for(_awaited(scenario(backend)), 100)
        finally:
            for execution_id in await backend.list("me"):
                await backend.stop(execution_id)
                await backend.remove(execution_id)

    return asyncio.run(run())


async def _awaited(value: Awaitable[T]) -> T:
    return await value


def name_of(home: Path, execution_id: str = "x") -> str:
    return f"tradeskill-{(home / 'instance').read_text()}-{execution_id}"


def watcher(home: Path, execution_id: str = "x") -> int:
    return int(json.loads((home / "jobs" / execution_id / "supervisor.json").read_text())["pid"])


async def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.02)


def gone(home: Path, engine: Engine, execution_id: str = "x") -> bool:
    return not any(name_of(home, execution_id) in str(found["Names"]) for found in engine.containers())


WORKER = """
import asyncio, sys
from pathlib import Path
from tradeskill.contracts import Limits, Task
from tradeskill.world import World
from tradeskill_plugins.container.backend import ContainerBackend
from tradeskill_plugins.container.settings import Settings
async def work():
    backend = ContainerBackend(Path(sys.argv[1]), World(), "me", Settings(sys.argv[2], sys.argv[3]))
    await backend.open()
    await backend.start("x", Task(("sh", "-c", "cat; sleep 2; echo of it"), b"the rest ", details={"owner": "me"}), Limits(seconds=40, memory=2**27))
    print("started", flush=True)
    await backend.wait("x", 60)
asyncio.run(work())
"""


def test_a_worker_that_is_killed_leaves_its_jobs_to_the_next_one(tmp_path: Path, podman: Engine) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path), podman.image, podman.socket], stdout=subprocess.PIPE, start_new_session=True, cwd=tmp_path
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"started\n"
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()

    async def scenario(backend: ContainerBackend) -> bytes:
        assert list(await backend.list("me")) == ["x"]
        await backend.start("x", shell("echo another"), LIMITS)
        assert (await backend.wait("x", 60)).state == "finished"
        return (await backend.result("x")).data

    assert drive(tmp_path, podman, scenario) == b"the rest of it\n"
    assert podman.starts(name_of(tmp_path)) == 1


def test_a_watcher_that_is_killed_is_replaced_and_nothing_printed_is_missing(tmp_path: Path, podman: Engine) -> None:
    async def scenario(backend: ContainerBackend) -> bytes:
        await backend.start("x", shell("printf 'one\\0\\377\\r\\n'; sleep 1.5; printf two; cat", b"\nthree"), LIMITS)
        fed = tmp_path / "jobs" / "x" / "fed"
        await until(fed.exists, "its input was fed")
        os.kill(watcher(tmp_path), signal.SIGKILL)
        while (status := await backend.wait("x", 50)).state == "running":
            pass
        assert status.state == "finished", status
        return (await backend.result("x")).data

    assert drive(tmp_path, podman, scenario) == b"one\0\xff\r\ntwo\nthree"
    assert podman.starts(name_of(tmp_path)) == 1


def test_a_container_that_ended_while_nobody_watched_is_collected(tmp_path: Path, podman: Engine) -> None:
    async def scenario(backend: ContainerBackend) -> bytes:
        await backend.start("x", shell("cat > /dev/null; sleep 0.5; echo result > $TRADESKILL_OUTPUT/result.txt"), LIMITS)
        await until((tmp_path / "jobs" / "x" / "fed").exists, "its input was fed")
        os.kill(watcher(tmp_path), signal.SIGKILL)
        await until(lambda: "Exited" in podman.command("ps", "-a", "--filter", f"name={name_of(tmp_path)}", "--format", "{{.Status}}"), "it ended")
        status = await backend.wait("x", 50)
        while status.state == "running":
            status = await backend.wait("x", 50)
        assert status.state == "finished", status
        return (await backend.result("x")).data

    assert drive(tmp_path, podman, scenario) == b"result\n"
    assert podman.starts(name_of(tmp_path)) == 1


def test_time_runs_on_while_nobody_watches(tmp_path: Path, podman: Engine) -> None:
    async def scenario(backend: ContainerBackend) -> ExecutionStatus:
        await backend.start("x", shell("cat; sleep 1000"), Limits(seconds=2, memory=128 * 2**20))
        await until((tmp_path / "jobs" / "x" / "fed").exists, "its input was fed")
        os.kill(watcher(tmp_path), signal.SIGKILL)
        await asyncio.sleep(2)  # of its time, which is what this is about
        began = time.monotonic()
        while (status := await backend.wait("x", 50)).state == "running":
            assert time.monotonic() - began < 30
        return status

    status = drive(tmp_path, podman, scenario)
    assert (status.state, status.code) == ("failed", "limit.time")
    assert gone(tmp_path, podman)


def test_a_start_whose_fate_is_not_known_is_never_made_again(tmp_path: Path, podman: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(backend: ContainerBackend) -> ExecutionStatus:
        containers = backend._containers
        with monkeypatch.context() as patch:
            patch.setattr(containers, "_launch", lambda execution_id: None)  # the worker dies here
            await backend.start("x", shell("echo ran"), LIMITS)
        folder = tmp_path / "jobs" / "x"
        (folder / "supervisor.json").write_text(json.dumps({"pid": 2**22 - 1, "started": 1, "boot": "another"}))
        (folder / "starting").write_text("")
        while (status := await backend.wait("x", 50)).state == "running":
            pass
        return status

    assert drive(tmp_path, podman, scenario).state == "lost"
    assert podman.starts(name_of(tmp_path)) == 0
    assert gone(tmp_path, podman)


def test_a_watcher_killed_before_it_started_anything_is_replaced_by_one_that_does(tmp_path: Path, podman: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(backend: ContainerBackend) -> ExecutionStatus:
        with monkeypatch.context() as patch:
            patch.setattr(backend._containers, "_launch", lambda execution_id: None)
            await backend.start("x", shell("echo ran"), LIMITS)
        (tmp_path / "jobs" / "x" / "supervisor.json").write_text(json.dumps({"pid": 2**22 - 1, "started": 1, "boot": "another"}))
        while (status := await backend.wait("x", 50)).state == "running":
            pass
        return status

    assert drive(tmp_path, podman, scenario).state == "finished"
    assert podman.starts(name_of(tmp_path)) == 1


def test_who_may_have_got_half_of_its_input_is_ended_and_lost(tmp_path: Path, podman: Engine) -> None:
    async def scenario(backend: ContainerBackend) -> ExecutionStatus:
        await backend.start("x", shell("head -c 10; sleep 1000", b"x" * 2**20), LIMITS)
        await until(lambda: podman.starts(name_of(tmp_path)), "it was started")
        os.kill(watcher(tmp_path), signal.SIGKILL)
        while (status := await backend.wait("x", 50)).state == "running":
            pass
        return status

    assert drive(tmp_path, podman, scenario).state == "lost"
    assert gone(tmp_path, podman)


def test_a_container_that_somebody_removed_is_lost(tmp_path: Path, podman: Engine) -> None:
    async def scenario(backend: ContainerBackend) -> ExecutionStatus:
        await backend.start("x", shell("sleep 1000"), LIMITS)
        await until(lambda: podman.starts(name_of(tmp_path)), "it was started")
        podman.command("rm", "--force", "--time=0", name_of(tmp_path))
        return await backend.wait("x", 50)

    assert drive(tmp_path, podman, scenario).state in ("lost", "failed")  # whichever is seen first: that it was killed, or that it is gone


def test_an_engine_that_restarts_takes_nothing_along(tmp_path: Path, podman: Engine) -> None:
    async def scenario(backend: ContainerBackend) -> bytes:
        await backend.start("x", shell("cat; printf one; sleep 3; printf two"), LIMITS)
        await until((tmp_path / "jobs" / "x" / "fed").exists, "its input was fed")
        podman.stop()
        try:
            assert (await backend.status("x")).state == "running"
            with pytest.raises(UnavailableError, match="cannot be reached"):
                await backend.start("y", shell("echo ran"), LIMITS)
            assert (await backend.wait("x", 0.5)).state == "running"
        finally:
            podman.start()
        assert (await backend.status("y")).state == "absent"
        await backend.start("y", shell("echo ran"), LIMITS)
        assert (await backend.wait("y", 60)).state == "finished"
        status = await backend.wait("x", 60)
        assert status.state == "finished", status
        return (await backend.result("x")).data

    assert drive(tmp_path, podman, scenario) == b"onetwo"
    assert [podman.starts(name_of(tmp_path, each)) for each in ("x", "y")] == [1, 1]


def test_a_watcher_does_not_wait_for_ever_for_an_engine_once_nobody_waits_for_it(tmp_path: Path, podman: Engine) -> None:
    async def scenario(backend: ContainerBackend) -> None:
        await backend.start("x", shell("sleep 1000"), LIMITS)
        await until((tmp_path / "jobs" / "x" / "fed").exists, "its input was fed")
        podman.stop()
        try:
            supervisor = backend._containers.supervisor("x")
            assert supervisor is not None
            (tmp_path / "jobs" / "x").rename(tmp_path / "taken-away")
            await until(lambda: not supervisor.alive(), "its watcher ended")
        finally:
            podman.start()

    drive(tmp_path, podman, scenario)
    assert gone(tmp_path, podman)


def test_without_an_engine_the_backend_does_not_open_and_says_where_it_looked(tmp_path: Path) -> None:
    backend = ContainerBackend(tmp_path, World(), "me", Settings("sha256:" + "0" * 64, f"unix://{tmp_path}/nothing.sock"))
    with pytest.raises(UnavailableError, match=r"nothing\.sock cannot be reached: is Docker or Podman's service running there"):
        asyncio.run(backend.open())


def test_without_the_image_the_backend_does_not_open_and_says_how_to_get_it(tmp_path: Path, podman: Engine) -> None:
    for image, way_out in ((f"example.org/nothing@sha256:{'0' * 64}", "docker pull example.org/nothing@sha256:0"), ("sha256:" + "0" * 64, "build or import")):
        backend = ContainerBackend(tmp_path, World(), "me", Settings(image, podman.socket))
        with pytest.raises(NotFoundError, match=way_out):
            asyncio.run(backend.open())


def test_a_container_whose_folder_is_gone_is_listed_and_can_be_ended(tmp_path: Path, podman: Engine) -> None:
    async def scenario(backend: ContainerBackend) -> None:
        await backend.start("x", shell("sleep 1000"), LIMITS)
        await until((tmp_path / "jobs" / "x" / "fed").exists, "its input was fed")
        os.kill(watcher(tmp_path), signal.SIGKILL)
        (tmp_path / "jobs" / "x").rename(tmp_path / "lost-folder")
        assert list(await backend.list("me")) == ["x"]
        assert (await backend.status("x")).state == "running"
        with pytest.raises(StateError):
            await backend.remove("x")
        await backend.stop("x")
        assert (await backend.status("x")).state == "lost"
        await backend.remove("x")
        assert (await backend.status("x")).state == "absent"
        assert list(await backend.list("me")) == []

    drive(tmp_path, podman, scenario)
    assert gone(tmp_path, podman)


def test_stopping_ends_what_ignores_being_asked_to(tmp_path: Path, podman: Engine) -> None:
    async def scenario(backend: ContainerBackend) -> ExecutionStatus:
        await backend.start("x", shell("trap '' TERM; while true; do sleep 1; done"), LIMITS)
        await until(lambda: podman.starts(name_of(tmp_path)), "it was started")
        await backend.stop("x")
        return await backend.status("x")

    status = drive(tmp_path, podman, scenario)
    assert (status.state, status.code) == ("failed", "stopped")
    assert gone(tmp_path, podman)


# Answers that are lost


class Thief:
    """Stands between a backend and its engine and swallows the first answer to each request whose line fits one of the given patterns.

    Or `passing`: hands its first part on, and breaks the connection off then.
    """

    def __init__(self, folder: Path, engine: Engine, words: list[str], passing: bool = False) -> None:
        self._passing = passing
        self.socket = f"unix://{folder}/thief.sock"
        self._engine, self.words, self.taken = engine.socket.removeprefix("unix://"), words, list[str]()
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(f"{folder}/thief.sock")
        self._door.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._engine)
            first = client.recv(65536)
            line = first.split(b"\r\n")[0].decode("latin-1")
            server.sendall(first)
            word = next((word for word in self.words if re.match(word, line)), None)
            if word is not None:
                self.words.remove(word)
                upwards = threading.Thread(target=_copy, args=(client, server), daemon=True)
                upwards.start()
                answer = server.recv(65536)  # it was done
                if self._passing:
                    client.sendall(answer)
                self.taken.append(line)
                client.shutdown(socket.SHUT_RDWR)
                return
            upwards = threading.Thread(target=_copy, args=(client, server), daemon=True)
            upwards.start()
            _copy(server, client)
            upwards.join(60)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@contextmanager
def thief(folder: Path, engine: Engine, *words: str, passing: bool = False) -> Iterator[Thief]:
    made = Thief(folder, engine, list(words), passing)
    try:
        yield made
    finally:
        made.close()
        (engine.folder / "thief.sock").unlink()


CALLS = ["POST .*/containers/create", "POST .*/start", "PUT .*/archive", "GET .*/archive", "DELETE ", "GET .*/containers/.*/json", "POST .*/attach"]


@pytest.mark.parametrize("word", CALLS)
def test_an_answer_that_is_lost_is_looked_up_and_the_job_runs_once(word: str, podman: Engine, tmp_path: Path) -> None:
    with thief(podman.folder, podman, word) as between:

        async def scenario(backend: ContainerBackend) -> None:
            try:
                await backend.start("x", shell("echo ran"), LIMITS)
            except UnknownOutcomeError:
                await backend.start("x", shell("echo ran"), LIMITS)
            assert (await backend.wait("x", 60)).state == "finished", await backend.status("x")
            assert (await backend.result("x")).data == b"ran\n"

        drive(tmp_path, podman, scenario, between.socket)
        assert len(between.taken) == 1, "the answer was not lost"
        assert podman.starts(name_of(tmp_path)) == 1
        assert gone(tmp_path, podman)


@pytest.mark.parametrize(
    ("script", "state", "code"),
    [("echo ran", "finished", ""), ("sleep 1.5; echo ran", "finished", ""), ("sleep 1.5; kill -KILL $$", "failed", "limit.memory")],
)
def test_a_stream_that_breaks_off_leaves_neither_what_was_printed_nor_how_it_ended_in_doubt(
    script: str, state: str, code: str, podman: Engine, tmp_path: Path
) -> None:
    """A SIGKILL from nobody we know is the kernel's, for want of memory: the job was watched while its stream was gone."""
    with thief(podman.folder, podman, "POST .*/attach", passing=True) as between:

        async def scenario(backend: ContainerBackend) -> None:
            await backend.start("x", shell(script), LIMITS)
            status = await backend.wait("x", 60)
            assert (status.state, status.code) == (state, code)
            if state == "finished":
                assert (await backend.result("x")).data == b"ran\n"

        drive(tmp_path, podman, scenario, between.socket)
        assert len(between.taken) == 1, "the stream was not broken off"


def test_a_program_that_is_not_in_the_image_is_a_failed_job(tmp_path: Path, podman: Engine) -> None:
    async def scenario(backend: ContainerBackend) -> ExecutionStatus:
        try:
            await backend.start("x", Task(("no-such-program",), b"", details={"owner": "me"}), LIMITS)
        except RefusedError as error:
            return ExecutionStatus("failed", str(error), "exit")
        return await backend.wait("x", 60)

    status = drive(tmp_path, podman, scenario)
    assert (status.state, status.code) == ("failed", "exit")
