"""The plugin `cashu`: ecash of mints that the owner lists, as a payment rail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tradeskill.contracts import Capability, PluginContext, Wallet
from tradeskill.errors import ConfigError
from tradeskill.hookspecs import hookimpl
from tradeskill.manifest import API, Manifest
from tradeskill.model import Json

if TYPE_CHECKING:
    from tradeskill_plugins.cashu.settings import CashuSettings

__all__ = ["tradeskill_capabilities", "tradeskill_create_wallet", "tradeskill_manifest", "tradeskill_open_wallet"]

tradeskill_api = API


@hookimpl
def tradeskill_manifest() -> Manifest:
    return Manifest(
        hosts=("the mints in `mints`",),
        secrets=("the wallet's secret, in a file encrypted with the profile's password", "proofs (bearer money), encrypted with a key from that secret"),
        spends=("ecash that the wallet holds at its mints",),
    )


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    return (
        Capability("push_to_address", False, "a token is handed over with its submission; only refunds are left for an address, at the mint"),
        Capability("splits", True, "several tokens for one invoice add up"),
        Capability("final_after_seconds", 1, "typically; a token is final once the seller has swapped it at the mint, which happens before any work"),
        Capability("fees", True, "a mint may keep a fee for each proof that is spent; the payer adds what the payee will be charged"),
        Capability("refunds", True, "locked to the buyer's signed address and left at the mint, where its wallet finds them"),
        Capability("custody", "mint", "the mint holds the bitcoin that its tokens stand for: keep no more there than you would hand it"),
        Capability("lightning", True, "a seller may add a Lightning invoice of its mint (NUT-04), a buyer may pay one through its own (NUT-05)"),
    )


@hookimpl
def tradeskill_open_wallet(settings: Mapping[str, Json], context: PluginContext) -> Wallet:
    wallet_settings = _settings(settings, context)
    from tradeskill_plugins.cashu.wallet import CashuWallet

    return CashuWallet(wallet_settings, context)


@hookimpl
def tradeskill_create_wallet(settings: Mapping[str, Json], context: PluginContext, secret: bytes) -> None:
    _settings(settings, context)
    from tradeskill_plugins.cashu.keys import SEED_FILE, create_seed

    create_seed(context.home / SEED_FILE, context.network, context.password(), context.world.random_bytes, secret)


def _settings(settings: Mapping[str, Json], context: PluginContext) -> CashuSettings:
    try:
        from tradeskill_plugins.cashu.settings import parse_settings
    except ImportError as error:
        raise ConfigError(f"wallet cashu needs more packages ({error.name}): install tradeskill[cashu]") from error
    return parse_settings(settings, context.network)
