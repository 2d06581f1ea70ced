"""The author's path: packages made by `plugins new`, and the finished ones of examples/, built as wheels and installed in an environment next to ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tradeskill.testing.starting import new_plugin

ROOT = Path(__file__).parent.parent
PATIENCE = 240.0
NEW = {"wallet": "acme-pay", "market": "acme-fair", "backend": "acme-mill", "skill": "acmelook"}
FINISHED = {"tally": "plugin-wallet-tally", "textworks": "plugin-backend-textworks"}
CLAUSES = {"wallet": 42, "market": 37, "backend": 22, "skill": 9}


@dataclass(frozen=True)
class Place:
    """An environment of its own that has our packages beside what was installed from wheels, and the projects these were built from."""

    folder: Path
    projects: dict[str, Path]
    environment: dict[str, str] = field(default_factory=dict)

    def python(self, *arguments: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / "venv" / "bin" / "python"), *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRADESKILL_", "PYTHONPATH"))}
        where = cwd or self.folder
        return subprocess.run(
            command, cwd=where, env={**environment, **self.environment, **more}, capture_output=True, text=True, check=False, timeout=PATIENCE
        )

    def tradeskill(self, *arguments: str, **more: str) -> Any:
        done = self.python("-m", "tradeskill", *arguments, **more)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if "--json" in arguments else done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("author")
    projects = {name: new_plugin(kind, name, folder) for kind, name in NEW.items()}
    for name, example in FINISHED.items():  # a copy, since building leaves traces
        projects[name] = folder / example
        shutil.copytree(ROOT / "examples" / example, projects[name], ignore=shutil.ignore_patterns("__pycache__", "dist"))
    for project in projects.values():
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheels")]
        subprocess.run(build, cwd=project, check=True, capture_output=True, timeout=PATIENCE)
    venv.create(folder / "venv", symlinks=True)
    (theirs,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (theirs / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    wheels = sorted(str(wheel) for wheel in (folder / "wheels").glob("*.whl"))
    assert len(wheels) == len(projects)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "venv" / "bin" / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", "--no-index", "--no-deps", *wheels], check=True, capture_output=True, timeout=PATIENCE)
    return Place(folder, projects)


@pytest.mark.parametrize("name", [*NEW.values(), *FINISHED])
def test_a_packages_own_tests_pass_as_it_is_installed(place: Place, name: str) -> None:
    done = place.python("-m", "pytest", "-q", "-p", "no:schemathesis", "-p", "no:cacheprovider", cwd=place.projects[name])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "FAILED" not in done.stdout
    assert "holds" in done.stdout


@pytest.mark.parametrize(("name", "kind"), [("acmelook", "skill"), ("textworks", "backend")])
def test_an_installed_plugin_is_checked_clause_by_clause(place: Place, name: str, kind: str) -> None:
    verdict = place.tradeskill("plugins", "check", name, "--json")
    assert verdict["ok"]
    assert verdict["package"] == f"tradeskill-{name}"
    assert len(verdict["clauses"]) == CLAUSES[kind]
    assert {clause["status"] for clause in verdict["clauses"]} <= {"holds", "declared off"}
    assert [clause["number"] for clause in verdict["clauses"] if clause["status"] == "declared off" and not clause["reason"]] == []


def test_a_plugin_that_replaces_a_check_or_breaks_a_clause_is_found_out(place: Place) -> None:
    (module,) = (place.folder / "venv" / "lib").glob("python3*/site-packages/tradeskill_textworks/conformance.py")
    (backend,) = (place.folder / "venv" / "lib").glob("python3*/site-packages/tradeskill_textworks/backend.py")
    tests, code = module.read_text("utf-8"), backend.read_text("utf-8")
    try:
        module.write_text(tests + "\n    def test_a_second_start_of_one_id_runs_nothing(self) -> None: ...\n", "utf-8")
        done = place.python("-m", "tradeskill", "plugins", "check", "textworks")
        assert done.returncode == 9
        assert "replaced checks refused: TestTextworks overrides test_a_second_start_of_one_id_runs_nothing (B-03)" in done.stderr
        module.write_text(tests, "utf-8")
        backend.write_text(code.replace('"limit.time"', '"exit"'), "utf-8")
        done = place.python("-m", "tradeskill", "plugins", "check", "textworks")
        assert done.returncode == 9
        assert next(line for line in done.stdout.splitlines() if "FAILED" in line).startswith("B-09  FAILED ")
        assert re.search(r"^textworks: BREAKS its contract: .*1 FAILED \(B-09\)", done.stderr, re.MULTILINE)
        assert "Use -v" not in done.stdout
        assert "-m pytest --pyargs tradeskill_textworks.conformance" in done.stderr
    finally:
        module.write_text(tests, "utf-8")
        backend.write_text(code, "utf-8")


def test_all_of_them_are_listed_with_what_they_say_of_themselves(place: Place) -> None:
    listed = {entry["name"]: entry for entry in place.tradeskill("plugins", "--json")}
    assert {*NEW.values(), *FINISHED, "nano", "embedded", "buyer"} <= set(listed)
    for name in (*NEW.values(), *FINISHED):
        assert (listed[name]["error"], listed[name]["api"], listed[name]["notes"]) == (None, 1, [])
    assert listed["tally"]["manifest"] == {"hosts": [], "secrets": [], "spends": ["what the wallet holds on the tally"], "files": ["the tally's file, `path`"]}
    assert "spends: what the wallet holds on the tally" in place.tradeskill("plugins", "-v")


# A third party's rail and backend sell a job


@pytest.fixture(scope="module")
def trade(place: Place) -> Iterator[dict[str, Any]]:
    """A profile that sells, one that buys; and what became of a hire between them, in processes of their own."""
    folder = place.folder / "trade"
    folder.mkdir()
    password = folder / "password"
    password.write_text("correct horse\n")
    password.chmod(0o600)
    homes = {side: {"TRADESKILL_HOME": str(folder / side), "TRADESKILL_PASSWORD_FILE": str(password)} for side in ("seller", "buyer")}
    for home in homes.values():
        place.tradeskill("init", "--non-interactive", "--network", "dev", "--market", str(folder / "market.db"), **home)
        change(Path(home["TRADESKILL_HOME"]) / "config.yaml", wallets=[{"plugin": "tally", "path": str(folder / "tally.db")}])
    refused = place.python("-m", "tradeskill", "tally", "fund", "1000", **homes["buyer"])
    (pinned,) = re.findall(r"tally@sha256:[0-9a-f]{64}", refused.stderr)
    for side, entry in (("seller", "tally"), ("buyer", pinned)):
        change(folder / side / "config.yaml", plugins={"allow": [entry]})
    place.tradeskill("tally", "fund", "1000", **homes["buyer"])
    offer = {"name": "shout", "title": "Shouting", "price": "40 sat", "backend": "textworks", "run": ["upper"], "pure": True}
    (folder / "shop").mkdir()
    (folder / "shop" / "seller.yaml").write_text(json.dumps({"network": "dev", "offers": [offer], "seller": {"poll_seconds": 0.1}}))
    command = [str(place.folder / "venv" / "bin" / "python"), "-m", "tradeskill", "sell", str(folder / "shop" / "seller.yaml"), "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRADESKILL_", "PYTHONPATH"))}
    seller = subprocess.Popen(command, cwd=folder, env={**environment, **homes["seller"]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert seller.stdout is not None
        ready = seller.stdout.readline()
        assert ready, seller.stderr.read() if seller.stderr else ""
        assert "error" not in json.loads(ready), ready
        arguments = ["hire", "Shouting", "--input", '{"text": "grüß dich"}', "--yes"]
        done = place.python("-m", "tradeskill", *arguments, **homes["buyer"])
        again = place.python("-m", "tradeskill", *arguments, **homes["buyer"])
        failed = place.python("-m", "tradeskill", "hire", "Shouting", "--input", '{"page": 1}', "--yes", **homes["buyer"])
        until = time.monotonic() + PATIENCE
        while (earned := place.tradeskill("earnings", "--json", **homes["seller"]))["payments_by_status"].get("refunded") != 1:
            assert time.monotonic() < until, earned
        yield {"refused": refused, "done": done, "again": again, "failed": failed, "earned": earned, "homes": homes}
    finally:
        seller.kill()
        seller.communicate(timeout=PATIENCE)


def change(path: Path, **keys: Any) -> None:
    from tradeskill.strictyaml import read_yaml

    known = read_yaml(path)
    assert isinstance(known, Mapping)
    path.write_text(json.dumps({**known, **keys}))  # JSON is YAML


def test_a_rail_that_was_not_allowed_touches_no_money(trade: dict[str, Any]) -> None:
    assert trade["refused"].returncode == 2
    assert 'add the line: plugins: {allow: ["tally"]} (or ["tally@sha256:' in trade["refused"].stderr


def test_a_job_is_sold_for_their_money_on_their_backend(place: Place, trade: dict[str, Any]) -> None:
    assert trade["done"].returncode == 0, trade["done"].stdout + trade["done"].stderr
    assert "GRÜSS DICH" in trade["done"].stdout
    assert trade["again"].stdout == trade["done"].stdout
    assert trade["earned"]["by_offer"] == {"shout": {"jobs": 1, "sat": "40"}}


def test_a_job_that_fails_there_is_paid_back_by_their_rail(place: Place, trade: dict[str, Any]) -> None:
    assert trade["failed"].returncode != 0
    assert "failed" in trade["failed"].stderr
    assert trade["earned"]["payments_by_status"] == {"allocated": 1, "refunded": 1}


def test_the_way_that_the_page_for_authors_shows_is_one(place: Place) -> None:
    """docs/plugins.md, in a shell; pip takes what is here instead of asking an index."""
    match = re.search(r"<!-- run: author -->\n```shell\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text("utf-8"), re.DOTALL)
    assert match is not None
    programs = place.folder / "venv" / "bin"
    (programs / "tradeskill").write_text(f"#!{programs / 'python'}\nfrom tradeskill.__main__ import main\n\nmain()\n")
    (programs / "tradeskill").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRADESKILL_", "PYTHONPATH", "PIP_"))}
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    environment = {**kept, **offline, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTEST_ADDOPTS": "-p no:schemathesis -p no:cacheprovider"}
    folder = place.folder / "page"
    folder.mkdir()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", match[1]], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "(backend): of 22 clauses 19 hold, 3 declared off" in done.stdout
    assert "faraway: keeps its contract: 19 hold, 3 declared off" in done.stderr
    assert "\nfaraway      backend    tradeskill-faraway 0.1.0" in done.stdout
