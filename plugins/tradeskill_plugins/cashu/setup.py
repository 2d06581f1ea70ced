"""Adding mints, and a first wallet, to a profile: its configuration file and its secret, each only where it is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tradeskill.errors import ConfigError, SecretError, StorageError
from tradeskill_plugins.cashu.keys import SEED_FILE
from tradeskill_plugins.cashu.settings import parse_settings

if TYPE_CHECKING:
    from tradeskill.profile import Profile

__all__ = ["add_mints"]

NAME: Final = "cashu"


def add_mints(profile: Profile, urls: Sequence[str]) -> tuple[list[str], bool]:
    """Returns all mints of the wallet, and whether a secret was made. Repeating it changes nothing; interrupted, it continues.

    ConfigError, and nothing changed, for what is no mint's URL, and where the file was written by hand: then with the line to write. SecretError where a
    wallet's records are without their secret: a new one would not open them.
    """
    from tradeskill.config import CONFIG_FILE, load_config, write_config
    from tradeskill.strictyaml import dump_yaml, read_yaml

    path = profile.home / CONFIG_FILE
    mapping: dict[str, Any] = read_yaml(path)
    wallets: list[dict[str, Any]] = list(mapping.get("wallets") or [])
    place = next((number for number, each in enumerate(wallets) if str(each["plugin"]).partition("@")[0] == NAME), len(wallets))
    old: dict[str, Any] = wallets[place] if place < len(wallets) else {"plugin": NAME, "mints": []}
    listed: list[Any] = [old["mints"]] if isinstance(old.get("mints"), str) else list(old.get("mints") or [])
    network = profile.config.network
    known = set(parse_settings({**old, "mints": listed}, network).mints) if listed else set()
    given: list[Any] = list(dict.fromkeys(urls))
    fresh = [url for url in parse_settings({"mints": given}, network).mints if url not in known]
    entry: dict[str, Any] = {**old, "mints": [*listed, *fresh]}
    parse_settings(entry, network)
    home = profile.context("wallets", str(entry["plugin"])).home
    _check_secret(home)
    if fresh:
        changed = {**mapping, "wallets": [*wallets[:place], entry, *wallets[place + 1 :]]}
        try:
            untouched = path.read_text("utf-8") == dump_yaml(mapping)
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error
        if not untouched:  # comments and layout are their owner's
            todo = "change the wallet's entry" if listed else "add an entry"
            raise ConfigError(f"{path} was written by hand, so change it by hand: {todo} under `wallets` to `- {json.dumps(entry)}`, and repeat this command")
        write_config(path, changed)
    choice = next(choice for choice in load_config(path).wallets if choice.plugin.partition("@")[0] == NAME)
    made = not (home / SEED_FILE).exists()
    if made:
        profile.create_wallet(choice, profile.world.random_bytes(32))
    return [*listed, *fresh], made


def _check_secret(home: Path) -> None:
    if (home / "wallet.db").exists() and not (home / SEED_FILE).exists():
        raise SecretError(f"{home} has a wallet's records without their secret ({SEED_FILE}): bring it back from a backup, a new one would not open them")
