"""The conformance kit in pytest: what it says, what it refuses, and that it is silent where nobody asked for it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.test_wallet_contract_fake import FakeBench
from tradeskill.errors import NotFoundError, PluginError, UsageError
from tradeskill.testing.clauses import clause, clauses_of, declared, replaced
from tradeskill.testing.given import read_given
from tradeskill.testing.installed import ClauseResult, Verdict, check_plugin
from tradeskill.testing.starting import new_plugin
from tradeskill.testing.wallet_bench import LEDGER_FAULTS, WALLET_LACKS, LedgerFault
from tradeskill.testing.wallet_contract import WalletContract
from tradeskill.testing.wire import FaultyWire

ROOT = Path(__file__).parent.parent

HEAD = """
import pytest
from tests.lying_plugins.skills import Lying
from tradeskill.testing.skill_contract import SkillContract
"""
FILES = {
    "honest": "class TestMine(Lying): pass",
    "plain": "def test_it(): pass",
    "skipped": "@pytest.mark.skip(reason='later')\nclass TestMine(Lying): pass",
    "excused": "@pytest.mark.xfail(strict=False)\nclass TestMine(Lying):\n    said = 'nothing'",
    "broken": "class TestMine(Lying):\n    said = 'nothing'",
    "quiet": """
        from tests.test_wallet_contract_fake import FakeBench
        from tradeskill.testing.wallet_contract import WalletContract
        class Quiet(FakeBench):
            lacks = {**FakeBench.lacks, "hints": "nobody tells it of payments"}
        class TestMine(WalletContract):
            @pytest.fixture
            def bench(self):
                return Quiet()
    """,
}
# a class of tests -> what it has replaced
REFUSED = {
    "a_test": ("class TestMine(Lying):\n    def test_it_can_run_and_has_tools(self): pass", "test_it_can_run_and_has_tools (S-01)"),
    "a_test_taken_out": ("class TestMine(Lying):\n    test_it_can_run_and_has_tools = None", "test_it_can_run_and_has_tools (S-01)"),
    "a_step": ("class TestMine(Lying):\n    def _call(self, tool, arguments): raise Exception", "_call"),
    "the_rule": ("class TestMine(Lying):\n    yours = frozenset({'skill', '_call'})\n    def _call(self, *a): pass", "_call, yours"),
    "by_a_base": ("class Between(Lying):\n    def _samples(self, tool): return {}\nclass TestMine(Between): pass", "_samples"),
}


def kit(folder: Path, sources: Mapping[str, str], *options: str) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """pytest on files with these sources: exit code, what it printed, what became of each file's clauses."""
    told, files = folder / "clauses.json", []
    for name, source in sources.items():
        files.append(folder / f"test_{name}.py")
        files[-1].write_text(HEAD + textwrap.dedent(source), "utf-8")
    settings = ["-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "--clauses-json", str(told), "--continue-on-collection-errors"]
    command = [sys.executable, "-m", "pytest", *settings, *options, *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    found = json.loads(told.read_text("utf-8"))["classes"] if told.exists() else {}
    return done.returncode, done.stdout + done.stderr, {Path(name.partition("::")[0]).stem.removeprefix("test_"): clauses for name, clauses in found.items()}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """All of them in one run."""
    return kit(tmp_path_factory.mktemp("kit"), {**FILES, **{name: source for name, (source, _) in REFUSED.items()}}, "--clauses")


Told = tuple[int, str, dict[str, dict[str, Any]]]


def test_every_clause_is_listed_with_what_became_of_it(told: Told) -> None:
    _, said, found = told
    assert "test_honest.py::TestMine (skill): of 9 clauses 9 hold" in said
    assert "  S-03  holds         Every tool is named in the description for agents" in said
    assert {entry["status"] for entry in found["honest"].values()} == {"passed"}
    assert "plain" not in found


def test_without_clauses_nothing_is_said_of_them_and_what_was_left_out_did_not_hold(tmp_path: Path) -> None:
    code, said, found = kit(tmp_path, {"plain": FILES["plain"]})
    assert (code, found) == (0, {})
    assert "clause" not in said
    _, said, found = kit(tmp_path, {"honest": FILES["honest"]}, "-k", "can_run")
    assert [entry["status"] for entry in found["honest"].values()] == ["passed", *["not run"] * 8]
    assert "1 hold, 8 not run" in said


@pytest.mark.parametrize("name", REFUSED)
def test_replaced_checks_are_refused_by_name(told: Told, name: str) -> None:
    code, said, found = told
    assert code != 0
    assert f"replaced checks refused: TestMine overrides {REFUSED[name][1]} of SkillContract; override only skill" in said
    assert f"test_{name}.py::TestMine" in said
    assert name not in found


def test_a_clause_that_was_skipped_or_excused_does_not_hold(told: Told) -> None:
    _, _, found = told
    assert {entry["status"] for entry in found["skipped"].values()} == {"skipped"}
    assert {entry["reason"] for entry in found["skipped"].values()} == {"later"}
    assert {entry["status"] for entry in found["excused"].values()} == {"skipped"}


def test_a_broken_clause_says_what_it_met(told: Told) -> None:
    _, said, found = told
    assert {number for number, entry in found["broken"].items() if entry["status"] == "failed"} == {"S-03"}
    assert "['greet'] == []" in found["broken"]["S-03"]["reason"]
    assert "S-03  FAILED" in said


def test_a_clause_declared_off_is_told_with_its_reason(told: Told) -> None:
    _, said, found = told
    assert found["quiet"]["W-16"] == {"status": "off", "sentence": "A payment is hinted at", "reason": "nobody tells it of payments"}
    assert "of 42 clauses 40 hold, 2 declared off" in said


def test_what_is_declared_off_is_known_and_has_a_reason() -> None:
    declared({}, WALLET_LACKS)
    declared({"hints": "nobody tells it"}, WALLET_LACKS)
    for lacks, said in (
        ({"paying": "it cannot pay"}, "no such thing may be lacking"),
        ({"hints": ""}, "say why"),
        ({"hints": "no"}, "say why"),
        ({"hints": True}, "takes a reason in words"),
    ):
        with pytest.raises(AssertionError, match=said):
            declared(lacks, WALLET_LACKS)  # type: ignore[arg-type]  # what the test is about


def test_a_bench_that_neither_makes_a_ledger_fail_nor_says_why_breaks_those_clauses() -> None:
    class Silent(FakeBench):
        lacks: ClassVar[Mapping[str, str]] = {}

        async def fault(self, kind: LedgerFault) -> None:
            await super(FakeBench, self).fault(kind)

    with pytest.raises(NotImplementedError, match="say in lacks"):
        WalletContract().test_what_cannot_be_reached_is_neither_unpaid_nor_refused(Silent())
    with pytest.raises(NotImplementedError, match="say in lacks"):
        WalletContract().test_no_secret_shows_in_what_a_wallet_prints_or_raises(Silent())


def test_clauses_come_in_the_order_of_their_numbers_and_only_the_contract_itself_may_give_them() -> None:
    class Contract:
        yours = frozenset({"mine"})

        @clause("X-02")
        def test_two(self) -> None: ...

        @clause("X-01", unless="one")
        def test_one_is_one(self) -> None: ...

        def mine(self) -> None: ...

    class Author(Contract):
        def mine(self) -> None: ...

    class Cheat(Author):
        @clause("X-01")
        def test_one_is_one(self) -> None: ...

    assert [(each.number, each.sentence, each.unless) for each in clauses_of(Author).values()] == [("X-01", "One is one", "one"), ("X-02", "Two", "")]
    assert replaced(Contract) == replaced(Author) == replaced(int) == []
    assert replaced(Cheat) == ["test_one_is_one (X-01)"]


# The faulty wire


async def _answer(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"ask\n")
        return await asyncio.wait_for(reader.read(100), 0.5)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("kind", "arrived", "answer"),
    [("", 1, b"told\n"), ("unreachable", 0, b""), ("answer-lost", 1, b""), ("hang", 0, None), ("garbage", 0, b"HTTP/1.1 200 OK")],
)
def test_a_wire_fails_as_it_is_told_and_heals(kind: LedgerFault, arrived: int, answer: bytes | None) -> None:
    async def scenario() -> None:
        asked: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readline())
            writer.write(b"told\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        wire = FaultyWire("127.0.0.1", server.sockets[0].getsockname()[1])
        await wire.start()
        wire.fail(kind)
        try:
            got: bytes | None = await _answer(wire.port)
        except TimeoutError:
            got = None
        except ConnectionError:
            got = b""
        assert got is answer or (got is not None and answer is not None and got.startswith(answer) and (answer or not got))
        assert len(asked) == arrived
        wire.fail("")
        assert await _answer(wire.port) == b"told\n"
        await wire.stop()
        await wire.stop()
        server.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_wire_knows_no_other_fault() -> None:
    with pytest.raises(KeyError):
        FaultyWire("127.0.0.1", 1).fail("rude")  # type: ignore[arg-type]  # what the test is about
    assert set(LEDGER_FAULTS) == {"unreachable", "answer-lost", "hang", "garbage"}


# What tests are given


def test_what_is_given_is_read_strictly_and_paths_begin_where_the_command_was_called(tmp_path: Path) -> None:
    given = read_given(["mint=./m", "key=a=b"], tmp_path)
    assert (given.get("key"), given.get("nothing"), given.path("nothing")) == ("a=b", None, None)
    assert given.path("mint") == tmp_path / "m"
    assert read_given([f"mint={tmp_path}"], Path("/nowhere")).path("mint") == tmp_path
    for entries, said in ((["mint"], "is not NAME=VALUE"), (["mint=a", "mint=b"], "twice"), (["mint\n=x"], "is not NAME=VALUE")):
        with pytest.raises(UsageError, match=said):
            read_given(entries, tmp_path)


TAKING = """
    import pytest
    tradeskill_takes = {"colour": "any"}
    def test_it(tradeskill_given): assert (tradeskill_given.get("colour"), tradeskill_given.path("colour").name) == ("red", "red")
"""


def test_a_module_is_given_what_it_takes_and_anything_else_is_refused_before_a_test_runs(tmp_path: Path) -> None:
    code, said, _ = kit(tmp_path, {"taking": TAKING}, "--tradeskill-with", "colour=red")
    assert code == 0, said
    for given in ("color=red", "colour"):
        code, said, _ = kit(tmp_path, {"taking": TAKING}, "--tradeskill-with", given)
        assert (code, "passed" in said, "failed" in said) == (4, False, False)
    assert "nothing here takes color" in kit(tmp_path, {"taking": TAKING}, "--tradeskill-with", "color=red")[1]


# An installed plugin


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    return check_plugin("buyer")


def test_an_installed_skill_is_checked_without_tests_of_its_own(verdict: Verdict) -> None:
    assert verdict.ok
    assert verdict.summary() == "keeps its contract: 9 hold"
    assert {entry.number for entry in verdict.clauses} == {f"S-0{number}" for number in range(1, 10)}


def test_a_plugin_that_is_not_there_cannot_be_checked() -> None:
    with pytest.raises(NotFoundError, match="no plugin named 'nope'"):
        check_plugin("nope")


def test_nothing_tried_is_no_pass(verdict: Verdict) -> None:
    assert not Verdict("x", "p", "1", (), ()).ok
    assert not Verdict("x", "p", "1", verdict.clauses, ("wallet",)).ok
    assert not Verdict("x", "p", "1", (*verdict.clauses, ClauseResult("S-01", "not run", "", "", "TestMine")), ()).ok


# A new one


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("walet", "acme", "'walet' is no kind of plugin: it takes wallet, market, backend, skill"),
        ("wallet", "Acme", "the name 'Acme' is not 2 to 30 of a-z, 0-9 and single hyphens"),
        ("wallet", "../acme", "the name"),
        ("wallet", "a" * 31, "the name"),
        ("wallet", "acme\n", "the name"),
        ("skill", "two-words", "the name 'two-words' is not 2 to 30 of a-z and 0-9"),
        ("wallet", "nano", "the name nano is taken by a plugin that comes with tradeskill"),
    ],
)
def test_a_new_plugin_needs_a_kind_and_a_name_of_its_own(tmp_path: Path, kind: str, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace(".", r"\.")):
        new_plugin(kind, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    folder = new_plugin("skill", "weather", tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="is there already"):
        new_plugin("wallet", "weather", tmp_path)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_kit_says_what_it_needs_where_pytest_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeskill.testing.installed.find_spec", lambda name: None)
    with pytest.raises(PluginError, match=r"pip install 'tradeskill\[kit\]'"):
        check_plugin("buyer")
