"""The conformance kit in pytest: refuses replaced checks, and says at the end which clause holds. Silent where no test is a clause's.

Imports nothing of the contracts: it is loaded in every run of pytest where tradeskill is installed.

A module whose tests need something outside (a server, a mint, an engine) takes the fixture `tradeskill_given`, says in `tradeskill_takes` (name -> what
it is) what may be given, and skips with the way out where it cannot do without.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from tradeskill.errors import UsageError
from tradeskill.testing.clauses import KINDS, Clause, clauses_of, contract_of, lack_of, replaced
from tradeskill.testing.given import Given, read_given

__all__ = [
    "Refused",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_collectreport",
    "pytest_configure",
    "pytest_itemcollected",
    "pytest_keyboard_interrupt",
    "pytest_pycollect_makeitem",
    "pytest_runtest_logreport",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_sessionstart",
    "pytest_terminal_summary",
    "tradeskill_given",
]

CONTRACTS: Final = ("wallet_contract", "wallet_faults", "wallet_bench", "market_contract", "backend_contract", "skill_contract")
RANK: Final = ("off", "passed", "skipped", "failed")  # of a clause's several tests the worst counts
RESULTS: Final = pytest.StashKey[dict[str, dict[str, dict[str, str]]]]()  # class -> clause -> what became of it
UNTRIED: Final = pytest.StashKey[list[str]]()  # why whole modules were skipped
TAKES: Final = pytest.StashKey[dict[str, str]]()  # what the modules say in `tradeskill_takes`
INTERRUPTED: Final = pytest.StashKey[bool]()  # by Ctrl-C

for _name in CONTRACTS:
    pytest.register_assert_rewrite(f"tradeskill.testing.{_name}")  # so that a broken clause shows the values it met


class Refused(pytest.Collector):
    """Stands where a class of tests would, had it not replaced a contract's checks."""

    words: str = ""

    def collect(self) -> list[pytest.Item]:
        raise self.CollectError(self.words)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tradeskill")
    group.addoption("--clauses", action="store_true", help="list every clause of the plugin contracts, those that hold too")
    group.addoption("--tradeskill-plugin", metavar="NAME", default="", help="the installed plugin that `tradeskill plugins check` tries")
    group.addoption("--clauses-json", metavar="FILE", default="", help="write what became of every clause to FILE")
    group.addoption("--tradeskill-with", metavar="NAME=VALUE", action="append", default=[], help="what a plugin's tests need outside")
    group.addoption("--tradeskill-start", metavar="DIR", default="", help="where a relative path in --tradeskill-with begins; default: here")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = {}
    config.stash[UNTRIED] = []
    config.stash[TAKES] = {}
    config.stash[INTERRUPTED] = False


@pytest.fixture(scope="session")
def tradeskill_given(pytestconfig: pytest.Config) -> Given:
    """What `--with` (of pytest's own options `--tradeskill-with`) gave. The names are those of the module's `tradeskill_takes`."""
    return _given(pytestconfig)


def _given(config: pytest.Config) -> Given:
    try:
        return read_given(config.getoption("--tradeskill-with"), Path(config.getoption("--tradeskill-start") or config.invocation_params.dir).absolute())
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What no module takes is refused before anything is tried: a misspelled name would else be a default."""
    given, takes = _given(config).values, config.stash[TAKES]
    for module in {id(module): module for item in items if (module := getattr(item, "module", None)) is not None}.values():
        takes.update(getattr(module, "tradeskill_takes", {}))
    unknown = sorted(set(given) - set(takes))
    if unknown and items:
        raise pytest.UsageError(f"nothing here takes {', '.join(unknown)}; what is taken: {', '.join(takes) or 'nothing'}")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped and _config is not None:
        _config.stash[UNTRIED].append(_skipped_for(report))


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> Refused | None:
    if not isinstance(obj, type) or not hasattr(collector, "istestclass") or not collector.istestclass(obj, name):
        return None
    names = replaced(obj)
    if not names:
        return None
    contract = contract_of(obj)
    made: Refused = Refused.from_parent(collector, name=name)
    made.words = (
        f"replaced checks refused: {name} overrides {', '.join(names)} of {getattr(contract, '__name__', '')}; "
        f"override only {', '.join(sorted(getattr(contract, 'yours', ())))}, and declare with a reason what the plugin lacks"
    )
    return made


def pytest_itemcollected(item: pytest.Item) -> None:
    found = _clause(item)
    if found is not None:
        kind: type = item.cls  # type: ignore[attr-defined]  # a clause's test is in a class
        results = item.config.stash[RESULTS].setdefault(_class_id(item), {})
        for each in clauses_of(kind).values():
            results.setdefault(each.number, {"status": "not run", "sentence": each.sentence, "reason": ""})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: object) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    found = _clause(item)
    if found is not None and (report.when == "call" or not report.passed):
        reason = lack_of(found, getattr(item, "funcargs", {}))
        if report.failed:
            said = getattr(report.longrepr, "reprcrash", None)
            outcome = {"status": "failed", "reason": _first_line(getattr(said, "message", "") or str(report.longrepr))}
        elif report.skipped or hasattr(report, "wasxfail"):
            outcome = {"status": "skipped", "reason": _skipped_for(report) or "its test was skipped, so nothing is known"}
        else:
            outcome = {"status": "off", "reason": reason} if reason else {"status": "passed", "reason": ""}
        report.tradeskill_clause = [_class_id(item), found.number, found.sentence, outcome]  # type: ignore[attr-defined]  # plain, so that it travels between processes
    return report


def pytest_runtest_logreport(report: Any) -> None:
    found = getattr(report, "tradeskill_clause", None)
    if found is not None and _config is not None:
        kind, number, sentence, outcome = found
        entry = _config.stash[RESULTS].setdefault(kind, {}).setdefault(number, {"status": "not run", "sentence": sentence, "reason": ""})
        if entry["status"] == "not run" or RANK.index(outcome["status"]) > RANK.index(entry["status"]):
            entry.update(outcome)


_config: pytest.Config | None = None  # pytest_runtest_logreport is not told it


def pytest_sessionstart(session: pytest.Session) -> None:
    global _config  # one session a process, as pytest has it
    _config = session.config


def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    if _config is not None and excinfo.type is KeyboardInterrupt:  # pytest's own reasons to stop early are of subclasses
        _config.stash[INTERRUPTED] = True


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    results = config.stash[RESULTS]
    if not results:
        return
    everything = config.getoption("--clauses") or config.get_verbosity() > 0
    words = {"passed": "holds", "off": "declared off", "failed": "FAILED", "skipped": "skipped", "not run": "not run"}
    terminalreporter.section("tradeskill clauses")
    for kind, clauses in results.items():
        counts = {status: sum(entry["status"] == status for entry in clauses.values()) for status in words}
        told = ", ".join(f"{count} {'hold' if status == 'passed' else words[status]}" for status, count in counts.items() if count)
        about = KINDS.get(next(iter(clauses))[:1], "")
        terminalreporter.write_line(f"{kind} ({about}): of {len(clauses)} clauses {told}")
        for number, entry in sorted(clauses.items()):
            if everything or entry["status"] in ("off", "failed"):
                reason = f" — {entry['reason']}" if entry["reason"] else ""
                terminalreporter.write_line(f"  {number}  {words[entry['status']]:12}  {entry['sentence']}{reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    name = session.config.getoption("--clauses-json")
    if name:
        stash = session.config.stash
        told = {"classes": stash[RESULTS], "untried": stash[UNTRIED], "takes": stash[TAKES], "interrupted": stash[INTERRUPTED]}
        Path(name).write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")


def _clause(item: pytest.Item) -> Clause | None:
    found = getattr(getattr(item, "function", None), "__clause__", None)
    return found if isinstance(found, Clause) and getattr(item, "cls", None) is not None else None


def _class_id(item: pytest.Item) -> str:
    name = item.nodeid.rpartition("::")[0]
    return f"{item.path}{name}" if name.startswith("::") else name  # a file outside the root has no name of its own there


def _skipped_for(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why, in the words of whoever skipped; "" where it is not that."""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    return _first_line(said.removeprefix("Skipped: "), 600)


def _first_line(text: str, most: int = 300) -> str:
    return " ".join(text.split()).removesuffix(" Use -v to get more diff")[:most]
