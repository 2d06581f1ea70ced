"""The process backend survives what its own part of FAULTS.md lists (79-85). Its contract: `tradeskill plugins check process` (tests/test_kit_ours.py).

Past 400 lines because it is one catalogue of faults, in its order.
"""

# ruff: noqa: ASYNC240  # a look at a folder between two steps of a test blocks nobody

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tradeskill.contracts import ExecutionStatus, Limits, PluginContext, Task
from tradeskill.errors import ConfigError, RefusedError, StorageError, UsageError
from tradeskill.model import Result
from tradeskill.signing import Identity
from tradeskill.world import World
from tradeskill_plugins.executions.records import Executions, Supervisor
from tradeskill_plugins.process import tradeskill_capabilities, tradeskill_open_backend
from tradeskill_plugins.process.backend import ProcessBackend

T = TypeVar("T")
LIMITS = Limits(seconds=20, memory=256 * 2**20, output=2**20)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "executions"


def python(code: str, *, stdin: bytes = b"") -> Task:
    return Task(("python", "-I", "-S", "-c", textwrap.dedent(code)), stdin, trusted=True, details={"owner": "me"})


def shell(script: str) -> Task:
    return Task(("sh", "-c", script), b"", trusted=True, details={"owner": "me"})


def drive(home: Path, scenario: Callable[[ProcessBackend], Awaitable[T]], processes: int = 64) -> T:
    async def run() -> T:
        backend = ProcessBackend(home, World(), "me", processes)
        await backend.open()
        try:
            return await asyncio.wait_for(_awaited(scenario(backend)), 60)
        finally:
            for execution_id in await backend.list("me"):
                await backend.stop(execution_id)

    return asyncio.run(run())


async def _awaited(value: Awaitable[T]) -> T:
    return await value


def ended(home: Path, task: Task, limits: Limits = LIMITS, processes: int = 64) -> tuple[ExecutionStatus, Result | None]:
    async def scenario(backend: ProcessBackend) -> tuple[ExecutionStatus, Result | None]:
        await backend.start("x", task, limits)
        status = await backend.wait("x", 50)
        return status, await backend.result("x") if status.state == "finished" else None

    return drive(home, scenario, processes)


def printed(home: Path, task: Task) -> str:
    status, result = ended(home, task)
    assert result is not None, status
    return result.data.decode()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return True


# What a job is given


def test_a_job_sees_no_environment_but_the_five_promised_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADESKILL_SECRET", "canary")
    seen = json.loads(printed(home, python("import json, os; print(json.dumps(dict(os.environ)))")))
    folder = f"{home}/x"
    assert seen == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": f"{folder}/work",
        "TMPDIR": f"{folder}/work",
        "LANG": "C.UTF-8",
        "TRADESKILL_OUTPUT": f"{folder}/output",
    }


def test_a_job_inherits_three_descriptors_its_own_session_and_no_terminal(home: Path, tmp_path: Path) -> None:
    code = """
        import json, os
        try:
            os.open("/dev/tty", os.O_RDWR); tty = True
        except OSError:
            tty = False
        print(json.dumps({"fds": [n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")],
                          "leader": os.getsid(0) == os.getpid(), "tty": tty, "cwd": os.getcwd(), "umask": os.umask(0)}))
    """
    with (tmp_path / "open").open("w") as canary:
        os.set_inheritable(canary.fileno(), True)
        seen = json.loads(printed(home, python(code)))
    assert sorted(seen.pop("fds")) == ["0", "1", "2"]
    assert seen == {"leader": True, "tty": False, "cwd": f"{home}/x/work", "umask": 0o077}


def test_program_files_are_found_in_the_tasks_folder_and_nowhere_above_it(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    (tmp_path / "outside").write_text("")
    (folder / "job.py").write_text("import sys; print(sys.argv[1:], sys.stdin.read(), end='')")
    task = Task(("python", "-I", "job.py", "job.py", "../outside", "plain"), b"in", folder, trusted=True)
    status, result = ended(home, task)
    assert result is not None, status
    assert result.data.decode() == f"{[str(folder / 'job.py'), '../outside', 'plain']} in"


@pytest.mark.parametrize("mask", ["SigIgn", "SigBlk"])
def test_a_job_ignores_and_blocks_no_signal_whatever_its_worker_does(home: Path, mask: str) -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGQUIT, signal.SIGPIPE, signal.SIGUSR1)}
    try:
        found = int(printed(home, shell(f"grep {mask} /proc/self/status")).split()[1], 16)
        assert found & ~(0b11 << 31) == 0  # 32 and 33 are the C library's own: nobody else can set them
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_task_that_is_not_trusted_leaves_no_folder(home: Path) -> None:
    async def scenario(backend: ProcessBackend) -> None:
        with pytest.raises(RefusedError, match="isolates nothing"):
            await backend.start("x", Task(("true",), b""), LIMITS)
        assert list(home.iterdir()) == []

    drive(home, scenario)


@pytest.mark.parametrize("execution_id", ["", ".", "..", "a/b", ".hidden", "a\0", "a" * 129, "ä", "a\n"])
def test_an_id_that_is_no_folder_name_is_refused(home: Path, execution_id: str) -> None:
    async def scenario(backend: ProcessBackend) -> None:
        with pytest.raises(UsageError):
            await backend.start(execution_id, shell("true"), LIMITS)

    drive(home, scenario)


def test_a_relative_home_is_the_same_place_for_worker_and_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert printed(Path("executions"), shell("pwd")) == f"{tmp_path}/executions/x/work\n"


def test_folders_are_for_their_owner_only(home: Path) -> None:
    ended(home, shell("echo 1"))
    assert [path.stat().st_mode & 0o777 for path in (home, home / "x", home / "x" / "stdin", home / "x" / "stdout")] == [0o700, 0o700, 0o600, 0o600]


# What it leaves


def test_stdout_is_the_result_with_a_type_that_fits_its_bytes(home: Path) -> None:
    results = {}
    for name, words in {"json": "printf '[1, 2]'", "text": "printf 'na so was\\n'", "nan": "printf NaN", "bytes": "printf '\\377\\000'"}.items():
        results[name] = ended(home / name, shell(words))[1]
    assert results == {
        "json": Result(b"[1, 2]", "application/json"),
        "text": Result(b"na so was\n", "text/plain; charset=utf-8"),
        "nan": Result(b"NaN", "text/plain; charset=utf-8"),
        "bytes": Result(b"\xff\0", "application/octet-stream"),
    }


def test_files_in_the_output_folder_win_over_what_was_printed(home: Path) -> None:
    status, result = ended(home, shell("echo progress; echo '# Title' > $TRADESKILL_OUTPUT/page.md"))
    assert result == Result(b"# Title\n", "text/markdown; charset=utf-8"), status


def test_a_job_that_leaves_nothing_has_failed(home: Path) -> None:
    status, _ = ended(home, shell("true"))
    assert (status.state, status.code) == ("failed", "output")
    assert "left nothing" in status.detail


def test_the_end_of_stderr_says_why_a_job_failed(home: Path) -> None:
    status, _ = ended(home, shell("echo first >&2; printf 'the \\033[31mreason\\n' >&2; exit 7"))
    assert status == ExecutionStatus("failed", "exited with status 7: the ?[31mreason", "exit")
    assert (home / "x" / "stderr").read_text() == "first\nthe \x1b[31mreason\n"


def test_a_command_that_does_not_exist_is_failed_and_named(home: Path) -> None:
    status, _ = ended(home, Task(("no-such-program",), b"", trusted=True))
    assert (status.state, status.code) == ("failed", "exit")
    assert "cannot run 'no-such-program'" in status.detail


def test_a_job_killed_by_a_signal_is_failed_with_the_signals_number(home: Path) -> None:
    status, _ = ended(home, shell("kill -SEGV $$"))
    assert (status.state, status.code, status.detail) == ("failed", "exit", "was killed by signal 11")


HOSTILE = {
    "symlink": "ln -s /etc/passwd {out}/a",
    "symlinked folder": "ln -s /etc {out}/a",
    "output replaced by a symlink": "rmdir {out}; ln -s /etc {out}",
    "output replaced by a file": "rmdir {out}; echo 1 > {out}",
    "hard link": "echo 1 > secret; ln secret {out}/a",
    "hard link of a worker's file": "ln ../task.json {out}/a",
    "FIFO": "mkfifo {out}/a",
    "name with a control character": "echo 1 > {out}/$(printf 'a\\033[2J')",
    "name in dots": "echo 1 > {out}/...",
    "nested too deep": "cd {out}; mkdir -p 1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17",
    "stdout swapped for a symlink": "ln -sf /etc/passwd ../stdout",
    "stdout swapped for a FIFO": "rm ../stdout; mkfifo ../stdout",
    "output is gone": "rmdir {out}",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_output_is_refused_with_code_output(home: Path, script: str) -> None:
    status, result = ended(home, shell(script.format(out="$TRADESKILL_OUTPUT")))
    assert (status.state, status.code) == ("failed", "output"), status
    assert result is None


def test_a_sparse_terabyte_is_refused_without_being_read(home: Path) -> None:
    status, _ = ended(home, shell("truncate -s 1T $TRADESKILL_OUTPUT/a; echo fine"))
    assert status.state == "finished"  # no file can grow past its limit: truncate itself was stopped, and left nothing
    many = "for n in 1 2 3 4 5; do truncate -s 600K $TRADESKILL_OUTPUT/$n; done; exit 0"
    status, _ = ended(home.with_name("many"), shell(many))
    assert (status.state, status.code) == ("failed", "limit.output")


def test_too_many_files_are_a_failure(home: Path) -> None:
    status, _ = ended(home, shell("cd $TRADESKILL_OUTPUT; touch 1 2 3 4"), Limits(seconds=20, files=3))
    assert (status.state, status.code) == ("failed", "limit.output")


# What it must not take


def test_a_job_that_ignores_sigterm_is_killed(home: Path) -> None:
    status, _ = ended(home, shell("trap '' TERM; while :; do sleep 0.05; done"), Limits(seconds=0.3))
    assert (status.state, status.code) == ("failed", "limit.time")


def test_a_job_asked_to_end_may_tidy_up(home: Path) -> None:
    status, _ = ended(home, shell("trap 'echo tidy > tidied; exit 0' TERM; while :; do sleep 0.05; done"), Limits(seconds=1.5))
    assert (status.state, status.code) == ("failed", "limit.time")
    assert (home / "x" / "work" / "tidied").read_text() == "tidy\n"


def test_memory_beyond_the_limit_ends_the_job(home: Path) -> None:
    status, _ = ended(home, python("x = bytearray(10**9)"), Limits(seconds=20, memory=64 * 2**20))
    assert (status.state, status.code) == ("failed", "limit.memory"), status


def test_many_processes_share_one_memory_limit(home: Path) -> None:
    code = """
        import os, time
        for _ in range(6):
            if os.fork() == 0:
                break
        x = bytearray(os.urandom(2**20)) * 30
        time.sleep(100)
    """
    status, _ = ended(home, python(code), Limits(seconds=20, memory=100 * 2**20))
    assert (status.state, status.code) == ("failed", "limit.memory"), status


def test_processor_time_beyond_the_limit_ends_the_job(home: Path) -> None:
    status, _ = ended(home, python("while True: pass"), Limits(seconds=30, cpu_seconds=0.2))
    assert (status.state, status.code) == ("failed", "limit.time"), status
    assert "processor" in status.detail


def test_a_fork_bomb_is_ended_whole(home: Path) -> None:
    code = """
        import os, time
        for _ in range(6):
            os.fork()
        time.sleep(100)
    """
    status, _ = ended(home, python(code), processes=16)
    assert (status.state, status.code) == ("failed", "limit.processes"), status
    assert survivors(home) == []


def test_a_daemon_dies_with_the_job_that_started_it(home: Path) -> None:
    code = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.environ.clear()
                for n in (0, 1, 2):
                    os.close(n)
                os.execve("/bin/sleep", ["sleep", "1000"], {})
            os._exit(0)
        os.wait()
        up = os.getppid()
        children = open(f"/proc/{up}/task/{up}/children").read().split()
        print(*[child for child in children if child != str(os.getpid())])
    """
    (daemon,) = map(int, printed(home, python(code)).split())
    assert gone(daemon)


def test_a_flood_on_stderr_keeps_its_end_only_and_harms_nobody(home: Path) -> None:
    status, _ = ended(home, shell("yes 0123456789 | head -c 3000000 >&2; echo end >&2; echo fine"))
    assert status.state == "finished"
    log = (home / "x" / "stderr").read_bytes()
    assert len(log) <= 16384
    assert log.endswith(b"end\n")


def test_a_scratch_folder_of_many_files_is_a_limit_too(home: Path) -> None:
    code = """
        import os, time
        for n in range(300):
            f = os.open(str(n), os.O_CREAT | os.O_WRONLY); os.ftruncate(f, 2**20); os.close(f)
        time.sleep(100)
    """
    status, _ = ended(home, python(code))
    assert (status.state, status.code) == ("failed", "limit.output"), status


def survivors(home: Path) -> list[str]:
    mark = f"TRADESKILL_OUTPUT={home}/".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


# Crashes

WORKER = """
import asyncio, sys
from pathlib import Path
from tradeskill.contracts import Limits, Task
from tradeskill.world import World
from tradeskill_plugins.process.backend import ProcessBackend

async def main() -> None:
    backend = ProcessBackend(Path(sys.argv[1]), World(), "me")
    await backend.open()
    await backend.start("x", Task(("sh", "-c", sys.argv[2]), b"input", trusted=True), Limits(seconds=30))
    print("started", flush=True)
    if sys.argv[3:] == ["stay"]:
        await backend.wait("x", 30)

asyncio.run(main())
"""


def worker(home: Path, script: str, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WORKER, str(home), script, *more], stdout=subprocess.PIPE, text=True)


def test_a_job_whose_worker_was_killed_goes_on_and_is_adopted_by_another_process(home: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    with worker(home, f"read line < {go}; cat; echo $line", "stay") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "started\n"
        first.kill()

    async def scenario(backend: ProcessBackend) -> Result:
        assert (await backend.status("x")).state == "running"
        waiting = asyncio.ensure_future(backend.wait("x", 30))
        await asyncio.to_thread(go.write_text, " and more\n")
        assert (await waiting).state == "finished"
        return await backend.result("x")

    assert drive(home, scenario).data == b"inputand more\n"


def test_of_two_processes_starting_one_id_one_runs_it(home: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    workers = [worker(home, f"echo run >> {count}; echo done") for _ in range(3)]
    for process in workers:
        with process:
            assert process.communicate(timeout=30)[0] == "started\n"
        assert process.returncode == 0

    async def scenario(backend: ProcessBackend) -> ExecutionStatus:
        return await backend.wait("x", 30)

    assert drive(home, scenario).state == "finished"
    assert count.read_text() == "run\n"


def test_when_the_supervisor_is_killed_the_job_dies_and_is_lost(home: Path) -> None:
    async def scenario(backend: ProcessBackend) -> None:
        await backend.start("x", shell("sleep 1000 & echo $$ $! > pids; sleep 1001 & wait"), LIMITS)
        await until_exists(home / "x" / "work" / "pids")
        record = json.loads((home / "x" / "supervisor.json").read_text())
        waiting = asyncio.ensure_future(backend.wait("x", 30))
        os.kill(record["pid"], signal.SIGKILL)
        status = await waiting
        assert status.state == "lost"
        assert str(record["pid"]) in status.detail
        assert survivors(home) == []
        assert all(gone(int(pid)) for pid in (home / "x" / "work" / "pids").read_text().split())
        await backend.start("x", shell("echo again"), LIMITS)
        assert (await backend.status("x")).state == "lost"

    drive(home, scenario)


async def until_exists(path: Path) -> None:
    """Bounded: an empty file is one that is still being written."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 20
    while not (path.exists() and path.stat().st_size):
        assert loop.time() < end, f"{path} never appeared"
        await World().sleep(0.01)


def test_a_crash_between_folder_and_launch_is_absent_and_the_same_start_runs_it_once(home: Path) -> None:
    async def scenario(backend: ProcessBackend) -> None:
        Executions(home, "me", 64).create("x", shell("echo first"), LIMITS)
        assert (await backend.status("x")).state == "absent"
        assert list(await backend.list("me")) == ["x"]
        await backend.start("x", shell("echo second"), LIMITS)
        assert (await backend.wait("x", 30)).state == "finished"
        assert (await backend.result("x")).data == b"first\n"

    drive(home, scenario)


def test_a_supervisor_of_another_boot_or_start_time_is_dead(home: Path) -> None:
    async def scenario(backend: ProcessBackend) -> None:
        await backend.start("x", shell("exec sleep 1000"), LIMITS)
        path = home / "x" / "supervisor.json"
        record = json.loads(path.read_text())
        mine = Supervisor(record["pid"], record["started"], record["boot"])
        assert mine.alive()
        assert not Supervisor(mine.pid, mine.started + 1, mine.boot).alive()
        assert not Supervisor(mine.pid, mine.started, "another").alive()
        assert Supervisor(mine.pid, mine.started + 1, mine.boot).pinned() is None

    drive(home, scenario)


def test_a_pid_that_came_to_mean_another_process_is_never_signalled(home: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        Supervisor(other.pid, 1, Path("/proc/sys/kernel/random/boot_id").read_text().strip()).signal(signal.SIGKILL)
        assert other.poll() is None
        other.kill()


def test_leftovers_of_a_crash_are_cleared_when_they_are_old(home: Path) -> None:
    class Later(World):
        def now_ms(self) -> int:
            return super().now_ms() + 2 * 3_600_000

    async def scenario(backend: ProcessBackend) -> None:
        (home / ".new-y-1" / "work").mkdir(parents=True)
        (home / ".gone-z-1").mkdir()
        await backend.open()
        assert len(list(home.iterdir())) == 2
        await ProcessBackend(home, Later(), "me").open()
        assert list(home.iterdir()) == []

    drive(home, scenario)


def test_a_damaged_record_stops_instead_of_being_read_as_absent(home: Path) -> None:
    async def scenario(backend: ProcessBackend) -> None:
        await backend.start("x", shell("echo 1"), LIMITS)
        await backend.wait("x", 30)
        outcome = (home / "x" / "outcome.json").read_text()
        (home / "x" / "outcome.json").write_text("{")
        with pytest.raises(StorageError, match=r"outcome\.json is damaged"):
            await backend.status("x")
        (home / "x" / "outcome.json").write_text(outcome)

    drive(home, scenario)


def test_remove_follows_no_symlink_out_of_the_folder(home: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("still here")

    async def scenario(backend: ProcessBackend) -> None:
        await backend.start("x", shell(f"ln -s {keep} link; mkdir -p a/b; ln -s {keep}/file a/b/link; mkdir locked; chmod 0 locked a; echo 1"), LIMITS)
        await backend.wait("x", 30)
        await backend.remove("x")
        assert list(home.iterdir()) == []

    drive(home, scenario)
    assert (keep / "file").read_text() == "still here"


# The plugin


def context(folder: Path) -> PluginContext:
    return PluginContext("process", "dev", folder, World(), Identity(bytes(32)), lambda: "")


def test_the_plugin_opens_in_its_own_folder_and_owns_what_names_no_owner(tmp_path: Path) -> None:
    backend: Any = tradeskill_open_backend({"plugin": "process", "folder": "elsewhere"}, context(tmp_path))

    async def scenario() -> None:
        await backend.open()
        await backend.start("x", Task(("echo", "1"), b"", trusted=True), LIMITS)
        assert (await backend.wait("x", 30)).state == "finished"
        assert list(await backend.list(Identity(bytes(32)).key)) == ["x"]

    asyncio.run(scenario())
    assert (tmp_path / "elsewhere" / "x").is_dir()


@pytest.mark.parametrize("settings", [{"foldr": "x"}, {"folder": 3}, {"processes": 0}, {"processes": True}, {"processes": "many"}])
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        tradeskill_open_backend(settings, context(tmp_path))


def test_capabilities_say_that_nothing_is_isolated_and_why() -> None:
    found = {capability.name: capability for capability in tradeskill_capabilities()}
    assert found["isolation"].value == "none"
    assert "own code only" in found["isolation"].reason
    assert all(capability.reason for capability in found.values())
