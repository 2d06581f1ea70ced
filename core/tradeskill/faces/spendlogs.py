"""The spend log outside a profile: as CSV for people, as JSON with a signed head for whoever has to check it. Entry by entry, however many there are."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from tradeskill.errors import AmountError, InputError, NotFoundError, StorageError, UntrustedError
from tradeskill.journal.spendlog import Entry, Replay
from tradeskill.money import Amount, format_amount, parse_raw
from tradeskill.signing import Identity, canonical, parse_json, verify_signed_bytes

__all__ = ["Head", "amount_of", "time_of", "verify_file", "whole_file", "write_csv", "write_json"]

VERSION: Final = 1
COLUMNS: Final = (
    *("seq", "at", "time", "event", "spend_id", "kind", "amount", "unit", "decimal", "decimal_unit"),
    *("seller", "offer", "market", "job", "grant", "previous", "hash"),
)
FORMULA: Final = tuple("=+-@\t\r\n＝＋－＠")  # what a spreadsheet may take for a formula at a cell's beginning
LINE: Final = 1 << 16  # bytes of one entry; what it is made of is far smaller
_FIRST: Final = b'{"tradeskill_spend_log":1,"entries":[\n'
_LAST: Final = b'],"head":'
_SIGNED: Final = b"tradeskill-spend-log/1\n"  # before the head's canonical JSON: what is signed
_FIELDS: Final = frozenset(Entry.__dataclass_fields__)


@dataclass(frozen=True)
class Head:
    """The log's end as its owner signed it: how many entries, the last one's hash, whose they are. `at`: ms."""

    entries: int
    hash: str
    network: str
    at: int
    key: str
    signature: str

    def signed(self) -> dict[str, str]:
        return {"at": str(self.at), "entries": str(self.entries), "hash": self.hash, "key": self.key, "network": self.network}


def time_of(at: int) -> str:
    """Milliseconds as people write it, UTC."""
    try:
        return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # a clock may have said anything
        return str(at)


def amount_of(entry: Entry) -> tuple[str, str]:
    """The amount as people write it: number and unit."""
    try:
        number, _, unit = format_amount(Amount(parse_raw(entry.amount), entry.unit)).partition(" ")
    except AmountError:
        return entry.amount, entry.unit
    return number, unit


# writing


def write_csv(entries: Iterable[Entry], out: IO[str]) -> int:
    """RFC 4180 with a header; returns how many. A text that a spreadsheet could take for a formula gets an apostrophe before it."""
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    count = 0
    for entry in entries:
        row = {**entry.content(), "hash": entry.hash, "time": time_of(entry.at)}
        row["decimal"], row["decimal_unit"] = amount_of(entry)
        writer.writerow([_harmless(row[name]) for name in COLUMNS])
        count += 1
    return count


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def write_json(entries: Iterable[Entry], out: IO[bytes], identity: Identity, network: str, now: int) -> Head:
    """One JSON value, an entry a line, with the head signed by the profile's identity at the end."""
    out.write(_FIRST)
    count, last = 0, "0" * 64
    for entry in entries:
        out.write((b",\n" if count else b"") + _line(entry))
        count, last = count + 1, entry.hash
    bare = Head(count, last, network, now, identity.key, "")
    head = Head(count, last, network, now, identity.key, identity.sign_bytes(_SIGNED + canonical(bare.signed())))
    out.write((b"\n" if count else b"") + _LAST + _head_line(head))
    return head


def _line(entry: Entry) -> bytes:
    return json.dumps({**entry.content(), "hash": entry.hash}, ensure_ascii=False, separators=(",", ":")).encode()


def _head_line(head: Head) -> bytes:
    return canonical({**head.signed(), "signature": head.signature}) + b"}\n"


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, mode 0600, that takes the place of `path` only when all of it is on disk. StorageError otherwise, and the old one stays."""
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = ""
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}; check the folder and its free space") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


# verifying


def verify_file(path: Path, key: str = "") -> tuple[Replay, Head]:
    """The replayed log of an exported JSON file and its head, once all of it holds and, when given, `key` signed it.

    UntrustedError naming the first entry that does not hold; InputError for a file of another kind; NotFoundError when it cannot be read.
    """
    replayed = Replay()
    try:
        with path.open("rb") as file:
            return replayed, _verified(file, replayed, key)
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}") from error
    except (InputError, UntrustedError) as error:
        raise type(error)(f"{path}: {error}") from error


def _verified(file: IO[bytes], replayed: Replay, key: str) -> Head:
    if file.readline(LINE) != _FIRST:
        raise InputError("not a spend log as `tradeskill spending export --format json` writes it, line by line")
    line, ended = file.readline(LINE), True
    while line and not line.startswith(_LAST):
        if not ended:
            raise _spelled(replayed.count + 1)
        entry = _read_entry(line.removesuffix(b"\n").removesuffix(b","), replayed.count + 1)
        ended = line.endswith(b",\n")
        if line != _line(entry) + (b",\n" if ended else b"\n"):
            raise _spelled(replayed.count + 1)
        replayed.add(entry)
        line = file.readline(LINE)
    if not line or (ended and replayed.count):
        raise UntrustedError(f"the spend log breaks off after entry {replayed.count}")
    head = _read_head(line.removeprefix(_LAST))
    if line != _LAST + _head_line(head) or file.read(1):
        raise UntrustedError("the head of the spend log is not spelled as `spending export` writes it, or something follows it")
    if (head.entries, head.hash) != (replayed.count, replayed.head):
        raise UntrustedError(f"the signed head speaks of {head.entries} entries up to {head.hash}, the file holds {replayed.count} up to {replayed.head}")
    if key and head.key != key:
        raise UntrustedError(f"the head is signed by {head.key}, not by {key}")
    verify_signed_bytes(_SIGNED + canonical(head.signed()), head.key, head.signature, "the head of the spend log")
    return head


def _spelled(number: int) -> UntrustedError:
    return UntrustedError(f"entry {number} of the spend log is not spelled as `spending export` writes it")


def _texts(data: bytes, what: str, names: Iterable[str]) -> dict[str, str]:
    """An object of texts under exactly these names; UntrustedError otherwise."""
    try:
        value = parse_json(data, what)
    except InputError as error:
        raise UntrustedError(str(error)) from error
    if not isinstance(value, dict) or set(value) != set(names) or not all(isinstance(text, str) for text in value.values()):
        raise UntrustedError(f"{what} does not have the fields that it must have, as texts")
    return {name: str(text) for name, text in value.items()}


def _number(text: str, what: str) -> int:
    try:
        return parse_raw(text)
    except AmountError as error:
        raise UntrustedError(f"{what}: {error}") from error


def _read_entry(data: bytes, number: int) -> Entry:
    what = f"entry {number} of the spend log"
    fields: dict[str, Any] = _texts(data, what, _FIELDS)
    return Entry(**{**fields, "seq": _number(fields["seq"], what), "at": _number(fields["at"], what)})


def _read_head(data: bytes) -> Head:
    what = "the head of the spend log"
    if not data.endswith(b"}\n"):
        raise UntrustedError(f"{what} breaks off")
    fields = _texts(data[:-2], what, ("at", "entries", "hash", "key", "network", "signature"))
    return Head(
        entries=_number(fields["entries"], what),
        hash=fields["hash"],
        network=fields["network"],
        at=_number(fields["at"], what),
        key=fields["key"],
        signature=fields["signature"],
    )
