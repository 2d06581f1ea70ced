"""A whole relay: database, desk, streams and door put together, from its settings until it is told to stop. The only place that composes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from tradeskill.errors import NetworkMismatchError, StorageError, UnavailableError
from tradeskill.model import Network
from tradeskill.sqlite import SqliteFile, Transaction, connector
from tradeskill.world import World
from tradeskill_plugins.market import schema
from tradeskill_plugins.market.book import Statements
from tradeskill_plugins.market.store import Database
from tradeskill_plugins.relay import wire
from tradeskill_plugins.relay.server.app import Relay, Serving
from tradeskill_plugins.relay.server.charging import Charging
from tradeskill_plugins.relay.server.desk import Desk
from tradeskill_plugins.relay.server.door import DoorSettings, serve
from tradeskill_plugins.relay.server.events import Hub
from tradeskill_plugins.relay.server.limits import Rates
from tradeskill_plugins.relay.server.pages import Pages
from tradeskill_plugins.relay.server.tables import LAYOUT
from tradeskill_plugins.relay.server.watching import Watching

__all__ = ["RelaySettings", "run"]

SWEEP: Final = 1.0  # seconds between two looks for what expired where nobody called


@dataclass(frozen=True)
class RelaySettings:
    """`data`: a file, or the DSN of a PostgreSQL (postgres://…). `public_url`: where clients reach it, if that is not where it listens.

    Requests in 60 s: per IP address, per key, and per either for new offers and jobs (`strict`); None switches a limit off.
    """

    data: str
    door: DoorSettings = field(default_factory=DoorSettings)
    public_url: str | None = None
    network: Network | None = None
    per_ip: int | None = wire.PER_IP
    per_key: int | None = wire.PER_KEY
    strict: int | None = wire.STRICT
    streams: int = 400
    streams_per_key: int = 4
    database_clock: bool = False  # go by PostgreSQL's clock, as several relays on one must; without it, by this machine's
    version: str = ""


async def run(settings: RelaySettings, world: World, *, ready: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve until `stop` is set; `ready(url)` once it listens. UsageError, StorageError or UnavailableError where it cannot begin."""
    database, dialect = await world.offload(partial(_open, settings, world))
    try:
        clock = _database_clock if settings.database_clock and _shared(settings.data) else None
        desk = Desk(database, dialect, world, lambda steps, seconds: watching.metrics.commit(steps, seconds), clock)
        watching = Watching(desk, world)
        rates = Rates(settings.per_ip, settings.per_key, settings.strict, wire.WINDOW_MS)
        charging = Charging(rates, world, desk.step if _shared(settings.data) else None, desk.moment if _shared(settings.data) else None)
        hub = Hub(desk, world)
        limits = {"ip": settings.per_ip, "key": settings.per_key, "strict": settings.strict}
        serving = Serving(settings.public_url or "", settings.streams, settings.streams_per_key)

        def listening(url: str) -> None:
            nonlocal serving
            serving = Serving((settings.public_url or url).rstrip("/"), settings.streams, settings.streams_per_key)
            ready(url)

        app = Relay(desk, hub, Pages(settings.version, limits), charging, watching, world, lambda: serving)
        sweeping = asyncio.create_task(_sweep(desk, world))
        closing = asyncio.create_task(_end_streams(hub, stop))
        try:
            with database.listening(hub.wake):
                await serve(cast(Any, app), settings.door, world, ready=listening, stop=stop, observer=watching.metrics)
        finally:
            for task in (sweeping, closing):
                task.cancel()
            await asyncio.gather(sweeping, closing, return_exceptions=True)
            hub.close()
            await desk.close()
    finally:
        await world.offload(database.close)


async def _sweep(desk: Desk, world: World) -> None:
    while True:
        with suppress(UnavailableError, StorageError):  # every call says it too
            await desk.sweep()
        await world.sleep(SWEEP)


async def _end_streams(hub: Hub, stop: asyncio.Event) -> None:
    await stop.wait()
    hub.close()


def _open(settings: RelaySettings, world: World) -> tuple[Database, schema.Dialect]:
    prepare = partial(_prepare, market_id=world.random_bytes(8).hex(), network=settings.network)
    if _shared(settings.data):
        from tradeskill_plugins.market.postgres import POSTGRES, PostgresDatabase

        return PostgresDatabase(settings.data, LAYOUT, where="relay database", readers=2, prepare=prepare), POSTGRES
    where = f"relay file {settings.data}"
    return SqliteFile(connector(Path(settings.data).expanduser().absolute(), where), LAYOUT, where=where, readers=2, prepare=prepare), schema.SQLITE


def _database_clock(db: Statements) -> int:
    return int(db.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now").fetchone()["now"])


def _shared(data: str) -> bool:
    """Whether several relay processes may stand on it."""
    return data.startswith(("postgres://", "postgresql://"))


def _prepare(connection: Transaction, market_id: str, network: Network | None) -> None:
    connection.execute(schema.FACT_ADD, ("market_id", market_id))
    if network is not None:
        connection.execute(schema.FACT_ADD, ("network", network))
        bound = connection.execute(schema.FACT, ("network",)).fetchone()["value"]
        if bound != network:
            raise NetworkMismatchError(f"this relay's data is for network {bound!r}, not {network!r}: give another --data")
