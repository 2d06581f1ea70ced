"""What `tradeskill doctor` looks at, each check with its finding and the way out."""

from __future__ import annotations

import asyncio
import platform
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tradeskill.contracts import Examinable
from tradeskill.errors import PluginError, TradeskillError, UnavailableError
from tradeskill.guard import guarded
from tradeskill.isolation import level_of
from tradeskill.journal.troubles import troubles
from tradeskill.profile import IDENTITY_FILE, JOURNAL_FILE, Profile

__all__ = ["examine"]

_HOUR_MS, _WEEK_MS = 3_600_000, 7 * 86_400_000
_PATIENCE = 30.0  # seconds for a backend to say what it can enforce, and for a wallet to ask those who keep its money


async def examine(load: Callable[[], Profile]) -> list[dict[str, Any]]:
    """All checks in order; one that fails does not stop the others."""
    found: list[dict[str, Any]] = [_entry("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    try:
        profile = load()
    except TradeskillError as error:
        return [*found, _entry("profile", False, str(error))]
    async with profile:
        found.append(_entry("profile", True, f"{profile.home}, network {profile.config.network}"))
        found.append(_rights(profile))
        found.append(await _check("journal", lambda: _journal(profile)))
        found.append(await _check("identity", lambda: _identity(profile)))
        found.append(await _check("market", lambda: _market(profile)))
        if found[-1]["ok"] and isinstance(market := await profile.market(), Examinable):
            found.append(await _check(profile.config.market.plugin.partition("@")[0], market.examine))
        found += await _wallets(profile)
        found.append(await _check("offers", lambda: _offers(profile)))
        found += await _isolation(profile)
        found.append(await _check("plugins", lambda: _troubles(profile)))
        found.append(_caps(profile))
        found.append(await _check("policy", lambda: _policy(profile)))
    return found


def _entry(name: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"check": name, "ok": ok, "detail": detail}


async def _check(name: str, look: Callable[[], Any]) -> dict[str, Any]:
    try:
        return _entry(name, True, await look())
    except TradeskillError as error:
        return _entry(name, False, str(error))


def _rights(profile: Profile) -> dict[str, Any]:
    open_files = [
        path.name for path in (profile.home / IDENTITY_FILE, profile.home / JOURNAL_FILE) if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if stat.S_IMODE(profile.home.stat().st_mode) & 0o022:
        open_files.append(str(profile.home))
    return _entry("rights", not open_files, f"others can touch {', '.join(open_files)}: chmod go-rwx them" if open_files else "only you can read the secrets")


async def _journal(profile: Profile) -> str:
    bought, sold = profile.journal.read(lambda c: (_count(c, "purchases"), _count(c, "fulfilments")))
    return f"{bought} bought, {sold} sold"


def _count(connection: Any, table: str) -> int:
    return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608  # two fixed names


async def _identity(profile: Profile) -> str:
    profile.identity.sign("countersign", {"check": "doctor"})
    return f"{profile.identity.key} (the password opens it)"


async def _market(profile: Profile) -> str:
    offers = await (await profile.market()).search(limit=100)
    return f"{profile.config.market.plugin} answers; {len(offers)}{'+' if len(offers) == 100 else ''} offers"


async def _wallets(profile: Profile) -> list[dict[str, Any]]:
    """What each holds; and what one that has `examine` says of those who keep its money, which is asked also where its own books cannot be read."""
    try:
        wallets = await profile.wallets()
    except TradeskillError as error:
        return [_entry("wallets", False, str(error))]
    parts, trouble = [], False
    for rail, wallet in wallets.items():
        try:
            balance = await wallet.balance()
        except TradeskillError as error:
            trouble = True
            parts.append(f"{rail}: {error}")
        else:
            parts.append(f"{rail}: {balance.available} available, {balance.incoming} incoming")
    found = [_entry("wallets", not trouble, "; ".join(parts) or "none configured: this profile can only look")]
    for rail, wallet in wallets.items():
        if isinstance(wallet, Examinable):
            found.append(await _check(rail, partial(_in_time, wallet)))
    return found


async def _in_time(examined: Examinable) -> str:
    """UnavailableError once it takes too long, and for whatever a stranger's plugin raises."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return str(await examined.examine())
    except TradeskillError:
        raise
    except Exception as error:  # a stranger's plugin; whatever it raises is a finding
        raise UnavailableError(f"{type(error).__name__}: {error or f'said nothing within {_PATIENCE:.0f} s'}") from error


async def _offers(profile: Profile) -> str:
    backends = await profile.backends()
    return f"{len(profile.config.offers)} configured" + (f", backends {', '.join(backends)}" if backends else "")


async def _isolation(profile: Profile) -> list[dict[str, Any]]:
    """What each backend that is installed can enforce on this machine. Only one that an offer uses can be a fault."""
    used = {offer.backend for offer in profile.config.offers if offer.run}
    found = []
    for report in profile.plugins.report():
        if "backend" not in report.kinds:
            continue
        name = report.name if report.name in used else next((given for given in used if given == f"{report.name}@{report.package}"), "")
        try:
            async with asyncio.timeout(_PATIENCE):
                says = await _enforces(profile, name or f"{report.name}@{report.package}")
        except Exception as error:  # noqa: BLE001  # a stranger's plugin; whatever it raises is a finding
            says = str(error) if isinstance(error, TradeskillError) else f"{type(error).__name__}: {error}"
            found.append(_entry(report.name, not name, says if name else f"not used, and not to be had here: {says}"))
        else:
            found.append(_entry(report.name, True, says if name else f"not used; {says}"))
    return found


async def _troubles(profile: Profile) -> str:
    """What other packages' plugins did to jobs: within the last hour it is a fault, for a week it is told."""
    now, found = profile.world.now_ms(), profile.journal.read(troubles)
    recent = [each for each in found if now - each.last < _WEEK_MS]
    told = [f"{each.said} ({each.times} times from {_clock(each.since)} to {_clock(each.last)})" for each in recent]
    if any(now - each.last < _HOUR_MS for each in found):
        raise PluginError(f"{'; '.join(told)}; its jobs wait, or are in `tradeskill review list`")
    return f"none in trouble now; {'; '.join(told)}" if told else "none was in trouble"


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M} UTC"


async def _enforces(profile: Profile, name: str) -> str:
    plugin = profile.plugins.require(name, "backend")
    backend = guarded(plugin, plugin.open_backend(profile.config.backends.get(name, {}), profile.context("backends", name)), "Backend")
    if isinstance(backend, Examinable):
        return await backend.examine()
    return f"isolation {level_of(plugin.capabilities)}, by its own word"


async def _policy(profile: Profile) -> str:
    from tradeskill.policy.gate import check_not_frozen, standing

    guard = profile.guard()
    profile.journal.read(check_not_frozen)
    obeyed = profile.journal.read(lambda c: standing(c, guard.file))[0]
    return "none: the caps of config.yaml hold alone" if obeyed is None else "policy.yaml is as the owner confirmed it, or tighter"


def _caps(profile: Profile) -> dict[str, Any]:
    caps = profile.caps
    return _entry("spending", True, f"total cap {caps.in_total or 'none'}, cap per payment {caps.per_payment or 'none'}")
