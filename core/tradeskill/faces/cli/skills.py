"""The commands about skills: list them, their schemas, export, check and make them; and `call` for any skill's tool."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, example, load_profile, only_data_on_stdout, printable, read_input, run, say, show, with_example

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


@skills.command("export")
@example("tradeskill skills export --to ./skills", "tradeskill skills export buyer --to ./skills --format openclaw")
def export(
    skill: Annotated[str, typer.Argument(metavar="[SKILL]", help="Only this one.", show_default=False)] = "",
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the folders are written.")] = Path("skills"),
    form: Annotated[str, typer.Option("--format", metavar="agentskills|openclaw", help="Whose rules SKILL.md keeps.")] = "agentskills",
    as_json: AsJson = False,
) -> None:
    """Write skills out as folders for agents' hosts.

    Each has a SKILL.md that keeps the format's strict rules, and a script that calls the tools.
    """

    async def main() -> list[str]:
        from tradeskill.skillexport import export_skill

        rules, chosen = _format(form), [_chosen(skill)] if skill else [each for each in _found() if not each.reason]
        return [str(export_skill(each, to, rules, installed=_installed(each.name))) for each in chosen]

    folders = run(main, as_json=as_json)
    if as_json:
        show(folders)
        return
    for folder in folders:
        typer.echo(folder)


@skills.command("validate")
@example("tradeskill skills validate skills/buyer", "tradeskill skills validate skills/* --format openclaw")
def validate(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Skills' folders.")],
    form: Annotated[str, typer.Option("--format", metavar="agentskills|openclaw", help="Whose rules.")] = "agentskills",
    as_json: AsJson = False,
) -> None:
    """Check folders against the open skill format.

    Nothing of them is run. Exit code 9 when something is wrong, with one line for each thing.
    """

    async def main() -> list[dict[str, Any]]:
        from tradeskill.skillformat import check_folder

        rules = _format(form)
        return [{"folder": str(folder), "format": rules, "problems": check_folder(folder, rules)} for folder in folders]

    found = run(main, as_json=as_json)
    if as_json:
        show(found)
    for each in found:
        for problem in each["problems"]:
            say(f"{each['folder']}: {printable(problem)}")
        if not as_json and not each["problems"]:
            typer.echo(f"{each['folder']}: keeps the rules of {each['format']}")
    if any(each["problems"] for each in found):
        raise typer.Exit(9)


@skills.command("new")
@example("tradeskill skills new weather", "tradeskill skills new weather --to ./skills")
def new(
    name: Annotated[str, typer.Argument(help="Lowercase letters, digits, hyphens.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Default: the profile's own skills.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Make a new skill to begin with.

    A folder that validates, with one tool and a test that passes.
    """

    async def main() -> Path:
        from tradeskill.skillexport import new_skill

        return new_skill(name, to or _folders().user)

    folder = run(main, as_json=as_json)
    if as_json:
        show({"folder": str(folder)})
    else:
        typer.echo(str(folder))


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

    with only_data_on_stdout():  # importing them runs their code
        return find_skills(folders=_folders())


def _folders() -> Any:
    from tradeskill.config import read_environment
    from tradeskill.skills import SkillFolders

    return SkillFolders.of(read_environment(os.environ).home)


def _format(text: str) -> Any:
    from tradeskill.errors import UsageError
    from tradeskill.skillformat import FORMATS

    if text not in FORMATS:
        raise UsageError(f"--format: takes {', '.join(FORMATS)}, not {text!r}")
    return text


def _installed(name: str) -> bool:
    from tradeskill.errors import NotFoundError
    from tradeskill.plugins import Plugins

    try:
        Plugins().require(name, "skill")
    except NotFoundError:
        return False
    return True


def _chosen(name: str) -> Any:
    from tradeskill.plugins import Plugins
    from tradeskill.skills import find_skill

    return find_skill(name, Plugins(), _folders())
