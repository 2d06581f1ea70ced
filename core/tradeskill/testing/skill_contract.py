"""What every skill must be, as tests: subclass SkillContract, override `skill`, and run pytest."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from typing import Any, ClassVar, cast

import pytest

from tradeskill.errors import InputError
from tradeskill.profile import Profile
from tradeskill.skills import Skill, Tool, read_frontmatter
from tradeskill.testing.clauses import clause

__all__ = ["SkillContract"]

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
FIRST_LINE = 300  # characters a model reads when it chooses


class SkillContract:
    """Each test reads the skill only; no tool does anything, because arguments are refused before a tool runs."""

    yours: ClassVar[frozenset[str]] = frozenset({"skill"})

    @pytest.fixture
    def skill(self) -> Skill:
        """The skill under test, as `tradeskill.skills.find_skills` gives it."""
        raise NotImplementedError("override the fixture `skill`")

    @clause("S-01")
    def test_it_can_run_and_has_tools(self, skill: Skill) -> None:
        assert skill.reason == ""
        assert skill.tools

    @clause("S-02")
    def test_its_folder_holds_a_valid_description_for_agents(self, skill: Skill) -> None:
        text = (skill.folder / "SKILL.md").read_text(encoding="utf-8")
        head = read_frontmatter(text, skill.name)
        assert head["description"] == skill.description
        assert skill.folder.name == skill.name
        assert len(text.splitlines()) < 500

    @clause("S-03")
    def test_every_tool_is_named_in_the_description_for_agents(self, skill: Skill) -> None:
        text = (skill.folder / "SKILL.md").read_text(encoding="utf-8")
        assert [tool.name for tool in skill.tools if f"{skill.name}.{tool.name}" not in text] == []

    @clause("S-04")
    def test_every_tool_has_a_plain_name_and_says_first_what_it_does(self, skill: Skill) -> None:
        names = [tool.name for tool in skill.tools]
        assert len(set(names)) == len(names)
        for tool in skill.tools:
            assert NAME.fullmatch(tool.name), tool.name
            assert 10 <= len(tool.summary) <= FIRST_LINE, tool.name

    @clause("S-05")
    def test_every_tool_is_an_async_function_with_typed_arguments_and_a_typed_answer(self, skill: Skill) -> None:
        for tool in skill.tools:
            assert inspect.iscoroutinefunction(tool.function), tool.name
            hints = tool.function.__annotations__
            assert "return" in hints, tool.name
            assert [name for name in tool.parameters if name not in hints] == [], tool.name

    @clause("S-06")
    def test_every_tool_has_schemas_of_its_arguments_and_its_answer(self, skill: Skill) -> None:
        from jsonschema import Draft202012Validator

        for tool in skill.tools:
            for schema in (tool.input_schema(), tool.output_schema()):
                Draft202012Validator.check_schema(schema)
                json.dumps(schema)
            assert tool.input_schema()["additionalProperties"] is False, tool.name

    @clause("S-07")
    def test_an_unknown_argument_is_refused_by_name_before_anything_is_done(self, skill: Skill) -> None:
        for tool in skill.tools:
            with pytest.raises(InputError, match="no_such_argument"):
                self._call(tool, {**self._samples(tool), "no_such_argument": 1})

    @clause("S-08")
    def test_an_argument_of_the_wrong_type_is_refused_by_name(self, skill: Skill) -> None:
        for tool in skill.tools:
            for name in tool.parameters:
                with pytest.raises(InputError, match=name):
                    self._call(tool, {**self._samples(tool), name: [[{"wrong": object.__name__}]]})

    @clause("S-09")
    def test_a_missing_argument_is_refused_by_name(self, skill: Skill) -> None:
        for tool in skill.tools:
            for name in cast("list[str]", tool.input_schema().get("required", [])):
                samples = self._samples(tool)
                del samples[name]
                with pytest.raises(InputError, match=name):
                    self._call(tool, samples)

    def _samples(self, tool: Tool) -> dict[str, Any]:
        """A value of the right type for each required argument."""
        by_type: dict[str, Any] = {"string": "x", "integer": 1, "number": 1.0, "boolean": True, "object": {}, "array": []}
        schema = cast("dict[str, Any]", tool.input_schema())
        return {name: by_type[schema["properties"][name]["type"]] for name in schema.get("required", [])}

    def _call(self, tool: Tool, arguments: dict[str, Any]) -> None:
        asyncio.run(tool.call(cast(Profile, None), arguments))
