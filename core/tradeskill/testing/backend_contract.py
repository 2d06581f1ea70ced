"""What every compute backend must do, as tests: subclass BackendContract, override `kit`, and run pytest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, ClassVar, Final, Literal, Protocol, TypeVar

import pytest

from tradeskill.contracts import Backend, ExecutionStatus, Limits, Task
from tradeskill.errors import NotFoundError, RefusedError, StateError, TradeskillError
from tradeskill.model import Result
from tradeskill.testing.clauses import clause, declared
from tradeskill.testing.interruption import interrupted

__all__ = ["BACKEND_LACKS", "STDIN", "BackendContract", "BackendKit", "Work"]

T = TypeVar("T")
Work = Literal["echo", "forever", "fail", "flood", "environment", "link", "hungry"]
WORKS: Final[Mapping[Work, str]] = {
    "echo": "its result is its stdin, as application/json",
    "forever": "never ends",
    "fail": "exits with an error",
    "flood": "never ends and prints all the time",
    "environment": "prints its environment, as `env` does",
    "link": "leaves, where its result should be, a symbolic link to `OUTSIDE`",
    "hungry": "takes memory until it is stopped, 1 GiB at most",
}
BACKEND_LACKS: Final[Mapping[str, str]] = {  # what a backend or its kit may lack -> what is then not tried
    "environment": "a job that prints its environment",
    "link": "output that is files",
    "memory": "a limit on memory",
}
OUTSIDE: Final = "/etc/passwd"  # a file that every machine has and no job may hand out
CANARY: Final = "canary-5f0c7f1e3d0a4b53"

STDIN = b'{"say": "gr\xc3\xbc\xc3\x9f dich"}'
MINUTE = 60.0  # how long a test is willing to wait for something that should take milliseconds


class BackendKit(Protocol):
    """How the contract drives one backend. One kit is one machine, fresh for each test."""

    isolates: bool  # False: it must refuse a task that is not trusted
    # A kit may have `lacks` too: what it cannot do (see BACKEND_LACKS) -> why.

    def backend(self) -> Backend:
        """A new worker's backend on this machine, not yet opened. Called again it stands for another worker, or the same one restarted."""

    def task(self, work: Work, owner: str) -> Task:
        """A trusted task with `STDIN` that does what WORKS says. KeyError for a work that this kit cannot make: then `lacks` says why."""

    def runs(self) -> int:
        """How many commands were really started on this machine so far."""


class BackendContract:
    """The backend's clauses. A subclass gives the `kit` fixture and nothing else."""

    yours: ClassVar[frozenset[str]] = frozenset({"kit", "drive", "limits"})
    limits = Limits(seconds=30.0, memory=256 * 2**20, output=2**20)

    @pytest.fixture
    def kit(self) -> BackendKit:
        raise NotImplementedError("override the kit fixture with your backend's")

    def drive(self, scenario: Coroutine[Any, Any, T]) -> T:
        """Runs one scenario on an event loop. Override for a loop of your own (virtual time)."""
        return asyncio.run(asyncio.wait_for(scenario, 4 * MINUTE))

    def with_backend(self, kit: BackendKit, scenario: Callable[[Backend], Awaitable[T]]) -> T:
        async def run() -> T:
            backend = kit.backend()
            await backend.open()
            try:
                return await scenario(backend)
            finally:
                for owner in ("alice", "bob"):
                    for execution_id in await backend.list(owner):
                        await backend.stop(execution_id)
                await backend.close()

        return self.drive(run())

    @clause("B-01")
    def test_what_was_never_started_is_absent_and_has_no_result(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            assert (await backend.status("x1")).state == "absent"
            assert (await backend.wait("x1", MINUTE)).state == "absent"
            with pytest.raises(NotFoundError):
                await backend.result("x1")
            assert list(await backend.list("alice")) == []

        self.with_backend(kit, scenario)

    @clause("B-02")
    def test_a_finished_command_gives_its_result_as_often_as_asked(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            assert await backend.start("x1", kit.task("echo", "alice"), self.limits) == "run"
            assert (await backend.wait("x1", MINUTE)).state == "finished"
            assert await backend.result("x1") == Result(STDIN, "application/json")
            assert await backend.result("x1") == Result(STDIN, "application/json")
            assert (await backend.status("x1")).state == "finished"

        self.with_backend(kit, scenario)

    @clause("B-03")
    def test_a_second_start_of_one_id_runs_nothing(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.start("x1", kit.task("echo", "alice"), self.limits)
            await backend.start("x1", kit.task("fail", "alice"), self.limits)
            assert (await backend.wait("x1", MINUTE)).state == "finished"
            await backend.start("x1", kit.task("fail", "alice"), self.limits)
            assert (await backend.status("x1")).state == "finished"
            assert kit.runs() == 1

        self.with_backend(kit, scenario)

    @clause("B-04")
    def test_of_many_starts_at_once_by_two_workers_one_runs(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            other = kit.backend()
            await other.open()
            task = kit.task("echo", "alice")
            await asyncio.gather(*(one.start("x1", task, self.limits) for one in (backend, other) * 3))
            assert (await other.wait("x1", MINUTE)).state == "finished"
            assert kit.runs() == 1
            await other.close()

        self.with_backend(kit, scenario)

    @clause("B-05")
    def test_a_running_execution_is_adopted_by_the_next_worker(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.start("x1", kit.task("forever", "alice"), self.limits)
            await backend.close()
            other = kit.backend()
            await other.open()
            assert list(await other.list("alice")) == ["x1"]
            assert (await other.status("x1")).state == "running"
            await other.start("x1", kit.task("forever", "alice"), self.limits)
            while kit.runs() == 0:  # running, but its command may not have said so yet
                assert (await other.wait("x1", 0.02)).state == "running"
            assert kit.runs() == 1
            await other.stop("x1")
            assert (await other.status("x1")).state == "failed"
            await other.close()

        self.with_backend(kit, scenario)

    @clause("B-06")
    def test_a_result_is_collected_by_the_next_worker_without_a_run(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.start("x1", kit.task("echo", "alice"), self.limits)
            await backend.wait("x1", MINUTE)
            await backend.close()
            other = kit.backend()
            await other.open()
            assert (await other.status("x1")).state == "finished"
            assert (await other.result("x1")).data == STDIN
            assert kit.runs() == 1
            await other.close()

        self.with_backend(kit, scenario)

    @clause("B-07")
    def test_a_failing_command_is_failed_with_code_exit_and_gives_no_result(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> ExecutionStatus:
            await backend.start("x1", kit.task("fail", "alice"), self.limits)
            status = await backend.wait("x1", MINUTE)
            with pytest.raises(StateError):
                await backend.result("x1")
            return status

        status = self.with_backend(kit, scenario)
        assert (status.state, status.code) == ("failed", "exit")

    @clause("B-08")
    def test_wait_gives_up_after_its_seconds_and_leaves_the_execution_running(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.start("x1", kit.task("forever", "alice"), self.limits)
            assert (await backend.wait("x1", 0.05)).state == "running"
            assert (await backend.status("x1")).state == "running"
            with pytest.raises(StateError):
                await backend.result("x1")

        self.with_backend(kit, scenario)

    @clause("B-09")
    def test_a_command_past_its_time_is_failed_with_code_limit_time(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> ExecutionStatus:
            await backend.start("x1", kit.task("forever", "alice"), Limits(seconds=0.3))
            return await backend.wait("x1", MINUTE)

        status = self.with_backend(kit, scenario)
        assert (status.state, status.code) == ("failed", "limit.time")

    @clause("B-10")
    def test_a_command_that_prints_without_end_is_failed_with_code_limit_output(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> ExecutionStatus:
            await backend.start("x1", kit.task("flood", "alice"), self.limits)
            return await backend.wait("x1", MINUTE)

        status = self.with_backend(kit, scenario)
        assert (status.state, status.code) == ("failed", "limit.output")

    @clause("B-11")
    def test_after_stop_nothing_runs_and_stopping_again_changes_nothing(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.stop("x1")
            assert (await backend.status("x1")).state == "absent"
            await backend.start("x1", kit.task("forever", "alice"), self.limits)
            waiting = asyncio.ensure_future(backend.wait("x1", MINUTE))
            await backend.stop("x1")
            first = await waiting
            assert (first.state, first.code) == ("failed", "stopped")
            await backend.stop("x1")
            assert await backend.status("x1") == first

        self.with_backend(kit, scenario)

    @clause("B-12")
    def test_stopping_a_finished_execution_keeps_its_result(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.start("x1", kit.task("echo", "alice"), self.limits)
            await backend.wait("x1", MINUTE)
            await backend.stop("x1")
            assert (await backend.result("x1")).data == STDIN

        self.with_backend(kit, scenario)

    @clause("B-13")
    def test_remove_leaves_no_trace_may_be_repeated_and_refuses_a_running_one(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.start("x1", kit.task("forever", "alice"), self.limits)
            with pytest.raises(StateError):
                await backend.remove("x1")
            await backend.stop("x1")
            await backend.remove("x1")
            await backend.remove("x1")
            assert (await backend.status("x1")).state == "absent"
            assert list(await backend.list("alice")) == []

        self.with_backend(kit, scenario)

    @clause("B-14")
    def test_list_names_the_executions_of_one_owner_only(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            for name, owner in (("x1", "alice"), ("x2", "bob"), ("x3", "alice")):
                await backend.start(name, kit.task("forever", owner), self.limits)
            assert sorted(await backend.list("alice")) == ["x1", "x3"]
            assert sorted(await backend.list("bob")) == ["x2"]
            assert sorted(await backend.list("carol")) == []

        self.with_backend(kit, scenario)

    @clause("B-15")
    def test_what_is_not_trusted_runs_only_where_the_backend_isolates(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            task = kit.task("echo", "alice")
            stranger = Task(task.argv, task.stdin, task.folder, trusted=False, details=task.details)
            if kit.isolates:
                await backend.start("x1", stranger, self.limits)
                assert (await backend.wait("x1", MINUTE)).state == "finished"
                return
            with pytest.raises(RefusedError):
                await backend.start("x1", stranger, self.limits)
            assert (await backend.status("x1")).state == "absent"
            assert kit.runs() == 0

        self.with_backend(kit, scenario)

    @clause("B-00")
    def test_what_is_declared_off_has_a_name_and_a_reason(self, kit: BackendKit) -> None:
        declared(self._lacks(kit), BACKEND_LACKS)

    @clause("B-16", unless="environment")
    def test_a_job_sees_nothing_of_the_sellers_environment(self, kit: BackendKit, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRADESKILL_PASSWORD_FILE", CANARY)
        monkeypatch.setenv("SOME_API_KEY", CANARY)

        async def scenario(backend: Backend) -> Result:
            await backend.start("x1", kit.task("environment", "alice"), self.limits)
            assert (await backend.wait("x1", MINUTE)).state == "finished"
            return await backend.result("x1")

        if "environment" not in self._lacks(kit):
            result = self.with_backend(kit, scenario)
            assert CANARY.encode() not in result.data, f"the job saw {result.data!r:.200}"

    @clause("B-17", unless="link")
    def test_an_output_that_is_a_link_is_not_followed(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.start("x1", kit.task("link", "alice"), self.limits)
            status = await backend.wait("x1", MINUTE)
            try:
                result = await backend.result("x1")
            except TradeskillError:
                return
            raise AssertionError(f"{status.state}, and its result is what the link points at: {result.data!r:.80}")

        if "link" not in self._lacks(kit):
            self.with_backend(kit, scenario)

    @clause("B-18", unless="memory")
    def test_a_command_that_takes_too_much_memory_is_failed(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> ExecutionStatus:
            await backend.start("x1", kit.task("hungry", "alice"), Limits(seconds=30.0, memory=64 * 2**20, output=2**20))
            return await backend.wait("x1", MINUTE)

        if "memory" not in self._lacks(kit):
            status = self.with_backend(kit, scenario)
            assert status.state == "failed", status
            assert status.code in ("limit.memory", "exit"), status  # some systems let the command fail by itself

    @clause("B-19")
    def test_a_start_interrupted_anywhere_and_asked_again_runs_once(self, kit: BackendKit) -> None:
        turns = (0, 1, 2, 4, 9, 30)

        async def scenario(backend: Backend) -> None:
            other = kit.backend()
            await other.open()
            for each in turns:
                await interrupted(backend.start(f"x{each}", kit.task("echo", "alice"), self.limits), each)
                await other.start(f"x{each}", kit.task("echo", "alice"), self.limits)
                assert (await other.wait(f"x{each}", MINUTE)).state == "finished", f"interrupted after {each} turns"
                assert (await other.result(f"x{each}")).data == STDIN
            assert kit.runs() == len(turns)
            await other.close()

        self.with_backend(kit, scenario)

    @clause("B-20")
    def test_who_stops_waiting_stops_nothing_else(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.start("x1", kit.task("forever", "alice"), self.limits)
            await interrupted(backend.wait("x1", MINUTE), 5)
            assert (await backend.status("x1")).state == "running"

        self.with_backend(kit, scenario)

    @clause("B-21")
    def test_a_hostile_id_names_no_execution(self, kit: BackendKit) -> None:
        async def scenario(backend: Backend) -> None:
            await backend.start("x1", kit.task("echo", "alice"), self.limits)
            await backend.wait("x1", MINUTE)
            for name in ("", ".", "..", "../x1", "x1/", "./x1", "x1\0", "x" * 5000, "\n"):
                try:
                    state = (await backend.status(name)).state
                except (TradeskillError, ValueError):
                    continue
                assert state == "absent", name

        self.with_backend(kit, scenario)

    @staticmethod
    def _lacks(kit: BackendKit) -> Mapping[str, str]:
        lacks: Mapping[str, str] = getattr(kit, "lacks", {})
        return lacks
