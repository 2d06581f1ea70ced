"""The command `tradeskill relay serve`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from tradeskill.faces.cli.shell import example, say
from tradeskill_plugins.relay.server.datasource import DEFAULT, VARIABLE, is_open_to_others, read_source, shown

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

PORT = 8402


@app.callback()
@example("tradeskill relay serve")
def relay() -> None:
    """Run a relay: where buyers and sellers meet."""


@app.command()
@example("tradeskill relay serve", "tradeskill relay serve --data relay.db --port 0 --json", "tradeskill relay serve --data postgresql://relay@127.0.0.1/relay")
def serve(
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE|DSN", show_default=False, help=f"A file, made if need be, or a PostgreSQL DSN: {VARIABLE} if not given, else {DEFAULT}."),
    ] = None,
    data_file: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default=False, help="A file that says it in its first line; for a DSN with a password.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = PORT,
    public_url: Annotated[str, typer.Option(metavar="URL", help="Where clients reach it, if not where it listens, e.g. behind a proxy.")] = "",
    network: Annotated[Literal["dev", "test", "live"] | None, typer.Option(help="Take signed documents of this network only.")] = None,
    proxy: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="Believe X-Forwarded-For from this address or network; repeatable.")] = None,
    per_ip: Annotated[int, typer.Option(min=0, help="Requests in 60 s per IP address; 0: no limit.")] = 120,
    per_key: Annotated[int, typer.Option(min=0, help="Signed requests in 60 s per key; 0: no limit.")] = 60,
    strict: Annotated[int, typer.Option(min=0, help="New offers and jobs in 60 s, per IP address and per key; 0: no limit.")] = 30,
    limits: Annotated[bool, typer.Option(help="All rate limits on or off.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log warnings and errors only, not every request.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the URL as one JSON object when it is ready.")] = False,
) -> None:
    """Run a relay until interrupted.

    It prints its URL and what to type next when it is ready, and logs one JSON line a request to stderr. SIGTERM lets requests under way finish.
    """
    import asyncio
    import json
    import logging
    import re
    import signal
    import sys

    from tradeskill import __version__
    from tradeskill.errors import UsageError
    from tradeskill.world import World
    from tradeskill_plugins.relay.server.imports import missing

    source = read_source(data, data_file, os.environ)
    if data_file is not None and is_open_to_others(data_file):
        say(f"warning: {data_file} can be read by others: chmod 600 {data_file}")
    if public_url and re.fullmatch(r"https?://[^\s?#@]+", public_url, re.ASCII) is None:
        raise UsageError(f"--public-url {public_url!r:.200} is no address that clients could use: give one such as https://relay.example")
    absent = missing(postgres="://" in source)
    if absent:
        raise UsageError(f"to serve a relay there, {absent} is needed: pip install 'tradeskill[relay{',postgres' if '://' in source else ''}]'")
    import uvloop

    from tradeskill_plugins.relay.server.door import DoorSettings
    from tradeskill_plugins.relay.server.logs import json_handler
    from tradeskill_plugins.relay.server.serving import RelaySettings, run

    settings = RelaySettings(
        data=source,
        door=DoorSettings(host=host, port=port, proxies=tuple(proxy or ())),
        public_url=public_url or None,
        network=network,
        per_ip=per_ip or None if limits else None,
        per_key=per_key or None if limits else None,
        strict=strict or None if limits else None,
        database_clock=True,
        version=__version__,
    )

    def ready(url: str) -> None:
        if json_:
            typer.echo(json.dumps({"url": url, "data": shown(source), "network": network}))
            return
        typer.echo("\n".join(_greeting(url, (public_url or url).rstrip("/"), network or "dev")))

    async def serve_until_stopped() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(settings, World(), ready=ready, stop=stop)

    logging.root.handlers = [json_handler(sys.stderr)]
    logging.getLogger("tradeskill.relay").setLevel(logging.WARNING if quiet else logging.INFO)
    uvloop.run(serve_until_stopped())


def _greeting(url: str, public: str, network: str) -> list[str]:
    """The URL, and what to type next, each line as it is. `public`: where clients reach it."""
    options = f"--network {network}{' --live' if network == 'live' else ''} --market relay --market-url {shlex.quote(public)}"
    if public.startswith("http://") and public != url:
        options += " --market-insecure"
    return [
        f"relay ready: {url}",
        f"its calls: {public}/docs",
        "next, in other terminals:",
        f"  TRADESKILL_HOME=./seller tradeskill init {options}",
        f"  TRADESKILL_HOME=./buyer tradeskill init {options}",
        "  TRADESKILL_HOME=./buyer tradeskill offers",
    ]
