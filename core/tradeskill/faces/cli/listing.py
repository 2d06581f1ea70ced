"""The command that shows what is installed: `plugins`."""

from __future__ import annotations

import typer

from tradeskill.faces.cli.shell import AsJson, example, show

__all__ = ["plugins"]


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
