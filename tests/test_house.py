"""The house rules that a machine can hold: names, first lines, lengths, promises, who imports whom, reasons beside switched-off rules."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"core": "tradeskill", "wallet": "tradeskill_wallet", "plugins": "tradeskill_plugins", "skills": "tradeskill_skills"}
OURS = [ROOT / folder / package for folder, package in PACKAGES.items()]
EVERYWHERE = [*OURS, ROOT / "tests", ROOT / "tools", ROOT / "examples"]

# Public functions that are not a promise: the index of hooks is called through pluggy, commands through typer, fixtures through pytest.
NO_PROMISE = {"hookspec", "command", "callback", "fixture"}


def python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> Iterator[Path]:
    """Files under version control; in an unpacked source archive, all but what tools leave behind."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False, timeout=60)
    if listed.returncode == 0:
        yield from (path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())
    else:
        for path in ROOT.rglob("*"):
            if path.is_file() and not any(part.startswith((".venv", ".git", ".mypy", ".ruff", "__pycache__")) for part in path.parts):
                yield path


def test_no_module_is_named_after_having_no_job() -> None:
    assert [short(path) for path in python_files(*EVERYWHERE) if re.search(r"(^|_)(utils?|helpers?|managers?|common|misc)$", path.stem)] == []


def test_every_file_says_first_what_it_is_for() -> None:
    silent = []
    for path in python_files(*EVERYWHERE):
        text = path.read_text("utf-8")
        about = ast.get_docstring(ast.parse(text)) or ""
        if text.strip() and len(about.splitlines()[0]) < 12:
            silent.append(short(path))
    assert silent == []


def test_a_long_file_says_why() -> None:
    unexplained = []
    for path in python_files(*EVERYWHERE):
        text = path.read_text("utf-8")
        about = ast.get_docstring(ast.parse(text)) or ""
        if len(text.splitlines()) > 400 and not re.search(r"past 400 lines|one file on purpose", about, re.IGNORECASE):
            unexplained.append(short(path))
    assert unexplained == []


@pytest.mark.parametrize("path", python_files(*OURS), ids=short)
def test_what_a_module_promises_is_there_and_what_is_public_is_promised(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    promised: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]:
            promised = ast.literal_eval(node.value)
    public = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not any(ast.unparse(mark).partition("(")[0].rpartition(".")[2] in NO_PROMISE for mark in node.decorator_list)
    }
    if "core" in path.relative_to(ROOT).parts and path.name != "__main__.py":
        assert public <= set(promised)
    assert len(set(promised)) == len(promised)
    if promised:
        parts = path.relative_to(next(folder for folder in OURS if folder in path.parents).parent).with_suffix("").parts
        module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
        assert [name for name in promised if not hasattr(module, name)] == []


def test_the_import_contracts_hold() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]


def test_no_file_imports_through_a_folder_of_the_repository() -> None:
    """`import core.tradeskill` works at the root of the repository and makes a second copy of every class."""
    found = []
    for path in python_files(*EVERYWHERE):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found += [f"{short(path)}: {name}" for name in names if name.split(".")[0] in PACKAGES]
    assert found == []
    assert not [name for name in sys.modules if name.split(".")[0] in PACKAGES and name.split(".")[-1] in PACKAGES.values()]


@pytest.mark.parametrize("folder", PACKAGES)
def test_the_linter_refuses_an_import_through_a_folder(folder: str) -> None:
    code = f'"""Says nothing."""\n\nimport {folder}.{PACKAGES[folder]}\n\nprint({folder})\n'
    ruff = Path(sys.executable).parent / "ruff"
    command = [ruff, "check", "--no-cache", "--config", ROOT / "pyproject.toml", "--stdin-filename", ROOT / "tests" / "x.py", "-"]
    result = subprocess.run(command, input=code, capture_output=True, text=True, check=False, timeout=60)
    assert "TID251" in result.stdout


@pytest.mark.parametrize("folder", PACKAGES)
def test_from_elsewhere_a_folder_of_the_repository_is_no_package(folder: str, tmp_path: Path) -> None:
    code = f"import importlib.util as u; assert u.find_spec({folder!r}) is None and u.find_spec({PACKAGES[folder]!r}) is not None"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


def test_every_rule_switched_off_has_its_reason_beside_it() -> None:
    bare = []
    for path in python_files(*EVERYWHERE):
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.COMMENT and (fault := _without_reason(token.string)):
                    bare.append(f"{short(path)}:{token.start[0]}: {fault}")
    assert bare == []


def _without_reason(comment: str) -> str:
    """What is wrong with a comment that switches a rule off; "" where it names the rule and says why."""
    rules = {r"type:\s*ignore": r"type: ignore\[[a-z, -]+\]", r"noqa\b": r"noqa: [A-Z0-9, ]+", r"pragma:\s*no cover": r"pragma: no cover"}
    for start, rule in rules.items():
        for match in re.finditer(start, comment):
            after = re.match(rule, comment[match.start() :])
            if after is None:
                return f"names no rule: {comment}"
            rest = comment[match.start() + after.end() :]
            if not re.search(r"[A-Za-z]{3}", re.sub(r"type: ignore\[[^]]*\]|noqa: [A-Z0-9, ]+", "", rest)):
                return f"says no reason: {comment}"
    return ""


def test_the_rule_about_reasons_can_tell() -> None:
    assert _without_reason("# type: ignore") != ""
    assert _without_reason("# type: ignore[attr-defined]") != ""
    assert _without_reason("# noqa: S101") != ""
    assert _without_reason("# noqa") != ""
    assert _without_reason("# pragma: no cover") != ""
    assert _without_reason("# noqa: S101 - the plugin's own code") == ""
    assert _without_reason("# type: ignore[arg-type]  # what the test is about") == ""
    assert _without_reason("# ruff: noqa: RUF009 - a field is not shared") == ""
    assert _without_reason("# pragma: no cover - only on Windows") == ""
    assert _without_reason("# an ordinary remark") == ""


def test_no_tracked_file_knows_the_machine_it_was_written_on() -> None:
    patterns = [
        r"(?<![\w./~-])/(?:work|root|home/[a-z]+)/",
        r"\b(?:index|registry|extra-index)[-_]url\b",
        r"\bpython" + r"hosted\b",
        r"\bp" + r"ypi\.org\b",
        *(re.escape(host) for host in _index_hosts()),
    ]
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{short(path)}: {match.group(0)}" for pattern in patterns for match in re.finditer(pattern, text)]
    assert found == []


def _index_hosts() -> set[str]:
    """Hosts that this machine takes packages from, other than this machine itself."""
    settings = " ".join(value for name, value in os.environ.items() if name.endswith("INDEX_URL"))
    return {host for host in re.findall(r"https?://(?:[^/@\s]*@)?([\w.-]+)", settings) if not host.startswith(("127.", "localhost"))}


def test_the_generated_pages_are_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "tools" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, make in module.PAGES.items():
        assert (ROOT / "docs" / name).read_text("utf-8") == make(), f"docs/{name}: run tools/make_docs.py"


def test_every_package_says_that_it_is_typed() -> None:
    for folder in OURS:
        assert (folder / "py.typed").is_file(), folder
