"""A profile's home: made whole or not at all, opened lazily, bound to its network; and the keys it pins."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tradeskill.config import CONFIG_FILE, PluginChoice
from tradeskill.errors import ConfigError, NetworkMismatchError, NotFoundError, SecretError, StorageError, TradeskillError, UntrustedError
from tradeskill.journal import Database, buying
from tradeskill.money import Amount
from tradeskill.profile import IDENTITY_FILE, PUBLIC_FILE, Profile, create_profile
from tradeskill.world import World

A, B = "a" * 64, "b" * 64


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    base = {
        "network": "dev",
        "market": {"plugin": "embedded", "path": str(folder / "market.db")},
        "wallets": [{"plugin": "nano", "rpc": ["http://127.0.0.1:1"]}],
    }
    return {**base, **changes}


def made(folder: Path, **changes: Any) -> Path:
    create_profile(folder / "home", config(folder, **changes), changes.get("network", "dev"), "pw", World())
    return folder / "home"


def opened(home: Path, password: Callable[[], str] = lambda: "pw", **options: Any) -> Profile:
    return Profile.load(home, password, **options)


def never() -> str:
    raise AssertionError("the password was asked for")


def test_a_new_profile_holds_key_seed_and_configuration_that_only_its_owner_can_touch(tmp_path: Path) -> None:
    home = made(tmp_path)
    assert sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()) == [
        CONFIG_FILE,
        IDENTITY_FILE,
        PUBLIC_FILE,
        "wallets/nano/seed.json",
    ]
    assert home.stat().st_mode & 0o077 == 0
    assert [path.name for path in (home / CONFIG_FILE, home / IDENTITY_FILE, home / "wallets/nano/seed.json") if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"market": {"plugin": "no-such-market"}}, NotFoundError),
        ({"market": {"plugin": "nano"}}, NotFoundError),
        ({"wallets": [{"plugin": "no-such-wallet"}]}, NotFoundError),
        ({"wallets": [{"plugin": "nano", "rpc": "ftp://x"}]}, ConfigError),
        ({"colour": "red"}, ConfigError),
    ],
)
def test_a_profile_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path, changes: dict[str, Any], kind: type[TradeskillError]) -> None:
    with pytest.raises(kind):
        made(tmp_path, **changes)
    assert list(tmp_path.rglob("*")) == []


def test_a_folder_with_a_profile_is_refused_and_kept(tmp_path: Path) -> None:
    home = made(tmp_path)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="holds a profile already"):
        made(tmp_path)
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_a_folder_with_other_files_is_taken_and_they_stay_when_making_fails(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "notes.txt").write_text("mine")
    with pytest.raises(NotFoundError):
        made(tmp_path, wallets=[{"plugin": "no-such-wallet"}])
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["notes.txt"]
    made(tmp_path)
    assert (tmp_path / "home" / "notes.txt").read_text() == "mine"


def test_a_half_made_profile_is_named_and_never_written_over(tmp_path: Path) -> None:
    home = made(tmp_path)
    (home / CONFIG_FILE).unlink()
    key = (home / IDENTITY_FILE).read_bytes()
    with pytest.raises(ConfigError, match=r"identity\.json"):
        made(tmp_path)
    assert (home / IDENTITY_FILE).read_bytes() == key


def test_a_home_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file/home"):
        create_profile(tmp_path / "file" / "home", config(tmp_path), "dev", "pw", World())


def test_reading_needs_no_password_and_signing_asks_once(tmp_path: Path) -> None:
    home = made(tmp_path)
    asked: list[int] = []

    def password() -> str:
        asked.append(1)
        return "pw"

    profile = opened(home, password)
    assert len(profile.identity.key) == 64
    assert asked == []
    profile.identity.sign("countersign", {"x": "1"})
    profile.identity.sign("countersign", {"x": "2"})
    profile.identity.sign_bytes(b"GET")
    assert asked == [1]


def test_a_key_file_that_does_not_go_with_the_public_key_is_refused(tmp_path: Path) -> None:
    home = made(tmp_path)
    (home / PUBLIC_FILE).write_text(A + "\n")
    with pytest.raises(SecretError, match="another key"):
        opened(home).identity.sign("countersign", {})


@pytest.mark.parametrize("content", ["", "xyz\n", A.upper(), A + A, "\n" + A])
def test_a_damaged_public_key_is_refused(tmp_path: Path, content: str) -> None:
    home = made(tmp_path)
    (home / PUBLIC_FILE).write_text(content)
    with pytest.raises(SecretError, match=r"identity\.pub"):
        _ = opened(home).identity


def test_another_network_than_the_caller_means_stops(tmp_path: Path) -> None:
    with pytest.raises(NetworkMismatchError, match="'dev'"):
        opened(made(tmp_path), network="test")


def test_without_a_profile_the_way_to_make_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="tradeskill init"):
        opened(tmp_path / "nowhere")


def test_a_relative_path_of_a_plugin_starts_at_the_file_it_is_written_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = made(tmp_path)
    (tmp_path / "offers").mkdir()
    overlay = tmp_path / "offers" / "seller.yaml"
    overlay.write_text("network: dev\nmarket: {plugin: embedded, path: shared.db}\n")
    monkeypatch.chdir(home)

    async def open_market() -> None:
        async with opened(home, overlay=overlay) as profile:
            await profile.market()

    asyncio.run(open_market())
    assert (tmp_path / "offers" / "shared.db").exists()


def test_two_wallets_of_one_rail_are_refused(tmp_path: Path) -> None:
    home = made(tmp_path)

    async def open_wallets() -> None:
        async with opened(home) as profile:
            choice = profile.config.wallets[0]
            object.__setattr__(profile.config, "wallets", (choice, PluginChoice("nano@tradeskill", choice.settings)))
            await profile.wallets()

    with pytest.raises(ConfigError, match="two wallets serve the rail 'nano'"):
        asyncio.run(open_wallets())


@pytest.mark.parametrize(("network", "total"), [("dev", ()), ("test", (Amount(0, "raw"),))])
def test_on_real_networks_nothing_may_be_spent_until_a_cap_is_written(tmp_path: Path, network: Any, total: tuple[Amount, ...]) -> None:
    create_profile(tmp_path / "home", config(tmp_path, network=network), network, "pw", World())
    assert opened(tmp_path / "home").caps.in_total == total


# pinned keys


def journal() -> Database:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    return Database(lambda: connection, World(), "dev")


def test_a_label_names_one_key_until_the_owner_says_otherwise() -> None:
    db = journal()
    db.write_now(lambda tx: buying.pin(tx, A, "offer:1", "first use", 1))
    db.write_now(lambda tx: buying.pin(tx, A, "offer:1", "first use", 2))
    with pytest.raises(UntrustedError, match="--replace"):
        db.write_now(lambda tx: buying.pin(tx, B, "offer:1", "first use", 3))
    assert db.read(buying.pins) == [(A, "offer:1", "first use", 1)]
    db.write_now(lambda tx: buying.pin(tx, B, "offer:1", "out of band", 4, replace=True))
    assert db.read(buying.pins) == [(B, "offer:1", "out of band", 4)]
    with pytest.raises(UntrustedError):
        db.write_now(lambda tx: buying.pin(tx, A, "offer:1", "first use", 5))


def test_every_offer_of_a_known_seller_is_pinned_as_well() -> None:
    db = journal()
    db.write_now(lambda tx: buying.pin(tx, A, "offer:1", "first use", 1))
    db.write_now(lambda tx: buying.pin(tx, A, "offer:2", "first use", 2))
    with pytest.raises(UntrustedError, match="offer:2"):
        db.write_now(lambda tx: buying.pin(tx, B, "offer:2", "first use", 3))
    assert not db.read(lambda c: buying.check_pin(c, B))


def test_what_the_owner_pinned_is_not_overwritten_by_what_was_merely_seen() -> None:
    db = journal()
    db.write_now(lambda tx: buying.pin(tx, A, "offer:1", "out of band", 1))
    db.write_now(lambda tx: buying.pin(tx, A, "offer:1", "first use", 2))
    assert db.read(buying.pins) == [(A, "offer:1", "out of band", 1)]
