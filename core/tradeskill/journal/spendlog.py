"""The spend log: one entry for every change of a spend, each holding the hash of the one before; and what replaying them gives.

It is written in the transaction of the change (`tradeskill.policy.gate`) and only ever added to: no statement anywhere changes or removes an entry.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from tradeskill.errors import AmountError, UntrustedError
from tradeskill.journal.spending import Spend, forget_meta, meta, read_spend
from tradeskill.money import parse_raw
from tradeskill.sqlite import Transaction

__all__ = ["BEFORE_ALL", "Entry", "Held", "Replay", "append", "carry_over", "differences", "entries", "entry_hash", "head", "replay"]

BEFORE_ALL: Final = "0" * 64  # what the first entry names as its previous one
EVENTS: Final = {
    # event -> the states that it may follow ("" for a spend that is not there), and the state that it leads to
    "reserved": (("", "released"), "reserved"),
    "paid": (("reserved",), "reserved"),  # the money is out, what it buys is not there yet; once at most
    "committed": (("reserved",), "committed"),
    "released": (("reserved",), "released"),  # it was never paid
    "returned": (("committed",), "released"),  # it came back
}
_MARK: Final = b"tradeskill/spend-log-entry/1\n"


@dataclass(frozen=True)
class Entry:
    """`at`: ms, by the clock that spending goes by. `amount`: digits. `hash` covers all the others, `previous` among them."""

    seq: int
    at: int
    event: str
    spend_id: str
    kind: str
    amount: str
    unit: str
    seller: str
    offer: str
    market: str
    job: str
    grant: str
    previous: str
    hash: str

    def content(self) -> dict[str, str]:
        """What the hash covers; numbers as digits."""
        return {
            "seq": str(self.seq),
            "at": str(self.at),
            "event": self.event,
            "spend_id": self.spend_id,
            "kind": self.kind,
            "amount": self.amount,
            "unit": self.unit,
            "seller": self.seller,
            "offer": self.offer,
            "market": self.market,
            "job": self.job,
            "grant": self.grant,
            "previous": self.previous,
        }


def entry_hash(content: Mapping[str, str]) -> str:
    """sha256, 64 hex, over a type mark and the canonical JSON (RFC 8785) of an entry's content.

    Texts under plain names are written the same by `json.dumps`, in a tenth of the time that the general writer takes.
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(_MARK + text.encode()).hexdigest()


# writing


def append(tx: Transaction, event: str, spend: Spend, at: int) -> None:
    """The change of this spend, in the transaction that makes it."""
    last, previous = head(tx)
    what = (spend.spend_id, spend.kind, str(spend.amount), spend.unit, spend.seller, spend.offer, spend.market, spend.job, spend.grant)
    content = Entry(last + 1, at, event, *what, previous, "").content()
    tx.execute(
        "INSERT INTO spend_log (seq, at, event, spend_id, kind, amount, unit, seller, offer, market, job, grant_id, previous, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (last + 1, at, event, *what, previous, entry_hash(content)),
    )


def carry_over(tx: Transaction) -> None:
    """Begin the log of a journal from before there was one: with what its reservations say, in the order of their times. Does nothing afterwards."""
    if meta(tx, "spend_log.to_begin") is None:
        return
    forget_meta(tx, "spend_log.to_begin")
    events: list[tuple[int, int, str, Spend, int]] = []
    last = {"reserved": "paid", "committed": "committed", "released": "released"}
    for number, row in enumerate(tx.execute("SELECT * FROM reservations ORDER BY created_at, rowid").fetchall()):
        spend = read_spend(row)
        events.append((spend.reserved_at, 2 * number, "reserved", spend, spend.reserved_at))
        if spend.settled_at is not None:  # never before it was reserved, even where a clock was set back
            events.append((max(spend.reserved_at, spend.settled_at), 2 * number + 1, last[spend.state], spend, spend.settled_at))
    for _, _, event, spend, at in sorted(events, key=lambda one: one[:2]):
        append(tx, event, spend, at)


# reading


def head(connection: sqlite3.Connection) -> tuple[int, str]:
    """How many entries there are, and the hash of the last one."""
    row = connection.execute("SELECT seq, hash FROM spend_log ORDER BY seq DESC LIMIT 1").fetchone()
    return (0, BEFORE_ALL) if row is None else (row[0], row[1])


def entries(connection: sqlite3.Connection, since: int = 0, until: int = 2**62, limit: int = -1, after: int = 0) -> Iterator[Entry]:
    """Oldest first, one at a time: those with `since` <= at < `until` and a number over `after`; of more than `limit` the newest."""
    rows = connection.execute(
        "SELECT * FROM (SELECT * FROM spend_log WHERE seq > ? AND at >= ? AND at < ? ORDER BY seq DESC LIMIT ?) ORDER BY seq"
        if limit >= 0
        else "SELECT * FROM spend_log WHERE seq > ? AND at >= ? AND at < ? ORDER BY seq LIMIT ?",
        (after, since, until, limit),
    )
    return (Entry(*row) for row in rows)


class Held(NamedTuple):
    """What replaying knows of one spend. `what`: a digest of all that never changes while it is held."""

    state: str
    reserved_at: int
    settled_at: int | None
    what: bytes


class Replay:
    """Takes entry after entry and says whether each follows from those before; keeps the state of every spend and the totals."""

    def __init__(self) -> None:
        self.count, self.head = 0, BEFORE_ALL
        self.held: dict[str, Held] = {}
        self.totals: dict[str, int] = {}  # named as the journal's totals are

    def add(self, entry: Entry) -> None:
        """UntrustedError naming the entry and what is wrong with it; it is then not counted."""
        found = self._next(entry)
        state, now = "" if found is None else found.state, EVENTS[entry.event][1]
        amount = parse_raw(entry.amount)
        for name, by in ((state, -amount), (now, amount)):
            if name in ("reserved", "committed"):
                key = f"{'spent' if name == 'committed' else name}:{entry.unit}"
                self.totals[key] = self.totals.get(key, 0) + by
        settled = found.settled_at if found is not None else None
        if entry.event == "reserved":
            new = Held(now, entry.at, None, _what(entry))
        else:
            assert found is not None
            new = Held(now, found.reserved_at, settled if entry.event == "committed" and settled is not None else entry.at, found.what)
        self.held[entry.spend_id] = new
        self.count, self.head = entry.seq, entry.hash

    def _next(self, entry: Entry) -> Held | None:
        """The spend before it, once the entry is the next link and its event may follow."""
        name = f"entry {self.count + 1} of the spend log"
        if entry.seq != self.count + 1:
            raise UntrustedError(f"{name} is missing: number {entry.seq} follows {self.count}")
        if entry.previous != self.head:
            raise UntrustedError(f"{name} does not follow from the one before: it names {entry.previous:.80}, that one is {self.head}")
        if entry.hash != entry_hash(entry.content()):
            raise UntrustedError(f"{name} was changed: its hash is not that of what it says")
        try:
            parse_raw(entry.amount)
        except AmountError as error:
            raise UntrustedError(f"{name}: {error}") from error
        if entry.event not in EVENTS:
            raise UntrustedError(f"{name} has an event that there is not: {entry.event!r:.80}")
        found = self.held.get(entry.spend_id)
        state = "" if found is None else found.state
        again = entry.event == "paid" and found is not None and found.settled_at is not None
        if state not in EVENTS[entry.event][0] or again:
            known = f"{state or 'not reserved'}{', and paid' if again else ''}"
            raise UntrustedError(f"{name} cannot be: {entry.spend_id!r:.80} is {known}, it cannot be {entry.event} next")
        if found is not None and entry.event != "reserved" and found.what != _what(entry):
            raise UntrustedError(f"{name} speaks of another amount, seller or job than what {entry.spend_id!r:.80} was reserved for")
        return found


def _what(of: Entry | Spend) -> bytes:
    return hashlib.sha256(json.dumps([of.kind, str(of.amount), of.unit, of.seller, of.offer, of.market, of.job, of.grant]).encode()).digest()


def replay(all_entries: Iterator[Entry]) -> Replay:
    """UntrustedError naming the first entry that does not hold."""
    found = Replay()
    for entry in all_entries:
        found.add(entry)
    return found


def differences(connection: sqlite3.Connection, replayed: Replay) -> Iterator[str]:
    """What the journal holds and the replayed log does not give, or the other way round, in words. Nothing: they agree exactly."""
    count = 0
    for row in connection.execute("SELECT * FROM reservations"):
        count += 1
        spend = read_spend(row)
        found, wanted = replayed.held.get(spend.spend_id), Held(spend.state, spend.reserved_at, spend.settled_at, _what(spend))
        if found is None:
            yield f"{spend.spend_id} is {spend.state} in the journal and not in the spend log"
        elif found != wanted:
            yield f"{spend.spend_id} is {wanted[:3]} in the journal and {found[:3]} by the spend log"
    if count < len(replayed.held):
        yield f"the spend log has {len(replayed.held)} spends, the journal {count}"
    kept = {name: parse_raw(value) for name, value in connection.execute("SELECT name, value FROM totals")}
    for name in sorted({*kept, *replayed.totals}):
        if kept.get(name, 0) != replayed.totals.get(name, 0):
            yield f"the total {name} is {kept.get(name, 0)} in the journal and {replayed.totals.get(name, 0)} by the spend log"
