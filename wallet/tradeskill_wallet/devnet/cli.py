"""The commands `tradeskill devnet` and `tradeskill devnet fund`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tradeskill.faces.cli.shell import example

__all__ = ["app"]

app = typer.Typer(no_args_is_help=False, add_completion=False, rich_markup_mode=None)

_RPC_PORT, _WS_PORT = 7076, 7078


@app.callback(invoke_without_command=True)
@example("tradeskill devnet", "tradeskill devnet --rpc-port 0 --ws-port 0 --json")
def devnet(
    ctx: typer.Context,
    rpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for JSON-RPC; 0 takes any free one.")] = _RPC_PORT,
    ws_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for the websocket; 0 takes any free one.")] = _WS_PORT,
    data: Annotated[Path | None, typer.Option(help="Keep the ledger in this folder; without it, it ends with the process.")] = None,
    confirmation_delay: Annotated[int, typer.Option(min=0, metavar="MS", help="Milliseconds from a block to its confirmation.")] = 150,
    epoch: Annotated[int, typer.Option(min=0, max=2, help="Epoch of a new ledger; 0 is as fresh as a real node's.")] = 2,
    thresholds: Annotated[Literal["dev", "live"], typer.Option(help="Work thresholds: easy, or those of the main network.")] = "dev",
    control: Annotated[bool, typer.Option(help="Answer what a node answers only with enable_control, and devnet_faults.")] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print the endpoints as one JSON object.")] = False,
) -> None:
    """Run a dev ledger that behaves like a real Nano node.

    It answers on this machine only, until interrupted, and prints one line with its endpoints when it is ready.
    """
    if ctx.invoked_subcommand is not None:
        return
    import asyncio
    import json
    import signal

    from tradeskill_wallet.devnet.genesis import GENESIS
    from tradeskill_wallet.devnet.node import DevNode

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        node = DevNode(
            rpc_port=rpc_port,
            ws_port=ws_port,
            confirmation_delay_ms=confirmation_delay,
            epoch=epoch,
            thresholds=thresholds,
            control=control,
            data=data,
        )
        async with node:
            ready = {"rpc": node.rpc_url, "ws": node.ws_url, "network": node.network, "genesis": GENESIS.hash_hex}
            typer.echo(json.dumps(ready) if json_ else f"dev ledger ready: rpc {node.rpc_url} ws {node.ws_url} network {node.network}")
            waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(node.failed())]
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            for wait in done:
                wait.result()

    asyncio.run(serve())


@app.command()
@example('tradeskill devnet fund nano_3e3j5tkog48pnny9dmfzj1r16pg8t1e76dz5tmac6iq689wyjfpiij4txtdo "5 XNO"')
def fund(
    address: Annotated[str, typer.Argument(help="Who gets the money.")],
    amount: Annotated[str, typer.Argument(help='How much, with its unit: "5 XNO" or "1000 raw".')],
    rpc: Annotated[str, typer.Option(metavar="URL", help="The node: this dev ledger, or any real node in dev mode.")] = f"http://127.0.0.1:{_RPC_PORT}",
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the confirmation.")] = 60.0,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send money out of the dev genesis account.

    Waits for the confirmation, and prints the send's hash.
    """
    import asyncio
    import json
    import os
    import time

    from tradeskill.errors import AmountError, UnavailableError
    from tradeskill.money import parse_amount
    from tradeskill_wallet.devnet import fund as faucet
    from tradeskill_wallet.devnet.work import WorkPool

    parsed = parse_amount(amount)
    if parsed.unit != "raw" or parsed.value == 0:
        raise AmountError(f'amount {amount!r} cannot be sent here: write it like "5 XNO" or "1000 raw"')

    def work(root: bytes, threshold: int) -> str:
        found = asyncio.run(WorkPool().generate(root, threshold))
        if found is None:
            raise UnavailableError("the search for work was killed: try again")
        return found

    block_hash = faucet.fund(faucet.asker(rpc), address, parsed.value, work=work, random_bytes=os.urandom, sleep=time.sleep, patience_seconds=timeout)
    typer.echo(json.dumps({"hash": block_hash, "address": address, "amount_raw": str(parsed.value), "confirmed": True}) if json_ else block_hash)
