"""What stands before a third party's plugin: trouble in any call of a wallet, market or backend is "unknown", and the worker's other jobs go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from tests.rig import Rig, at_work
from tradeskill import guard
from tradeskill.contracts import Backend, Balance, ExecutionStatus, Limits, Market, Task, Wallet
from tradeskill.errors import NotFoundError, RefusedError, UnavailableError, UnknownOutcomeError, UntrustedError
from tradeskill.guard import fits, guarded
from tradeskill.model import Proof
from tradeskill.money import Amount
from tradeskill.plugins import Plugin
from tradeskill.testing.fake_backend import FakeBackend
from tradeskill.testing.virtual_time import run_virtual

STRANGE: Any = Plugin("strange", "strange-package", "1", "", ("wallet", "market", "backend"), (), None)  # type: ignore[arg-type]  # it opens nothing here
OURS: Any = Plugin("nano", "tradeskill", "1", "", ("wallet",), (), None)  # type: ignore[arg-type]  # as above
ARGUMENTS = {"wait": ("x", 0.01)}


class Troubled:
    """Every method does one thing, as a coroutine or at once."""

    rail = "strange"
    unit = "raw"

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act

    def __getattr__(self, name: str) -> Any:
        if name in ("check", "check_address"):
            return lambda *_: self._act()
        if name in ("watch", "events"):

            async def stream() -> Any:
                yield 5
                yield "hint"
                yield self._act()

            return stream

        async def call(*_: Any) -> Any:
            return self._act()

        return call


def raising(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


def methods(protocol: type) -> list[str]:
    return [name for name, item in vars(protocol).items() if asyncio.iscoroutinefunction(item)]


EVERY: list[tuple[Literal["Wallet", "Market", "Backend"], str]] = [
    *(("Wallet", name) for name in methods(Wallet)),
    *(("Market", name) for name in methods(Market)),
    *(("Backend", name) for name in methods(Backend)),
]


@pytest.mark.parametrize("error", [RuntimeError("a\nb"), SystemExit(1), KeyboardInterrupt(), StopAsyncIteration()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_whatever_a_call_raises_is_unknown_with_the_plugins_name(kind: Literal["Wallet", "Market", "Backend"], name: str, error: BaseException) -> None:
    subject: Any = guarded(STRANGE, Troubled(raising(error)), kind)
    with pytest.raises(UnknownOutcomeError, match=rf"^plugin strange \(strange-package\): {name}\(\): \w+") as caught:
        asyncio.run(getattr(subject, name)(*ARGUMENTS.get(name, ())))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_what_never_returns_is_unknown_after_its_time(kind: Literal["Wallet", "Market", "Backend"], name: str) -> None:
    class Hanging(Troubled):
        def __getattr__(self, name: str) -> Any:
            async def call(*_: Any) -> Any:
                await asyncio.Event().wait()

            return call

    subject: Any = guarded(STRANGE, Hanging(lambda: None), kind)
    with pytest.raises(UnknownOutcomeError, match=rf"{name}\(\) did not return within \d+"):
        run_virtual(getattr(subject, name)(*ARGUMENTS.get(name, ())))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_an_answer_of_another_type_is_unknown(kind: Literal["Wallet", "Market", "Backend"], name: str) -> None:
    subject: Any = guarded(STRANGE, Troubled(lambda: {"state": "paid", "seed": "secret"}), kind)
    call = getattr(subject, name)(*ARGUMENTS.get(name, ()))
    if subject._hints[name] in (None, type(None)):
        asyncio.run(call)
        return
    with pytest.raises(UnknownOutcomeError, match=rf"{name}\(\) answered a dict, which is no answer to it$"):
        asyncio.run(call)


def test_our_own_errors_and_right_answers_pass_unchanged() -> None:
    subject: Any = guarded(STRANGE, Troubled(raising(NotFoundError("no such thing"))), "Backend")
    with pytest.raises(NotFoundError, match=r"^no such thing$"):
        asyncio.run(subject.result("x"))
    status = ExecutionStatus("running")
    assert asyncio.run(guarded(STRANGE, Troubled(lambda: status), "Backend").status("x")) is status  # type: ignore[attr-defined]  # it has every method


def test_what_cannot_be_checked_is_not_trusted() -> None:
    for act in (raising(ValueError("x")), lambda: 5):
        subject: Any = guarded(STRANGE, Troubled(act), "Wallet")
        with pytest.raises(UntrustedError, match="check_address"):
            subject.check_address("a")
    with pytest.raises(RefusedError):
        guarded(STRANGE, Troubled(raising(UntrustedError("no"))), "Wallet").check("x")  # type: ignore[attr-defined]  # it has every method


def test_hints_are_texts_and_end_in_an_outage() -> None:
    async def scenario() -> list[str]:
        subject: Any = guarded(STRANGE, Troubled(raising(ValueError("x"))), "Wallet")
        seen: list[str] = []
        with pytest.raises(UnavailableError, match=r"watch\(\): ValueError"):
            async for hint in subject.watch():
                seen.append(hint)
        return seen

    assert asyncio.run(scenario()) == ["hint"]


def test_a_guard_looks_like_what_it_stands_before_and_ours_needs_none() -> None:
    honest = Troubled(lambda: None)
    subject = guarded(STRANGE, honest, "Wallet")
    assert isinstance(subject, Troubled)
    assert (subject.rail, subject.unit, repr(subject)) == ("strange", "raw", "<plugin strange (strange-package)>")
    assert guarded(OURS, honest, "Wallet") is honest


@pytest.mark.parametrize(
    ("answer", "hint", "right"),
    [
        ("run", Literal["run", "service"], True),
        ("x", Literal["run", "service"], False),
        (None, Proof | None, True),
        (Proof("a", "final"), Proof | None, True),
        ("a", Proof | None, False),
        (["a"], Sequence[str], True),
        (["a", 1], Sequence[str], False),
        ("ab", Sequence[str], False),
        (3, int, True),
        (True, int, False),
        (Balance(Amount(1, "raw"), Amount(1, "raw")), Balance, True),
        (object(), None, True),
        (object(), Any, True),
    ],
)
def test_an_answer_fits_its_type_or_does_not(answer: object, hint: Any, right: bool) -> None:
    assert fits(answer, hint) is right


# The seller goes on


@pytest.mark.parametrize("method", ["status", "start", "wait", "result"])
@pytest.mark.parametrize("trouble", ["raises", "lies", "hangs"])
def test_a_backend_in_trouble_holds_up_its_job_and_not_the_worker(method: str, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CALL_SECONDS", 5.0)
    monkeypatch.setattr(guard, "MONEY_SECONDS", 5.0)

    async def scenario() -> None:
        rig = Rig(confirm_after=0.1)
        left = [3]

        class Backend(FakeBackend):
            async def start(self, execution_id: str, task: Task, limits: Limits) -> Any:
                return await self._in_trouble("start") or await super().start(execution_id, task, limits)

            async def status(self, execution_id: str) -> Any:
                return await self._in_trouble("status") or await super().status(execution_id)

            async def wait(self, execution_id: str, seconds: float) -> Any:
                return await self._in_trouble("wait") or await super().wait(execution_id, seconds)

            async def result(self, execution_id: str) -> Any:
                return await self._in_trouble("result") or await super().result(execution_id)

            async def _in_trouble(self, name: str) -> Any:
                if name != method or not left[0]:
                    return None
                left[0] -= 1
                if trouble == "raises":
                    raise RuntimeError("trouble")
                if trouble == "hangs":
                    await asyncio.Event().wait()
                return "anything"

        backend = guarded(STRANGE, Backend(rig.machine, rig.world, rig.seller_identity.key), "Backend")
        seller, buyer = await rig.seller(backend=backend), await rig.buyer()
        async with at_work(seller):
            purchase = await rig.hire(buyer)
        assert purchase.state == "received"
        assert left == [0]
        assert list(rig.machine.started.values()) == [1]

    run_virtual(scenario())
