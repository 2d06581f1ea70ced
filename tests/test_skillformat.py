"""The open format's rules, one wrong thing at a time; what a skill needs; where skills are found and which of two wins."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import skills_ref
import yaml

from tradeskill.errors import NotFoundError, PluginError
from tradeskill.plugins import Plugins
from tradeskill.skillformat import Needs, check_folder, missing, read_needs, split_skill
from tradeskill.skills import SkillFolders, find_skill, find_skills

TOOLS = """from tradeskill.skills import tool


@tool(reads=True)
async def hello(profile, who: str) -> str:
    '''Say hello to one.'''
    return f'hello {who}'
"""


def text(name: str = "greeter", body: str = "`greeter.hello` greets.\n", **changes: Any) -> str:
    keys = {"name": name, "description": "Greets. Use it to greet.", **changes}
    return f"---\n{yaml.safe_dump(keys)}---\n{body}"


def folder_with(place: Path, content: str, name: str = "greeter", tools: str = TOOLS) -> Path:
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(content)
    if tools:
        (folder / "tools.py").write_text(tools)
    return folder


def test_a_good_folder_has_nothing_wrong(tmp_path: Path) -> None:
    assert check_folder(folder_with(tmp_path, text(license="MIT", metadata={"openclaw": '{"requires": {"env": ["A"]}}'}))) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (text(version="1"), "may hold"),
        (text(homepage="https://example.org"), "homepage"),
        (text(name="other"), "folder's name"),
        (text(description=" "), "1 to 1024"),
        (text(compatibility="x" * 501), "compatibility"),
        (text(compatibility=""), "compatibility"),
        (text(license=1), "license must be text"),
        (text(**{"allowed-tools": ["a"]}), "allowed-tools must be text"),
        (text(metadata={"openclaw": {"requires": {}}}), "text to text"),
        (text(metadata={"openclaw": '{"a":\n1}'}), "single line"),
        (text(metadata={"openclaw": "{"}), "not JSON"),
        (text(metadata={"openclaw": "[]"}), "JSON object"),
        (text(metadata={"openclaw": '{"requires": {"env": "A"}}'}), "list of names"),
        (text(metadata={"tradeskill": '{"permissions": {"root": true}}'}), "spend, network and filesystem"),
        (text(metadata={"tradeskill": '{"anything": 1}'}), "plugins and permissions only"),
        (text(body="x\n" * 500), "500"),
        (text(body=" \n"), "says nothing"),
        (text(body="[more](references/more.md)\n"), "references/more.md"),
        (text(body="[more](../more.md)\n"), "../more.md"),
    ],
)
def test_each_thing_that_the_format_forbids_is_named(tmp_path: Path, content: str, words: str) -> None:
    """S48: strict rules."""
    (tmp_path / "more.md").touch()
    (wrong,) = check_folder(folder_with(tmp_path, content))
    assert words in wrong
    assert "greeter" in wrong
    assert "\n" not in wrong


@pytest.mark.parametrize("head", [{"version": "1"}, {"name": "other"}, {"description": " "}, {"compatibility": "x" * 501}, {"homepage": "x"}, {}])
def test_what_the_format_s_own_validator_refuses_is_refused_here(tmp_path: Path, head: dict[str, str]) -> None:
    folder = folder_with(tmp_path, text(**head))
    assert bool(skills_ref.validate(folder)) == bool(check_folder(folder)) == bool(head)


def test_a_folder_without_a_readable_description_is_told_so(tmp_path: Path) -> None:
    assert "cannot be read" in check_folder(tmp_path / "nothing")[0]
    folder = folder_with(tmp_path, "")
    (folder / "SKILL.md").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in check_folder(folder)[0]


def test_openclaw_takes_more_keys_and_a_nested_block_and_agentskills_neither(tmp_path: Path) -> None:
    """S49: openclaw."""
    nested = text(homepage="https://example.org", metadata={"openclaw": {"requires": {"bins": ["sh"]}}})
    folder = folder_with(tmp_path, nested)
    assert check_folder(folder, "openclaw") == []
    assert check_folder(folder) != []
    head, _ = split_skill(nested, "greeter", "openclaw")
    assert read_needs(head["metadata"], "greeter").bins == ("sh",)


def test_what_is_missing_is_said_thing_by_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAS_IT", "1")
    here = Needs(plugins=("embedded",), env=("HAS_IT",), bins=("sh",), any_bins=("no-such-program", "sh"), os=(sys.platform,))
    assert missing(here, ["embedded"]) == ""
    lacking = missing(Needs(("cashu",), ("HAS_NOT",), ("no-such-program",), ("nor-this",), ("win32",)), ["embedded"])
    for words in ("plugin cashu", "variable HAS_NOT", "program no-such-program", "nor-this", "for win32"):
        assert words in lacking


# where skills are found


@pytest.fixture
def folders(tmp_path: Path) -> SkillFolders:
    return SkillFolders.of(tmp_path / "home", {"TRADESKILL_SKILLS": str(tmp_path / "work")})


def test_a_folder_is_a_skill_in_the_user_s_place_before_the_workspace_s_and_never_instead_of_an_installed_one(tmp_path: Path, folders: SkillFolders) -> None:
    """S45: precedence."""
    folder_with(tmp_path / "home" / "skills", text())
    folder_with(tmp_path / "work", text())
    folder_with(tmp_path / "work", text("only-here"), "only-here")
    folder_with(tmp_path / "work", text("buyer"), "buyer", "raise SystemExit('a buyer of a stranger ran')\n")
    found = find_skills(folders=folders)
    runs = {skill.name: skill.folder for skill in found if not skill.reason}
    assert runs["greeter"] == tmp_path / "home" / "skills" / "greeter"
    assert runs["only-here"] == tmp_path / "work" / "only-here"
    assert tmp_path not in runs["buyer"].parents
    reasons = {skill.folder: skill.reason for skill in found if skill.reason}
    assert set(reasons) == {tmp_path / "work" / "greeter", tmp_path / "work" / "buyer"}
    assert all("is taken by" in reason for reason in reasons.values())
    assert find_skill("greeter", Plugins(), folders).tools[0].name == "hello"
    assert find_skill("buyer", Plugins(), folders).folder == runs["buyer"]
    with pytest.raises(NotFoundError):
        find_skill("nobody", Plugins(), folders)


def test_the_folder_one_works_in_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S46: no surprise."""
    folder_with(tmp_path / "skills", text())
    monkeypatch.chdir(tmp_path)
    assert "greeter" not in {skill.name for skill in find_skills(folders=SkillFolders.of(tmp_path / "home", {}))}


@pytest.mark.parametrize(
    ("content", "tools", "words"),
    [
        (text(metadata={"openclaw": '{"requires": {"env": ["NOT_SET_ANYWHERE"]}}'}), "raise SystemExit\n", "NOT_SET_ANYWHERE"),
        (text(metadata={"tradeskill": '{"plugins": ["no-such-rail"]}'}), "raise SystemExit\n", "no-such-rail"),
        (text(), "", "no tools.py"),
        (text(), "import no_such_module_of_anybody\n", "no_such_module_of_anybody"),
        (text(), TOOLS.replace("hello(", "x" * 60 + "("), "1 to 64"),
        (text(), TOOLS.replace("hello(", "Hello("), "1 to 64"),
    ],
)
def test_a_folder_that_cannot_run_is_listed_with_its_reason(tmp_path: Path, folders: SkillFolders, content: str, tools: str, words: str) -> None:
    """S47: needs."""
    folder_with(tmp_path / "work", content, tools=tools)
    (listed,) = [skill for skill in find_skills(folders=folders) if skill.name == "greeter"]
    assert words in listed.reason
    assert listed.tools == ()
    with pytest.raises(PluginError, match=words):
        find_skill("greeter", Plugins(), folders)
