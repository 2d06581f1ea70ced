"""Runs the conformance kit on an installed plugin, in a process of its own, with the tests that its package names for it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tradeskill.errors import NotFoundError, PluginError
from tradeskill.plugins import PluginReport, Plugins
from tradeskill.testing.clauses import KINDS

__all__ = ["KIT_GROUP", "ClauseResult", "Verdict", "check_plugin"]

KIT_GROUP: Final = "tradeskill.kit"  # plugin's name -> the module with its classes of tests
ANY_SKILL: Final = "tradeskill.testing.any_skill"  # a skill needs nothing of its author's to be tried
PATIENCE: Final = 1800.0  # seconds for all clauses together


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

    @property
    def ok(self) -> bool:
        return bool(self.clauses) and not self.missing and all(clause.status in ("holds", "declared off") for clause in self.clauses)

    def summary(self) -> str:
        counts: dict[str, int] = {}
        for clause in self.clauses:
            counts[clause.status] = counts.get(clause.status, 0) + 1
        told = ", ".join(f"{count} {'hold' if status == 'holds' else status}" for status, count in counts.items())
        lacking = f"; nothing was tried of it as a {' and a '.join(self.missing)}" if self.missing else ""
        return f"{'keeps its contract' if self.ok else 'BREAKS its contract'}: {told or 'no clause was tried'}{lacking}"

    def described(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


def check_plugin(name: str) -> Verdict:
    """Try the plugin `name` (or `name@package`) clause by clause.

    NotFoundError when it is not installed; PluginError when it does not load, when its package names no tests, when they cannot be collected
    (replaced checks among the reasons), and when pytest is not installed.
    """
    if find_spec("pytest") is None:
        raise PluginError(f"the conformance kit needs pytest for {sys.executable}: pip install 'tradeskill[kit]'")
    report = _report(name)
    modules = _modules(report)
    results = _run(report, modules)
    words = {"passed": "holds", "off": "declared off", "failed": "FAILED"}
    clauses = tuple(
        ClauseResult(number, words.get(entry["status"], entry["status"]), entry["sentence"], entry["reason"], tests.rpartition("::")[2])
        for tests, found in results.items()
        for number, entry in sorted(found.items())
    )
    tried = {KINDS[clause.number[0]] for clause in clauses}
    return Verdict(report.name, report.package, report.version, clauses, tuple(kind for kind in report.kinds if kind not in tried))


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


def _run(report: PluginReport, modules: Sequence[str]) -> dict[str, dict[str, dict[str, str]]]:
    with tempfile.TemporaryDirectory(prefix="tradeskill-kit-") as folder:
        told = Path(folder) / "clauses.json"
        files = []
        for module in modules:
            spec = find_spec(module)
            if spec is None or spec.origin is None:
                raise PluginError(f"plugin {report.name} ({report.package}): its tests, {module}, are not installed")
            files.append(spec.origin)
        # nobody's configuration, conftest or cache has a say in it
        options = ["-q", "--tb=short", "--noconftest", "-c", "/dev/null", "--rootdir", folder, "-p", "no:cacheprovider", "--import-mode=importlib"]
        command = [sys.executable, "-m", "pytest", *options, "--clauses-json", str(told), "--tradeskill-plugin", report.name, *files]
        try:
            done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired as error:
            raise PluginError(f"plugin {report.name}: its tests did not end within {PATIENCE:g} s") from error
        results: dict[str, dict[str, dict[str, str]]] = json.loads(told.read_text("utf-8")) if told.exists() else {}
        if not results or done.returncode not in (0, 1):
            raise PluginError(f"plugin {report.name}: its tests cannot be run: {_said(done.stdout + done.stderr)}")
        return results


def _said(output: str) -> str:
    """The lines that say what is wrong, as one."""
    lines = [line.strip() for line in output.splitlines() if line.startswith(("E ", "ERROR")) or "refused" in line]
    return " ".join(dict.fromkeys(lines or output.splitlines()[-5:]))[:600]
