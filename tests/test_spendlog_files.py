"""The spend log outside the journal: CSV that a spreadsheet takes harmlessly, JSON whose every byte counts, and the commands over both."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sqlite3
import stat
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli_stage import Home
from tradeskill import policy
from tradeskill.errors import InputError, NotFoundError, StorageError, TradeskillError, UntrustedError
from tradeskill.faces.spendlogs import verify_file, whole_file, write_csv, write_json
from tradeskill.journal import Database, spendlog
from tradeskill.money import Amount
from tradeskill.policy import Guard, Intended
from tradeskill.signing import Identity
from tradeskill.sqlite import connector
from tradeskill.world import World

OWNER = Identity(b"o" * 32)
DAY = 86_400_000


def spent(tx: sqlite3.Connection, name: str, at: int, value: int = 10**27, unit: str = "raw", seller: str = "seller", job: str = "") -> None:
    policy.reserve(tx, Intended(name, Amount(value, unit), seller=seller, offer="offer", job=job), Guard(), (), at)
    policy.paid(tx, name, at + 1)
    policy.commit(tx, name, at + 2)


def a_day(tx: sqlite3.Connection) -> None:
    spent(tx, "a", DAY)
    spent(tx, "b", 2 * DAY, 21, "sat")
    policy.release(tx, "b", 3 * DAY)
    policy.reserve(tx, Intended("c", Amount(5, "raw"), seller='=HYPERLINK("http://evil/")', job="+1+cmd|' /C calc'!A0"), Guard(), (), 4 * DAY)


def logged(*more: str) -> list[spendlog.Entry]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    Database(lambda: connection, World(), "dev")
    connection.execute("BEGIN IMMEDIATE")
    a_day(connection)
    for number, text in enumerate(more):
        spent(connection, text, (10 + number) * DAY, seller=text, job=text)
    found = [*spendlog.entries(connection)]
    connection.close()
    return found


def exported(entries: list[spendlog.Entry]) -> bytes:
    out = io.BytesIO()
    write_json(entries, out, OWNER, "dev", 5 * DAY)
    return out.getvalue()


def verified(tmp_path: Path, data: bytes, key: str = "") -> int:
    (tmp_path / "log.json").write_bytes(data)
    return verify_file(tmp_path / "log.json", key)[0].count


# CSV


def test_the_csv_has_every_entry_with_exact_digits_and_a_decimal(tmp_path: Path) -> None:
    out = io.StringIO(newline="")
    entries = logged()
    assert write_csv(entries, out) == len(entries) == 8
    text = out.getvalue()
    assert text.count("\r\n") == text.count("\n") == 9
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(r["seq"], r["time"], r["event"], r["amount"], r["unit"], r["decimal"], r["decimal_unit"]) for r in rows[:4]] == [
        ("1", "1970-01-02T00:00:00Z", "reserved", str(10**27), "raw", "0.001", "XNO"),
        ("2", "1970-01-02T00:00:00Z", "paid", str(10**27), "raw", "0.001", "XNO"),
        ("3", "1970-01-02T00:00:00Z", "committed", str(10**27), "raw", "0.001", "XNO"),
        ("4", "1970-01-03T00:00:00Z", "reserved", "21", "sat", "21", "sat"),
    ]
    assert [row["hash"] for row in rows] == [entry.hash for entry in entries]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", '=cmd|"/C calc"!A0', '",=1+1,"', 'a"b', "a,b", "a\r\nb"])
def test_a_strangers_text_is_a_text_in_every_cell(text: str) -> None:
    out = io.StringIO(newline="")
    write_csv(logged(text), out)
    rows = list(csv.reader(io.StringIO(out.getvalue(), newline=""), strict=True))
    assert {len(row) for row in rows} == {17}
    cells = [cell for row in rows[1:] for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))] == []
    assert cells.count(text) + cells.count(f"'{text}") == 9  # spend, seller and job of three entries


def test_a_time_or_an_amount_that_cannot_be_is_shown_as_it_stands() -> None:
    out = io.StringIO(newline="")
    write_csv([replace(logged()[0], at=10**18, amount="1e9")], out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    assert (row["time"], row["amount"], row["decimal"], row["decimal_unit"]) == (str(10**18), "1e9", "1e9", "raw")


# JSON


def test_the_json_is_one_value_and_verifies_by_the_owners_key(tmp_path: Path) -> None:
    entries = logged("日本 \u2028 \x00 \x1f \" \\ '")
    data = exported(entries)
    value = json.loads(data)
    assert [entry["hash"] for entry in value["entries"]] == [entry.hash for entry in entries]
    assert value["head"]["entries"] == str(len(entries))
    (tmp_path / "log.json").write_bytes(data)
    replayed, head = verify_file(tmp_path / "log.json", OWNER.key)
    assert (replayed.count, replayed.head, head.network, head.at) == (len(entries), entries[-1].hash, "dev", 5 * DAY)
    assert replayed.totals == {"reserved:raw": 5, "spent:raw": 2 * 10**27, "reserved:sat": 0, "spent:sat": 0}
    assert verified(tmp_path, exported([])) == 0
    with pytest.raises(UntrustedError, match="not by 00"):
        verified(tmp_path, data, "00" * 32)


def test_any_single_changed_byte_of_the_json_is_found(tmp_path: Path) -> None:
    data = exported(logged()[:1])
    assert verified(tmp_path, data) == 1
    stood = []
    for place in range(len(data)):
        for new in {data[place] ^ 0x20, (data[place] + 1) % 256, ord(" ")} - {data[place]}:
            with suppress(TradeskillError):
                verified(tmp_path, data[:place] + bytes([new]) + data[place + 1 :])
                stood.append((place, new))
    assert stood == []


def test_the_first_entry_that_does_not_hold_is_named(tmp_path: Path) -> None:
    entries, lines = logged(), exported(logged()).splitlines(keepends=True)
    for broken, words in (
        ([*lines[:3], lines[3].replace(b'"seller":"seller"', b'"seller":"sellex"'), *lines[4:]], "entry 3 of the spend log was changed"),
        ([*lines[:3], *lines[4:]], "entry 3 of the spend log is missing: number 4 follows 2"),
        ([*lines[:3], lines[4], lines[3], *lines[5:]], "entry 3 of the spend log is missing"),
        ([*lines[:3], lines[3].replace(b",", b", ", 1), *lines[4:]], "entry 3 of the spend log is not spelled"),
        ([*lines[:3], lines[3].replace(b",\n", b"\n"), *lines[4:]], "entry 4 of the spend log is not spelled"),
        ([*lines[:3], b'{"seq":"3"},\n', *lines[4:]], "entry 3 of the spend log does not have the fields"),
        ([*lines[:3], b"[" * 70_000], "entry 3 of the spend log is n"),
        ([*lines[:3], lines[3].replace(b'"at":"', b'"at":"0'), *lines[4:]], "entry 3 of the spend log: "),
        (lines[:3], "breaks off after entry 2"),
        (lines[:-1], "breaks off after entry 8"),
        ([*lines[:7], lines[7].replace(b",\n", b"\n"), lines[-1]], "the signed head speaks of 8 entries"),
        ([*lines, b" "], "something follows it"),
        ([*lines[:-1], lines[-1].replace(b'"network":"dev"', b'"network":"live"')], "does not verify"),
        ([*lines[:-1], lines[-1][:-2]], "the head of the spend log breaks off"),
    ):
        with pytest.raises(UntrustedError) as refused:
            verified(tmp_path, b"".join(broken))
        assert words in str(refused.value)
        assert "log.json: " in str(refused.value)
    with pytest.raises(UntrustedError, match="entry 2 of the spend log was changed"):
        verified(tmp_path, exported([entries[0], replace(entries[1], amount="1"), *entries[2:]]))
    with pytest.raises(InputError, match="not a spend log"):
        verified(tmp_path, json.dumps(json.loads(b"".join(lines))).encode())
    with pytest.raises(NotFoundError, match="cannot be read"):
        verify_file(tmp_path / "none")


def test_entries_are_written_and_verified_one_at_a_time(tmp_path: Path) -> None:
    """What stays is a few words for each of the spends that the log speaks of, never the entries themselves."""
    count = 4_000

    def many() -> Iterator[spendlog.Entry]:
        before = spendlog.BEFORE_ALL
        for number in range(1, count + 1):
            name, event = f"spend {(number + 3) // 4 % 100}", ("reserved", "paid", "committed", "returned")[(number - 1) % 4]
            bare = spendlog.Entry(number, number, event, name, "purchase", "10", "raw", "s" * 64, "o", "m", "j", "", before, "")
            before = spendlog.entry_hash(bare.content())
            yield replace(bare, hash=before)

    tracemalloc.start()
    try:
        with whole_file(tmp_path / "log.json") as out:
            write_json(many(), out, OWNER, "dev", 1)
        with (tmp_path / "log.csv").open("w", newline="") as text:
            assert write_csv(many(), text) == count
        writing = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert verify_file(tmp_path / "log.json", OWNER.key)[0].count == count
        verifying = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "log.json").stat().st_size > 1_500_000
    assert max(writing, verifying) < 400_000


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("old")
    with pytest.raises(StorageError, match=r"log\.csv: cannot be written"), whole_file(path) as out:
        out.write(b"new")
        raise OSError(28, "No space left on device")
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]
    assert path.read_text() == "old"
    with whole_file(path) as out:
        out.write(b"new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(StorageError, match="cannot be written"), whole_file(tmp_path / "none" / "log.csv"):
        pass


# commands


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A profile that has spent."""
    folder = tmp_path_factory.mktemp("spending") / "home"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRADESKILL_")}
    password = folder.parent / "password"
    password.touch(0o600)
    password.write_text("correct horse\n")
    made = Home(folder, {**environment, "TRADESKILL_HOME": str(folder), "TRADESKILL_PASSWORD_FILE": str(password)})
    made.process("init", "--non-interactive", "--market", str(folder.parent / "market.db")).ok()
    assert made.json("spending", "log") == []
    assert "nothing was spent" in made.run("spending", "log").ok().err
    write(made, a_day)
    return made


def write(home: Home, step: object) -> None:
    journal = Database(connector(home.path / "journal.db", "the journal"), World(), "dev")
    journal.write_now(step)  # type: ignore[arg-type]  # a step on a transaction
    asyncio.run(journal.close())


def test_the_log_is_listed_newest_last_by_day_and_by_number(home: Home) -> None:
    lines = home.run("spending", "log").ok().out.splitlines()
    assert [line.split()[2] for line in lines] == ["reserved", "paid", "committed", "reserved", "paid", "committed", "returned", "reserved"]
    assert "0.001 XNO" in lines[0]
    assert [entry["seq"] for entry in home.json("spending", "log", "--limit", "2")] == ["7", "8"]
    assert [entry["seq"] for entry in home.json("spending", "log", "--since", "1970-01-03", "--until", "1970-01-03")] == ["4", "5", "6"]
    home.run("spending", "log", "--since", "yesterday").failed(2, "yesterday", "YYYY-MM-DD")


def test_what_is_exported_verifies_elsewhere_and_the_journal_verifies_itself(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "spending.json"
    told = home.json("spending", "export", "--format", "json", "--to", str(file))
    key = home.run("identity", "export").ok().out.strip()
    assert (told["file"], told["format"], told["entries"]) == (str(file), "json", 8)
    stranger = Home(tmp_path / "none", {**home.environment, "TRADESKILL_HOME": str(tmp_path / "none")})
    found = stranger.json("spending", "verify", str(file), "--key", key)
    assert (found["spend_log_verified"], found["entries"], found["head"], found["signed_by"], found["network"]) == (True, 8, told["head"], key, "dev")
    assert (found["spent"], found["reserved"]) == ({"raw": str(10**27), "sat": "0"}, {"raw": "5", "sat": "0"})
    own = home.json("spending", "verify")
    assert (own["agrees_with_journal"], own["entries"], own["head"]) == (True, 8, told["head"])
    stranger.run("spending", "verify", str(file), "--key", "00" * 32).failed(5, "not by 00")
    home.run("spending", "verify", "--key", key).failed(2, "--key")
    assert home.run("spending", "export", "--format", "json").ok().out.splitlines()[:-1] == file.read_text().splitlines()[:-1]
    written = home.run("spending", "export", "--format", "csv", "--to", str(tmp_path / "s.csv")).ok()
    assert "entries" in written.out
    assert home.run("spending", "export", "--format", "csv").ok().out.encode() == (tmp_path / "s.csv").read_bytes()
    home.run("spending", "export", "--format", "xls").failed(2, "'xls'", "csv or json")
    home.run("spending", "export", "--format", "csv", "--json").failed(2, "--to FILE")
    locked = Home(home.path, {name: value for name, value in home.environment.items() if name != "TRADESKILL_PASSWORD_FILE"})
    unsigned = locked.run("spending", "export", "--format", "json")
    unsigned.failed(7, "--password-file")
    assert unsigned.out == ""


@pytest.mark.parametrize(
    ("spoil", "mend", "words"),
    [
        ("UPDATE spend_log SET amount = '1' WHERE seq = 3", f"UPDATE spend_log SET amount = '{10**27}' WHERE seq = 3", "entry 3 of the spend log was changed"),
        ("UPDATE totals SET value = '0' WHERE name = 'spent:raw'", f"UPDATE totals SET value = '{10**27}' WHERE name = 'spent:raw'", "does not agree"),
    ],
)
def test_a_journal_that_was_changed_by_hand_is_found_out(home: Home, spoil: str, mend: str, words: str) -> None:
    write(home, lambda tx: tx.execute(spoil) and None)
    try:
        home.run("spending", "verify").failed(5, words)
    finally:
        write(home, lambda tx: tx.execute(mend) and None)
    home.run("spending", "verify").ok()
