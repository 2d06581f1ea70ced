"""What stands before a third party's plugin: trouble in any call of a wallet, market or backend is "unknown", and the worker's other jobs go on."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest

from tests.rig import Rig, at_work
from tradeskill import pluginruns
from tradeskill.contracts import Backend, Balance, ExecutionStatus, Limits, Market, Task, Wallet
from tradeskill.errors import (
    BrokenPluginError,
    NetworkMismatchError,
    NotFoundError,
    PluginError,
    RefusedError,
    SecretError,
    StorageError,
    TradeskillError,
    UnavailableError,
    UnknownOutcomeError,
    UntrustedError,
)
from tradeskill.guard import Deadlines, fits, guarded
from tradeskill.model import Invoice, Lock, Payment, PaymentStatus, Proof, Result
from tradeskill.money import Amount
from tradeskill.plugins import Plugin
from tradeskill.testing.fake_backend import FakeBackend, FakeMachine
from tradeskill.testing.virtual_time import run_virtual
from tradeskill.world import World

STRANGE: Any = Plugin("strange", "strange-package", "1", "", ("wallet", "market", "backend"), (), None)  # type: ignore[arg-type]  # it opens nothing here
OURS: Any = Plugin("nano", "tradeskill", "1", "", ("wallet",), (), None)  # type: ignore[arg-type]  # as above
ARGUMENTS = {"wait": ("x", 0.01)}


INVOICE = Invoice("strange", "dev", "i", "job", "a", Amount(5, "raw"), 1)
ENDLESS: Any = []
ENDLESS.append(ENDLESS)


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
    return [name for name, item in vars(protocol).items() if asyncio.iscoroutinefunction(item) and name != "close"]


Kind = Literal["Wallet", "Market", "Backend"]
EVERY: list[tuple[Kind, str]] = [
    *(("Wallet", name) for name in methods(Wallet)),
    *(("Market", name) for name in methods(Market)),
    *(("Backend", name) for name in methods(Backend)),
]
CLOSING: list[Kind] = ["Wallet", "Market", "Backend"]
WHATEVER = [
    RuntimeError("a\nb"),
    TimeoutError("its own"),
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    StopAsyncIteration(),
    TradeskillError("a bare one"),
]


@pytest.mark.parametrize("error", WHATEVER, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_whatever_a_call_raises_is_unknown_with_the_plugins_name(kind: Kind, name: str, error: BaseException) -> None:
    if name == "open" and isinstance(error, TradeskillError):
        return  # what an open() says of itself is for its owner, who waits for it
    subject: Any = guarded(STRANGE, Troubled(raising(error)), kind)
    with pytest.raises(UnknownOutcomeError, match=rf"^plugin strange \(strange-package\): {name}\(\): \w+") as caught:
        asyncio.run(getattr(subject, name)(*ARGUMENTS.get(name, ())))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, BrokenPluginError)
    assert caught.value.details == {"plugin": "plugin strange (strange-package)", "kind": kind}


@pytest.mark.parametrize("error", [StorageError("disk full"), SecretError("no password"), NetworkMismatchError("another")], ids=lambda e: type(e).__name__)
def test_what_would_stop_the_program_is_not_for_a_strangers_call_to_say(error: TradeskillError) -> None:
    subject: Any = guarded(STRANGE, Troubled(raising(error)), "Wallet")
    with pytest.raises(BrokenPluginError, match=type(error).__name__):
        asyncio.run(subject.balance())
    with pytest.raises(type(error)):
        asyncio.run(subject.open())


class Hanging(Troubled):
    """Every call waits for ever; `stubborn`, it does not even end when it is told to."""

    def __init__(self, stubborn: bool = False) -> None:
        super().__init__(lambda: None)
        self._stubborn = stubborn

    def __getattr__(self, name: str) -> Any:
        async def call(*_: Any) -> Any:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if not self._stubborn:
                        raise

        async def stream() -> Any:
            yield await call()

        return stream if name in ("watch", "events") else call


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_what_never_returns_is_unknown_after_its_time(kind: Kind, name: str, stubborn: bool) -> None:
    subject: Any = guarded(STRANGE, Hanging(stubborn), kind, Deadlines(30, 60))
    with pytest.raises(BrokenPluginError, match=rf"{name}\(\) did not return within \d+"):
        run_virtual(getattr(subject, name)(*ARGUMENTS.get(name, ())), 100.0)


@pytest.mark.parametrize("name", ["balance", "watch"])
def test_a_call_that_will_not_end_does_not_keep_its_caller_from_ending(name: str) -> None:
    async def scenario() -> None:
        subject: Any = guarded(STRANGE, Hanging(stubborn=True), "Wallet")
        call = anext(subject.watch()) if name == "watch" else subject.balance()
        task = asyncio.ensure_future(call)
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 30)

    run_virtual(scenario())


def test_a_call_that_is_cancelled_before_it_began_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        subject: Any = guarded(STRANGE, Hanging(), "Wallet")
        task = asyncio.ensure_future(subject.balance())
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())  # a coroutine that nobody awaits is a warning, and that an error


@pytest.mark.parametrize("name", ["balance", "close", "watch", "check_address", "rail"])
def test_what_holds_up_all_other_work_is_interrupted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pluginruns, "STEP_SECONDS", 0.05)

    class Blocking(Troubled):
        @property
        def rail(self) -> str:
            if name == "rail":
                time.sleep(1000)
            return "strange"

        unit = "raw"

    async def scenario() -> None:
        subject: Any = guarded(STRANGE, Blocking(lambda: time.sleep(1000)), "Wallet")
        if name == "watch":
            async for _ in subject.watch():
                pass
        elif name == "check_address":
            subject.check_address("a")
        else:
            await getattr(subject, name)()

    if name == "close":
        asyncio.run(scenario())
    else:
        with pytest.raises(TradeskillError, match=r"held up all other work for 0\.05 s"):
            asyncio.run(scenario())
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


@pytest.mark.parametrize("kind", CLOSING)
def test_whatever_a_plugin_does_when_it_is_closed_the_program_ends_as_it_would_have(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    for act in WHATEVER:
        asyncio.run(guarded(STRANGE, Troubled(raising(act)), kind).close())  # type: ignore[attr-defined]  # it has every method
    run_virtual(guarded(STRANGE, Hanging(stubborn=True), kind).close(), 60.0)  # type: ignore[attr-defined]  # as above
    assert len([record for record in caplog.records if "plugin strange (strange-package): close()" in record.getMessage()]) == len(WHATEVER) + 1


def test_what_a_plugin_says_to_doctor_is_a_text_or_an_error_with_its_name() -> None:
    assert asyncio.run(guarded(STRANGE, Troubled(lambda: "fine"), "Backend").examine()) == "fine"  # type: ignore[attr-defined]  # it has every method
    for act in (raising(SystemExit(0)), raising(ValueError("x")), lambda: 5):
        with pytest.raises(BrokenPluginError, match=r"examine\(\)"):
            asyncio.run(guarded(STRANGE, Troubled(act), "Backend").examine())  # type: ignore[attr-defined]  # as above
    with pytest.raises(AttributeError):
        guarded(STRANGE, FakeBackend(FakeMachine(), World()), "Backend").examine()  # type: ignore[attr-defined]  # which it has not


@pytest.mark.parametrize(("attribute", "value"), [("rail", 5), ("rail", ""), ("rail", "a\nb"), ("unit", None), ("unit", "x" * 65), ("rail", ["nano"])])
def test_a_wallet_whose_rail_or_unit_is_none_is_not_opened(attribute: str, value: Any) -> None:
    wallet = Troubled(lambda: None)
    setattr(wallet, attribute, value)
    with pytest.raises(PluginError, match=f"its {attribute} is a {type(value).__name__}"):
        guarded(STRANGE, wallet, "Wallet")


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


@pytest.mark.parametrize("error", [each for each in WHATEVER if not isinstance(each, StopAsyncIteration)], ids=lambda e: type(e).__name__)
def test_hints_are_texts_and_end_in_an_outage(error: BaseException) -> None:
    async def scenario() -> list[str]:
        subject: Any = guarded(STRANGE, Troubled(raising(error)), "Wallet")
        seen: list[str] = []
        with pytest.raises(UnavailableError, match=rf"watch\(\): {type(error).__name__}"):
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
        (Balance(Amount(1, "raw"), 5), Balance, False),  # type: ignore[arg-type]  # what the test is about
        (Proof("a", "perhaps"), Proof, False),  # type: ignore[arg-type]  # as above
        (Proof("\ud800", "final"), Proof, False),
        (Result(b"x"), Result, True),
        (Result("x"), Result, False),  # type: ignore[arg-type]  # as above
        (Result(bytearray(b"x")), Result, False),
        (ExecutionStatus("finished", b"detail"), ExecutionStatus, False),  # type: ignore[arg-type]  # as above
        (PaymentStatus("paid", (Payment("a", Amount(1, "raw"), 1),)), PaymentStatus, True),
        (PaymentStatus("paid", [Payment("a", Amount(1, "raw"), 1)]), PaymentStatus, False),  # type: ignore[arg-type]  # as above
        (PaymentStatus("paid", (Payment("a", Amount(1, "raw"), 1.5),)), PaymentStatus, False),  # type: ignore[arg-type]  # as above
        (PaymentStatus("paid", (Payment("a", Amount(1, "raw"), 2**63),)), PaymentStatus, False),
        (PaymentStatus("paid", late=1), PaymentStatus, False),  # type: ignore[arg-type]  # as above
        (Lock("a", 1, 1, None), Lock, True),
        (Lock("a", 1, float("nan"), None), Lock, False),
        (INVOICE, Invoice, True),
        (replace(INVOICE, details={"a": [1, {"b": None}]}), Invoice, True),
        (replace(INVOICE, details={"a": object()}), Invoice, False),
        (replace(INVOICE, details={"a": 2**60}), Invoice, False),
        (replace(INVOICE, details={"a": ENDLESS}), Invoice, False),
        (replace(INVOICE, network="moon"), Invoice, False),  # type: ignore[arg-type]  # as above
    ],
)
def test_an_answer_fits_its_type_or_does_not(answer: object, hint: Any, right: bool) -> None:
    assert fits(answer, hint) is right


@pytest.mark.parametrize("lie", [{"rail": "other"}, {"job_id": "other"}, {"amount": Amount(1, "raw")}, {"amount": Amount(5, "sat")}])
def test_an_invoice_for_something_else_is_no_answer(lie: dict[str, Any]) -> None:
    for change in ({}, lie):
        subject: Any = guarded(STRANGE, Troubled(lambda change=change: replace(INVOICE, **change)), "Wallet")  # type: ignore[misc]  # mypy knows no such default
        if not change:
            assert asyncio.run(subject.invoice("job", Amount(5, "raw"), 1)) == INVOICE
            continue
        with pytest.raises(BrokenPluginError, match="for something else"):
            asyncio.run(subject.invoice("job", Amount(5, "raw"), 1))


# The seller goes on


@pytest.mark.parametrize("method", ["status", "start", "wait", "result"])
@pytest.mark.parametrize("trouble", ["raises", "lies", "hangs"])
def test_a_backend_in_trouble_holds_up_its_job_and_not_the_worker(method: str, trouble: str) -> None:

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

        backend = guarded(STRANGE, Backend(rig.machine, rig.world, rig.seller_identity.key), "Backend", Deadlines(5.0, 5.0))
        seller, buyer = await rig.seller(backend=backend), await rig.buyer()
        async with at_work(seller):
            purchase = await rig.hire(buyer)
        assert purchase.state == "received"
        assert left == [0]
        assert list(rig.machine.started.values()) == [1]

    run_virtual(scenario())
