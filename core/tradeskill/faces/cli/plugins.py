"""The commands about plugins: list what is installed, check one against its contract, make a new one."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, example, only_data_on_stdout, printable, run, say, show, with_example

if TYPE_CHECKING:
    from tradeskill.plugins import PluginReport
    from tradeskill.testing.installed import Verdict

__all__ = ["plugins", "show_verdict"]

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
@example("tradeskill plugins check nano", "tradeskill plugins check nano --json", "tradeskill plugins check cashu --with mint=.venv-mint")
def check(
    name: Annotated[str, typer.Argument(help="A name that `tradeskill plugins` lists.")],
    given: Annotated[list[str] | None, typer.Option("--with", metavar="NAME=VALUE", help="What its tests need outside; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Try an installed plugin against the contract of its kind.

    Clause by clause, with the tests that its package brings for it. That takes up to a minute or two, with no network but this machine's own. Nothing of
    the profile is touched, but the plugin's code runs. What else its tests need (cashu: a mint; container: an engine) they find, or say how to
    give it. Exit code 0 when every clause holds or is declared off with a reason; 9 when one is broken, or was not tried.
    """

    async def main() -> Any:
        from tradeskill.testing.installed import check_plugin

        return check_plugin(name, given or (), lambda modules: say(f"running the tests of {name}: {modules}"))

    verdict = run(main, as_json=as_json)
    if as_json:
        show(verdict.described())
    else:
        show_verdict(verdict, given or ())
    if not verdict.ok:
        raise typer.Exit(9)


def show_verdict(verdict: Verdict, given: Sequence[str] = ()) -> None:
    """For people: its clauses, set apart by class where there are several. `given`: what its tests were given."""
    classes = dict.fromkeys(clause.tests for clause in verdict.clauses)
    for each in classes:
        if len(classes) > 1:
            typer.echo(f"{each}:")
        for clause in (clause for clause in verdict.clauses if clause.tests == each):
            reason = f" — {printable(clause.reason)}" if clause.reason else ""
            typer.echo(f"{clause.number}  {clause.status:12}  {clause.sentence}{reason}")
    say(f"{verdict.name}: {verdict.summary()}")
    if not verdict.ok and verdict.modules:
        more = [word for entry in given for word in ("--tradeskill-with", entry)]
        say(f"with every traceback: {shlex.join([sys.executable, '-m', 'pytest', '--pyargs', *verdict.modules, *more])}")


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
