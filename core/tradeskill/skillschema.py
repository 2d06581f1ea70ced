"""Tools as other programs name and describe them: `buyer_hire`, with schemas as OpenAI, Anthropic and MCP clients take them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, cast

from tradeskill.model import Json
from tradeskill.skills import Skill, Tool

__all__ = ["SCHEMA_FORMATS", "SchemaFormat", "described_tool", "offered_tools", "tool_annotations", "wrapped_output"]

SchemaFormat = Literal["openai", "anthropic", "mcp"]
SCHEMA_FORMATS: Final[tuple[SchemaFormat, ...]] = ("openai", "anthropic", "mcp")


def offered_tools(skills: Iterable[Skill]) -> dict[str, tuple[Skill, Tool]]:
    """By the name that agents' hosts allow (no dots, no hyphens). Of two tools that would share one, neither is offered."""
    found: dict[str, list[tuple[Skill, Tool]]] = {}
    for skill in skills:
        for tool in skill.tools:
            found.setdefault(f"{skill.name.replace('-', '_')}_{tool.name}", []).append((skill, tool))
    return {name: these[0] for name, these in found.items() if len(these) == 1}


def wrapped_output(tool: Tool) -> tuple[dict[str, Json], bool]:
    """The answer's schema as MCP wants it, an object; an answer that is none goes into its `result`, and the flag says so."""
    schema = tool.output_schema()
    if schema.get("type") == "object":
        return schema, False
    inner = dict(schema)
    definitions = inner.pop("$defs", None)
    outer: dict[str, Json] = {"type": "object", "properties": {"result": inner}, "required": ["result"]}
    return ({**outer, "$defs": definitions} if definitions is not None else outer), True


def tool_annotations(tool: Tool) -> dict[str, Any]:
    """MCP's hints, from the definition. What spends is destructive: nothing brings the money back."""
    traits = tool.traits
    return {
        "readOnlyHint": traits.reads,
        "destructiveHint": traits.spends,
        "idempotentHint": traits.repeatable,
        "openWorldHint": True,
    }


def described_tool(name: str, tool: Tool, form: SchemaFormat) -> dict[str, Any]:
    """One tool as the other program's API takes it. Only MCP has a place for the schema of the answer; elsewhere it is left out."""
    if form == "openai":
        return {"type": "function", "function": {"name": name, "description": tool.description, "parameters": tool.input_schema()}}
    if form == "anthropic":
        return {"name": name, "description": tool.description, "input_schema": tool.input_schema()}
    return {
        "name": name,
        "description": tool.description,
        "inputSchema": tool.input_schema(),
        "outputSchema": cast("dict[str, Any]", wrapped_output(tool)[0]),
        "annotations": tool_annotations(tool),
    }
