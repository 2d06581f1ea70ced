"""Runs the conformance kit on an installed plugin, in a process of its own, with the tests that its package names for it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tradeskill.errors import NotFoundError, PluginError, UsageError
from tradeskill.plugins import PluginReport, Plugins
from tradeskill.testing.clauses import KINDS
from tradeskill.testing.given import read_given

__all__ = ["KIT_GROUP", "ClauseResult", "Verdict", "check_plugin"]

KIT_GROUP: Final = "tradeskill.kit"  # plugin's name -> the module with its classes of tests
ANY_SKILL: Final = "tradeskill.testing.any_skill"  # a skill needs nothing of its author's to be tried
PATIENCE: Final = 1800.0  # seconds for all clauses together
MOST_NAMED: Final = 10  # clauses in the last line
LEAVING: Final = 30.0  # seconds for tests that are told to end
USAGE: Final = 4  # pytest's exit code for options that are wrong


@dataclass(frozen=True)
class ClauseResult:
    """What became of one clause in one class of tests. `status`: holds, declared off, FAILED, skipped, not run."""

    number: str
    status: str
    sentence: str
    reason: str
    tests: str


@dataclass(frozen=True)
class Verdict:
    """What the kit found. `missing`: kinds of the plugin that nothing was tried of."""

    name: str
    package: str
    version: str
    clauses: tuple[ClauseResult, ...]
    missing: tuple[str, ...]
    modules: tuple[str, ...] = ()  # with its tests

    @property
    def ok(self) -> bool:
        return bool(self.clauses) and not self.missing and all(clause.status in ("holds", "declared off") for clause in self.clauses)

    def summary(self) -> str:
        found: dict[str, list[str]] = {}
        for clause in self.clauses:
            found.setdefault(clause.status, []).append(clause.number)
        told = ", ".join(f"{len(numbers)} {self._told(status, numbers)}" for status, numbers in found.items())
        lacking = f"; nothing was tried of it as a {' and a '.join(self.missing)}" if self.missing else ""
        return f"{'keeps its contract' if self.ok else 'BREAKS its contract'}: {told or 'no clause was tried'}{lacking}"

    @staticmethod
    def _told(status: str, numbers: Sequence[str]) -> str:
        """Which ones, where somebody has to look."""
        if status in ("holds", "declared off"):
            return "hold" if status == "holds" else status
        named = list(dict.fromkeys(numbers))
        return f"{status} ({', '.join(named[:MOST_NAMED])}{', …' if len(named) > MOST_NAMED else ''})"

    def described(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


def check_plugin(name: str, given: Sequence[str] = (), begun: Callable[[str], None] = lambda module: None) -> Verdict:
    """Try the plugin `name` (or `name@package`) clause by clause. `given`: what its tests need outside, as NAME=VALUE. `begun` is told where they are.

    NotFoundError when it is not installed; UsageError for a `given` that its tests do not take; PluginError when it does not load, when its package
    names no tests, when they cannot be collected (replaced checks among the reasons), when what they need is not here so that none was tried, and when
    pytest is not installed.
    """
    if find_spec("pytest") is None:
        raise PluginError(f"the conformance kit needs pytest for {sys.executable}: pip install 'tradeskill[kit]'")
    start = Path.cwd()
    read_given(given, start)
    report = _report(name)
    modules = _modules(report)
    begun(", ".join(modules))
    results = _run(report, modules, given, start)
    words = {"passed": "holds", "off": "declared off", "failed": "FAILED"}
    clauses = tuple(
        ClauseResult(number, words.get(entry["status"], entry["status"]), entry["sentence"], entry["reason"], tests.rpartition("::")[2])
        for tests, found in results.items()
        for number, entry in sorted(found.items())
    )
    if {clause.status for clause in clauses} <= {"skipped", "not run"}:
        raise PluginError(_untried(report, [clause.reason for clause in clauses]))
    tried = {KINDS[clause.number[0]] for clause in clauses}
    return Verdict(report.name, report.package, report.version, clauses, tuple(kind for kind in report.kinds if kind not in tried), tuple(modules))


def _untried(report: PluginReport, reasons: Sequence[str]) -> str:
    return f"plugin {report.name} was not tried: {'; '.join(dict.fromkeys(reason for reason in reasons if reason)) or 'its tests were skipped'}"


def _report(name: str) -> PluginReport:
    bare, _, package = name.partition("@")
    found = [report for report in Plugins().report() if report.name == bare and (not package or report.package == package)]
    if not found:
        raise NotFoundError(f"no plugin named {name!r:.80}: `tradeskill plugins` lists what is here")
    if found[0].error is not None:
        raise PluginError(found[0].error)
    return found[0]


def _modules(report: PluginReport) -> list[str]:
    points = [
        point for point in metadata.entry_points(group=KIT_GROUP, name=report.name) if point.dist is not None and point.dist.name == report.package
    ]
    modules = [point.value for point in points]
    if report.kinds == ("skill",) and not modules:
        modules = [ANY_SKILL]
    if not modules:
        raise PluginError(
            f"plugin {report.name} ({report.package} {report.version}) brings no tests: its package must name the module with its contract's class "
            f"as the entry point {report.name!r} of the group {KIT_GROUP!r}"
        )
    return modules


def _run(report: PluginReport, modules: Sequence[str], given: Sequence[str], start: Path) -> dict[str, dict[str, dict[str, str]]]:
    with tempfile.TemporaryDirectory(prefix="tradeskill-kit-", ignore_cleanup_errors=True) as folder:
        told = Path(folder) / "clauses.json"
        files = []
        for module in modules:
            spec = find_spec(module)
            if spec is None or spec.origin is None:
                raise PluginError(f"plugin {report.name} ({report.package}): its tests, {module}, are not installed")
            files.append(spec.origin)
        # nobody's configuration, conftest or cache has a say in it; what the tests write goes with the folder
        options = ["-q", "--tb=short", "--noconftest", "-c", "/dev/null", "--rootdir", folder, "-p", "no:cacheprovider", "--import-mode=importlib"]
        options += ["--basetemp", f"{folder}/tests", "--clauses-json", str(told), "--tradeskill-plugin", report.name, "--tradeskill-start", str(start)]
        options += [word for entry in given for word in ("--tradeskill-with", entry)]
        code, said = _ended([sys.executable, "-m", "pytest", *options, *files], folder, report.name)
        found: dict[str, Any] = json.loads(told.read_text("utf-8")) if told.exists() else {"classes": {}, "untried": [], "takes": {}, "interrupted": False}
        if code == USAGE and (unknown := sorted({entry.partition("=")[0] for entry in given} - set(found["takes"]))):
            takes = "; ".join(f"{name}={meaning}" for name, meaning in found["takes"].items()) or "nothing"
            raise UsageError(f"plugin {report.name}: its tests take no {', '.join(unknown)}; what they take: {takes}")
        if found["interrupted"]:  # asyncio took the parent's own Ctrl-C for itself
            raise KeyboardInterrupt
        results: dict[str, dict[str, dict[str, str]]] = found["classes"]
        if not results and found["untried"]:
            raise PluginError(_untried(report, found["untried"]))
        if not results or code not in (0, 1):
            raise PluginError(f"plugin {report.name}: its tests cannot be run: {_said(said)}")
        return results


def _ended(command: Sequence[str], folder: str, name: str) -> tuple[int, str]:
    """Exit code and output. Whatever ends this, tests that began get the time to take away what they started."""
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except BaseException as error:
            process.send_signal(signal.SIGINT)  # once more does no harm: Ctrl-C at a terminal reaches both
            try:
                process.communicate(timeout=LEAVING)
            except subprocess.TimeoutExpired:
                process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise PluginError(f"plugin {name}: its tests did not end within {PATIENCE:g} s") from error
            raise
        return process.returncode, said


def _said(output: str) -> str:
    """The lines that say what is wrong, as one."""
    lines = [line.strip() for line in output.splitlines() if line.startswith(("E ", "ERROR")) or "refused" in line]
    return " ".join(dict.fromkeys(lines or output.splitlines()[-5:]))[:600]
