"""Commands for the profile itself: init, doctor, identity, backup, restore."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, example, group, load_profile, password_from, printable, run, say, show

if TYPE_CHECKING:
    from tradeskill.model import Network

__all__ = ["backup", "doctor", "identity", "init", "restore"]

_LOOK_AGAIN = {"nano": "tradeskill wallet scan", "cashu": "tradeskill cashu restore"}  # what happened after the backup was made
DEFAULT_RPC, DEFAULT_WS = "http://127.0.0.1:7076", "ws://127.0.0.1:7078"


@example(
    "TRADESKILL_HOME=./seller tradeskill init --network dev --market ./market.db",
    "tradeskill init --network dev --market relay --market-url http://127.0.0.1:8402",
    "tradeskill init --network test --mint https://mint.example",
    "tradeskill init --non-interactive --network dev --rpc http://127.0.0.1:7076 --ws ws://127.0.0.1:7078 --market ./market.db --password-file pw",
)
def init(
    network: Annotated[str, typer.Option("--network", help="dev, test or live; fixed for this profile.")] = "dev",
    rpc: Annotated[list[str] | None, typer.Option("--rpc", help="URL of a Nano node's RPC; may be repeated.")] = None,
    ws: Annotated[str, typer.Option("--ws", help='URL of its websocket; "" for none.')] = DEFAULT_WS,
    mint: Annotated[
        list[str] | None, typer.Option("--mint", help="URL of a Cashu mint to hold ecash at; may be repeated. Nano too only with --rpc.", show_default=False)
    ] = None,
    market: Annotated[
        str, typer.Option("--market", help='A market file that buyers and sellers share, or "relay". Default: market.db beside the profile.')
    ] = "",
    market_url: Annotated[str, typer.Option("--market-url", help="The relay's URL.")] = "",
    market_insecure: Annotated[bool, typer.Option("--market-insecure", help="Allow plain http to a relay on another machine.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Needed for the live network: real money.")] = False,
    non_interactive: Annotated[bool, typer.Option("--non-interactive", help="Never ask; take the password from --password-file.")] = False,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Make a profile in the folder TRADESKILL_HOME.

    It holds an identity key and a seed for each wallet, all encrypted under your password, and a configuration file.
    """

    async def main() -> dict[str, Any]:
        from tradeskill.config import read_environment
        from tradeskill.errors import NetworkMismatchError, SecretError, UsageError
        from tradeskill.model import NETWORKS
        from tradeskill.profile import Profile, check_vacant, create_profile
        from tradeskill.world import World

        if network not in NETWORKS:
            raise UsageError(f"network {network!r} is not one of {', '.join(NETWORKS)}")
        environment = read_environment(os.environ)
        if environment.network not in (None, network):
            raise NetworkMismatchError(f"--network is {network!r}, but TRADESKILL_NETWORK says {environment.network!r}: change one of them")
        if network == "live" and not live:
            raise UsageError("network live moves real money: repeat with --live if that is meant (spending caps start at 0)")
        home = environment.home
        chosen_market = _market(market, market_url, market_insecure, home)
        check_vacant(home)
        if non_interactive and password_file is None and environment.password_file is None:
            raise SecretError("--non-interactive never asks for the password: give --password-file FILE or set TRADESKILL_PASSWORD_FILE")
        password = password_from(password_file, confirm=True)()
        chosen: Network = next(n for n in NETWORKS if n == network)
        config = {
            "network": network,
            "market": chosen_market,
            "wallets": _rails(rpc, ws, mint),
        }
        key = create_profile(home, config, chosen, password, World())
        async with Profile.load(home, lambda: password) as profile:
            addresses = {rail: await wallet.address() for rail, wallet in (await profile.wallets()).items()}  # also while no node answers
        first = next(iter(addresses.values()))
        return {"home": str(home), "network": network, "identity": key, "address": first, "addresses": addresses, "config": str(home / "config.yaml")}

    made = run(main, as_json=as_json)
    if as_json:
        show(made)
        return
    say(f"profile made in {made['home']} for network {made['network']}")
    say(f"  identity  {made['identity']}")
    for rail, address in made["addresses"].items():
        say(f"  {rail:9} {address}")
    if made["network"] != "dev":
        such = "1 XNO" if "nano" in made["addresses"] else "5000 sat"
        say(f'next: back up with `tradeskill backup FILE`, set spending caps in config.yaml (buyer: {{cap_total: "{such}"}}), then `tradeskill doctor`')
    elif "nano" in made["addresses"]:
        node = "" if not rpc else f" --rpc {rpc[0]}"
        say("next: `tradeskill devnet` in another terminal (unless a node runs there already), then money to buy with:")
        say(f'  tradeskill devnet fund {made["addresses"]["nano"]} "10 XNO"{node}')
    if "cashu" in made["addresses"]:
        say("money for the cashu wallet: `tradeskill cashu mint 1000` prints a Lightning invoice to pay; `tradeskill cashu receive TOKEN` takes a token")
    if made["network"] == "dev":
        say("then `tradeskill doctor`, and `tradeskill offers` to buy or `tradeskill sell FILE` to sell")


def _rails(rpc: list[str] | None, ws: str, mints: list[str] | None) -> list[dict[str, Any]]:
    """What `wallets:` in the configuration says. A mint alone is a wallet without Nano."""
    nano = {"plugin": "nano", "rpc": rpc or [DEFAULT_RPC], **({"ws": ws} if ws else {})}
    return [*([nano] if rpc or not mints else []), *([{"plugin": "cashu", "mints": list(mints)}] if mints else [])]


def _market(name: str, url: str, insecure: bool, home: Path) -> dict[str, Any]:
    """What `market:` in the configuration says. `--market URL` is short for `--market relay --market-url URL`."""
    from tradeskill.errors import UsageError

    if name.startswith(("http://", "https://")) and not url:
        name, url = "relay", name
    if name == "relay" or (url and not name):
        if not url:
            raise UsageError("--market relay needs --market-url with the relay's address: `tradeskill relay serve` prints it (a file named relay: ./relay)")
        return {"plugin": "relay", "url": url, **({"insecure": True} if insecure else {})}
    if url or insecure:
        raise UsageError(f"--market-url and --market-insecure are for a relay, --market {name!r:.200} is a file: leave one of them out, or say --market relay")
    beside = home.parent if "TRADESKILL_HOME" in os.environ else home  # the user's data folder is not ours to fill
    return {"plugin": "embedded", "path": str(Path(name).expanduser().absolute() if name else beside / "market.db")}


@example("tradeskill doctor", "tradeskill doctor --json")
def doctor(as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """Check the profile, and say how to mend what is wrong.

    Looks at files and their rights, configuration, plugins, market, node, mints, network and spending caps. Ends with 1 when something is wrong.
    """

    async def main() -> list[dict[str, Any]]:
        from tradeskill.faces.checkup import examine

        return await examine(lambda: load_profile(password_file))

    found = run(main, as_json=as_json)
    if as_json:
        show(found)
    else:
        for check in found:
            typer.echo(f"{'ok  ' if check['ok'] else 'FAIL'} {check['check']:14} {printable(check['detail'])}")
    if not all(check["ok"] for check in found):
        raise typer.Exit(1)


@example("tradeskill backup /media/stick/profile.tar.gz")
def backup(target: Annotated[Path, typer.Argument(help="A new file.")], as_json: AsJson = False) -> None:
    """Save the whole profile into one file, even while it works.

    Secrets in it stay encrypted under the profile's password.
    """

    async def main() -> dict[str, Any]:
        from tradeskill.backup import back_up
        from tradeskill.config import home_from_env

        return {"file": str(target), "files": back_up(home_from_env(os.environ), target)}

    made = run(main, as_json=as_json)
    show(made) if as_json else say(f"{made['files']} files saved in {made['file']}; keep the password elsewhere")


@example("TRADESKILL_HOME=./again tradeskill restore profile.tar.gz")
def restore(source: Annotated[Path, typer.Argument(help="A file that `backup` made.")], as_json: AsJson = False) -> None:
    """Bring a saved profile back into an empty TRADESKILL_HOME.

    Run it or the original, never both at a time. Its wallet uses fresh addresses from then on.
    """

    async def main() -> dict[str, Any]:
        from tradeskill.backup import restore as unpack
        from tradeskill.config import CONFIG_FILE, home_from_env, load_config

        home = home_from_env(os.environ)
        files = unpack(source, home)
        rails = {choice.plugin.partition("@")[0] for choice in load_config(home / CONFIG_FILE).wallets}
        return {"home": str(home), "files": files, "next": [command for rail, command in _LOOK_AGAIN.items() if rail in rails]}

    made = run(main, as_json=as_json)
    if as_json:
        show(made)
        return
    steps = [f"`{command}`" for command in (*made["next"], "tradeskill doctor")]
    say(f"{made['files']} files restored into {made['home']}; next: {', then '.join(steps)}")


identity = group("This profile's key, and the keys it trusts.", "tradeskill identity show", "tradeskill identity export > seller.key")


@identity.command("show")
@example("tradeskill identity show --json")
def identity_show(as_json: AsJson = False) -> None:
    """Show this profile's public key and the sellers it trusts."""

    async def main() -> dict[str, Any]:
        from tradeskill.journal import buying

        async with load_profile() as profile:
            pins = [{"seller": s, "label": label, "how": how, "pinned_at": at} for s, label, how, at in profile.journal.read(buying.pins)]
            return {"key": profile.identity.key, "network": profile.config.network, "pins": pins}

    found = run(main, as_json=as_json)
    if as_json:
        show(found)
        return
    typer.echo(found["key"])
    for pin in found["pins"]:
        typer.echo(f"  {pin['label']:48} {pin['seller']}  ({pin['how']})")


@identity.command("export")
@example("tradeskill identity export > seller.key")
def identity_export(as_json: AsJson = False) -> None:
    """Print the public key alone, for buyers to pin."""

    async def main() -> str:
        async with load_profile() as profile:
            return profile.identity.key

    key = run(main, as_json=as_json)
    show({"key": key}) if as_json else typer.echo(key)


@identity.command("pin")
@example("tradeskill identity pin SELLER_KEY --label alice", "tradeskill identity pin SELLER_KEY --label offer:OFFER_ID --replace")
def identity_pin(
    key: Annotated[str, typer.Argument(help="A seller's public key (64 hex), as the seller gave it to you.")],
    label: Annotated[str, typer.Option("--label", help="A name for it; the key of an offer is pinned as offer:OFFER_ID.")],
    replace: Annotated[bool, typer.Option("--replace", help="The label named another key until now, and this one is right.")] = False,
    as_json: AsJson = False,
) -> None:
    """Trust a seller's key that you learned from the seller.

    The label names this key from now on: an offer that shows another key is refused.
    """

    async def main() -> dict[str, Any]:
        import re

        from tradeskill.errors import UsageError
        from tradeskill.journal import buying

        if re.fullmatch(r"[0-9a-f]{64}", key, re.ASCII) is None:
            raise UsageError(f"key {key!r:.80} is not 64 lowercase hex digits: copy it from the seller's `tradeskill identity export`")
        if not label.strip() or not label.isprintable():
            raise UsageError(f"label {label!r:.80} is not a printable name: write one like alice or offer:OFFER_ID")
        async with load_profile() as profile:
            now = profile.world.now_ms()
            await profile.journal.write(lambda tx: buying.pin(tx, key, label, "out of band", now, replace=replace))
            return {"seller": key, "label": label}

    made = run(main, as_json=as_json)
    show(made) if as_json else say(f"pinned {made['label']} to {made['seller']}")
