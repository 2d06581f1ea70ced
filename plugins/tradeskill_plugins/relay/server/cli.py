"""The command `tradeskill relay serve`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from tradeskill.faces.cli.shell import example

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Run a relay: where buyers and sellers meet.")

PORT = 8402


@app.callback()
def relay() -> None:
    """Run a relay: where buyers and sellers meet."""


@app.command()
@example("tradeskill relay serve", "tradeskill relay serve --data relay.db --port 0 --json", "tradeskill relay serve --data postgresql://relay@127.0.0.1/relay")
def serve(
    data: Annotated[str, typer.Option(metavar="FILE|DSN", help="Where everything is kept: a file, made if need be, or a PostgreSQL DSN.")] = "relay.db",
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

    It prints one line with its URL when it is ready, and logs one JSON line a request to stderr. SIGTERM lets requests under way finish.
    """
    import asyncio
    import json
    import logging
    import signal

    from tradeskill.errors import UsageError
    from tradeskill.world import World
    from tradeskill_plugins.relay.server.imports import missing

    absent = missing()
    if absent:
        raise UsageError(f"to serve a relay, {absent} is needed: pip install 'tradeskill[relay]'")
    import uvloop

    from tradeskill_plugins.relay.server.door import DoorSettings
    from tradeskill_plugins.relay.server.serving import RelaySettings, run

    settings = RelaySettings(
        data=data,
        door=DoorSettings(host=host, port=port, proxies=tuple(proxy or ())),
        public_url=public_url or None,
        network=network,
        per_ip=per_ip or None if limits else None,
        per_key=per_key or None if limits else None,
        strict=strict or None if limits else None,
    )

    def ready(url: str) -> None:
        if json_:
            typer.echo(json.dumps({"url": url, "data": data if "://" not in data else "postgresql", "network": network}))
            return
        typer.echo(f"relay ready: {url}")
        typer.echo(f"  see it         {url}/docs")
        typer.echo(f"  sell on it     tradeskill init --network dev --market relay --market-url {url}")
        typer.echo(f"  what it offers curl -s {url}/v1/offers")

    async def serve_until_stopped() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(settings, World(), ready=ready, stop=stop)

    logging.getLogger("tradeskill.relay").setLevel(logging.WARNING if quiet else logging.INFO)
    uvloop.run(serve_until_stopped())
