"""The commands about plugins: list what is installed, check one against its contract, make a new one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, example, only_data_on_stdout, printable, run, say, show, with_example

if TYPE_CHECKING:
    from tradeskill.plugins import PluginReport

__all__ = ["plugins"]

plugins = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help=with_example(
        "List every installed plugin, and why one did not load.\n\n"
        "Shows kind, name, package and version, where it comes from, and what it can and cannot do. Imports them all.",
        "tradeskill plugins",
        "tradeskill plugins -v",
        "tradeskill plugins --json",
    ),
)


@plugins.callback(invoke_without_command=True)
def list_plugins(
    ctx: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also whom each talks to, what it keeps and what it may spend.")] = False,
    as_json: AsJson = False,
) -> None:
    if ctx.invoked_subcommand is not None:
        return
    from tradeskill.plugins import Plugins

    with only_data_on_stdout():  # importing them runs their code
        reports = Plugins().report()
    if as_json:
        show([_described(report) for report in reports])
        return
    for report in reports:
        typer.echo(f"{report.name:12} {'/'.join(report.kinds) or '-':10} {report.package} {report.version}  {report.origin}")
        if report.error:
            typer.echo(f"             did not load: {printable(report.error)}")
        for capability in report.capabilities:
            typer.echo(f"             {capability.name} = {capability.value}: {printable(capability.reason)}")
        if verbose and report.manifest:
            for name, entries in dataclasses.asdict(report.manifest).items():
                typer.echo(f"             {name}: {', '.join(entries) or 'none'}")
        for note in report.notes:
            typer.echo(f"             note: {printable(note)}")


def _described(report: PluginReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "kinds": list(report.kinds),
        "package": report.package,
        "version": report.version,
        "origin": report.origin,
        "api": report.api,
        "capabilities": {c.name: {"value": c.value, "reason": c.reason} for c in report.capabilities},
        "manifest": {name: list(entries) for name, entries in dataclasses.asdict(report.manifest).items()} if report.manifest else None,
        "notes": list(report.notes),
        "error": report.error or None,
    }


@plugins.command("check")
@example("tradeskill plugins check nano", "tradeskill plugins check nano --json")
def check(name: Annotated[str, typer.Argument(help="See `tradeskill plugins`.")], as_json: AsJson = False) -> None:
    """Try an installed plugin against the contract of its kind.

    Clause by clause, with the tests that its package brings for it. Nothing of the profile is touched, but the plugin's code runs. Exit code 9 when a
    clause is broken, or was not tried.
    """

    async def main() -> Any:
        from tradeskill.testing.installed import check_plugin

        return check_plugin(name)

    verdict = run(main, as_json=as_json)
    if as_json:
        show(verdict.described())
    else:
        for clause in verdict.clauses:
            reason = f" — {printable(clause.reason)}" if clause.reason else ""
            typer.echo(f"{clause.number}  {clause.status:12}  {clause.sentence}{reason}")
        say(f"{name}: {verdict.summary()}")
    if not verdict.ok:
        raise typer.Exit(9)


@plugins.command("new")
@example("tradeskill plugins new wallet acme", "tradeskill plugins new backend faraway --to ./projects")
def new(
    kind: Annotated[str, typer.Argument(metavar="wallet|market|backend|skill", help="What it is to be.")],
    name: Annotated[str, typer.Argument(help="Lowercase letters, digits, hyphens; a skill's without hyphens.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where its folder is made.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Make a package to begin a plugin with.

    It has an entry point, an implementation in memory, tests by the contract of its kind that pass, and a README.
    """

    async def main() -> Path:
        from tradeskill.testing.starting import new_plugin

        return new_plugin(kind, name, to)

    folder = run(main, as_json=as_json)
    if as_json:
        show({"folder": str(folder)})
    else:
        typer.echo(str(folder))
        say(f'next: cd {folder} && pip install -e ".[test]" && pytest')
