"""What a profile writes for the market `relay`, checked; every error names market.<key>. Pure."""

from __future__ import annotations

import difflib
import ipaddress
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tradeskill.errors import ConfigError
from tradeskill.model import Json

__all__ = ["ALLOWANCES", "Settings", "UploadSettings", "is_loopback", "read_settings"]

# What a relay without our additions cannot give, which its user may do without. Each refusal names the word that allows it.
ALLOWANCES: Final[Mapping[str, str]] = {
    "no-fence": "sell where a lock belongs to the seller's key and no fence guards a delivery: the seller's own journal is the only guard",
    "small-results-only": "offer work without an upload folder: results beyond about half a kilobyte fail there, and their payment goes back",
    "unsigned-receipts": "deliver without a receipt, and show a result that came without one",
}
KEYS: Final[Mapping[str, str]] = {
    "url": "The relay's address: https, or http on this machine.",
    "insecure": "true: plain http to another machine too. What is sent is signed, but anybody on the way reads it.",
    "allow": "What this profile does without at a relay that has none of our additions: a list of words, see below.",
    "limits": "false: do not keep below the relay's rate limits (a relay of one's own, run without them).",
    "upload": "Where results go that the relay does not carry: {folder: PATH, url: BASE}; a web server of one's own serves the folder there.",
    "local_results": "Whether results may be fetched from private addresses. Default: only where the relay is on this machine.",
}


@dataclass(frozen=True)
class UploadSettings:
    folder: Path
    url: str


@dataclass(frozen=True)
class Settings:
    """`url`: the relay's base, without a slash at its end. `local_results`: results may lie on private addresses."""

    url: str
    allow: frozenset[str] = frozenset()
    limits: bool = True
    upload: UploadSettings | None = None
    local_results: bool = False


def read_settings(settings: Mapping[str, Json]) -> Settings:
    """ConfigError naming the key, the value and what it takes."""
    for name in settings:
        if name not in KEYS:
            near = difflib.get_close_matches(name, KEYS, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(KEYS)}"
            raise ConfigError(f"market.{name}: the relay has no such setting; {hint}")
    insecure = _flag(settings, "insecure", False)
    url = _base("market.url", settings.get("url"), insecure)
    return Settings(
        url=url,
        allow=_allow(settings.get("allow", [])),
        limits=_flag(settings, "limits", True),
        upload=_upload(settings.get("upload"), insecure),
        local_results=_flag(settings, "local_results", is_loopback(url)),
    )


def is_loopback(url: str) -> bool:
    """Whether a URL stays on this machine; by its letters, nothing is looked up."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _flag(settings: Mapping[str, Json], name: str, default: bool) -> bool:
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise ConfigError(f"market.{name} is {value!r}: it takes true or false")
    return value


def _base(key: str, value: Json, insecure: bool) -> str:
    example = "such as https://relay.example"
    if not isinstance(value, str) or not 1 <= len(value) <= 1024 or any(not "!" <= c <= "~" for c in value):
        raise ConfigError(f"{key} is {value!r}: give an address in ASCII, {example}")
    try:
        parts = urllib.parse.urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{key} is {value!r}: {error}; give an address {example}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"{key} is {value!r}: it takes http:// or https:// and a host, {example}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{key}: no name or password in it")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ConfigError(f"{key} is {value!r}: no query and no fragment in it")
    if parts.scheme == "http" and not insecure and not is_loopback(value):
        raise ConfigError(f"{key} is {value!r}: over plain http anybody on the way reads along; use https, or write market.insecure: true")
    return value.rstrip("/")


def _allow(value: Json) -> frozenset[str]:
    if not isinstance(value, list):
        raise ConfigError(f"market.allow is {value!r}: it takes a list of {', '.join(ALLOWANCES)}")
    for item in value:
        if item not in ALLOWANCES:
            raise ConfigError(f"market.allow: {item!r} is none of {', '.join(ALLOWANCES)}")
    return frozenset(str(item) for item in value)


def _upload(value: Json, insecure: bool) -> UploadSettings | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"folder", "url"}:
        raise ConfigError("market.upload takes a mapping of folder and url: {folder: /srv/results, url: https://results.example}")
    folder = value["folder"]
    if not isinstance(folder, str) or "\0" in folder or not Path(folder).expanduser().is_absolute():
        raise ConfigError(f"market.upload.folder is {folder!r}: give the whole path of a folder that a web server serves")
    url = _base("market.upload.url", value["url"], insecure)
    if len(url) > 256:
        raise ConfigError(f"market.upload.url is {len(url)} characters: 256 at most, so that a receipt fits behind it")
    return UploadSettings(Path(folder).expanduser(), url)
