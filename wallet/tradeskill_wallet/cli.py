"""The command `tradeskill wallet`: address and balance of every rail; for Nano receive, send, sweep, scan, seed backup and restore."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from tradeskill.faces.cli.shell import (
    AsJson,
    PasswordFile,
    Verbose,
    confirm,
    example,
    group,
    load_profile,
    logs,
    printable,
    run,
    say,
    show,
    show_entry,
)

if TYPE_CHECKING:
    from tradeskill.config import PluginChoice
    from tradeskill.contracts import Wallet
    from tradeskill.profile import Profile
    from tradeskill_wallet.nano import NanoWallet

__all__ = ["app"]

NO_WALLET: Final = "this profile has no nano wallet: add {plugin: nano, rpc: [URL]} to `wallets` in its config.yaml"
OTHER_RAILS: Final = "this command is Nano's; `tradeskill wallet balance` and `address` know every rail, for the rest see `tradeskill cashu --help`"
STANDS: Final = ("available", "incoming")
SEED_FILE: Final = "seed.json"
PATIENCE: Final = 5.0  # seconds without news after which `sweep` and `restore` wait no longer

app = group("Balance and address of each wallet; moving Nano.", "tradeskill wallet balance", 'tradeskill wallet send nano_3... "0.5 XNO"')
Rail = Annotated[str, typer.Option("--rail", help="Only the wallet of this rail, such as nano or cashu.")]


def _with_wallet(password_file: Path | None, as_json: bool, act: Callable[[NanoWallet, Profile], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        from tradeskill.errors import NotFoundError
        from tradeskill_wallet.nano import NanoWallet

        async with load_profile(password_file) as profile:
            wallets = await profile.wallets()
            wallet = wallets.get("nano")
            if not isinstance(wallet, NanoWallet):
                others = ", ".join(wallets)
                raise NotFoundError(f"this profile has no nano wallet but {others}: {OTHER_RAILS}" if others else NO_WALLET)
            return await act(wallet, profile)

    return run(main, as_json=as_json)


@app.command()
@example("tradeskill wallet address", "tradeskill wallet address --no-qr", "tradeskill wallet address --rail cashu")
def address(
    rail: Rail = "",
    qr: Annotated[bool, typer.Option("--qr/--no-qr", help="Also draw a Nano address as a QR code.")] = True,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Show an address that this wallet can be funded at.

    With several wallets, and without --rail: that of the first one in the configuration.
    """

    async def main() -> dict[str, Any]:
        async with load_profile(password_file) as profile:
            wallets = await _wallets_of(profile, rail)
            name, wallet = next(iter(wallets.items()))
            return {"address": await wallet.address(), "rail": name, "others": list(wallets)[1:]}

    found = run(main, as_json=as_json)
    if as_json:
        show({"address": found["address"], "rail": found["rail"]})
        return
    typer.echo(found["address"])
    if found["others"]:
        say(f"of the rail {found['rail']}; this profile has {', '.join(found['others'])} too: name it with --rail")
    if qr and found["rail"] == "nano" and sys.stdout.isatty():
        import segno

        segno.make(f"nano:{found['address']}").terminal(compact=True)


@app.command()
@example("tradeskill wallet balance --json", "tradeskill wallet balance --rail cashu")
def balance(rail: Rail = "", as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """Show what can be spent, and what is still to be collected.

    Of each wallet. The JSON has all of them in `rails`, in their smallest units too, and Nano's also beside it.
    """

    async def main() -> dict[str, Any]:
        async with load_profile(password_file) as profile:
            wallets = await _wallets_of(profile, rail)
            rails = [await _balance(name, wallet, alone=len(wallets) == 1) for name, wallet in wallets.items()]
        nano = next((entry for entry in rails if entry["rail"] == "nano" and "error" not in entry), None)
        beside = {} if nano is None else {f"{name}{raw}": nano[f"{name}{units}"] for raw, units in (("", ""), ("_raw", "_units")) for name in STANDS}
        return {**beside, "rails": rails}

    found = run(main, as_json=as_json)
    if as_json:
        show(found)
    else:
        _show_balances(found)
    codes = [int(entry["error"]["exit_code"]) for entry in found["rails"] if "error" in entry]
    if codes:
        raise typer.Exit(codes[0])


async def _balance(rail: str, wallet: Wallet, alone: bool) -> dict[str, Any]:
    """Of several, one that cannot be asked does not hide the others."""
    from tradeskill.errors import TradeskillError

    try:
        found = await wallet.balance()
    except TradeskillError as error:
        if alone:
            raise
        return {"rail": rail, "unit": wallet.unit, "error": {"message": str(error), "exit_code": error.exit_code}}
    amounts = {"available": found.available, "incoming": found.incoming}
    units = {f"{name}_units": str(amount.value) for name, amount in amounts.items()}
    return {"rail": rail, "unit": wallet.unit, **{name: str(amount) for name, amount in amounts.items()}, **units}


def _show_balances(found: dict[str, Any]) -> None:
    rails = found["rails"]
    if len(rails) == 1 and "error" not in rails[0]:
        beside = {name: value for name, value in found.items() if name != "rails"}
        show_entry(beside or {name: rails[0][name] for name in STANDS}, False)
        return
    width = max(len(entry["rail"]) for entry in rails) + 2
    for entry in rails:
        if "error" in entry:
            say(f"error: {entry['rail']}: {printable(entry['error']['message'])}")
        else:
            typer.echo(f"{entry['rail']:{width}}{entry['available']} available, {entry['incoming']} incoming")


async def _wallets_of(profile: Profile, rail: str) -> dict[str, Wallet]:
    """That of `rail`, or all; NotFoundError where there is none."""
    from tradeskill.errors import NotFoundError

    if rail:
        return {rail: await profile.wallet(rail)}
    wallets = await profile.wallets()
    if not wallets:
        raise NotFoundError(NO_WALLET)
    return wallets


@app.command()
@example("tradeskill wallet receive")
def receive(as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """Receive what waits for the wallet's own address."""

    async def act(wallet: NanoWallet, profile: Profile) -> dict[str, Any]:
        return {"received": await wallet.receive()}

    show_entry(_with_wallet(password_file, as_json, act), as_json)


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
    """Send money to an address.

    Interrupted? Repeat with the key that it printed: the same block is published again, never a second one.
    """
    logs(verbose)

    async def act(wallet: NanoWallet, profile: Profile) -> dict[str, Any]:
        import secrets

        from tradeskill.money import parse_amount

        value, name = parse_amount(amount), key or secrets.token_hex(8)
        address = wallet.check_address(to)
        if not yes:
            confirm(f"Send {value} to {address}?", "wallet send", "the send")
        if not key:
            say(f"sending under key {name}")
        async with nullcontext() if wallet.owns(address) else _gate(profile, wallet, "send", address, f"send:{name}", value.value):
            proof = await wallet.send(address, value, name)
        return {"hash": proof.payment_id, "state": proof.state, "amount_raw": str(value.value), "to": address, "key": name}

    show_entry(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example("tradeskill wallet sweep", "tradeskill wallet sweep --to nano_3...")
def sweep(
    to: Annotated[str, typer.Option("--to", help="Another address; default: the wallet's own.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask (only --to asks).")] = False,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Bring what paid invoices hold to one place."""

    async def act(wallet: NanoWallet, profile: Profile) -> dict[str, Any]:
        target = wallet.check_address(to) if to else None
        if target is not None and not yes:
            confirm(f"Send everything that paid invoices hold to {target}?", "wallet sweep", "the sweep")
        balance = await wallet.balance()
        made = await wallet.sweep(target, None if target is None or wallet.owns(target) else partial(_gate, profile, wallet, "sweep", target))
        if target is not None:
            return {"blocks": made}
        return await _gathered(wallet, balance.available.value + balance.incoming.value, made)

    show_entry(_with_wallet(password_file, as_json, act), as_json)


def _gate(
    profile: Profile, wallet: NanoWallet, kind: Literal["send", "sweep"], to: str, purpose: str, amount: int
) -> AbstractAsyncContextManager[None]:
    """What goes to somebody else is spending: the policy stands around each send."""
    from tradeskill.money import Amount
    from tradeskill.policy import Intended
    from tradeskill.policy.by_hand import spending

    wish = Intended(purpose, Amount(amount, wallet.unit), rail=wallet.rail, seller=to, kind=kind)
    return spending(profile.journal, profile.world, wish, profile.guard(), f"a {kind}", profile.ask_owner, lambda: wallet.signed(purpose))


async def _gathered(wallet: NanoWallet, whole: int, made: int) -> dict[str, Any]:
    """Wait a little for confirmations, receiving what was swept, until `whole` can be spent; what takes longer is for the next `receive`."""
    from tradeskill.world import World

    world, balance = World(), await wallet.balance()
    deadline = world.monotonic() + PATIENCE
    while balance.available.value < whole and world.monotonic() < deadline:
        await world.sleep(0.2)
        step, before = await wallet.collect(), balance
        balance = await wallet.balance()
        made += step
        if step or balance != before:
            deadline = world.monotonic() + PATIENCE
    return {"blocks": made, "available": str(balance.available), "incoming": str(balance.incoming)}


@app.command()
@example("tradeskill wallet scan --gap 50")
def scan(
    gap: Annotated[int, typer.Option("--gap", min=1, max=10_000, help="Stop after so many unused addresses in a row.")] = 20,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Look for all money of this seed on the ledger.

    Finds every account of the seed that the ledger knows, and puts up money found there for `sweep`.
    """

    async def act(wallet: NanoWallet, profile: Profile) -> dict[str, Any]:
        from tradeskill_wallet.primitives import encode_address

        found = await wallet.scan(gap)
        return {"accounts": [{"index": item.index, "epoch": item.epoch, "address": encode_address(item.account)} for item in found]}

    show_entry(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example("tradeskill wallet backup --show-seed", "tradeskill wallet backup --show-seed --to seed.txt")
def backup(
    show_seed: Annotated[bool, typer.Option("--show-seed", help="Yes, write the seed in the clear.")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="A new file of mode 0600 instead of the terminal.", show_default=False)] = None,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Write down the seed: 64 hex digits that are all the money.

    The whole profile, encrypted, is saved by `tradeskill backup`.
    """

    async def main() -> None:
        from tradeskill.errors import RefusedError
        from tradeskill_wallet.seedfile import open_seed

        if not show_seed:
            raise RefusedError("this writes the seed in the clear: repeat with --show-seed if that is meant (or use `tradeskill backup`)")
        if to is None and (as_json or not sys.stdout.isatty()):
            raise RefusedError("the seed is not written into a pipe: name a new file with --to FILE")
        async with load_profile(password_file) as profile:
            seed = open_seed(_folder(profile) / SEED_FILE, profile.config.network, profile.password())
        if to is None:
            typer.echo(seed.hex())
            return
        _write_new(to, seed.hex() + "\n")
        show({"file": str(to)}) if as_json else say(f"written to {to}; keep it offline")

    run(main, as_json=as_json)


@app.command()
@example("tradeskill wallet restore --from seed.txt", "tradeskill wallet restore --from seed.txt --set-aside")
def restore(
    source: Annotated[Path | None, typer.Option("--from", help="File with the 64 hex digits; without it they are asked for.", show_default=False)] = None,
    set_aside: Annotated[bool, typer.Option("--set-aside", help="Keep the profile's present seed and records in a folder beside the new ones.")] = False,
    gap: Annotated[int, typer.Option("--gap", min=1, max=10_000, help="Stop after so many unused addresses in a row.")] = 20,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Bring a seed back, find its money, and use fresh addresses.

    Interrupted, or no node there? Repeat it with the same seed.
    """

    async def main() -> dict[str, Any]:
        from tradeskill_wallet.nano import NanoWallet
        from tradeskill_wallet.seedfile import parse_seed

        seed = parse_seed(_seed_text(source))
        async with load_profile(password_file) as profile:
            aside = _make_way(profile, seed, set_aside)
            wallet = (await profile.wallets())["nano"]
            assert isinstance(wallet, NanoWallet)
            found = await wallet.restore(gap)
            gathered = await _gathered(wallet, sum(item.balance + item.receivable for item in found), await wallet.collect())
            return {"accounts_found": len(found), "address": await wallet.address(), "set_aside": aside, **gathered}

    show_entry(run(main, as_json=as_json), as_json)


def _seed_text(source: Path | None) -> str:
    from tradeskill.errors import SecretError

    if source is None:
        if not sys.stdin.isatty():
            raise SecretError("the seed is needed and there is no terminal to ask at: give --from FILE")
        return str(typer.prompt("Seed (64 hex digits)", hide_input=True, err=True))
    try:
        return source.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise SecretError(f"seed file {source} cannot be read: {reason}") from error


def _make_way(profile: Profile, seed: bytes, set_aside: bool) -> str | None:
    """Put `seed` into the profile, unless it is there. A different one is never written over: SecretError, or moved aside (returns where to)."""
    from tradeskill.errors import SecretError
    from tradeskill_wallet.seedfile import open_seed

    choice, folder, moved = _choice(profile), _folder(profile), None
    if (folder / SEED_FILE).exists():
        if open_seed(folder / SEED_FILE, profile.config.network, profile.password()) == seed:
            return None
        if not set_aside:
            raise SecretError(f"{folder / SEED_FILE} holds another seed: repeat with --set-aside to keep it in a folder beside the new one")
        number = next(n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}.aside-{n}").exists())
        moved = str(folder.rename(folder.with_name(f"{folder.name}.aside-{number}")))
    profile.create_wallet(choice, seed)
    return moved


def _choice(profile: Profile) -> PluginChoice:
    from tradeskill.errors import NotFoundError

    for choice in profile.config.wallets:
        if choice.plugin.partition("@")[0] == "nano":
            return choice
    raise NotFoundError(NO_WALLET)


def _folder(profile: Profile) -> Path:
    return profile.context("wallets", _choice(profile).plugin).home


def _write_new(path: Path, text: str) -> None:
    import os

    from tradeskill.errors import StorageError

    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}; name a new file") from error
