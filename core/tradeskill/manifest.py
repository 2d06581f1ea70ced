"""What a plugin says of itself before anything of it runs: which API it was written for, whom it talks to, what it keeps, what it may spend."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from tradeskill.errors import PluginError

__all__ = ["API", "OLDEST_API", "Manifest", "api_of", "checked_manifest"]

API: Final = 1  # of hooks and contracts; grows by one where a plugin written for the one before would break
OLDEST_API: Final = 1  # what is still loaded


@dataclass(frozen=True)
class Manifest:
    """A plugin's own word, for whoever decides to trust it: nothing holds it to that. Each entry is a few words or a name; empty means none."""

    hosts: tuple[str, ...] = ()  # whom it talks to: host names, or where they are configured ("the nodes in `rpc`")
    secrets: tuple[str, ...] = ()  # what it keeps or is given that others must not have
    spends: tuple[str, ...] = ()  # what money it can move
    files: tuple[str, ...] = ()  # what it reads or writes beside its own folder in the profile


def api_of(declared: object) -> tuple[int, tuple[str, ...]]:
    """The API version that a module's `tradeskill_api` names, with what to say about it. PluginError for one that is not spoken here."""
    if declared is None:
        return API, (f"says not which API it was written for: write `tradeskill_api = {API}`; without it a later tradeskill will not load it",)
    if type(declared) is not int or declared < 1:
        raise PluginError(f"tradeskill_api is {declared!r:.40}: it takes the number of the API that it was written for; here it is {API}")
    if declared > API:
        raise PluginError(f"was written for the plugin API {declared}, and this tradeskill has {API}: update tradeskill")
    if declared < OLDEST_API:
        raise PluginError(f"was written for the plugin API {declared}, and this tradeskill takes {OLDEST_API} to {API}: update the plugin's package")
    return declared, (f"was written for the plugin API {declared}, which a later tradeskill will not load: the newest is {API}",) if declared < API else ()


def checked_manifest(value: Any) -> Manifest:
    """The same, with every entry a printable text. PluginError naming the field that is not."""
    if not isinstance(value, Manifest):
        raise PluginError(f"returned {value!r:.80}, not a Manifest")
    for field in fields(value):
        entries = getattr(value, field.name)
        if not isinstance(entries, tuple) or not all(isinstance(entry, str) and entry.strip() and entry.isprintable() for entry in entries):
            raise PluginError(f"its manifest's {field.name} is {entries!r:.80}: it takes a tuple of texts")
    return value
