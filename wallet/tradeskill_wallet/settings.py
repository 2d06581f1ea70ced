"""The rail's entry in the configuration, checked key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from tradeskill.errors import AmountError, ConfigError, UsageError
from tradeskill.model import Json
from tradeskill.money import parse_amount
from tradeskill_wallet.keys import MAINS
from tradeskill_wallet.primitives import decode_address

__all__ = ["NanoSettings", "parse_settings"]

KEYS: Final = ("rpc", "ws", "work", "representative", "accounts", "confirmations_from", "two_node_threshold")


@dataclass(frozen=True)
class NanoSettings:
    """What may be set, with what holds when it is not."""

    rpc: tuple[str, ...]  # URLs of nodes, in order of preference
    ws: str | None = None  # websocket URL for hints; without it polling alone finds payments
    work: Literal["local", "node"] = "local"
    representative: bytes | None = None  # public key; without it accounts keep theirs, and new ones represent themselves
    accounts: int = 1  # spending accounts: one confirms about 8 payments a second
    confirmations_from: int = 1  # how many nodes must call a payment final when the invoice is above ...
    two_node_threshold: int | None = None  # ... this many raw; None: one node always does


def parse_settings(settings: Mapping[str, Json]) -> NanoSettings:
    """ConfigError naming the key on anything unknown or malformed."""
    unknown = [key for key in settings if key not in KEYS and key != "plugin"]
    if unknown:
        raise ConfigError(f"wallet nano: unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
    rpc = settings.get("rpc")
    urls = [rpc] if isinstance(rpc, str) else rpc
    if not isinstance(urls, list) or not urls:
        raise ConfigError('wallet nano: key "rpc" must be a URL or a list of URLs, like "http://127.0.0.1:7076"')
    nodes = tuple(_url("rpc", url, ("http", "https")) for url in urls)
    if len(set(nodes)) != len(nodes):
        raise ConfigError('wallet nano: key "rpc" names a node twice: two answers of one node are one answer')
    ws = settings.get("ws")
    work = settings.get("work", "local")
    if work != "local" and work != "node":
        raise ConfigError(f'wallet nano: key "work" is {work!r}: use local or node')
    needed = _count("confirmations_from", settings.get("confirmations_from", 1), len(nodes), "as many as there are nodes in rpc")
    threshold = settings.get("two_node_threshold")
    if needed > 1 and threshold is None:
        raise ConfigError('wallet nano: key "two_node_threshold" is missing: from which amount must several nodes agree, like "100 XNO"?')
    return NanoSettings(
        rpc=nodes,
        ws=None if ws is None else _url("ws", ws, ("ws", "wss")),
        work="node" if work == "node" else "local",
        representative=_representative(settings.get("representative")),
        accounts=_count("accounts", settings.get("accounts", 1), MAINS, "the number of main accounts of a seed"),
        confirmations_from=needed,
        two_node_threshold=None if threshold is None else _raw(threshold),
    )


def _url(key: str, value: Json, schemes: tuple[str, str]) -> str:
    example = f'"{schemes[0]}://127.0.0.1:7076"'
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        good = parts is not None and parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or not isinstance(value, str):
        raise ConfigError(f'wallet nano: key "{key}" has {value!r}: it must be a {schemes[0]} or {schemes[1]} URL, like {example}')
    return value


def _count(key: str, value: Json, most: int, why: str) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigError(f'wallet nano: key "{key}" is {value!r}: it must be 1 to {most} ({why})')
    return value


def _representative(value: Json) -> bytes | None:
    if value is None:
        return None
    try:
        return decode_address(value if isinstance(value, str) else repr(value))
    except UsageError as error:
        raise ConfigError(f'wallet nano: key "representative": {error}') from error


def _raw(value: Json) -> int:
    try:
        amount = parse_amount(value)
    except AmountError as error:
        raise ConfigError(f'wallet nano: key "two_node_threshold": {error}') from error
    if amount.unit != "raw":
        raise ConfigError(f'wallet nano: key "two_node_threshold" is {value!r}: write it in XNO or raw')
    return amount.value
