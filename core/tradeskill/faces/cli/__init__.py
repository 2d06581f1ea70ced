"""The command line: which command lives where, and how any of them ends. A module is imported when its command is called."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

__all__ = ["COMMANDS", "app", "run"]

COMMANDS: Final[dict[str, str]] = {
    "demo": "tradeskill.faces.cli.demo:demo",
    "init": "tradeskill.faces.cli.home:init",
    "doctor": "tradeskill.faces.cli.home:doctor",
    "offers": "tradeskill.faces.cli.buying:offers",
    "hire": "tradeskill.faces.cli.buying:hire",
    "sell": "tradeskill.faces.cli.selling:sell",
    "jobs": "tradeskill.faces.cli.buying:jobs",
    "job": "tradeskill.faces.cli.buying:job",
    "receipt": "tradeskill.faces.cli.receipts:receipt",
    "spending": "tradeskill.faces.cli.spending:spending",
    "earnings": "tradeskill.faces.cli.selling:earnings",
    "policy": "tradeskill.faces.cli.policy:policy",
    "review": "tradeskill.faces.cli.selling:review",
    "identity": "tradeskill.faces.cli.home:identity",
    "backup": "tradeskill.faces.cli.home:backup",
    "restore": "tradeskill.faces.cli.home:restore",
    "plugins": "tradeskill.faces.cli.plugins:plugins",
    "skills": "tradeskill.faces.cli.skills:skills",
    "call": "tradeskill.faces.cli.skills:call",
    "mcp": "tradeskill.faces.cli.mcp:mcp",
}
INTERRUPTED: Final = 130
_ClickError: Final[type[Any]] = typer.BadParameter.__mro__[2]  # click's base class, in whichever package this typer keeps click


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
        found = _plugin_commands().get(cmd_name)
        return None if found is None else _plugin_command(cmd_name, found)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except _ClickError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 2)
            if near:
                error.message = f"{error.message.rstrip('.')}; did you mean {' or '.join(near)}?"
            raise


def _as_command(target: Any, name: str) -> Any:
    if not isinstance(target, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
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


def _plugin_command(name: str, found: list[Any]) -> Any:
    """The command, or one that says why there is none: a plugin that does not load must not take the others' help away."""
    from tradeskill.containment import contained
    from tradeskill.errors import PluginError

    if len(found) > 1:
        owners = ", ".join(point.dist.name if point.dist else "?" for point in found)
        return _broken(name, PluginError(f"command {name!r} is claimed by {owners}: uninstall all but one"))
    try:
        with contained(f"command {name!r} of plugin {found[0].value} did not load"):
            return _as_command(found[0].load(), name)
    except PluginError as error:
        return _broken(name, PluginError(f"{error}: mend or uninstall its package"))


def _broken(name: str, error: Exception) -> Any:
    def fail() -> None:
        raise error

    fail.__doc__ = f"(does not load) {error}"
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(fail)
    return _as_command(single, name)


app = typer.Typer(cls=_Lazy, name="tradeskill", rich_markup_mode=None, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="Show the version and stop."),
) -> None:
    """Agents that buy and sell work, for real money.

    New here? `tradeskill demo` shows a whole paid job, offline. Then `tradeskill init`
    makes a profile in the folder TRADESKILL_HOME; `sell` sells, `offers` and `hire` buy.

    \b
    Example:
      tradeskill demo
      tradeskill init
      tradeskill hire --help
    """
    if not gc.isenabled():  # __main__ switched it off for the imports
        gc.freeze()
        gc.enable()
    if version:
        from tradeskill import __version__

        typer.echo(f"tradeskill {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. Every error of ours or of the arguments is one line on stderr; exit codes are those of tradeskill.errors."""
    from tradeskill.errors import TradeskillError, UsageError

    typed = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in typed
    try:
        ended = typer.main.get_command(app)(typed, prog_name="tradeskill", standalone_mode=False)
        sys.exit(ended if isinstance(ended, int) else 0)
    except TradeskillError as error:
        sys.exit(_report(error, as_json))
    except _ClickError as error:
        sys.exit(_usage(error, UsageError, typed, as_json))
    except typer.Abort:
        typer.echo("stopped; nothing was done", err=True)
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `tradeskill jobs | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _usage(error: Any, kind: type[Exception], typed: Sequence[str], as_json: bool) -> int:
    """What was typed is wrong: one line with the value and the way out. Nothing typed where a sub-command is needed: the help."""
    context = error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help(), err=True)
        return 2
    way_out = f"; see `{context.command_path} --help`" if context is not None else ""
    message = " ".join(error.format_message().split()).rstrip(".")
    return _report(kind(f"{message}{_value(error, typed, message)}{way_out}"), as_json)


def _value(error: Any, typed: Sequence[str], message: str) -> str:
    """What was given for the option that the message complains of, where it does not say so itself."""
    names = getattr(getattr(error, "param", None), "opts", [])
    for word, after in zip(typed, [*typed[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in names and name.startswith("-") and (value if equals else after) not in message:
            return f", not {value if equals else after!r}"
    return ""


def _report(error: Any, as_json: bool) -> int:
    from tradeskill.faces.cli.shell import report

    return report(error, as_json)
