"""Skills written out and new ones: they keep the formats' rules, their scripts run, and what was exported can be exported and read again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import skills_ref
import yaml

from tests.cli_stage import PATIENCE, Home
from tradeskill.profile import create_profile
from tradeskill.skillformat import FORMATS, Format, check_folder
from tradeskill.world import World


@pytest.fixture
def home(tmp_path: Path) -> Home:
    create_profile(tmp_path / "home", {"network": "dev", "market": {"plugin": "embedded", "path": "market.db"}}, "dev", "a word", World())
    (tmp_path / "password").touch(0o600)
    (tmp_path / "password").write_text("a word")
    scripts = str(Path(sys.executable).parent)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRADESKILL_")}
    environment |= {"TRADESKILL_HOME": str(tmp_path / "home"), "TRADESKILL_PASSWORD_FILE": str(tmp_path / "password"), "PATH": f"{scripts}:/usr/bin:/bin"}
    return Home(tmp_path / "home", environment)


def head_of(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "SKILL.md").read_text().split("---\n")[1]))


def script(folder: Path, home: Home, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(folder / "scripts" / "call"), *arguments]
    return subprocess.run(command, env=home.environment, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("form", FORMATS)
def test_every_exported_folder_keeps_the_strict_rules_and_is_gated_by_the_command_it_needs(tmp_path: Path, home: Home, form: Format) -> None:
    """S50: export."""
    folders = [Path(name) for name in home.json("skills", "export", "--to", str(tmp_path / "out"), "--format", form)]
    assert {folder.name for folder in folders} == {"buyer", "seller"}
    for folder in folders:
        assert check_folder(folder, form) == []
        assert skills_ref.validate(folder) == []  # the open format's own validator
        head = head_of(folder)
        gate = head["metadata"]["openclaw"]
        if form == "agentskills":
            assert "\n" not in gate
            gate = json.loads(gate)
        assert gate["requires"]["bins"] == ["tradeskill"]
        lines = (folder / "SKILL.md").read_text().splitlines()
        assert len(lines) < 500
        assert (form == "openclaw") == (check_folder(folder) != [])
    done = home.run("skills", "validate", *map(str, folders), "--format", form, "--json").ok()
    assert [each["problems"] for each in done.json] == [[], []]


def test_the_exported_script_calls_the_tool_and_hands_on_answer_and_exit_code(tmp_path: Path, home: Home) -> None:
    """S51: scripts."""
    (folder,) = [Path(name) for name in home.json("skills", "export", "buyer", "--to", str(tmp_path / "with space"))]
    for arguments, stdin in ((("search",), ""), (("search", '{"limit": 1}'), ""), (("search", "-"), "{}")):
        done = script(folder, home, *arguments, stdin=stdin)
        assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stderr
    failed = script(folder, home, "status", '{"purchase_id": "x"}')
    assert (failed.returncode, json.loads(failed.stdout)["error"]["code"]) == (3, "not_found")
    assert "usage" in script(folder, home).stderr


def test_a_new_skill_validates_runs_everywhere_and_its_test_passes(tmp_path: Path, home: Home) -> None:
    """S52: new."""
    folder = Path(home.json("skills", "new", "tide-table")["folder"])
    assert folder == home.path / "skills" / "tide-table"
    home.run("skills", "validate", str(folder)).ok()
    assert skills_ref.validate(folder) == []
    assert home.run("call", "tide-table.look", '{"subject": "tea"}').ok().json == {"subject": "tea", "length": 3}
    assert "tide_table_look" in {each["name"] for each in home.run("skills", "schema").ok().json}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, env=home.environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout
    home.run("skills", "new", "tide-table").failed(2, "there already")
    for name in ("Tide", "-x", "a--b", "x" * 33, "../x", ""):
        home.run("skills", "new", "--to", str(tmp_path), "--", name).failed(2, "lowercase")


def test_an_exported_folder_that_is_no_package_brings_its_tools_along(tmp_path: Path, home: Home) -> None:
    home.run("skills", "new", "tides").ok()
    (folder,) = [Path(name) for name in home.json("skills", "export", "tides", "--to", str(tmp_path / "out"))]
    elsewhere = Home(tmp_path / "other", {**home.environment, "TRADESKILL_HOME": str(tmp_path / "other")})
    create_profile(elsewhere.path, {"network": "dev", "market": {"plugin": "embedded", "path": "market.db"}}, "dev", "a word", World())
    done = script(folder, elsewhere, "look", '{"subject": "tea"}')
    assert (done.returncode, json.loads(done.stdout)) == (0, {"subject": "tea", "length": 3}), done.stderr
    assert json.loads(head_of(folder)["metadata"]["tradeskill"])["permissions"] == {"spend": False, "network": [], "filesystem": []}


def test_an_export_again_replaces_its_own_files_and_nothing_else(tmp_path: Path, home: Home) -> None:
    (folder,) = [Path(name) for name in home.json("skills", "export", "buyer", "--to", str(tmp_path))]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "notes.txt").write_text("mine")
    (folder / "SKILL.md").write_text("spoiled")
    home.json("skills", "export", "buyer", "--to", str(tmp_path))
    assert {path: path.read_bytes() for path in before} == before
    assert (folder / "notes.txt").read_text() == "mine"


def test_what_is_wrong_with_a_folder_is_said_and_ends_with_an_exit_code(tmp_path: Path, home: Home) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "SKILL.md").write_text("---\nname: other\n---\n")
    done = home.run("skills", "validate", str(folder), "--json")
    assert done.code == 9
    assert "folder's name" in done.json[0]["problems"][0]
    assert "folder's name" in done.err
    home.run("skills", "validate", str(folder), "--format", "x").failed(2, "agentskills")
