"""The command `tradeskill tally`: puts money on the tally. A plugin's commands are imported only when they are called."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer
from tradeskill.faces.cli.shell import AsJson, PasswordFile, example, group, load_profile, run, show

from tradeskill_tally.ledger import NOWHERE, Transfer

app = group("The tally: a payment rail among people who share a file.", "tradeskill tally fund 1000")


@app.callback()
def tally() -> None:
    """So that `fund` has a name even while it is the only command."""


@app.command("fund")
@example("tradeskill tally fund 1000", "tradeskill tally fund 1000 --json")
def fund(
    amount: Annotated[int, typer.Argument(help="In sat.", min=1)],
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Write down that this profile's wallet has brought money."""

    async def main() -> str:
        from tradeskill_tally.wallet import TallyWallet

        async with load_profile(password_file) as profile:
            wallet = await profile.wallet("tally")
            assert isinstance(wallet, TallyWallet)
            address = await wallet.address()
            await wallet.ledger.publish(Transfer(uuid.uuid4().hex, NOWHERE, address, amount))
            return address

    address = run(main, as_json=as_json)
    if as_json:
        show({"address": address, "amount": str(amount), "unit": "sat"})
    else:
        typer.echo(f"{amount} sat to {address}")
