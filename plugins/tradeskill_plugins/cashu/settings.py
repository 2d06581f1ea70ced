"""The rail's entry in the configuration, checked key by key."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tradeskill.errors import ConfigError, InputError
from tradeskill.model import Json, Network
from tradeskill_plugins.cashu.nuts.mint_url import mint_url

__all__ = ["CashuSettings", "parse_settings"]

KEYS: Final = ("mints", "unit", "lightning", "locktime_margin_seconds", "longest_locktime_seconds", "max_token_bytes", "max_proofs", "timeout_seconds")
MAX_MINTS: Final = 16
DAY: Final = 86_400
PRETENDERS: Final = ("testnut", "nofees.")  # in a host's name: public mints whose Lightning is made up


@dataclass(frozen=True)
class CashuSettings:
    """What may be set, with what holds when it is not."""

    mints: tuple[str, ...]  # the only mints whose money is taken or spent, in order of preference; canonical URLs
    unit: str = "sat"
    lightning: bool = False  # a seller adds a bolt11 invoice of its first mint; a buyer may pay one by melting
    locktime_margin: int = DAY  # seconds after an invoice's expiry during which only the seller may take its token
    longest_locktime: int = 7 * DAY  # seconds after an invoice's expiry; a buyer locks its money up for no longer
    max_token_bytes: int = 16_384
    max_proofs: int = 64
    timeout: float = 20.0  # seconds for one request to a mint


def parse_settings(settings: Mapping[str, Json], network: Network) -> CashuSettings:
    """ConfigError naming the key on anything unknown or malformed."""
    unknown = [key for key in settings if key not in KEYS and key != "plugin"]
    if unknown:
        raise ConfigError(f"wallet cashu: unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
    listed = settings.get("mints")
    urls = [listed] if isinstance(listed, str) else listed
    if not isinstance(urls, list) or not 1 <= len(urls) <= MAX_MINTS:
        raise ConfigError(f'wallet cashu: key "mints" must be a list of 1 to {MAX_MINTS} URLs, like ["https://mint.example"]')
    mints = tuple(_mint(url, network) for url in urls)
    if len(set(mints)) != len(mints):
        raise ConfigError('wallet cashu: key "mints" names a mint twice: remove one')
    if settings.get("unit", "sat") != "sat":
        raise ConfigError(f'wallet cashu: key "unit" is {settings["unit"]!r}: only sat is known')
    lightning = settings.get("lightning", False)
    if not isinstance(lightning, bool):
        raise ConfigError(f'wallet cashu: key "lightning" is {lightning!r}: use true or false')
    margin = _count(settings, "locktime_margin_seconds", DAY, 600, 30 * DAY)
    return CashuSettings(
        mints=mints,
        lightning=lightning,
        locktime_margin=margin,
        longest_locktime=_count(settings, "longest_locktime_seconds", max(7 * DAY, margin), margin, 90 * DAY),
        max_token_bytes=_count(settings, "max_token_bytes", 16_384, 1024, 1_000_000),
        max_proofs=_count(settings, "max_proofs", 64, 8, 1000),
        timeout=float(_count(settings, "timeout_seconds", 20, 1, 600)),
    )


def _mint(value: Json, network: Network) -> str:
    try:
        url = mint_url(value if isinstance(value, str) else "")
    except InputError as error:
        raise ConfigError(f'wallet cashu: key "mints" has {value!r}: {error}; write it like "https://mint.example"') from error
    parts = urlsplit(url)
    host = parts.hostname or ""
    if network != "dev" and parts.scheme == "http" and not _here(host) and not host.endswith(".onion"):
        raise ConfigError(f'wallet cashu: key "mints" has {url}: on network {network} a mint is reached by https (or on this machine)')
    if network == "live" and any(word in host for word in PRETENDERS):
        raise ConfigError(f'wallet cashu: key "mints" has {url}: that mint\'s money is made up; use it on network test')
    return url


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _count(settings: Mapping[str, Json], key: str, default: int, least: int, most: int) -> int:
    value = settings.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f'wallet cashu: key "{key}" is {value!r}: it must be a whole number from {least} to {most}')
    return value
