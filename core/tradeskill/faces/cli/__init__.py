"""The command line: which command lives where. A module is imported when its command is called."""

from __future__ import annotations

import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

__all__ = ["COMMANDS", "app", "run"]

COMMANDS: Final[dict[str, str]] = {
    "demo": "tradeskill.faces.cli.demo:demo",
    "init": "tradeskill.faces.cli.home:init",
    "doctor": "tradeskill.faces.cli.home:doctor",
    "backup": "tradeskill.faces.cli.home:backup",
    "restore": "tradeskill.faces.cli.home:restore",
    "identity": "tradeskill.faces.cli.home:identity",
    "plugins": "tradeskill.faces.cli.listing:plugins",
    "skills": "tradeskill.faces.cli.listing:skills",
    "call": "tradeskill.faces.cli.listing:call",
    "offers": "tradeskill.faces.cli.buying:offers",
    "hire": "tradeskill.faces.cli.buying:hire",
    "jobs": "tradeskill.faces.cli.buying:jobs",
    "job": "tradeskill.faces.cli.buying:job",
    "receipt": "tradeskill.faces.cli.buying:receipt",
    "sell": "tradeskill.faces.cli.selling:sell",
    "review": "tradeskill.faces.cli.selling:review",
    "earnings": "tradeskill.faces.cli.selling:earnings",
}


class _Lazy(TyperGroup):
    """Finds a command's module by name; commands of plugins are looked up among the entry points `tradeskill.commands`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *sorted(_plugin_commands())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        where = COMMANDS.get(cmd_name)
        if where is not None:
            from importlib import import_module

            module, _, name = where.partition(":")
            return _as_command(getattr(import_module(module), name), cmd_name)
        points = _plugin_commands()
        if cmd_name not in points:
            return None
        from tradeskill.errors import PluginError

        found = points[cmd_name]
        if len(found) > 1:
            owners = ", ".join(point.dist.name if point.dist else "?" for point in found)
            raise PluginError(f"command {cmd_name!r} is claimed by {owners}: uninstall all but one")
        try:
            return _as_command(found[0].load(), cmd_name)
        except Exception as error:
            raise PluginError(f"command {cmd_name!r} of plugin {found[0].value} did not load: {type(error).__name__}: {error}") from error


def _as_command(target: Any, name: str) -> Any:
    if not isinstance(target, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name, no_args_is_help=False)(target)
        target = single
    command = typer.main.get_command(target)
    command.name = name
    return command


def _plugin_commands() -> dict[str, list[Any]]:
    from importlib.metadata import entry_points

    found: dict[str, list[Any]] = {}
    for point in entry_points(group="tradeskill.commands"):
        if point.name not in COMMANDS:
            found.setdefault(point.name, []).append(point)
    return found


app = typer.Typer(cls=_Lazy, name="tradeskill", rich_markup_mode=None, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="Show the version and stop."),
) -> None:
    """Agents that buy and sell work.

    First steps: `tradeskill demo` shows a whole job; `tradeskill init` makes a profile; then `sell` or `offers` and `hire`.
    The profile's folder is TRADESKILL_HOME. Every command has --help with an example and --json for machines.
    """
    if version:
        from tradeskill import __version__

        typer.echo(f"tradeskill {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run() -> None:
    """Run the command line; every error of ours becomes one line on stderr and its exit code."""
    from tradeskill.errors import TradeskillError

    try:
        app()
    except TradeskillError as error:
        from tradeskill.faces.cli.shell import report

        sys.exit(report(error, "--json" in sys.argv))
