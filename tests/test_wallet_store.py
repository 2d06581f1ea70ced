"""store: the wallet's two rules hold in the database itself, across processes, and a failing disk acknowledges nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tradeskill.errors import StorageError, UnavailableError
from tradeskill.money import MAX_RAW
from tradeskill_wallet import store as module
from tradeskill_wallet.primitives import ZERO, StateBlock
from tradeskill_wallet.store import BlockRow, IncomingRow, Store

ACCOUNT = bytes(range(32))


def block(previous: bytes = ZERO, balance: int = 10, account: bytes = ACCOUNT) -> StateBlock:
    return StateBlock(account, previous, bytes(32), balance, bytes(32), bytes(64))


def row(value: StateBlock, purpose: str, height: int = 1) -> BlockRow:
    return BlockRow(value, height, "pay", "send", 5, purpose, "signed")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "wallet.db")
    yield opened
    opened.close()


def test_a_second_living_block_on_one_previous_is_impossible(store: Store) -> None:
    with store.write() as rows:
        rows.add_block(row(block(), "pay:1"))
    with pytest.raises(sqlite3.IntegrityError), store.write() as rows:
        rows.add_block(row(block(balance=9), "pay:2"))
    assert store.rows.by_purpose("pay:2") is None


def test_a_second_living_block_for_one_purpose_is_impossible(store: Store) -> None:
    with store.write() as rows:
        rows.add_block(row(block(), "pay:1"))
    with pytest.raises(sqlite3.IntegrityError), store.write() as rows:
        rows.add_block(row(block(previous=block().hash), "pay:1", 2))


def test_a_dead_block_makes_room_and_never_comes_back_by_itself(store: Store) -> None:
    first, second = block(), block(balance=9)
    with store.write() as rows:
        rows.add_block(row(first, "pay:1"))
        rows.kill_branch(ACCOUNT, 1)
        rows.add_block(row(second, "pay:1"))
        rows.set_state(first.hash_hex, "confirmed")
    living, dead = store.rows.by_purpose("pay:1"), store.rows.block(first.hash_hex)
    assert living is not None
    assert dead is not None
    assert (living.block.hash, dead.state) == (second.hash, "dead")


def test_a_confirmed_block_is_never_killed_or_demoted(store: Store) -> None:
    with store.write() as rows:
        rows.add_block(replace(row(block(), "pay:1"), state="confirmed"))
        rows.kill_branch(ACCOUNT, 1)
        rows.set_state(block().hash_hex, "signed")
    assert store.rows.head(ACCOUNT) is not None
    assert store.rows.block(block().hash_hex) == replace(row(block(), "pay:1"), state="confirmed")


def test_work_is_fixed_once_stored_unless_exactly_that_work_was_refused(store: Store) -> None:
    name = block().hash_hex
    with store.write() as rows:
        rows.add_block(row(block(), "pay:1"))
        rows.set_work(name, "1" * 16)
        rows.set_work(name, "2" * 16)
        rows.set_work(name, "3" * 16, instead_of="9" * 16)
    found = store.rows.block(name)
    assert found is not None
    assert found.block.work == "1" * 16
    with store.write() as rows:
        rows.set_work(name, "4" * 16, instead_of="1" * 16)
    assert found.block.with_work("4" * 16) == getattr(store.rows.block(name), "block", None)


def test_every_field_of_a_block_and_the_largest_amount_come_back_exactly(store: Store) -> None:
    full = StateBlock(ACCOUNT, ZERO, b"\x07" * 32, MAX_RAW, b"\x09" * 32, b"\x05" * 64, "0123456789abcdef")
    wide = BlockRow(full, 3, "refund", "send", MAX_RAW, "p", "signed")
    payment = IncomingRow("AB" * 32, ACCOUNT, MAX_RAW, "nano_x", 2**53)
    with store.write() as rows:
        rows.add_block(wide)
        rows.add_incoming(payment)
        rows.add_incoming(replace(payment, received_at=1))  # the first sight stays
    assert store.rows.block(wide.block.hash_hex) == wide
    assert store.rows.incoming(ACCOUNT) == [payment]


def test_a_failed_transaction_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.write() as rows:
        rows.set_meta("a", "1")
        raise ZeroDivisionError
    assert store.rows.meta("a") is None
    with store.write() as rows:
        rows.set_meta("a", "2")
    assert store.rows.meta("a") == "2"


def test_what_was_written_is_seen_by_another_process(store: Store) -> None:
    with store.write() as rows:
        rows.add_account(64, ACCOUNT, 0, "reserved", "job")
    code = f"from pathlib import Path; from tradeskill_wallet.store import Store; print(Store(Path({str(store.path)!r})).rows.account_of_job('job').index)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "64\n"


def test_the_disk_settings_are_those_that_survive_a_power_cut(store: Store) -> None:
    for connection in (store._writer, store._reader):
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert store.path.stat().st_mode & 0o077 == 0


def test_a_full_disk_is_a_storage_error_and_nothing_is_acknowledged(store: Store) -> None:
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="nothing was acknowledged"), store.write() as rows:
        for number in range(1000):
            rows.set_meta(f"key-{number}", "x" * 1000)
    assert store.rows.meta("key-0") is None


def test_a_store_locked_for_too_long_is_unavailable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store._writer.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="locked"), store.write() as rows:
        rows.set_meta("a", "1")
    other.close()


@pytest.mark.parametrize("data", [b"not a database at all, but long enough to have a header" * 100])
def test_a_damaged_file_is_a_storage_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "wallet.db").write_bytes(data)
    with pytest.raises(StorageError, match=r"wallet\.db"):
        Store(tmp_path / "wallet.db")


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        Store(tmp_path / "file" / "wallet.db")


def test_no_statement_sums_money() -> None:
    statements = [value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)]
    assert len(statements) > 20
    assert not [s for s in statements if "sum(" in s.lower() or "total(" in s.lower()]
