"""The command `tradeskill cashu`: add, address, balance, receive, inspect, send, mint, melt, mints, doubts, backup and restore.

Past 400 lines because each command stands whole in its function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, Verbose, confirm, example, group, load_profile, logs, run, say, show, show_entry

if TYPE_CHECKING:
    from tradeskill.config import PluginChoice
    from tradeskill.profile import Profile
    from tradeskill_plugins.cashu.wallet import CashuWallet

__all__ = ["app"]

NO_WALLET: Final = "this profile has no cashu wallet: `tradeskill cashu add URL` makes one that holds ecash at the mint with that URL"
PLACES: Final = ("held", "reserved", "locked_for_others", "in_dropped_keysets", "in_expired_keysets")
POLL: Final = 0.5  # seconds between two questions whether an invoice is paid

app = group("The Cashu wallet (ecash) of this profile.", "tradeskill cashu balance", "tradeskill cashu mint 5000")


def _with_wallet(password_file: Path | None, as_json: bool, act: Callable[[CashuWallet, Profile], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        from tradeskill.errors import NotFoundError

        async with load_profile(password_file) as profile:
            _choice(profile)
            from tradeskill_plugins.cashu.wallet import CashuWallet

            wallet = (await profile.wallets()).get("cashu")
            if not isinstance(wallet, CashuWallet):
                raise NotFoundError(NO_WALLET)
            return await act(wallet, profile)

    return run(main, as_json=as_json)


@app.command()
@example("tradeskill cashu add https://mint.example")
def add(
    url: Annotated[list[str], typer.Argument(help="URLs of mints that you trust with what you will hold there.")],
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Use a mint; makes the wallet if there is none.

    Writes the mint into the profile's config.yaml, and a new wallet's secret, encrypted under your password, beside it. May be repeated.
    """

    async def main() -> dict[str, Any]:
        from tradeskill.contracts import Examinable
        from tradeskill.errors import TradeskillError
        from tradeskill_plugins.cashu.setup import add_mints

        async with load_profile(password_file) as profile:
            mints, made = add_mints(profile, url)
        async with load_profile(password_file) as profile:
            wallet = (await profile.wallets())["cashu"]
            assert isinstance(wallet, Examinable)
            try:
                found, trouble = await wallet.examine(), ""
            except TradeskillError as error:
                found, trouble = "", str(error)
        return {"mints": mints, "wallet_made": made, "config": str(profile.config.source), "found": found, "trouble": trouble}

    show_entry(run(main, as_json=as_json), as_json)


@app.command()
@example("tradeskill cashu address")
def address(as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """Show the address where others can leave money for this wallet."""

    async def act(wallet: CashuWallet, profile: Profile) -> dict[str, Any]:
        return {"address": await wallet.address()}

    found = _with_wallet(password_file, as_json, act)
    show(found) if as_json else typer.echo(found["address"])


@app.command()
@example("tradeskill cashu balance", "tradeskill cashu balance --json")
def balance(as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """Show what is held where, and what is under way. Asks no mint."""

    async def act(wallet: CashuWallet, profile: Profile) -> dict[str, Any]:
        found = await wallet.balance()
        places = wallet.by_hand.places()
        return {"available": str(found.available), "incoming": str(found.incoming), "mints": places, "doubts": len(wallet.by_hand.doubts())}

    found = _with_wallet(password_file, as_json, act)
    if as_json:
        show(found)
        return
    show_entry({"available": found["available"], "incoming": found["incoming"]}, False)
    for place in found["mints"]:
        parts = {name: f"{place[name]} sat {name.replace('_', ' ')}" for name in PLACES}
        told = [text for name, text in parts.items() if name == "held" or place[name] != "0"]
        typer.echo(f"{place['mint']}  {', '.join(told)}{'' if place['used'] else '  (not in `mints` any more)'}")
    if found["doubts"]:
        say(f"{found['doubts']} requests have no answer yet: see `tradeskill cashu doubts`")


@app.command()
@example("tradeskill cashu receive cashuBo2F0...", "tradeskill cashu receive")
def receive(
    token: Annotated[str, typer.Argument(help="A token; without one, what waits for this wallet's own addresses is fetched.", show_default=False)] = "",
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Take a token, or what waits at the mints.

    Interrupted? Repeat it: a token is taken once.
    """

    async def act(wallet: CashuWallet, profile: Profile) -> dict[str, Any]:
        if token:
            return {"received": str(await wallet.receive(token)), "unit": wallet.unit}
        return {"received_payments": await wallet.collect()}

    show_entry(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example("tradeskill cashu inspect cashuBo2F0...")
def inspect(
    token: Annotated[list[str], typer.Argument(help="Tokens.")],
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Say what tokens are worth and whether they are spent.

    Takes nothing. The list that --json prints is in the order of the tokens.
    """

    async def act(wallet: CashuWallet, profile: Profile) -> list[dict[str, Any]]:
        return [await wallet.by_hand.inspect(each) for each in token]

    found = _with_wallet(password_file, as_json, act)
    if as_json:
        show(found)
        return
    for entry in found:
        show_entry(entry, False)


@app.command()
@example('tradeskill cashu send creqAp... "100 sat"')
def send(
    to: Annotated[str, typer.Argument(help="A cashu address of somebody's tradeskill wallet.")],
    amount: Annotated[str, typer.Argument(help='Such as "100 sat".')],
    key: Annotated[str, typer.Option("--key", help="The same key again continues the same send instead of sending twice.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
    verbose: Verbose = False,
) -> None:
    """Send to an address: locked to its key and left at the mint.

    Interrupted? Repeat with the key that it printed: the same request is sent again, never a second one.
    """
    logs(verbose)

    async def act(wallet: CashuWallet, profile: Profile) -> dict[str, Any]:
        import secrets

        from tradeskill.errors import UsageError
        from tradeskill.money import parse_amount

        value, name, target = parse_amount(amount), key or secrets.token_hex(8), wallet.check_address(to)
        if value.unit != wallet.unit or value.value < 1:
            raise UsageError(f'amount {amount!r} cannot be sent: write it like "100 sat"')
        if wallet.owns(target):
            raise UsageError("that is an address of this wallet: nothing would move")
        if not yes:
            confirm(f"Send {value} to {target}?", "cashu send", "the send")
        if not key:
            say(f"sending under key {name}")
        async with _gate(profile, wallet, "send", target, f"send:{name}", value.value):
            proof = await wallet.by_hand.send(target, value.value, name)
        return {"payment": proof.payment_id, "state": proof.state, "amount": str(value.value), "unit": value.unit, "token": proof.token, "key": name}

    show_entry(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example("tradeskill cashu mint 5000", "tradeskill cashu mint 5000 --mint https://mint.example --key k1")
def mint(
    amount: Annotated[int, typer.Argument(min=1, help="How many sat.")],
    url: Annotated[str, typer.Option("--mint", help="Which mint; default: the first.")] = "",
    key: Annotated[str, typer.Option("--key", help="The same key again continues the same deposit.")] = "",
    wait: Annotated[int, typer.Option("--wait", min=0, help="Seconds to wait for the payment.")] = 600,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Fund the wallet by a Lightning invoice.

    Prints the invoice and waits until it is paid.

    Interrupted? Repeat with the key that it printed: what was paid is taken once.
    """

    async def act(wallet: CashuWallet, profile: Profile) -> dict[str, Any]:
        import secrets

        from tradeskill.money import Amount

        name = key or secrets.token_hex(8)
        invoice = await wallet.deposit(name, Amount(amount, wallet.unit), url)
        world, status = profile.world, await wallet.settle(invoice, None)
        if status.state != "paid":
            say(f"pay this Lightning invoice (key {name}):\n{invoice.details['bolt11']}")
        deadline = world.monotonic() + wait
        while status.state != "paid" and world.monotonic() < deadline:
            await world.sleep(POLL)
            status = await wallet.settle(invoice, None)
        if status.state != "paid":
            say(f"not paid yet; once it is: `tradeskill cashu mint {amount} --key {name}`")
        return {"state": status.state, "amount": str(amount), "unit": wallet.unit, "bolt11": invoice.details["bolt11"], "key": name, "detail": status.detail}

    show_entry(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example("tradeskill cashu melt lnbc10u1p...")
def melt(
    bolt11: Annotated[str, typer.Argument(help="A Lightning invoice that names its amount.")],
    key: Annotated[str, typer.Option("--key", help="The same key again continues the same payment instead of paying twice.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
    verbose: Verbose = False,
) -> None:
    """Pay a Lightning invoice through a mint.

    Interrupted? Repeat with the key that it printed.
    """
    logs(verbose)

    async def act(wallet: CashuWallet, profile: Profile) -> dict[str, Any]:
        import secrets

        from tradeskill.errors import InputError, UsageError
        from tradeskill_plugins.cashu.bolt11 import sats_of

        try:
            value = sats_of(bolt11)
        except InputError as error:
            raise UsageError(str(error)) from error
        name = key or secrets.token_hex(8)
        if not yes:
            confirm(f"Pay {value} sat to {bolt11[:40]}...?", "cashu melt", "the payment")
        if not key:
            say(f"paying under key {name}")
        async with _gate(profile, wallet, "send", bolt11.lower(), f"melt:{name}", value):
            proof = await wallet.by_hand.melt(bolt11, name)
        return {"payment": proof.payment_id, "state": proof.state, "amount": str(value), "unit": wallet.unit, "key": name}

    show_entry(_with_wallet(password_file, as_json, act), as_json)


@app.command()
@example("tradeskill cashu mints", "tradeskill cashu mints --json")
def mints(as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """Ask each configured mint what it is, and what it charges."""

    async def act(wallet: CashuWallet, profile: Profile) -> list[dict[str, Any]]:
        return await wallet.by_hand.describe()

    found = _with_wallet(password_file, as_json, act)
    if as_json:
        show(found)
        return
    for entry in found:
        show_entry(entry, False)


@app.command()
@example("tradeskill cashu doubts")
def doubts(as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """List requests whose outcome is not known.

    Their mints are asked again before. Their money is reserved, not lost: the same request is repeated until the mint's word is known.
    """

    async def act(wallet: CashuWallet, profile: Profile) -> list[dict[str, str]]:
        await wallet.finish_all()
        return wallet.by_hand.doubts()

    found = _with_wallet(password_file, as_json, act)
    if as_json:
        show(found)
        return
    for entry in found:
        typer.echo(f"{entry['request']}  {entry['purpose']}  {entry['amount']} sat  {entry['mint']}  {entry['trouble']}")
    if not found:
        say("every request has its answer")


@app.command()
@example("tradeskill cashu backup --show-seed --to seed.txt")
def backup(
    show_seed: Annotated[bool, typer.Option("--show-seed", help="Yes, write the secret in the clear.")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="A new file of mode 0600.", show_default=False)] = None,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Write down the secret, which is all the money.

    The whole profile, encrypted, is saved by `tradeskill backup`.
    """

    async def main() -> None:
        from tradeskill.errors import RefusedError
        from tradeskill_plugins.cashu.keys import SEED_FILE, open_seed

        if not show_seed or to is None:
            raise RefusedError("this writes the secret in the clear: repeat with --show-seed --to FILE if that is meant (or use `tradeskill backup`)")
        async with load_profile(password_file) as profile:
            secret = open_seed(_folder(profile) / SEED_FILE, profile.config.network, profile.password())
        _write_new(to, secret.hex() + "\n")
        show({"file": str(to)}) if as_json else say(f"written to {to}; keep it offline")

    run(main, as_json=as_json)


@app.command()
@example("tradeskill cashu restore", "tradeskill cashu restore --from seed.txt --set-aside")
def restore(
    source: Annotated[Path | None, typer.Option("--from", help="File with the 64 hex digits; default: the secret that is here.", show_default=False)] = None,
    set_aside: Annotated[bool, typer.Option("--set-aside", help="Keep the present secret and records in a folder beside the new ones.")] = False,
    gap: Annotated[int, typer.Option("--gap", min=1, max=10_000, help="Stop after so many unused addresses in a row.")] = 20,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Find all money of the secret at the configured mints.

    Interrupted, or a mint not there? Repeat it.
    """

    async def main() -> dict[str, Any]:
        from tradeskill_plugins.cashu.wallet import CashuWallet

        async with load_profile(password_file) as profile:
            aside = None if source is None else _make_way(profile, _read_secret(source), set_aside)
            _choice(profile)
            wallet = (await profile.wallets())["cashu"]
            assert isinstance(wallet, CashuWallet)
            found = await wallet.restore(gap)
            while await wallet.collect():
                pass
            return {"found": str(found), "unit": wallet.unit, "available": str((await wallet.balance()).available), "set_aside": aside}

    show_entry(run(main, as_json=as_json), as_json)


def _gate(profile: Profile, wallet: CashuWallet, kind: Literal["send"], to: str, purpose: str, amount: int) -> AbstractAsyncContextManager[None]:
    """What goes to somebody else is spending: the policy stands around each send."""
    from tradeskill.money import Amount
    from tradeskill.policy import Intended
    from tradeskill.policy.by_hand import spending

    wish = Intended(f"cashu:{purpose}", Amount(amount, wallet.unit), rail=wallet.rail, seller=to, kind=kind)
    return spending(profile.journal, profile.world, wish, profile.guard(), f"a {kind}", profile.ask_owner, lambda: wallet.by_hand.signed(purpose))


def _read_secret(source: Path) -> bytes:
    from tradeskill.errors import SecretError

    try:
        secret = bytes.fromhex("".join(source.read_text(encoding="ascii").split()))
    except (OSError, ValueError) as error:
        raise SecretError(f"file {source} cannot be read as 64 hex digits: check the backup") from error
    if len(secret) != 32:
        raise SecretError(f"file {source} does not hold 64 hex digits: check the backup")
    return secret


def _make_way(profile: Profile, secret: bytes, set_aside: bool) -> str | None:
    """Put `secret` into the profile, unless it is there. A different one is never written over: SecretError, or moved aside (returns where to)."""
    from tradeskill.errors import SecretError
    from tradeskill_plugins.cashu.keys import SEED_FILE, open_seed

    choice, folder, moved = _choice(profile), _folder(profile), None
    if (folder / SEED_FILE).exists():
        if open_seed(folder / SEED_FILE, profile.config.network, profile.password()) == secret:
            return None
        if not set_aside:
            raise SecretError(f"{folder / SEED_FILE} holds another secret: repeat with --set-aside to keep it in a folder beside the new one")
        number = next(n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}.aside-{n}").exists())
        moved = str(folder.rename(folder.with_name(f"{folder.name}.aside-{number}")))
    profile.create_wallet(choice, secret)
    return moved


def _choice(profile: Profile) -> PluginChoice:
    from tradeskill.errors import NotFoundError

    for choice in profile.config.wallets:
        if choice.plugin.partition("@")[0] == "cashu":
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
