"""Skills from their folders to their calls: which head SKILL.md may have, how typed functions become tools, how a wrong call is answered."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from tradeskill.errors import InputError, NotFoundError, PluginError
from tradeskill.plugins import Plugins
from tradeskill.profile import Profile
from tradeskill.skills import Tool, call_tool, find_skills, read_frontmatter, tool

HEAD = "name: greeter\ndescription: Greets people. Use it when somebody should be greeted.\n"


def head(text: str, name: str = "greeter") -> Mapping[str, Any]:
    return read_frontmatter(f"---\n{text}---\n# Body\n", name)


# SKILL.md


def test_a_head_with_every_allowed_key_is_read() -> None:
    extra = "license: MIT\ncompatibility: anywhere\nallowed-tools: a b\nmetadata: {version: '1'}\n"
    assert head(HEAD + extra)["metadata"] == {"version": "1"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "---"),
        ("just words\n", "may hold"),
        ("- a\n- list\n", "may hold"),
        (HEAD + "version: '1'\n", "version"),
        (HEAD.replace("greeter", "other"), "folder's name"),
        (HEAD.replace("greeter", "Greeter"), "folder's name"),
        ("name: greeter\n", "description"),
        ("name: greeter\ndescription: ''\n", "description"),
        ("name: greeter\ndescription: 5\n", "description"),
        (f"name: greeter\ndescription: {'x' * 1025}\n", "1024"),
        (HEAD + "metadata: {version: 1}\n", "metadata"),
        (HEAD + "metadata: words\n", "metadata"),
        ("name: [\n", "not YAML"),
        ("!!python/object/apply:os.system ['true']\n", "not YAML"),
    ],
)
def test_a_head_that_the_open_format_does_not_allow_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(PluginError, match=words) as caught:
        head(text)
    assert "greeter" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Greeter", "-greeter", "greeter-", "gre--eter", "gree_ter", "g" * 65, "grüßer"])
def test_a_name_that_is_no_plain_name_is_refused_even_where_it_agrees(name: str) -> None:
    with pytest.raises(PluginError, match="lowercase"):
        head(HEAD.replace("greeter", name), name)


@pytest.mark.parametrize("text", ["# No head\n", "---\nname: greeter\n", " ---\nname: greeter\n---\n"])
def test_a_file_without_a_head_is_refused(text: str) -> None:
    with pytest.raises(PluginError, match="---"):
        read_frontmatter(text, "greeter")


# tools


@tool
async def greet(
    profile: Profile, who: str, times: int = 1, tone: Literal["warm", "cool"] = "warm", to: list[str] | None = None, extra: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Say hello.

    As often as asked.
    """
    return {"who": who, "times": times, "tone": tone, "to": to, "extra": extra}


def called(arguments: dict[str, Any]) -> Any:
    return asyncio.run(Tool("greet", greet).call(cast(Profile, None), arguments))


def test_defaults_fill_what_is_not_given_and_json_arrives_as_it_is() -> None:
    assert called({"who": "x"}) == {"who": "x", "times": 1, "tone": "warm", "to": None, "extra": None}
    given = {"who": "x", "times": 3, "tone": "cool", "to": ["a"], "extra": {"deep": [1, {"er": None}]}}
    assert called(given) == given


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "who"),
        ({"who": 5}, "who"),
        ({"who": None}, "who"),
        ({"who": "x", "times": "3"}, "times"),
        ({"who": "x", "times": 1.5}, "times"),
        ({"who": "x", "times": True}, "times"),
        ({"who": "x", "tone": "hot"}, "tone"),
        ({"who": "x", "to": "a"}, "to"),
        ({"who": "x", "to": [1]}, "to.0"),
        ({"who": "x", "extra": []}, "extra"),
        ({"who": "x", "profile": {}}, "profile"),
        ({"who": "x", "whom": "y"}, "whom"),
    ],
)
def test_a_wrong_argument_is_named_with_all_there_are_and_nothing_is_converted(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"greet: {words}: .*its arguments are who, times, tone, to, extra"):
        called(arguments)


def test_schemas_say_what_goes_in_and_what_comes_out() -> None:
    described = Tool("greet", greet)
    schema = cast("dict[str, Any]", described.input_schema())
    assert (schema["required"], schema["additionalProperties"]) == (["who"], False)
    assert set(schema["properties"]) == {"who", "times", "tone", "to", "extra"}
    assert described.output_schema()["type"] == "object"
    assert (described.summary, described.description.splitlines()[-1]) == ("Say hello.", "As often as asked.")


# finding and calling


class _Package(Distribution):
    """A package's metadata, as an installed one has it."""

    def read_text(self, filename: str) -> str | None:
        return "Metadata-Version: 2.1\nName: strangers\nVersion: 1\n" if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        return Path(path)


def package(folder: Path, name: str, tools: str, text: str) -> EntryPoint:
    """A plugin with one skill, as another package would bring it."""
    where = folder / name
    where.mkdir()
    (where / "__init__.py").write_text(
        f"from tradeskill.hookspecs import hookimpl\n\n\n@hookimpl\ndef tradeskill_skill() -> str:\n    return '{name}.tools'\n"
    )
    (where / "tools.py").write_text(tools)
    if text:
        (where / "SKILL.md").write_text(text)
    return EntryPoint(name, name, "tradeskill")._for(_Package())  # type: ignore[attr-defined]  # how importlib.metadata ties a point to its package


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


TOOLS = "from tradeskill.skills import tool\n\n\n@tool\nasync def hello(profile, who: str) -> str:\n    '''Say hello.'''\n    return f'hello {who}'\n"


class _Opened:
    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins


def test_a_skill_of_another_package_is_found_and_called_by_its_name(folder: Path) -> None:
    plugins = Plugins([package(folder, "greeter", TOOLS, f"---\n{HEAD}---\n`greeter.hello`\n")])
    (skill,) = find_skills(plugins)
    assert (skill.name, skill.reason, [tool.name for tool in skill.tools]) == ("greeter", "", ["hello"])
    assert skill.described()["tools"] == [{"name": "greeter.hello", "description": "Say hello.", "parameters": ["who"]}]
    profile = cast(Profile, _Opened(plugins))
    assert asyncio.run(call_tool(profile, "greeter.hello", {"who": "you"})) == "hello you"
    for name in ("greeter.bye", "greeter.", "greeter"):
        with pytest.raises(NotFoundError, match=r"greeter\.hello"):
            asyncio.run(call_tool(profile, name, {"who": "you"}))
    with pytest.raises(NotFoundError, match="'nobody'"):
        asyncio.run(call_tool(profile, "nobody.hello", {}))
    with pytest.raises(InputError, match="JSON object"):
        asyncio.run(call_tool(profile, "greeter.hello", ["you"]))


@pytest.mark.parametrize(
    ("name", "tools", "text", "words"),
    [
        ("headless", TOOLS, "# no head\n", "---"),
        ("missing", TOOLS, "", "SKILL.md is missing"),
        ("misnamed", TOOLS, f"---\n{HEAD}---\n", "folder's name"),
        ("broken", "import no_such_module_of_anybody\n", f"---\n{HEAD}---\n", "no_such_module_of_anybody"),
        ("raising", "raise RuntimeError('out of order')\n", f"---\n{HEAD}---\n", "out of order"),
    ],
)
def test_a_skill_that_cannot_run_is_listed_with_the_reason_beside_those_that_can(folder: Path, name: str, tools: str, text: str, words: str) -> None:
    good = package(folder, "greeter", TOOLS, f"---\n{HEAD}---\n`greeter.hello`\n")
    found = {skill.name: skill for skill in find_skills(Plugins([good, package(folder, name, tools, text)]))}
    assert found["greeter"].reason == ""
    assert words in found[name].reason
    assert found[name].tools == ()
    assert found[name].described()["reason"] == found[name].reason


def test_what_buyer_and_seller_offer_is_what_their_instructions_name() -> None:
    shipped = {skill.name: skill for skill in find_skills() if skill.name in ("buyer", "seller")}
    for name, skill in shipped.items():
        text = (skill.folder / "SKILL.md").read_text("utf-8")
        table = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
        assert table == {f"{name}.{tool.name}" for tool in skill.tools}
