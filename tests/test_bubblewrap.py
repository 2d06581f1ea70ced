"""The bubblewrap backend shows a job what it promises and no more, and never runs one with less.

Its contract is kept by `tradeskill plugins check bubblewrap` (tests/test_kit_ours.py). Past 400 lines because
it is one catalogue: what a job is given, what it may take, what it leaves.
"""

# ruff: noqa: ASYNC240  # a look at a folder between two steps of a test blocks nobody

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tradeskill.contracts import ExecutionStatus, Limits, PluginContext, Task
from tradeskill.errors import ConfigError, RefusedError, UnavailableError
from tradeskill.model import Result
from tradeskill.signing import Identity
from tradeskill.world import World
from tradeskill_plugins.bubblewrap import tradeskill_capabilities, tradeskill_open_backend
from tradeskill_plugins.bubblewrap.backend import BubblewrapBackend
from tradeskill_plugins.executions.records import Executions

T = TypeVar("T")
LIMITS = Limits(seconds=20, memory=256 * 2**20, output=2**20)

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed: apt install bubblewrap")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a program in it, readable by others as a program has to be where the seller is root."""
    program = tmp_path / "program"
    program.mkdir(mode=0o755)
    (program / "job.py").write_text("import os, sys; print(sys.argv[1:], os.getcwd(), sys.stdin.read(), end='')\n")
    return program


def shell(script: str, folder: Path | None = None, *, network: bool = False) -> Task:
    return Task(("sh", "-c", script), b"in", folder, details={"owner": "me"}, network=network)


def drive(tmp_path: Path, scenario: Callable[[BubblewrapBackend], Awaitable[T]], **settings: Any) -> T:
    async def run() -> T:
        backend = BubblewrapBackend(tmp_path / "executions", World(), "me", **settings)
        await backend.open()
        try:
            async with asyncio.timeout(60):
                return await scenario(backend)
        finally:
            for execution_id in await backend.list("me"):
                await backend.stop(execution_id)

    return asyncio.run(run())


def ended(tmp_path: Path, task: Task, limits: Limits = LIMITS, **settings: Any) -> tuple[ExecutionStatus, Result | None]:
    async def scenario(backend: BubblewrapBackend) -> tuple[ExecutionStatus, Result | None]:
        await backend.start("x", task, limits)
        status = await backend.wait("x", 50)
        return status, await backend.result("x") if status.state == "finished" else None

    return drive(tmp_path, scenario, **settings)


def printed(tmp_path: Path, task: Task, **settings: Any) -> str:
    status, result = ended(tmp_path, task, **settings)
    assert result is not None, status
    return result.data.decode()


# What a job is given


def test_a_job_sees_no_environment_but_the_promised_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADESKILL_SECRET", "canary")
    seen = dict(line.split("=", 1) for line in printed(tmp_path, shell("exec env")).splitlines())
    assert seen.pop("PWD") == "/job/home"  # the shell's own
    assert seen == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/job/home",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "TRADESKILL_OUTPUT": "/job/output",
    }


def test_program_files_are_found_in_the_sandbox_and_in_no_other_place(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "outside").write_text("")
    task = Task(("python", "-I", "job.py", "job.py", "../outside", "plain", "x" * 300), b"in", folder, details={"owner": "me"})
    assert printed(tmp_path, task) == f"{['/job/program/job.py', '../outside', 'plain', 'x' * 300]} /job/home in"


def test_the_interpreter_is_the_sellers_own_with_what_is_installed_for_it(tmp_path: Path) -> None:
    code = "import sys, pluggy; print(sys.executable, sys.prefix)"
    assert printed(tmp_path, Task(("python", "-I", "-c", code), b"", details={"owner": "me"})) == f"{sys.executable} {sys.prefix}\n"


def test_more_of_the_machine_is_shown_where_the_settings_say_so(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir(mode=0o755)
    (tmp_path / "model" / "weights").write_text("42")
    assert printed(tmp_path, shell(f"cat {tmp_path}/model/weights; touch {tmp_path}/model/x || true"), readable=[tmp_path / "model"]) == "42"
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["weights"]


def test_the_network_that_an_offer_grants_is_the_machines_without_its_unix_sockets(tmp_path: Path) -> None:
    code = """
import socket, sys
a, b = socket.socketpair(); a.send(b"pair "); print(b.recv(9).decode(), end="")
print(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5).recv(9).decode(), end=" ")
refused = []
for make in (lambda: socket.socket(socket.AF_UNIX), lambda: socket.socketpair(type=socket.SOCK_DGRAM)):
    try: make()
    except OSError as error: refused.append(error.errno)
print(refused)
"""
    def greet(door: socket.socket) -> None:
        with door.accept()[0] as caller:
            caller.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as door:
        answer = threading.Thread(target=greet, args=(door,), daemon=True)
        answer.start()
        task = Task(("python", "-I", "-S", "-c", code, str(door.getsockname()[1])), b"", details={"owner": "me"}, network=True)
        assert printed(tmp_path, task) == "pair hello [97, 1]\n"
        answer.join(10)


def test_root_gives_each_job_a_user_of_its_own(tmp_path: Path) -> None:
    async def scenario(backend: BubblewrapBackend) -> list[int]:
        users = []
        for name in ("x", "y"):
            await backend.start(name, shell("echo up > $TRADESKILL_OUTPUT/up; exec sleep 1000"), LIMITS)
            supervisor = json.loads((tmp_path / "executions" / name / "supervisor.json").read_text())["pid"]
            users += [Path(f"/proc/{child}").stat().st_uid for child in await children(supervisor)]
        return users

    users = drive(tmp_path, scenario)
    assert len(set(users)) == (2 if os.geteuid() == 0 else 1)
    assert 0 not in users


async def children(pid: int) -> list[str]:
    """Once there are any that have become what they are to be."""
    async with asyncio.timeout(20):
        while True:
            found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if found and all(Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"/usr/bin/bwrap") for child in found):
                return found
            await World().sleep(0.01)


# What it leaves


def test_files_of_a_job_are_its_result_also_those_in_folders(tmp_path: Path) -> None:
    _, result = ended(tmp_path, shell("echo talk; cd $TRADESKILL_OUTPUT; mkdir a; echo 1 > a/b; echo 2 > c"))
    assert result is not None
    with tarfile.open(fileobj=io.BytesIO(result.data)) as archive:
        assert {name: getattr(archive.extractfile(name), "read", bytes)() for name in archive.getnames()} == {"a/b": b"1\n", "c": b"2\n"}


def test_as_much_output_as_is_allowed_is_taken_and_one_byte_more_is_not(tmp_path: Path) -> None:
    limits = Limits(seconds=20, memory=256 * 2**20, output=300_000, files=3)
    fill = "cd $TRADESKILL_OUTPUT; for n in 1 2 3; do head -c 100000 /dev/zero > $n; done"
    assert ended(tmp_path, shell(fill), limits)[0].state == "finished"
    assert ended(tmp_path / "b", shell(f"{fill}; printf x >> 1"), limits)[0].code == "limit.output"
    assert ended(tmp_path / "c", shell(f"{fill}; true > 4"), limits)[0].code == "limit.output"


def test_a_job_killed_by_a_signal_is_failed_with_the_signals_number(tmp_path: Path) -> None:
    status, _ = ended(tmp_path, shell("kill -SEGV $$"))
    assert (status.state, status.code, status.detail) == ("failed", "exit", "was killed by signal 11")


def test_a_job_asked_to_end_may_tidy_up(tmp_path: Path) -> None:
    status, _ = ended(tmp_path, shell("trap 'echo tidied >&2; exit 3' TERM; while :; do sleep 0.05; done"), Limits(seconds=1.5))
    assert (status.state, status.code) == ("failed", "limit.time")
    assert "tidied" in (tmp_path / "executions" / "x" / "stderr").read_text()


# Crashes

WORKER = """
import asyncio, sys
from pathlib import Path
from tradeskill.contracts import Limits, Task
from tradeskill.world import World
from tradeskill_plugins.bubblewrap.backend import BubblewrapBackend

async def main() -> None:
    backend = BubblewrapBackend(Path(sys.argv[1]), World(), "me")
    await backend.open()
    await backend.start("x", Task(("sh", "-c", "read line < /job/program/go; cat; echo $line"), b"input", Path(sys.argv[2])), Limits(seconds=30))
    print("started", flush=True)
    await backend.wait("x", 30)

asyncio.run(main())
"""


def test_a_job_whose_worker_was_killed_goes_on_and_is_adopted_by_another_process(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(folder / "go")
    (folder / "go").chmod(0o666)
    command = [sys.executable, "-c", WORKER, str(tmp_path / "executions"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "started\n"
        first.kill()

    async def scenario(backend: BubblewrapBackend) -> Result:
        assert (await backend.status("x")).state == "running"
        waiting = asyncio.ensure_future(backend.wait("x", 30))
        await asyncio.to_thread((folder / "go").write_text, " and more\n")
        assert (await waiting).state == "finished"
        return await backend.result("x")

    assert drive(tmp_path, scenario).data == b"inputand more\n"


NAP = f"1234.{os.getpid()}"  # this run's: others may sleep on the same machine


def test_when_the_supervisor_is_killed_the_job_dies_is_lost_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(backend: BubblewrapBackend) -> None:
        await backend.start("x", shell(f"sleep {NAP} & setsid sleep {NAP} & wait"), LIMITS)
        record = json.loads((tmp_path / "executions" / "x" / "supervisor.json").read_text())
        async with asyncio.timeout(20):
            while len(sleepers()) < 2:
                await World().sleep(0.01)
        assert backend._view is not None
        groups = [Path(folder) / f"tradeskill-{backend._view.name('x')}" for folder in backend._view.cgroups.values()]
        assert all(group.is_dir() for group in groups)
        os.kill(record["pid"], signal.SIGKILL)
        assert (await backend.wait("x", 30)).state == "lost"
        assert sleepers() == []
        await backend.remove("x")
        assert list((tmp_path / "executions").iterdir()) == []
        assert not any(group.exists() for group in groups)

    drive(tmp_path, scenario)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may trace whom it likes")
def test_a_job_is_not_lost_before_the_last_of_its_processes_is_gone(tmp_path: Path) -> None:
    """A traced process is there until its tracer has looked, and the first of its namespace until then on its way out."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    seize = 0x4206

    async def scenario(backend: BubblewrapBackend) -> None:
        await backend.start("x", shell(f"sleep {NAP} & wait"), LIMITS)
        supervisor = json.loads((tmp_path / "executions" / "x" / "supervisor.json").read_text())["pid"]
        async with asyncio.timeout(20):
            while not (found := sleepers()):
                await World().sleep(0.01)
        assert ptrace(seize, ctypes.c_long(int(found[0])), None, None) == 0, os.strerror(ctypes.get_errno())
        os.kill(supervisor, signal.SIGKILL)
        try:
            status = await backend.wait("x", 30)
        finally:
            death = _reaped(int(found[0]))
        assert (status.state, status.detail) == ("running", "its supervisor died, and processes it started do not yet")
        assert os.WTERMSIG(death) == signal.SIGKILL
        assert (await backend.wait("x", 30)).state == "lost"

    drive(tmp_path, scenario)


def _reaped(traced: int) -> int:
    return os.waitpid(traced, 0x40000000)[1]  # __WALL


def sleepers() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes() == f"sleep\0{NAP}\0".encode():
                found.append(path.parent.name)
    return found


def test_a_job_whose_control_group_cannot_be_made_has_not_run(tmp_path: Path) -> None:
    async def scenario(backend: BubblewrapBackend) -> ExecutionStatus:
        view = backend._view
        assert view is not None
        gone = dataclasses.replace(view, cgroups={"pids": str(tmp_path / "no-such-folder")})
        backend._executions = Executions(tmp_path / "executions", "me", 64, 2**20, gone)
        await backend.start("x", shell("echo ran"), LIMITS)
        return await backend.wait("x", 30)

    status = drive(tmp_path, scenario)
    assert (status.state, status.code) == ("failed", "exit")
    assert "nothing has run" in status.detail
    assert "no-such-folder" in status.detail


# Where it cannot hold


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a script in bwrap's place, somewhere that a job's user can get at it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)

        def put(script: str) -> None:
            (Path(name) / "bwrap").write_text(script)
            (Path(name) / "bwrap").chmod(0o755)
            monkeypatch.setattr("tradeskill_plugins.bubblewrap.backend._PATH", name)

        yield put


async def opened(tmp_path: Path, **settings: Any) -> None:
    await BubblewrapBackend(tmp_path / "executions", World(), "me", **settings).open()


def test_without_bwrap_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeskill_plugins.bubblewrap.backend._PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="apt install bubblewrap"):
        asyncio.run(opened(tmp_path))


def test_a_sandbox_that_is_none_is_found_out_before_anything_is_sold(tmp_path: Path, instead: Callable[[str], None]) -> None:
    instead('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    with pytest.raises(UnavailableError, match=r"does not hold on this machine.*Seccomp is '0', not '2'"):
        asyncio.run(opened(tmp_path))
    assert list((tmp_path / "executions").iterdir()) == []


def test_where_there_are_no_user_namespaces_it_says_which_switches_there_are(tmp_path: Path, instead: Callable[[str], None]) -> None:
    instead("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    with pytest.raises(UnavailableError, match=r"uid map: Permission denied.*kernel\.apparmor_restrict_unprivileged_userns=0"):
        asyncio.run(opened(tmp_path))


def test_a_program_folder_with_the_sellers_own_files_or_none_at_all_is_refused(tmp_path: Path) -> None:
    async def scenario(backend: BubblewrapBackend) -> None:
        for folder, why in ((tmp_path, "a folder of its own"), (tmp_path / "executions", "a folder of its own"), (tmp_path / "none", "no folder")):
            with pytest.raises(RefusedError, match=why):
                await backend.start("x", shell("echo 1", folder), LIMITS)
        assert list(await backend.list("me")) == []

    drive(tmp_path, scenario)


def test_showing_jobs_a_folder_with_the_sellers_own_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="move one of them"):
        asyncio.run(opened(tmp_path, readable=[tmp_path]))
    with pytest.raises(ConfigError, match="does not exist"):
        asyncio.run(opened(tmp_path, readable=[tmp_path / "nothing"]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's jobs run as somebody else")
def test_a_program_that_roots_jobs_could_not_read_is_refused_with_the_way_out(tmp_path: Path, folder: Path) -> None:
    (folder / "job.py").chmod(0o600)

    async def scenario(backend: BubblewrapBackend) -> None:
        with pytest.raises(RefusedError, match=r"chmod -R go\+rX"):
            await backend.start("x", Task(("python", "job.py"), b"", folder), LIMITS)

    drive(tmp_path, scenario)


# The plugin


def context(folder: Path) -> PluginContext:
    return PluginContext("bubblewrap", "dev", folder / "backends" / "bubblewrap", World(), Identity(bytes(32)), lambda: "")


@pytest.mark.parametrize(
    "settings",
    [{"foldr": "x"}, {"folder": 3}, {"processes": 0}, {"scratch": "many"}, {"scratch": 5}, {"read": "/usr"}, {"read": ["usr"]}, {"uids": 7}, {"uids": [0, 5]}],
)
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        tradeskill_open_backend(settings, context(tmp_path))


def test_the_plugin_keeps_its_executions_in_its_own_folder_and_says_what_it_enforces_here(tmp_path: Path) -> None:
    backend = tradeskill_open_backend({"processes": 16, "scratch": 2**20}, context(tmp_path))

    async def scenario() -> str:
        assert isinstance(backend, BubblewrapBackend)
        await backend.open()
        await backend.start("x", shell("df -k /tmp | tail -1; ulimit -p 2>/dev/null || true"), LIMITS)
        assert (await backend.wait("x", 30)).state == "finished"
        assert b" 1024 " in (await backend.result("x")).data
        return await backend.examine()

    assert asyncio.run(scenario()).startswith("isolation sandbox: tried on this machine with /usr/bin/bwrap")
    assert (tmp_path / "backends" / "bubblewrap" / "x").is_dir()


def test_what_it_says_without_looking_is_what_it_finds_by_trying(tmp_path: Path) -> None:
    async def found() -> dict[str, object]:
        backend = BubblewrapBackend(tmp_path / "executions", World(), "me")
        return {capability.name: capability.value for capability in await backend.enforced()}

    said = {capability.name: capability.value for capability in tradeskill_capabilities()}
    enforced = asyncio.run(found())
    assert enforced == {name: said[name] for name in enforced}
    assert said["isolation"] == "sandbox"
