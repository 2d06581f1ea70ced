"""A profile saved while it works comes back elsewhere with its jobs, results and keys, never reuses an address; a bare seed finds the money again."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli_stage import Home, Stage, shout
from tradeskill.backup import back_up, restore
from tradeskill.errors import ConfigError, InputError, NotFoundError, StorageError, TradeskillError


def elsewhere(stage: Stage, home: Home, name: str) -> Home:
    """The same owner on another disk."""
    return Home(stage.folder / name, {**home.environment, "TRADESKILL_HOME": str(stage.folder / name)})


def test_a_seller_saved_while_it_sells_goes_on_elsewhere_on_fresh_addresses(stage: Stage) -> None:
    seller, buyer = stage.profile("moving"), stage.funded("buyer")
    config = stage.config("moving", [shout("moving")])
    wish = ("hire", "moving", "--yes", "--json", "--input")
    with seller.selling(config):
        first = buyer.run(*wish, '{"text": "first"}').ok().json
        saved = seller.json("backup", str(stage.folder / "moving.tar.gz"))
        assert saved["files"] >= 5
        after = buyer.run(*wish, '{"text": "after the backup"}').ok().json
    assert (stage.folder / "moving.tar.gz").stat().st_mode & 0o077 == 0

    again = elsewhere(stage, seller, "moved")
    assert again.json("restore", str(stage.folder / "moving.tar.gz"))["files"] == saved["files"]
    assert again.path.stat().st_mode & 0o077 == 0
    known = {job["job_id"]: job for job in again.json("jobs")["sold"]}
    assert set(known) == {first["job_id"]}
    assert known[first["job_id"]]["state"] == "delivered"
    assert again.json("identity", "export") == seller.json("identity", "export")
    out = stage.folder / "moved-out"
    again.run("job", first["job_id"], "--output", str(out)).ok()
    assert [path.read_text() for path in out.iterdir()] == ["FIRST\n"]

    with again.selling(config) as worker:
        then = buyer.run(*wish, '{"text": "from the new home"}').ok().json
        assert then["state"] == "received"
        worker.process.terminate()
        worker.ended()
    addresses = {job["invoices"][0]["address"] for home in (seller, again) for job in home.json("jobs", "--state", "delivered")["sold"]}
    assert len(addresses) == 3  # first, after the backup, from the new home: none was handed out twice
    assert after["payment_id"] != then["payment_id"]

    swept = again.json("wallet", "scan")["accounts"]
    assert {account["epoch"] for account in swept} > {0}
    again.json("wallet", "sweep")
    assert again.json("wallet", "balance")["available"] == "0.003 XNO"  # what the old home was paid after the backup is found as well


def test_a_bare_seed_finds_its_money_again_and_goes_on_in_a_new_range(stage: Stage) -> None:
    old, buyer = stage.profile("burned"), stage.funded("buyer")
    with old.selling(stage.config("burned", [shout("burned")])):
        buyer.json("hire", "burned", "--input", '{"text": "paid"}', "--yes")
    seed = stage.folder / "seed.txt"
    assert old.json("wallet", "backup", "--show-seed", "--to", str(seed)) == {"file": str(seed)}
    assert seed.stat().st_mode & 0o077 == 0
    old.run("wallet", "backup", "--show-seed", "--to", str(seed)).failed(10, "seed.txt", "new file")

    new = stage.profile("phoenix")
    mine = (new.path / "wallets/nano/seed.json").read_bytes()
    new.run("wallet", "restore", "--from", str(seed)).failed(7, "--set-aside")
    assert (new.path / "wallets/nano/seed.json").read_bytes() == mine
    found = new.json("wallet", "restore", "--from", str(seed), "--set-aside")
    assert found["address"] == old.json("wallet", "address")["address"]
    assert found["accounts_found"] >= 1
    assert (Path(found["set_aside"]) / "seed.json").read_bytes() == mine
    assert found["available"] == new.json("wallet", "balance")["available"] == "0.001 XNO"

    repeated = new.json("wallet", "restore", "--from", str(seed))
    assert (repeated["address"], repeated["set_aside"]) == (found["address"], None)
    with new.selling(stage.config("phoenix", [shout("phoenix")])):
        buyer.json("hire", "phoenix", "--input", '{"text": "anew"}', "--yes")
    addresses = [job["invoices"][0]["address"] for home in (old, new) for job in home.json("jobs")["sold"]]
    assert len(set(addresses)) == len(addresses) == 2


@pytest.mark.parametrize(("text", "words"), [("", "64 hex digits"), ("zz" * 32, "64 hex digits"), ("ab" * 31, "64 hex digits"), ("ａｂ" * 32, "plain text")])
def test_what_is_no_seed_is_refused_without_repeating_it(stage: Stage, text: str, words: str) -> None:
    home = stage.profile("phoenix-two")
    path = stage.folder / "no-seed.txt"
    path.write_text(text)
    said = home.run("wallet", "restore", "--from", str(path)).failed(7, words)
    assert text[:8] == "" or text[:8] not in said


# the file itself


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "wallets" / "nano").mkdir(parents=True)
    (home / "config.yaml").write_text("network: dev\n")
    (home / "wallets" / "nano" / "seed.json").write_text("encrypted")
    (home / "backends" / "process").mkdir(parents=True)
    (home / "backends" / "process" / "running").write_text("of this machine")
    with sqlite3.connect(home / "journal.db") as journal:
        journal.execute("PRAGMA journal_mode = WAL")
        journal.execute("CREATE TABLE t (x)")
        journal.execute("INSERT INTO t VALUES (1)")
    journal.close()
    return home


def test_a_database_in_use_is_saved_as_it_was_at_one_moment(profile: Path, tmp_path: Path) -> None:
    writer = sqlite3.connect(profile / "journal.db", isolation_level=None)
    try:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (2)")  # not committed: not saved
        assert back_up(profile, tmp_path / "saved") == 3
    finally:
        writer.close()
    assert restore(tmp_path / "saved", tmp_path / "again") == 3
    assert sorted(str(path.relative_to(tmp_path / "again")) for path in (tmp_path / "again").rglob("*") if path.is_file()) == [
        "config.yaml",
        "journal.db",
        "wallets/nano/seed.json",
    ]
    with sqlite3.connect(tmp_path / "again" / "journal.db") as journal:
        assert journal.execute("SELECT x FROM t").fetchall() == [(1,)]
    journal.close()
    assert [path for path in (tmp_path / "again").rglob("*") if path.stat().st_mode & 0o077] == []


def test_a_backup_inside_the_profile_does_not_hold_itself(profile: Path) -> None:
    assert back_up(profile, profile / "saved.tar.gz") == 3


def test_links_out_of_the_profile_are_not_followed(profile: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody else")
    (profile / "link").symlink_to(tmp_path / "secret")
    assert back_up(profile, tmp_path / "saved") == 3


@pytest.mark.parametrize("target", ["", "there"])
def test_no_file_is_ever_written_over(profile: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "there").write_text("x")
    with pytest.raises((ConfigError, StorageError)):
        back_up(profile, tmp_path / target if target else profile)
    assert (tmp_path / "there").read_text() == "x"


def test_a_restore_into_a_used_folder_changes_nothing(profile: Path, tmp_path: Path) -> None:
    back_up(profile, tmp_path / "saved")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        restore(tmp_path / "saved", tmp_path / "used")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["mine"]


def test_without_a_profile_there_is_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        back_up(tmp_path, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def packed(*members: tuple[str, bytes, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data)
            info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


CONFIG = ("config.yaml", tarfile.REGTYPE, b"network: dev\n")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", InputError),
        (b"no archive", InputError),
        (packed(("journal.db", tarfile.REGTYPE, b"x")), InputError),
        (packed(CONFIG, ("../escape", tarfile.REGTYPE, b"x")), InputError),
        (packed(CONFIG, ("/tmp/escape-of-a-test", tarfile.REGTYPE, b"x")), InputError),
        (packed(CONFIG, ("link", tarfile.SYMTYPE, b"")), InputError),
        (packed(CONFIG, ("hard", tarfile.LNKTYPE, b"")), InputError),
        (packed(CONFIG, CONFIG), InputError),
        (packed(CONFIG)[:-20], InputError),
        (None, NotFoundError),
    ],
    ids=["empty", "no archive", "no config", "outside", "absolute", "symlink", "hardlink", "doubled", "cut", "absent"],
)
def test_a_damaged_or_hostile_backup_restores_nothing(tmp_path: Path, content: bytes | None, kind: type[TradeskillError]) -> None:
    if content is not None:
        (tmp_path / "saved").write_bytes(content)
    with pytest.raises(kind):
        restore(tmp_path / "saved", tmp_path / "sub" / "home")
    assert not (tmp_path / "sub").exists()
    assert not Path("/tmp/escape-of-a-test").exists()


def test_a_disk_that_fills_half_way_leaves_no_half_profile(profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    back_up(profile, tmp_path / "saved")
    real: Callable[[int], None] = os.fsync
    left = [1]

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space"):
        restore(tmp_path / "saved", tmp_path / "home2")
    assert not (tmp_path / "home2").exists()


def test_saving_says_what_was_saved_and_where(profile: Path, tmp_path: Path) -> None:
    home = Home(profile, {**os.environ, "TRADESKILL_HOME": str(profile)})
    assert json.loads(home.run("backup", str(tmp_path / "s"), "--json").ok().out) == {"file": str(tmp_path / "s"), "files": 3}
    assert "keep the password elsewhere" in home.run("backup", str(tmp_path / "t")).ok().err
