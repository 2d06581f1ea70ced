"""The commands about skills: list them, their schemas, and `call` for any skill's tool."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, example, load_profile, printable, read_input, run, show, with_example

__all__ = ["call", "skills"]

skills = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help=with_example("List the skills that agents can use, with their tools.", "tradeskill skills", "tradeskill skills --json"),
)


@skills.callback(invoke_without_command=True)
def list_skills(ctx: typer.Context, as_json: AsJson = False) -> None:
    if ctx.invoked_subcommand is not None:
        return
    found = _found()
    if as_json:
        show([skill.described() for skill in found])
        return
    for skill in found:
        typer.echo(f"{skill.name}: {printable(skill.description)}" if not skill.reason else f"{skill.name}: cannot run: {printable(skill.reason)}")
        for tool in skill.tools:
            typer.echo(f"  {skill.name}.{tool.name}({', '.join(tool.parameters)})")
            typer.echo(f"      {printable(tool.summary)}")


@skills.command("schema")
@example("tradeskill skills schema --format openai buyer", "tradeskill skills schema > tools.json")
def schema(
    skill: Annotated[str, typer.Argument(metavar="[SKILL]", help="Only this skill's tools.", show_default=False)] = "",
    form: Annotated[str, typer.Option("--format", metavar="openai|anthropic|mcp", help="Whose way to describe tools.")] = "mcp",
    as_json: AsJson = False,
) -> None:
    """Print the tools with their JSON schemas.

    As a list for OpenAI's or Anthropic's API, or as MCP lists them. The answer is JSON, with or without --json.
    """

    async def main() -> list[dict[str, Any]]:
        from tradeskill.errors import UsageError
        from tradeskill.skillschema import SCHEMA_FORMATS, described_tool, offered_tools

        wanted = next((each for each in SCHEMA_FORMATS if each == form), None)
        if wanted is None:
            raise UsageError(f"--format: takes {', '.join(SCHEMA_FORMATS)}, not {form!r}")
        chosen = [_chosen(skill)] if skill else _found()
        return [described_tool(name, tool, wanted) for name, (_, tool) in offered_tools(chosen).items()]

    show(run(main, as_json=True))


@example("""tradeskill call buyer.search '{"query": "markdown"}'""", "tradeskill call seller.quote '{\"job_id\": \"JOB_ID\"}' --config seller.yaml")
def call(
    tool: Annotated[str, typer.Argument(help="SKILL.TOOL, see `tradeskill skills`.")],
    arguments: Annotated[str, typer.Argument(help="The tool's arguments: a JSON object, @FILE, or - for stdin.")] = "{}",
    config: Annotated[Path | None, typer.Option("--config", help="YAML merged over the profile's, as with `sell CONFIG`.", show_default=False)] = None,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Call one tool of a skill, as an agent would.

    Its answer is JSON, with or without --json. An error says whether money moved and what to do next.
    `tradeskill skills` lists the tools with their arguments.
    """
    from tradeskill.skills import call_tool

    async def main() -> Any:
        value = read_input("@-" if arguments == "-" else arguments, "arguments")
        async with load_profile(password_file, config) as profile:
            return await call_tool(profile, tool, value)

    show(run(main, as_json=True))


def _found() -> list[Any]:
    from tradeskill.skills import find_skills

    return find_skills(folders=_folders())


def _folders() -> Any:
    from tradeskill.config import read_environment
    from tradeskill.skills import SkillFolders

    return SkillFolders.of(read_environment(os.environ).home)


def _chosen(name: str) -> Any:
    from tradeskill.plugins import Plugins
    from tradeskill.skills import find_skill

    return find_skill(name, Plugins(), _folders())
