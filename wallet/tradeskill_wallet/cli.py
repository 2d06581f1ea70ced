"""The command `tradeskill wallet`: address, balance, receive, send, sweep, scan, seed backup and restore."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, Verbose, example, load_profile, logs, run, say, show

if TYPE_CHECKING:
    from tradeskill_wallet.nano import NanoWallet

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The Nano wallet of this profile.")


def _with_wallet(password_file: Path | None, as_json: bool, act: Callable[[NanoWallet], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        from tradeskill.errors import NotFoundError
        from tradeskill_wallet.nano import NanoWallet

        async with load_profile(password_file) as profile:
            wallet = (await profile.wallets()).get("nano")
            if not isinstance(wallet, NanoWallet):
                raise NotFoundError("this profile has no nano wallet: add {plugin: nano, rpc: [URL]} to `wallets` in config.yaml")
            return await act(wallet)

    return run(main, as_json=as_json)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show(found)
        return
    for name, value in found.items():
        typer.echo(f"{name:12} {value}")


@app.command()
@example("tradeskill wallet address", "tradeskill wallet address --no-qr")
def address(
    qr: Annotated[bool, typer.Option("--qr/--no-qr", help="Also draw it as a QR code.")] = True, as_json: AsJson = False, password_file: PasswordFile = None
) -> None:
    """Where this wallet can be funded."""

    async def act(wallet: NanoWallet) -> dict[str, Any]:
        return {"address": await wallet.address()}

    found = _with_wallet(password_file, as_json, act)
    if as_json:
        show(found)
        return
    typer.echo(found["address"])
    if qr and sys.stdout.isatty():
        import segno

        segno.make(f"nano:{found['address']}").terminal(compact=True)


@app.command()
@example("tradeskill wallet balance --json")
def balance(as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """What can be spent, and what is final but not collected yet."""

    async def act(wallet: NanoWallet) -> dict[str, Any]:
        found = await wallet.balance()
        return {
            "available": str(found.available),
            "incoming": str(found.incoming),
            "available_raw": str(found.available.value),
            "incoming_raw": str(found.incoming.value),
        }

    _print(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example("tradeskill wallet receive")
def receive(as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """Receive what waits for the wallet's own address."""

    async def act(wallet: NanoWallet) -> dict[str, Any]:
        return {"received": await wallet.receive()}

    _print(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example('tradeskill wallet send nano_3... "0.5 XNO"')
def send(
    to: Annotated[str, typer.Argument(help="Address to send to.")],
    amount: Annotated[str, typer.Argument(help='Such as "0.5 XNO" or "5 raw".')],
    key: Annotated[str, typer.Option("--key", help="The same key again continues the same send instead of sending twice.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
    verbose: Verbose = False,
) -> None:
    """Send money. Interrupted? Repeat with the key it printed: the same block is published again, never a second one."""
    logs(verbose)

    async def act(wallet: NanoWallet) -> dict[str, Any]:
        import secrets

        from tradeskill.errors import RefusedError
        from tradeskill.money import parse_amount

        value, name = parse_amount(amount), key or secrets.token_hex(8)
        address = wallet.check_address(to)
        if not yes:
            if not sys.stdin.isatty():
                raise RefusedError("nobody is there to confirm the send: repeat with --yes")
            if not typer.confirm(f"Send {value} to {address}?", err=True):
                raise RefusedError("not confirmed; no money moved")
        if not key:
            say(f"sending under key {name}")
        proof = await wallet.send(address, value, name)
        return {"hash": proof.payment_id, "state": proof.state, "amount_raw": str(value.value), "to": address, "key": name}

    _print(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example("tradeskill wallet sweep", "tradeskill wallet sweep --to nano_3...")
def sweep(
    to: Annotated[str, typer.Option("--to", help="Another address; default: the wallet's own.")] = "",
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Bring what paid invoices hold to one place."""

    async def act(wallet: NanoWallet) -> dict[str, Any]:
        return {"blocks": await wallet.sweep(to or None)}

    _print(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example("tradeskill wallet scan --gap 50")
def scan(
    gap: Annotated[int, typer.Option("--gap", min=1, max=10_000, help="Stop after so many unused addresses in a row.")] = 20,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Look for every account of this seed that the ledger knows, and put up money found there for `sweep`."""

    async def act(wallet: NanoWallet) -> dict[str, Any]:
        from tradeskill_wallet.primitives import encode_address

        found = await wallet.scan(gap)
        return {"accounts": [{"index": item.index, "epoch": item.epoch, "address": encode_address(item.account)} for item in found]}

    _print(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example("tradeskill wallet backup")
def backup(
    show_seed: Annotated[bool, typer.Option("--show-seed", help="Yes, write the seed in the clear.")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="A new file of mode 0600 instead of the terminal.", show_default=False)] = None,
    password_file: PasswordFile = None,
) -> None:
    """Write down the seed: 64 hex digits that are all the money. The whole profile, encrypted, is saved by `tradeskill backup`."""

    async def main() -> None:
        import os

        from tradeskill.errors import RefusedError, StorageError
        from tradeskill_wallet.seedfile import open_seed

        if not show_seed:
            raise RefusedError("this writes the seed in the clear: repeat with --show-seed if that is meant (or use `tradeskill backup`)")
        if to is None and not sys.stdout.isatty():
            raise RefusedError("the seed is not written into a pipe: name a new file with --to FILE")
        profile = load_profile(password_file)
        seed = open_seed(profile.context("wallets", "nano").home / "seed.json", profile.config.network, profile.password())
        if to is None:
            typer.echo(seed.hex())
            return
        try:
            with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(seed.hex() + "\n")
        except OSError as error:
            raise StorageError(f"{to} cannot be written: {error.strerror}; name a new file") from error
        say(f"written to {to}; keep it offline")

    run(main)


@app.command()
@example("tradeskill wallet restore --from seed.txt")
def restore(
    source: Annotated[Path | None, typer.Option("--from", help="File with the 64 hex digits; without it they are asked for.", show_default=False)] = None,
    gap: Annotated[int, typer.Option("--gap", min=1, max=10_000)] = 20,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Bring a seed into a profile that has no wallet yet (or whose seed file was moved away), find its money, and use fresh addresses from now on."""

    async def main() -> dict[str, Any]:
        from tradeskill.errors import NotFoundError, SecretError
        from tradeskill_wallet.nano import NanoWallet
        from tradeskill_wallet.seedfile import parse_seed

        try:
            text = source.read_text() if source is not None else str(typer.prompt("Seed (64 hex digits)", hide_input=True, err=True))
        except OSError as error:
            raise SecretError(f"{source} cannot be read: {error.strerror}") from error
        async with load_profile(password_file) as profile:
            choice = next((c for c in profile.config.wallets if c.plugin.partition("@")[0] == "nano"), None)
            if choice is None:
                raise NotFoundError("this profile has no nano wallet: add {plugin: nano, rpc: [URL]} to `wallets` in config.yaml")
            profile.create_wallet(choice, parse_seed(text))
            wallet = (await profile.wallets())["nano"]
            assert isinstance(wallet, NanoWallet)
            found = await wallet.restore(gap)
            await wallet.collect()
            return {"accounts_found": len(found), "address": await wallet.address()}

    _print(run(main, as_json=as_json), as_json)
