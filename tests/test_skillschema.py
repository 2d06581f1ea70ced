"""What other programs are told of the tools: names that every host takes, schemas in three dialects, hints that fit the definition."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.cli_stage import Home
from tradeskill.profile import Profile
from tradeskill.skills import Skill, Tool, find_skills, tool
from tradeskill.skillschema import SCHEMA_FORMATS, SchemaFormat, described_tool, offered_tools, tool_annotations, wrapped_output


def shipped() -> dict[str, tuple[Skill, Tool]]:
    return offered_tools(skill for skill in find_skills() if skill.name in ("buyer", "seller"))


@tool
async def a_b(profile: Profile) -> str:
    """Do one thing."""
    return ""


@tool
async def b(profile: Profile) -> str:
    """Do another thing."""
    return ""


def test_every_tool_has_a_name_that_hosts_allow() -> None:
    """S25: names."""
    names = list(shipped())
    assert "buyer_hire" in names
    assert [name for name in names if re.fullmatch(r"[a-z0-9_]{1,64}", name) is None] == []


def test_of_two_tools_that_would_share_a_name_neither_is_offered() -> None:
    """S26: clashes."""
    one = Skill("x", "", Path("x"), (Tool("a_b", a_b),))
    two = Skill("x-a", "", Path("x-a"), (Tool("b", b),))
    assert list(offered_tools([one, two])) == []
    assert list(offered_tools([two])) == ["x_a_b"]


@pytest.mark.parametrize("form", SCHEMA_FORMATS)
def test_each_dialect_carries_name_description_and_a_closed_schema(form: SchemaFormat) -> None:
    """S27: three dialects."""
    for name, (_, each) in shipped().items():
        told: Any = described_tool(name, each, form)
        inner = told["function"] if form == "openai" else told
        schema = inner[{"openai": "parameters", "anthropic": "input_schema", "mcp": "inputSchema"}[form]]
        assert (inner["name"], inner["description"]) == (name, each.description)
        Draft202012Validator.check_schema(schema)
        assert schema["additionalProperties"] is False
        json.dumps(told)


def test_every_answer_has_a_schema_of_an_object_for_mcp() -> None:
    """S28: objects."""
    for name, (_, each) in shipped().items():
        schema, wrapped = wrapped_output(each)
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert wrapped == (name in ("buyer_search", "seller_list_jobs", "seller_register_offer"))


def test_a_wrapped_schema_still_finds_its_definitions() -> None:
    schema, _ = wrapped_output(shipped()["seller_list_jobs"][1])
    assert Draft202012Validator(schema).is_valid({"result": []})
    assert not Draft202012Validator(schema).is_valid({"result": [{"job_id": 5}]})


def test_the_hints_follow_the_definition_and_are_careful_where_it_is_silent() -> None:
    """S24: reads, spends, repeatable."""
    hints = {name: tool_annotations(each) for name, (_, each) in shipped().items()}
    assert {name for name, hint in hints.items() if hint["readOnlyHint"]} == {"buyer_search", "buyer_status", "seller_list_jobs"}
    assert {"buyer_hire", "buyer_pay"} <= {name for name, hint in hints.items() if hint["destructiveHint"]}
    assert not any(hint["readOnlyHint"] and hint["destructiveHint"] for hint in hints.values())
    assert hints["buyer_hire"]["idempotentHint"]
    silent = tool_annotations(Tool("b", b))
    assert (silent["readOnlyHint"], silent["destructiveHint"], silent["idempotentHint"]) == (False, True, False)


def test_the_command_prints_the_schemas_of_all_or_of_one_skill(tmp_path: Path) -> None:
    home = Home(tmp_path, {"TRADESKILL_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"})
    assert {each["name"] for each in home.run("skills", "schema").ok().json} == set(shipped())
    told = home.run("skills", "schema", "buyer", "--format", "anthropic").ok().json
    assert {each["name"].partition("_")[0] for each in told} == {"buyer"}
    home.run("skills", "schema", "--format", "yaml").failed(2, "--format", "openai")
    home.run("skills", "schema", "nobody").failed(3, "nobody")
    assert {each["name"] for each in home.json("skills")} >= {"buyer", "seller"}
