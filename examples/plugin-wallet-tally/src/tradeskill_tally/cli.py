"""The command `tradeskill tally`: puts money on a tally. A plugin's commands are imported only when they are called."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Annotated, cast

import typer
from tradeskill.model import Network
from tradeskill.world import World

from tradeskill_tally.ledger import NOWHERE, Ledger, Transfer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The tally: a payment rail among people who share a file.")


@app.callback()
def tally() -> None:
    """So that `fund` has a name even while it is the only command."""


@app.command("fund")
def fund(
    address: Annotated[str, typer.Argument(help="Of a wallet; see `tradeskill wallet address`.")],
    amount: Annotated[int, typer.Argument(help="In sat.", min=1)],
    path: Annotated[Path, typer.Option("--path", help="The tally's file.")],
    network: Annotated[str, typer.Option("--network", help="dev, test or live.")] = "dev",
) -> None:
    """Write down that somebody has brought money."""
    ledger = Ledger(path, cast(Network, network), World())
    asyncio.run(ledger.publish(Transfer(uuid.uuid4().hex, NOWHERE, address, amount)))
