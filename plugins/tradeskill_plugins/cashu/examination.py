"""What `tradeskill doctor` says of the wallet's mints: are they there, can they do what this rail rests on, what they charge, what lies there at risk."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from tradeskill.errors import TradeskillError, UnavailableError
from tradeskill.world import World
from tradeskill_plugins.cashu.lifetimes import best, ending
from tradeskill_plugins.cashu.mints import NEEDED, UNIT, Mints
from tradeskill_plugins.cashu.nuts.model import Keyset, MintInfo
from tradeskill_plugins.cashu.settings import CashuSettings
from tradeskill_plugins.cashu.store import Rows, Store

__all__ = ["examined"]

PATIENCE: Final = 10.0  # seconds for one mint; all are asked side by side
LIGHTNING: Final = {4: "no Lightning in (NUT-04)", 5: "no Lightning out (NUT-05)"}


async def examined(store: Store, mints: Mints, settings: CashuSettings, world: World) -> str:
    """One line for all mints; needs no password. UnavailableError with the same line when one of them cannot be used, or money is at risk there."""
    patience = min(PATIENCE, settings.timeout)
    found = await asyncio.gather(*(_looked(mint, store, mints, settings, world, patience) for mint in settings.mints))
    doubts = store.read(lambda rows: len(rows.in_doubt()))
    parts = [text for _, text in found] + ([f"{doubts} requests without an answer: see `tradeskill cashu doubts`"] if doubts else [])
    if not all(ok for ok, _ in found):
        raise UnavailableError("; ".join(parts))
    return "; ".join(parts)


async def _looked(mint: str, store: Store, mints: Mints, settings: CashuSettings, world: World, patience: float) -> tuple[bool, str]:
    held = store.read(lambda rows: rows.sums()).get((mint, "held"), 0)
    try:
        async with asyncio.timeout(patience):
            info = await mints.client(mint).info()
            await mints.refresh(mint)
    except (TradeskillError, TimeoutError) as error:
        trouble = str(error) if isinstance(error, TradeskillError) else f"mint {mint} did not answer within {patience:.0f} s"
        stays = f"the {held} {UNIT} held there stay as they are; " if held else ""
        return False, f"{trouble}: {stays}check its URL in `mints`, wait for its operator, or take it out"
    lacking = [f"NUT-{number:02} ({what})" for number, what in NEEDED.items() if number not in info.nuts]
    if lacking:
        return False, f"{mint} cannot be used: it lacks {', '.join(lacking)}; name another in `mints`"
    keysets = {each.id: each for each in store.read(lambda rows: rows.keysets(mint)).values() if each.unit == UNIT}
    new = best(keysets.values(), world.now_ms())
    ok, notes = _at_risk(mint, store)
    if new is None:
        return False, ", ".join([f"{mint} has no active keyset in {UNIT}: ask its operator, or name another in `mints`", *notes])
    said = ", ".join([_named(info), _fee(new), *_lightning(info, settings, mint), _keyset(new, keysets, world), *notes])
    return ok, f"{mint} is {said}"


def _named(info: MintInfo) -> str:
    return f"{info.name[:60] or 'a mint without a name'} ({info.version[:60] or 'it names no version'})"


def _fee(keyset: Keyset) -> str:
    return f"a fee of {keyset.fee_ppk / 1000:g} {UNIT} for each proof spent" if keyset.fee_ppk else "no fee"


def _lightning(info: MintInfo, settings: CashuSettings, mint: str) -> list[str]:
    lacking = [text for number, text in LIGHTNING.items() if number not in info.nuts]
    asked = settings.lightning and mint == settings.mints[0] and 4 not in info.nuts
    return [*lacking, *(["so quotes go without a Lightning invoice although `lightning` is true"] if asked else [])]


def _keyset(new: Keyset, keysets: Mapping[str, Keyset], world: World) -> str:
    ends = ""
    if new.final_expiry and ending(new.active, new.final_expiry, world.now_ms()):
        ends = f", which expires on {datetime.fromtimestamp(new.final_expiry, UTC):%Y-%m-%d} with no other to follow yet"
    return f"keyset {new.id[:16]} of {len(keysets)}{ends}"


def _at_risk(mint: str, store: Store) -> tuple[bool, list[str]]:
    def look(rows: Rows) -> tuple[int, int, bool]:
        return rows.dropped(mint), rows.expired(mint), rows.ends_soon(mint)

    dropped, expired, soon = store.read(look)
    notes = [f"{dropped} {UNIT} lie in keysets that it does not list any more: ask its operator"] if dropped else []
    notes += [f"{expired} {UNIT} lie in keysets that have expired: `tradeskill cashu receive` offers them once more"] if expired else []
    if soon and not expired:
        notes.append("money lies in a keyset that ends: it moves by itself, or by `tradeskill cashu receive`")
    return not (dropped or expired), notes
