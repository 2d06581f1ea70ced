"""Strangers' code behind the faces: `--json` stays JSON, a tool ends its own call at most, an import leaves the program as it was; a seller with all that."""

from __future__ import annotations

import asyncio
import gc
import json
import locale
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import Home, Stage, shout
from tests.test_boxed_sales import eventually, money
from tests.test_plugin_trust import install
from tradeskill import containment, pluginruns
from tradeskill.containment import contained
from tradeskill.errors import BrokenPluginError, PluginError, RefusedError
from tradeskill.skills import SkillFolders, Tool, find_skill, find_skills, tool

FLOOD = """
import os, subprocess
print("flood " * 1000)
os.write(1, b"flood " * 1000)
subprocess.run(["echo", "flood from a child"])
"""
NOISY = f"""
from tradeskill.hookspecs import hookimpl
{FLOOD}
tradeskill_api = 1
@hookimpl
def tradeskill_skill():
    {FLOOD.strip().replace(chr(10), chr(10) + "    ")}
    return "noisy.tools"
"""
TOOLS = f"""
from tradeskill.skills import tool
{FLOOD}
@tool(reads=True)
async def shout(profile, text: str) -> str:
    "Answer in capitals, after much noise."
    {FLOOD.strip().replace(chr(10), chr(10) + "    ")}
    return text.upper()
"""
HEAD = "---\nname: {name}\ndescription: A skill for tests, which nobody should ever choose for anything else.\nlicense: MIT\n---\n# It\n\n`{name}.shout`\n"


@pytest.fixture
def noisy(tmp_path: Path) -> Home:
    """A home whose Python has the skill `noisy` in a package of its own."""
    place = tmp_path / "place"
    (place / "noisy").mkdir(parents=True)
    files = {"noisy/__init__.py": NOISY, "noisy/tools.py": TOOLS, "noisy/SKILL.md": HEAD.format(name="noisy")}
    install(place, "noisy-package", {path: text.encode() for path, text in files.items()}, "[tradeskill]\nnoisy = noisy\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRADESKILL_")}
    return Home(tmp_path, {**environment, "TRADESKILL_HOME": str(tmp_path / "home"), "PYTHONPATH": str(place)})


@pytest.mark.parametrize("arguments", [("plugins", "--json"), ("skills", "--json"), ("skills", "schema", "noisy")])
def test_what_a_plugin_prints_by_whatever_way_is_not_in_the_json(noisy: Home, arguments: tuple[str, ...]) -> None:
    done = noisy.process(*arguments).ok()
    assert "noisy" in json.dumps(done.json)
    assert done.err.count("flood from a child") >= 1
    assert "flood" not in done.out


def test_what_a_tool_prints_is_not_in_its_answer(noisy: Home, stage: Stage) -> None:
    home = stage.funded("stranger-buyer")
    place = {"PYTHONPATH": noisy.environment["PYTHONPATH"]}
    done = home.process("call", "noisy.shout", '{"text": "well"}', environment=place).ok()
    assert done.json == "WELL"
    assert "flood from a child" in done.err


@pytest.mark.parametrize("source", ["raise SystemExit(0)", "raise KeyboardInterrupt", "1 / 0", "app = 5"])
def test_a_command_that_does_not_load_takes_no_other_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    home = Home(tmp_path, {**os.environ, "TRADESKILL_HOME": str(tmp_path / "home")})
    install(tmp_path, "odd-package", {"odd_command.py": source.encode()}, "[tradeskill.commands]\nodd = odd_command:app\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        shown = home.run("--help").ok().out
        assert "odd" in shown
        assert "wallet" in shown
        home.run("odd").failed(9, "'odd'", "did not load")
    finally:
        sys.modules.pop("odd_command", None)


# Skills


def folder_of(tmp_path: Path, tools: str) -> SkillFolders:
    folder = tmp_path / "skills" / "brittle"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(HEAD.format(name="brittle"))
    (folder / "tools.py").write_text(tools)
    return SkillFolders(user=tmp_path / "skills")


IMPORTS = {
    "raises": "raise RuntimeError('a\\nb')",
    "exits": "raise SystemExit(0)",
    "interrupts": "raise KeyboardInterrupt",
    "hangs": "import time; time.sleep(1000)",
    "unspeakable": "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
}


@pytest.mark.parametrize("how", IMPORTS)
def test_a_skill_whose_tools_do_not_load_is_listed_with_the_reason_and_the_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(containment, "HOOK_SECONDS", 0.2)
    folders = folder_of(tmp_path, IMPORTS[how])
    found = {skill.name: skill for skill in find_skills(folders=folders)}
    assert found["brittle"].reason.startswith("skill brittle: tools.py did not load: ")
    assert "\n" not in found["brittle"].reason
    assert found["buyer"].reason == ""
    with pytest.raises(PluginError, match="did not load"):
        find_skill("brittle", _plugins(), folders)


def _plugins() -> Any:
    from tradeskill.plugins import Plugins

    return Plugins()


class Unlookable:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("do not look")

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise RuntimeError("do not touch")


async def _raise(error: BaseException) -> str:
    raise error


async def _block() -> str:
    time.sleep(1000)  # noqa: ASYNC251  # what the test is about
    return ""


ACTS: dict[str, Any] = {
    "raises": lambda: _raise(RuntimeError("a secret")),
    "exits": lambda: _raise(SystemExit(0)),
    "interrupts": lambda: _raise(KeyboardInterrupt()),
    "cancels": lambda: _raise(asyncio.CancelledError()),
    "blocks": _block,
}
ANSWERS: dict[str, Any] = {"another type": 5, "no JSON": object(), "half a surrogate pair": "\ud800", "none": None, "what cannot be looked at": Unlookable()}


def tool_that(act: Any, *, reads: bool) -> Tool:
    @tool(reads=reads)
    async def brittle(profile: Any) -> str:
        """It does what the test wants."""
        return str(await act()) if callable(act) else act  # type: ignore[no-any-return]  # it lies

    return Tool("brittle", brittle)


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("how", [*ACTS, *ANSWERS])
def test_whatever_a_tool_does_ends_its_own_call_and_says_whether_money_may_have_moved(how: str, reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from tradeskill.answers import failure_of

    monkeypatch.setattr(pluginruns, "STEP_SECONDS", 0.05)
    subject = tool_that(ACTS[how] if how in ACTS else ANSWERS[how], reads=reads)
    with pytest.raises(BrokenPluginError, match=r"the tool brittle of tests\.test_contained") as caught:
        asyncio.run(subject.call(None, {}))  # type: ignore[arg-type]  # it needs no profile
    assert "a secret" not in str(caught.value)
    assert failure_of(caught.value)["money"] == ("not moved" if reads else "unknown")


def test_an_error_of_ours_and_a_right_answer_pass_a_tool_as_they_are() -> None:
    with pytest.raises(RefusedError, match=r"^no$"):
        asyncio.run(tool_that(lambda: _raise(RefusedError("no")), reads=True).call(None, {}))  # type: ignore[arg-type]  # as above
    assert asyncio.run(tool_that("fine", reads=True).call(None, {})) == "fine"  # type: ignore[arg-type]  # as above


# What belongs to the whole program


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[None]:
    folder, mask, handler, language = Path.cwd(), os.umask(0o022), signal.getsignal(signal.SIGTERM), locale.setlocale(locale.LC_ALL)
    yield
    os.chdir(folder)
    os.umask(mask)
    signal.signal(signal.SIGTERM, handler)
    locale.setlocale(locale.LC_ALL, language)


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_what_a_plugins_import_changes_of_the_program_is_as_it_was_afterwards(whole: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    monkeypatch.setenv("TRADESKILL_HOME", "here")
    monkeypatch.delenv("TRADESKILL_GRANT", raising=False)
    before = (Path.cwd(), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD), locale.setlocale(locale.LC_ALL))

    def plugin() -> None:
        os.chdir(tmp_path)
        os.umask(0)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 1000)
        locale.setlocale(locale.LC_ALL, "C")
        os.environ["TRADESKILL_HOME"] = os.environ["TRADESKILL_GRANT"] = "elsewhere"
        sys.stdout = None  # type: ignore[assignment]  # what a plugin may do
        if ends == "badly":
            raise SystemExit

    out = sys.stdout
    if ends == "well":
        with contained("it"):
            plugin()
    else:
        with pytest.raises(PluginError), contained("it"):
            plugin()
    mask = os.umask(0o022)
    assert (Path.cwd(), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD), locale.setlocale(locale.LC_ALL)) == before
    assert (mask, os.environ["TRADESKILL_HOME"], "TRADESKILL_GRANT" in os.environ) == (0o022, "here", False)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert sys.stdout is out


class Finalized:
    def __del__(self) -> None:
        time.sleep(1000)


def _swallows_everything() -> None:
    try:
        time.sleep(1000)
    except BaseException:  # noqa: BLE001 - what the test is about
        return


LOST: dict[str, Any] = {"a finalizer": Finalized, "a handler that takes everything": _swallows_everything}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("loses", LOST)
def test_what_hangs_is_ended_also_where_the_first_alarm_was_lost(loses: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "HOOK_SECONDS", 0.05)
    monkeypatch.setattr(containment, "_AGAIN", 0.1)
    with pytest.raises(PluginError, match="it: Overdue: it did not return within"), contained("it"):
        LOST[loses]()
        time.sleep(1000)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


class Finalizing:
    def __del__(self) -> None:
        time.sleep(0.1)


@pytest.mark.parametrize("place", ["a callback", "a finalizer"])
def test_an_alarm_that_comes_while_garbage_is_collected_is_neither_lost_nor_a_warning(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "HOOK_SECONDS", 0.05)

    def slow(phase: str, about: dict[str, int]) -> None:
        time.sleep(0.1 if phase == "start" and place == "a callback" else 0)

    gc.callbacks.append(slow)
    try:
        with pytest.raises(PluginError, match="it: Overdue"), contained("it"):
            Finalizing() if place == "a finalizer" else gc.collect()
            time.sleep(1000)
    finally:
        gc.callbacks.remove(slow)


def test_an_alarm_that_rings_when_all_was_done_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timer, left = signal.setitimer, [3]

    def rings(which: int, seconds: float, again: float = 0) -> object:
        if seconds == 0 and left[0]:
            left[0] -= 1
            signal.raise_signal(signal.SIGALRM)
        return set_timer(which, seconds, again)

    monkeypatch.setattr(signal, "setitimer", rings)
    with containment.ended_after(5, "too long"):
        pass
    assert left == [0]
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


# A whole seller


BRITTLE = """
from tradeskill.contracts import Capability
from tradeskill.hookspecs import hookimpl
from tradeskill.manifest import Manifest
from tradeskill.testing.fake_backend import FakeBackend, FakeMachine

tradeskill_api = 1

class Brittle(FakeBackend):
    async def status(self, execution_id):
        print("flood " * 100)
        raise SystemExit("of this backend")

@hookimpl
def tradeskill_manifest():
    return Manifest()

@hookimpl
def tradeskill_open_backend(settings, context):
    return Brittle(FakeMachine(), context.world)
"""


def test_a_seller_with_a_strangers_broken_backend_sells_the_rest_gives_that_money_back_and_its_owner_sees_why(stage: Stage, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    install(place, "brittle-package", {"brittle.py": BRITTLE.encode()}, "[tradeskill]\nbrittle = brittle\n")
    plain, buyer = stage.profile("stranger-seller"), stage.funded("stranger-buyer")
    seller = Home(plain.path, {**plain.environment, "PYTHONPATH": str(place)})
    offers = [shout("sound-one"), shout("brittle-one", backend="brittle", pure=False)]
    keys = {"plugins": {"call_seconds": 10, "patience_seconds": 1}, "seller": {"poll_seconds": 0.1}}
    wish = ("--input", '{"text": "hello"}', "--yes", "--max", "0.01 XNO", "--json")
    with seller.selling(stage.config("brittle", offers, **keys)) as worker:
        failed = buyer.run("hire", "brittle-one", *wish)
        assert (failed.code, failed.json["error"]["code"]) == (1, "backend"), failed
        assert "brittle-package" not in failed.out
        assert buyer.run("hire", "sound-one", *wish).ok().json["result"]["text"] == "HELLO\n"
        eventually(lambda: money(seller, "brittle-one") == ["refunded"] or None, "the money goes back")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended()["event"] == "stopped"
    checks = {check["check"]: check for check in seller.process("doctor", "--json").json}
    assert not checks["plugins"]["ok"]
    assert "plugin brittle (brittle-package): status(): SystemExit: of this backend" in checks["plugins"]["detail"]
