"""Commands that show what is installed: `plugins`, `skills`, and `call` for any skill's tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, example, load_profile, read_input, run, show

__all__ = ["call", "plugins", "skills"]


@example("tradeskill plugins", "tradeskill plugins --json")
def plugins(as_json: AsJson = False) -> None:
    """List every installed plugin, and why one did not load.

    Shows kind, name, package and version, where it comes from, and what it can and cannot do. Imports them all.
    """
    from tradeskill.plugins import Plugins

    reports = Plugins().report()
    if as_json:
        show(
            [
                {
                    "name": report.name,
                    "kinds": list(report.kinds),
                    "package": report.package,
                    "version": report.version,
                    "origin": report.origin,
                    "capabilities": {c.name: {"value": c.value, "reason": c.reason} for c in report.capabilities},
                    "error": report.error or None,
                }
                for report in reports
            ]
        )
        return
    for report in reports:
        typer.echo(f"{report.name:12} {'/'.join(report.kinds) or '-':10} {report.package} {report.version}  {report.origin}")
        if report.error:
            typer.echo(f"             did not load: {report.error}")
        for capability in report.capabilities:
            typer.echo(f"             {capability.name} = {capability.value}: {capability.reason}")


@example("tradeskill skills", "tradeskill skills --json")
def skills(as_json: AsJson = False) -> None:
    """List the skills agents can use, with their tools."""
    from tradeskill.skills import find_skills

    found = find_skills()
    if as_json:
        show([skill.described() for skill in found])
        return
    for skill in found:
        typer.echo(f"{skill.name}: {skill.description}" if not skill.reason else f"{skill.name}: cannot run: {skill.reason}")
        for tool in skill.tools:
            typer.echo(f"  {skill.name}.{tool.name}({', '.join(tool.parameters)})")
            typer.echo(f"      {tool.summary}")


@example("""tradeskill call buyer.search '{"query": "markdown"}'""", "tradeskill call seller.quote '{\"job_id\": \"JOB_ID\"}' --config seller.yaml")
def call(
    tool: Annotated[str, typer.Argument(help="SKILL.TOOL, see `tradeskill skills`.")],
    arguments: Annotated[str, typer.Argument(help="The tool's arguments: a JSON object, @FILE or @- for stdin.")] = "{}",
    config: Annotated[Path | None, typer.Option("--config", help="YAML merged over the profile's, as with `sell CONFIG`.", show_default=False)] = None,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Call one tool of a skill, as an agent would.

    Its answer is JSON, with or without --json. `tradeskill skills` lists the tools with their arguments.
    """
    from tradeskill.skills import call_tool

    async def main() -> Any:
        value = read_input(arguments, "arguments")
        async with load_profile(password_file, config) as profile:
            return await call_tool(profile, tool, value)

    show(run(main, as_json=True))
