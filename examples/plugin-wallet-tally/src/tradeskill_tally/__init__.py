"""The plugin `tally`: a payment rail among people who share a file. What stands here is read at every listing, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tradeskill.contracts import Capability, PluginContext, Wallet
from tradeskill.errors import ConfigError
from tradeskill.hookspecs import hookimpl
from tradeskill.manifest import Manifest
from tradeskill.model import Json

tradeskill_api = 1


@hookimpl
def tradeskill_manifest() -> Manifest:
    return Manifest(spends=("what the wallet holds on the tally",), files=("the tally's file, `path`",))


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    return (
        Capability("push_to_address", True, "the payer writes down a transfer to a fresh address"),
        Capability("splits", True, "several transfers to one address add up"),
        Capability("fees", False, "nobody is paid for a line in a file"),
    )


@hookimpl
def tradeskill_open_wallet(settings: Mapping[str, Json], context: PluginContext) -> Wallet:
    """`path`: the tally's file, required. `settles_after_ms`: how long a transfer stands there before it is final, 0 by default."""
    from tradeskill_tally.ledger import Ledger
    from tradeskill_tally.wallet import TallyWallet

    for key in settings:
        if key not in ("path", "settles_after_ms"):
            raise ConfigError(f"wallet {context.name}: unknown key {key!r}; known: path, settles_after_ms")
    path, settles = settings.get("path"), settings.get("settles_after_ms", 0)
    if not isinstance(path, str) or not path:
        raise ConfigError(f"wallet {context.name}: path {path!r} is not the path of a file")
    if type(settles) is not int or not 0 <= settles <= 86_400_000:
        raise ConfigError(f"wallet {context.name}: settles_after_ms {settles!r} is not a number from 0 to 86400000")
    return TallyWallet(Ledger(Path(path).expanduser(), context.network, context.world, settles), context)
