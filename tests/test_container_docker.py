"""What Docker answers otherwise than Podman, as its API's description has it, from a double behind a socket: the engine's calls take both."""

from __future__ import annotations

import asyncio
import json
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tradeskill.contracts import PluginContext
from tradeskill.errors import NotFoundError, RefusedError, UnavailableError
from tradeskill.signing import Identity
from tradeskill.world import World
from tradeskill_plugins.container import tradeskill_open_backend
from tradeskill_plugins.container.engine import Engine, never_started

ID, DIGEST = "sha256:" + "1" * 64, "sha256:" + "2" * 64
INFO = {
    "ServerVersion": "29.1.0",
    "MemoryLimit": True,
    "SwapLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
    "CgroupVersion": "2",
}
IMAGE = {"Id": ID, "RepoDigests": [f"python@{DIGEST}"], "Config": {"Volumes": {"/data": {}}}}
RUNNING = {"State": {"Status": "running", "Running": True, "StartedAt": "2026-01-01T00:00:00.123456789Z"}}
ENDED = {"State": {"Status": "exited", "Running": False, "ExitCode": 137, "StartedAt": "2026-01-01T00:00:00.1Z"}}
MADE = {"State": {"Status": "created", "Running": False, "StartedAt": "0001-01-01T00:00:00Z"}}
GONE = (404, {"message": "No such container: job"})
Answer = tuple[int, Any]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone has heard enough."""


class Docker:
    """Answers each call with the next of what is laid down for it; the last one stays."""

    def __init__(self, folder: Path, answers: dict[str, list[Answer]]) -> None:
        self.socket, self.asked = f"unix://{folder}/d.sock", list[str]()
        plain: dict[str, list[Answer]] = {"GET /_ping": [(200, "OK")], "GET /info": [(200, INFO)]}
        laid = {**plain, **answers}
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0].removeprefix("/v1.52")
                call = f"{self.command} {path}"
                double.asked.append(call)
                found = laid.get(call, [(404, {"message": "page not found"})])
                status, body = found.pop(0) if len(found) > 1 else found[0]
                data = b"" if status in (204, 304) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Api-Version", "1.52")
                self.send_header("Server", "Docker/29.1.0 (linux)")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815  # the names that http.server looks for

            def address_string(self) -> str:
                return "the socket"

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as its base has it
                return

        self.server = _Server(f"{folder}/d.sock", Handler)


@contextmanager
def docker(answers: dict[str, list[Answer]]) -> Iterator[Docker]:
    with tempfile.TemporaryDirectory(prefix="doc", dir="/tmp") as folder:  # a socket's path is short
        double = Docker(Path(folder), answers)
        serving = threading.Thread(target=double.server.serve_forever, args=(0.01,), daemon=True)
        serving.start()
        try:
            yield double
        finally:
            double.server.shutdown()
            double.server.server_close()
            serving.join(10)


def test_docker_is_told_apart_and_asked_in_the_newest_version_that_it_speaks() -> None:
    with docker({}) as double:
        about = Engine(double.socket).about()
    assert (about.name, about.podman, about.cgroups) == ("Docker 29.1.0", False, "2")
    assert (about.memory, about.swap, about.processes, about.processor, about.filters_calls) == (True, True, True, True, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"PidsLimit": False}, "limit processes"),
        ({"MemoryLimit": False}, "limit memory"),
        ({"CpuCfsQuota": False}, "share the processor"),
        ({"SecurityOptions": ["name=apparmor"]}, "filter system calls"),
    ],
)
def test_a_docker_that_cannot_shut_jobs_in_is_refused_before_anything_is_sold(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """As a rootless one without delegated control groups is."""
    with docker({"GET /info": [(200, {**INFO, **change})]}) as double:
        context = PluginContext("container", "dev", tmp_path, World(), Identity(bytes(31) + b"\x01"), lambda: "")
        backend = tradeskill_open_backend({"image": ID, "socket": double.socket}, context)
        with pytest.raises(RefusedError, match=said):
            asyncio.run(backend.open())


def test_a_filter_of_the_daemons_own_is_not_needed_and_swap_that_is_not_counted_is_told(tmp_path: Path) -> None:
    info = {**INFO, "SwapLimit": False, "SecurityOptions": ["name=seccomp,profile=unconfined"]}
    with docker({"GET /info": [(200, info)], f"GET /images/{ID}/json": [(200, IMAGE)]}) as double:
        context = PluginContext("container", "dev", tmp_path, World(), Identity(bytes(31) + b"\x01"), lambda: "")
        backend: Any = tradeskill_open_backend({"image": ID, "socket": double.socket}, context)
        assert "memory (but not swap)" in asyncio.run(backend.examine())


@pytest.mark.parametrize("name", [ID, f"python@{DIGEST}", f"python:3.12@{DIGEST}"])
def test_an_image_is_known_by_its_id_and_by_its_digest(name: str) -> None:
    with docker({f"GET /images/{name.replace('@', '%40')}/json": [(200, IMAGE)]}) as double:
        image = Engine(double.socket).image(name)
    assert (image.id, image.volumes) == (ID, ("/data",))


def test_an_image_that_docker_answers_for_another_is_refused_and_one_it_lacks_is_not_fetched() -> None:
    with docker({f"GET /images/{DIGEST}/json": [(200, {**IMAGE, "RepoDigests": []})]}) as double:
        with pytest.raises(RefusedError, match="answered image"):
            Engine(double.socket).image(DIGEST)
        with pytest.raises(NotFoundError, match="docker pull"):
            Engine(double.socket).image(f"other@{DIGEST}")
        assert not any("POST" in call for call in double.asked)


def test_a_name_that_is_taken_is_that_of_the_container_which_is_there() -> None:
    taken = (409, {"message": 'Conflict. The container name "/job" is already in use by container "1". You have to remove (or rename) that container.'})
    with docker({"POST /containers/create": [taken], "GET /containers/job/json": [GONE, (200, MADE)]}) as double:
        Engine(double.socket).create("job", {})
        assert double.asked[-1] == "GET /containers/job/json"
    refused = (400, {"message": "NanoCPUs can not be set"})
    with (
        docker({"POST /containers/create": [refused], "GET /containers/job/json": [GONE]}) as double,
        pytest.raises(RefusedError, match="NanoCPUs can not be set"),
    ):
        Engine(double.socket).create("job", {})


def test_a_start_of_what_runs_is_none_and_a_program_that_is_not_there_is_a_refusal() -> None:
    missing = (400, {"message": 'failed to create task for container: exec: "nothing": executable file not found in $PATH: unknown'})
    with docker({"POST /containers/job/start": [(204, ""), (304, ""), missing, (500, {"message": "docker-init: no such file"})]}) as double:
        engine = Engine(double.socket)
        engine.start("job")
        engine.start("job")
        with pytest.raises(RefusedError, match="not found"):
            engine.start("job")
        with pytest.raises(UnavailableError, match="docker-init"):
            engine.start("job")


def test_killing_what_has_ended_or_is_gone_is_no_error_and_what_runs_on_is_one() -> None:
    still = (409, {"message": "cannot kill container: job: container 1 is not running"})
    for now, fine in (((200, ENDED), True), (GONE, True), ((200, RUNNING), False)):
        with docker({"POST /containers/job/kill": [still], "GET /containers/job/json": [now]}) as double:
            if fine:
                Engine(double.socket).kill("job", "SIGKILL")
                continue
            with pytest.raises(RefusedError, match="not running"):
                Engine(double.socket).kill("job", "SIGKILL")
    with docker({"POST /containers/job/kill": [GONE]}) as double:
        Engine(double.socket).kill("job", "SIGKILL")


def test_a_removal_that_somebody_else_is_at_is_waited_for() -> None:
    busy = (409, {"message": "removal of container job is already in progress"})
    dead = {"State": {"Status": "removing", "Running": False, "StartedAt": "2026-01-01T00:00:00Z"}}
    with docker({"DELETE /containers/job": [busy], "GET /containers/job/json": [(200, dead), (200, dead), GONE]}) as double:
        Engine(double.socket).remove("job")
        assert double.asked.count("GET /containers/job/json") == 3


def test_whether_a_container_ever_started_is_read_as_docker_writes_it() -> None:
    assert never_started(MADE)
    assert not never_started(RUNNING)
    assert not never_started(ENDED)


def test_a_port_of_something_else_is_no_engine() -> None:
    with docker({"GET /_ping": [(500, "")]}) as double, pytest.raises(UnavailableError, match="status 500"):
        Engine(double.socket).about()
