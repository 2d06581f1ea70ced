"""The wallet's own disk: keysets, proofs, requests, locks, payments in and out. All SQL of the rail cashu is here.

One SQLite file per profile, shared by its processes. Writing happens only inside `Store.write`, one durable transaction. Proofs, request bytes and
tokens are sealed with a key from the wallet's secret; amounts, states and what a mint sees anyway lie open, so that a balance needs no password.
It runs past 400 lines because every statement about money stands beside the others it must agree with.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from tradeskill.errors import StateError
from tradeskill.model import Network
from tradeskill.money import parse_raw
from tradeskill.sqlite import GroupCommit, SqliteFile, connector
from tradeskill.world import World
from tradeskill_plugins.cashu.keys import Keys
from tradeskill_plugins.cashu.lifetimes import ending
from tradeskill_plugins.cashu.nuts.model import Dleq, Keyset, Output, Proof
from tradeskill_plugins.cashu.schema import LAYOUT, bind, bind_secret

__all__ = [
    "Coin",
    "LockRow",
    "OutgoingRow",
    "PaymentRow",
    "RequestKind",
    "RequestRow",
    "Rows",
    "Store",
]

T = TypeVar("T")
RequestKind = Literal["swap", "mint", "melt"]
ProofState = Literal["held", "reserved", "sent", "spent"]
PaymentState = Literal["taking", "taken", "refused"]
OutgoingState = Literal["open", "published", "final", "back", "gone", "dead"]

_COIN: Final = (
    "SELECT y, proof.mint, proof.keyset_id, amount, state, made_by, spent_by, sealed, coalesce(fee_ppk, 0), coalesce(active, 1), final_expiry FROM proof"
    " LEFT JOIN keyset ON keyset.mint = proof.mint AND keyset.keyset_id = proof.keyset_id "
)
_REQUEST: Final = "SELECT request_id, mint, kind, purpose, sealed, state, tries, trouble FROM request "
_LOCK: Final = "SELECT lock_id, pubkey, job_id, invoice, quote, quote_mint, bolt11_id, forgotten FROM lock "
_PAYMENT: Final = "SELECT payment_id, lock_id, mint, amount, received_at, state, request_id, note FROM payment "
_OUTGOING: Final = (
    "SELECT purpose, target, amount, mint, payment_id, state, request_id, refund_id, locktime, token, attempt, at FROM outgoing "
)

QUOTED: Final = (
    _LOCK + "WHERE quote IS NOT NULL AND forgotten = 0 AND json_extract(invoice, '$.expires_at') + 0 >= ?"  # noqa: S608  # constants of this module
    " AND NOT EXISTS (SELECT 1 FROM payment WHERE payment_id = lock.bolt11_id AND state = 'taken') ORDER BY lock_id DESC LIMIT ?"
)


@dataclass(frozen=True)
class Coin:
    """One proof of ours. `made_by`, `spent_by`: the requests that did; `fee_ppk`: what spending it costs; `ends`: its keyset does (see `lifetimes`)."""

    y: str
    mint: str
    proof: Proof
    state: ProofState
    made_by: int | None = None
    spent_by: int | None = None
    fee_ppk: int = 0
    ends: bool = False

    @property
    def amount(self) -> int:
        return self.proof.amount


@dataclass(frozen=True)
class RequestRow:
    """What is sent, byte for byte, until the mint's word on it is known."""

    request_id: int
    mint: str
    kind: RequestKind
    purpose: str
    body: bytes
    outputs: tuple[Output, ...]
    given: frozenset[str]  # points of those outputs that are not for ourselves
    state: Literal["open", "done", "dead"]
    tries: int
    trouble: str

    def __repr__(self) -> str:
        return f"RequestRow({self.request_id}, {self.purpose}, {self.state})"


@dataclass(frozen=True)
class LockRow:
    """A key of ours that others pay to: 0 is the wallet's own address, each invoice has the next."""

    lock_id: int
    pubkey: str
    job_id: str | None
    invoice: dict[str, Any] | None
    quote: str | None
    quote_mint: str | None
    bolt11_id: str | None
    forgotten: bool


@dataclass(frozen=True)
class PaymentRow:
    """Money for one of our locks; final once `taken`."""

    payment_id: str
    lock_id: int
    mint: str
    amount: int
    received_at: int
    state: PaymentState
    request_id: int | None
    note: str = ""


@dataclass(frozen=True)
class OutgoingRow:
    """Money that leaves. `published`: its Lightning payment is under way; `final`: made; then perhaps `back`: taken back after its locktime,
    or `gone`: its payee has it for sure. `dead`: refused, nothing left.
    """

    purpose: str
    target: str
    amount: int
    mint: str
    payment_id: str
    state: OutgoingState
    request_id: int | None
    refund_id: int | None
    locktime: int | None  # seconds
    token: str
    attempt: int
    at: int

    def __repr__(self) -> str:
        return f"OutgoingRow({self.purpose}, {self.amount}, {self.state})"


class Store:
    """`wallet.db` of one wallet, bound to its network when it is opened and to its secret when that is known."""

    def __init__(self, path: Path, network: Network, world: World) -> None:
        """NetworkMismatchError when the file belongs to another network."""
        self.path, self._world = path, world
        self._keys: Keys | None = None
        self._file = SqliteFile(connector(path, str(path)), LAYOUT, where=str(path), prepare=partial(bind, network=network, where=str(path)))
        self._commits = GroupCommit(self._file.run, world)

    async def unlock(self, keys: Keys, main: str) -> None:
        """From now on sealed things can be read and written. SecretError when the file was made with other keys."""
        self._keys = keys
        await self._commits.write(partial(bind_secret, main=main, where=str(self.path)))

    def read(self, function: Callable[[Rows], T]) -> T:
        """What is committed now."""
        return self._file.read(lambda connection: function(Rows(connection, self._keys, self._world)))

    async def write(self, function: Callable[[Rows], T]) -> T:
        """One transaction; its value once it is on the disk. An exception of `function` undoes what it did."""
        return await self._commits.write(lambda connection: function(Rows(connection, self._keys, self._world)))

    async def close(self) -> None:
        await self._commits.finish()
        self._file.close()


class Rows:
    """The statements on one connection. Those that change something belong inside `Store.write`."""

    def __init__(self, connection: sqlite3.Connection, keys: Keys | None, world: World) -> None:
        self._db, self._keys, self._world = connection, keys, world

    def _seal(self, value: Any) -> bytes:
        assert self._keys is not None, "the store is locked"
        return self._keys.seal(value, self._world.random_bytes(24))

    def _unseal(self, box: bytes) -> Any:
        assert self._keys is not None, "the store is locked"
        return self._keys.unseal(box)

    # --- the file itself

    def note_file(self, identity: str) -> None:
        """A file that was copied, or came out of a backup, may know less than the mints do: `restore_due` until they were asked."""
        before = self._db.execute("SELECT value FROM meta WHERE name = 'file'").fetchone()
        if before is not None and before[0] != identity:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('restore_due', '1')")
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('file', ?)", (identity,))

    def restore_due(self) -> bool:
        return self._db.execute("SELECT 1 FROM meta WHERE name = 'restore_due'").fetchone() is not None

    def restored(self) -> None:
        self._db.execute("DELETE FROM meta WHERE name = 'restore_due'")

    # --- mints and keysets

    def mint_info(self, url: str) -> tuple[dict[str, Any], int] | None:
        row = self._db.execute("SELECT info, looked_at FROM mint WHERE url = ?", (url,)).fetchone()
        return None if row is None else (json.loads(row[0]), int(row[1]))

    def mints(self) -> list[str]:
        """Every mint that was ever met, also those that are not configured any more."""
        known = self._db.execute("SELECT url FROM mint UNION SELECT DISTINCT mint FROM proof ORDER BY 1")
        return [str(row[0]) for row in known]

    def set_mint(self, url: str, info: dict[str, Any], now: int) -> None:
        self._db.execute(
            "INSERT INTO mint VALUES (?, ?, ?) ON CONFLICT (url) DO UPDATE SET info = excluded.info, looked_at = excluded.looked_at",
            (url, json.dumps(info), now),
        )

    def keysets(self, mint: str) -> dict[str, Keyset]:
        """All that were ever seen there, by id."""
        rows = self._db.execute("SELECT keyset_id, unit, active, fee_ppk, keys, final_expiry FROM keyset WHERE mint = ? ORDER BY keyset_id", (mint,))
        return {row[0]: _keyset(row) for row in rows}

    def set_keyset(self, mint: str, keyset: Keyset) -> None:
        """Keys, once known, stay: the id names them. Fee, activity and expiry are the mint's present word."""
        keys = json.dumps({str(amount): key for amount, key in keyset.keys.items()})
        self._db.execute(
            "INSERT INTO keyset VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (mint, keyset_id)"
            " DO UPDATE SET fee_ppk = excluded.fee_ppk, active = excluded.active, final_expiry = excluded.final_expiry",
            (mint, keyset.id, keyset.unit, keyset.fee_ppk, int(keyset.active), keys, keyset.final_expiry),
        )

    def list_keysets(self, mint: str, present: Collection[str]) -> None:
        """A keyset that the mint dropped is kept: what was signed with it is owed. Nothing is made or spent with it until the mint lists it again."""
        for keyset_id, keyset in self.keysets(mint).items():
            if keyset_id not in present:
                self.set_keyset(mint, replace(keyset, active=False))
            self._db.execute("UPDATE keyset SET listed = ? WHERE mint = ? AND keyset_id = ?", (int(keyset_id in present), mint, keyset_id))

    def dropped(self, mint: str) -> int:
        """What this wallet holds of keysets that the mint does not list any more."""
        amounts = self._db.execute(
            "SELECT amount FROM proof JOIN keyset USING (mint, keyset_id) WHERE proof.state = 'held' AND listed = 0 AND mint = ?", (mint,)
        )
        return sum(parse_raw(row[0]) for row in amounts)

    def expired(self, mint: str) -> int:
        """What this wallet holds of keysets whose `final_expiry` has passed and that the mint still lists: it may refuse to take it."""
        amounts = self._db.execute(
            "SELECT amount FROM proof JOIN keyset USING (mint, keyset_id) WHERE proof.state = 'held' AND listed = 1 AND mint = ?"
            " AND final_expiry > 0 AND final_expiry <= ?",
            (mint, self._world.now_ms() // 1000),
        )
        return sum(parse_raw(row[0]) for row in amounts)

    def take_counters(self, keyset_id: str, count: int) -> int:
        """Reserve `count` NUT-13 counters for ever; returns the first."""
        row = self._db.execute("SELECT next FROM counter WHERE keyset_id = ?", (keyset_id,)).fetchone()
        first = 0 if row is None else int(row[0])
        self.raise_counter(keyset_id, first + count)
        return first

    def raise_counter(self, keyset_id: str, least: int) -> None:
        self._db.execute(
            "INSERT INTO counter VALUES (?, ?) ON CONFLICT (keyset_id) DO UPDATE SET next = max(next, excluded.next)", (keyset_id, least)
        )

    def counter(self, keyset_id: str) -> int:
        row = self._db.execute("SELECT next FROM counter WHERE keyset_id = ?", (keyset_id,)).fetchone()
        return 0 if row is None else int(row[0])

    # --- proofs

    def sums(self) -> dict[tuple[str, ProofState], int]:
        """What lies in each state at each mint. Needs no secret."""
        sums: dict[tuple[str, ProofState], int] = {}
        for mint, state, amount in self._db.execute("SELECT mint, state, amount FROM proof WHERE state <> 'spent'"):
            sums[mint, state] = sums.get((mint, state), 0) + parse_raw(amount)
        return sums

    def spendable(self, mint: str) -> list[Coin]:
        """What is held and the mint must take."""
        rows = self._db.execute(
            _COIN + "WHERE state = 'held' AND proof.mint = ? AND coalesce(listed, 1) = 1 AND NOT (coalesce(final_expiry, 0) BETWEEN 1 AND ?)"
            " ORDER BY proof.rowid",
            (mint, self._world.now_ms() // 1000),
        )
        return [self._coin(row) for row in rows]

    def in_ending_keysets(self, mint: str) -> list[Coin]:
        """What is held and should lie in another keyset, also of those that expired: the mint may be lenient."""
        rows = self._db.execute(
            _COIN + "WHERE state = 'held' AND proof.mint = ? AND listed = 1 AND (active = 0 OR final_expiry > 0) ORDER BY proof.keyset_id, proof.rowid", (mint,)
        )
        return [coin for coin in map(self._coin, rows.fetchall()) if coin.ends]

    def ends_soon(self, mint: str) -> bool:
        """Whether there may be any of `in_ending_keysets`. Needs no secret."""
        rows = self._db.execute(
            "SELECT DISTINCT active, final_expiry FROM proof JOIN keyset USING (mint, keyset_id)"
            " WHERE proof.state = 'held' AND listed = 1 AND mint = ?",
            (mint,),
        )
        return any(ending(bool(active), final_expiry, self._world.now_ms()) for active, final_expiry in rows.fetchall())

    def sent(self) -> list[Coin]:
        """What was locked for others; whether they took it, the mints know."""
        return [self._coin(row) for row in self._db.execute(_COIN + "WHERE state = 'sent' ORDER BY proof.rowid")]

    def made(self, request_id: int) -> list[Coin]:
        return [self._coin(row) for row in self._db.execute(_COIN + "WHERE made_by = ? ORDER BY proof.rowid", (request_id,))]

    def spent_by(self, request_id: int) -> list[Coin]:
        return [self._coin(row) for row in self._db.execute(_COIN + "WHERE spent_by = ? ORDER BY proof.rowid", (request_id,))]

    def knows_coin(self, y: str) -> bool:
        return self._db.execute("SELECT 1 FROM proof WHERE y = ?", (y,)).fetchone() is not None

    def add_coin(self, coin: Coin) -> bool:
        """False when it is there already."""
        proof = coin.proof
        sealed = self._seal([proof.secret, proof.signature, [proof.dleq.e, proof.dleq.s, proof.dleq.r] if proof.dleq else None])
        changed = self._db.execute(
            "INSERT OR IGNORE INTO proof VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (coin.y, coin.mint, proof.keyset_id, str(proof.amount), coin.state, coin.made_by, coin.spent_by, sealed),
        )
        return changed.rowcount == 1

    def reserve(self, ys: Sequence[str], request_id: int, state: ProofState = "held") -> None:
        """StateError, and nothing changed by the caller's transaction, when any is not in `state` any more."""
        for y in ys:
            done = self._db.execute("UPDATE proof SET state = 'reserved', spent_by = ? WHERE y = ? AND state = ?", (request_id, y, state))
            if done.rowcount != 1:
                raise StateError("a proof was taken by another payment of this wallet: try again")

    def set_coins(self, request_id: int, state: ProofState) -> None:
        """Move what the request reserved: spent, or free again."""
        self._db.execute("UPDATE proof SET state = ? WHERE spent_by = ? AND state = 'reserved'", (state, request_id))

    def set_coin(self, y: str, state: ProofState) -> None:
        self._db.execute("UPDATE proof SET state = ? WHERE y = ?", (state, y))

    def lose(self, ys: Iterable[str]) -> None:
        """Held here, spent elsewhere."""
        for y in ys:
            self._db.execute("UPDATE proof SET state = 'spent' WHERE y = ? AND state = 'held'", (y,))

    # --- requests

    def add_request(
        self, mint: str, kind: RequestKind, purpose: str, body: bytes, outputs: Sequence[Output], now: int, given: Collection[str] = ()
    ) -> int:
        """StateError (by the caller's transaction) when the purpose has a living request."""
        sealed = self._seal([body.decode(), [[o.amount, o.keyset_id, o.secret, o.r, o.point, o.point in given] for o in outputs]])
        found = self._db.execute(
            "INSERT INTO request (mint, kind, purpose, sealed, state, made_at) VALUES (?, ?, ?, ?, 'open', ?)", (mint, kind, purpose, sealed, now)
        )
        assert found.lastrowid is not None
        return found.lastrowid

    def request(self, request_id: int) -> RequestRow:
        return self._request(self._db.execute(_REQUEST + "WHERE request_id = ?", (request_id,)).fetchone())

    def request_for(self, purpose: str) -> RequestRow | None:
        """The living request of a purpose."""
        row = self._db.execute(_REQUEST + "WHERE purpose = ? AND state <> 'dead'", (purpose,)).fetchone()
        return None if row is None else self._request(row)

    def open_requests(self) -> list[int]:
        return [int(row[0]) for row in self._db.execute("SELECT request_id FROM request WHERE state = 'open' ORDER BY request_id")]

    def requests(self, kind: RequestKind, state: str) -> list[RequestRow]:
        rows = self._db.execute(_REQUEST + "WHERE kind = ? AND state = ? ORDER BY request_id", (kind, state))
        return [self._request(row) for row in rows.fetchall()]

    def dead_requests(self, purpose: str) -> list[int]:
        return [int(row[0]) for row in self._db.execute("SELECT request_id FROM request WHERE state = 'dead' AND purpose = ? ORDER BY request_id", (purpose,))]

    def dead_purposes(self) -> list[str]:
        return [str(row[0]) for row in self._db.execute("SELECT DISTINCT purpose FROM request WHERE state = 'dead' ORDER BY 1")]

    def in_doubt(self) -> list[tuple[int, str, str, int, str]]:
        """For people, without a secret: (request, mint, purpose, amount reserved, trouble)."""
        found = []
        for request_id, mint, purpose, trouble in self._db.execute("SELECT request_id, mint, purpose, trouble FROM request WHERE state = 'open'").fetchall():
            amounts = self._db.execute("SELECT amount FROM proof WHERE spent_by = ? AND state = 'reserved'", (request_id,))
            found.append((int(request_id), str(mint), str(purpose), sum(parse_raw(row[0]) for row in amounts), str(trouble)))
        return found

    def note_try(self, request_id: int, trouble: str) -> None:
        self._db.execute("UPDATE request SET tries = tries + 1, trouble = ? WHERE request_id = ?", (trouble[:300], request_id))

    def close_request(self, request_id: int, state: Literal["done", "dead"], trouble: str = "") -> bool:
        """False when somebody else closed it before."""
        changed = self._db.execute(
            "UPDATE request SET state = ?, trouble = ? WHERE request_id = ? AND state = 'open'", (state, trouble[:300], request_id)
        )
        return changed.rowcount == 1

    def revive_request(self, request_id: int) -> bool:
        """A request that was given up and turned out to have been carried out. False when its purpose lives on in another one."""
        row = self.request(request_id)
        if row.state != "dead":
            return False
        purpose = row.purpose if self.request_for(row.purpose) is None else f"{row.purpose}#late-{request_id}"
        self._db.execute("UPDATE request SET state = 'open', purpose = ? WHERE request_id = ?", (purpose, request_id))
        return True

    # --- locks: the wallet's own address (0), then one for each invoice

    def lock(self, lock_id: int) -> LockRow | None:
        return self._lock(self._db.execute(_LOCK + "WHERE lock_id = ?", (lock_id,)).fetchone())

    def lock_of_key(self, pubkey: str) -> LockRow | None:
        return self._lock(self._db.execute(_LOCK + "WHERE pubkey = ?", (pubkey,)).fetchone())

    def lock_of_job(self, job_id: str) -> LockRow | None:
        return self._lock(self._db.execute(_LOCK + "WHERE job_id = ?", (job_id,)).fetchone())

    def lock_of_job_prefix(self, prefix: str) -> LockRow | None:
        """The only lock whose job's name begins so."""
        rows = self._db.execute(_LOCK + "WHERE job_id >= ? AND job_id < ? LIMIT 2", (prefix, prefix + "\U0010ffff")).fetchall()
        return self._lock(rows[0]) if len(rows) == 1 else None

    def locks(self) -> list[LockRow]:
        return [row for row in map(self._lock, self._db.execute(_LOCK + "ORDER BY lock_id")) if row is not None]

    def quoted(self, now: int, most: int) -> list[LockRow]:
        """The newest locks with a Lightning invoice that is not over and not known to be paid."""
        rows = self._db.execute(QUOTED, (now, most))
        return [row for row in map(self._lock, rows.fetchall()) if row is not None]

    def next_lock(self) -> int:
        highest = self._db.execute("SELECT max(lock_id) FROM lock").fetchone()[0]
        floor = self._db.execute("SELECT value FROM meta WHERE name = 'lock_floor'").fetchone()
        return max(0 if highest is None else int(highest) + 1, 1, 1 if floor is None else int(floor[0]))

    def set_lock_floor(self, least: int) -> None:
        """No lock below this is handed out any more (after a restore)."""
        self._db.execute(
            "INSERT INTO meta VALUES ('lock_floor', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (str(max(least, self.next_lock())),)
        )

    def add_lock(self, lock_id: int, pubkey: str, job_id: str | None) -> None:
        self._db.execute("INSERT OR IGNORE INTO lock (lock_id, pubkey, job_id) VALUES (?, ?, ?)", (lock_id, pubkey, job_id))

    def issue(self, lock_id: int, invoice: dict[str, Any], quote: str | None, quote_mint: str | None, bolt11_id: str | None) -> None:
        """Fixed once written."""
        sealed = None if quote is None else self._seal(quote)
        self._db.execute(
            "UPDATE lock SET invoice = ?, quote = ?, quote_mint = ?, bolt11_id = ? WHERE lock_id = ? AND invoice IS NULL",
            (json.dumps(invoice), sealed, quote_mint, bolt11_id, lock_id),
        )

    def forget(self, lock_id: int) -> None:
        self._db.execute("UPDATE lock SET forgotten = 1 WHERE lock_id = ?", (lock_id,))

    def letters(self, lock_id: int) -> dict[str, int]:
        """How many of a lock's letters were looked through, by keyset."""
        return {row[0]: int(row[1]) for row in self._db.execute("SELECT keyset_id, count FROM letters WHERE lock_id = ?", (lock_id,))}

    def set_letters(self, lock_id: int, counts: Mapping[str, int]) -> None:
        for keyset_id, count in counts.items():
            self._db.execute(
                "INSERT INTO letters VALUES (?, ?, ?) ON CONFLICT (lock_id, keyset_id) DO UPDATE SET count = max(count, excluded.count)",
                (lock_id, keyset_id, count),
            )

    # --- payments in

    def payment(self, payment_id: str) -> PaymentRow | None:
        row = self._db.execute(_PAYMENT + "WHERE payment_id = ?", (payment_id,)).fetchone()
        return None if row is None else _payment(row)

    def payments(self, lock_id: int) -> list[PaymentRow]:
        return [_payment(row) for row in self._db.execute(_PAYMENT + "WHERE lock_id = ? ORDER BY received_at, payment_id", (lock_id,))]

    def put_payment(self, row: PaymentRow) -> None:
        """One that is taken stays as it is, for ever; others may be tried again. Keeps when it was first seen."""
        self._db.execute(
            "INSERT INTO payment VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (payment_id) DO UPDATE SET"
            " state = excluded.state, request_id = excluded.request_id, amount = excluded.amount, note = excluded.note WHERE payment.state <> 'taken'",
            (row.payment_id, row.lock_id, row.mint, str(row.amount), row.received_at, row.state, row.request_id, row.note),
        )

    def has_seen(self, y: str) -> bool:
        return self._db.execute("SELECT 1 FROM seen WHERE y = ?", (y,)).fetchone() is not None

    def see(self, ys: Iterable[str], payment_id: str) -> str | None:
        """Remember that these proofs are `payment_id`; the other payment that has one of them already, if any."""
        for y in ys:
            self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (y, payment_id))
            owner = str(self._db.execute("SELECT payment_id FROM seen WHERE y = ?", (y,)).fetchone()[0])
            if owner != payment_id:
                return owner
        return None

    def end_payments(self, request_id: int, state: PaymentState, amount: int | None = None, note: str = "") -> None:
        """What the request took, or did not."""
        self._db.execute(
            "UPDATE payment SET state = ?, amount = coalesce(?, amount), note = ? WHERE request_id = ? AND state = 'taking'",
            (state, None if amount is None else str(amount), note[:300], request_id),
        )

    # --- money out

    def outgoing(self, purpose: str) -> OutgoingRow | None:
        return self._outgoing(self._db.execute(_OUTGOING + "WHERE purpose = ?", (purpose,)).fetchone())

    def outgoing_of(self, request_id: int) -> OutgoingRow | None:
        return self._outgoing(self._db.execute(_OUTGOING + "WHERE request_id = ?", (request_id,)).fetchone())

    def locked_until(self, now: int) -> list[OutgoingRow]:
        """Tokens whose locktime (seconds) has passed and whose fate is not known."""
        rows = self._db.execute(_OUTGOING + "WHERE state = 'final' AND locktime IS NOT NULL AND locktime <= ? ORDER BY locktime", (now,))
        return [row for row in map(self._outgoing, rows.fetchall()) if row is not None]

    def next_refund(self) -> int:
        """An index of a refund key that no payment used."""
        row = self._db.execute("SELECT value FROM meta WHERE name = 'refund'").fetchone()
        index = 0 if row is None else int(row[0])
        self._db.execute("INSERT INTO meta VALUES ('refund', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (str(index + 1),))
        return index

    def refunds_used(self) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE name = 'refund'").fetchone()
        return 0 if row is None else int(row[0])

    def put_outgoing(self, row: OutgoingRow) -> None:
        """A new one, or the next attempt of one that is dead."""
        token = self._seal(row.token) if row.token else None
        self._db.execute(
            "INSERT INTO outgoing VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (purpose) DO UPDATE SET"
            " mint = excluded.mint, payment_id = excluded.payment_id, state = excluded.state, request_id = excluded.request_id,"
            " refund_id = excluded.refund_id, locktime = excluded.locktime, token = excluded.token,"
            " attempt = excluded.attempt, at = excluded.at WHERE outgoing.state = 'dead'",
            (
                *(row.purpose, row.target, str(row.amount), row.mint, row.payment_id, row.state, row.request_id),
                *(row.refund_id, row.locktime, token, row.attempt, row.at),
            ),
        )

    def set_outgoing(self, purpose: str, state: OutgoingState, *, only: Sequence[OutgoingState], token: str | None = None) -> bool:
        marks = ", ".join("?" * len(only))
        changed = self._db.execute(
            f"UPDATE outgoing SET state = ?, token = coalesce(?, token) WHERE purpose = ? AND state IN ({marks})",  # noqa: S608  # only question marks
            (state, None if token is None else self._seal(token), purpose, *only),
        )
        return changed.rowcount == 1

    # --- rows to values

    def _coin(self, row: sqlite3.Row) -> Coin:
        y, mint, keyset_id, amount, state, made_by, spent_by, sealed, fee_ppk, active, final_expiry = row
        secret, signature, dleq = self._unseal(sealed)
        proof = Proof(parse_raw(amount), keyset_id, secret, signature, Dleq(*dleq) if dleq else None)
        return Coin(y, mint, proof, state, made_by, spent_by, fee_ppk, ending(bool(active), final_expiry, self._world.now_ms()))

    def _request(self, row: sqlite3.Row) -> RequestRow:
        request_id, mint, kind, purpose, sealed, state, tries, trouble = row
        body, outputs = self._unseal(sealed)
        given = frozenset(output[4] for output in outputs if output[5])
        return RequestRow(request_id, mint, kind, purpose, body.encode(), tuple(Output(*o[:5]) for o in outputs), given, state, tries, trouble)

    def _lock(self, row: sqlite3.Row | None) -> LockRow | None:
        if row is None:
            return None
        lock_id, pubkey, job_id, invoice, quote, quote_mint, bolt11_id, forgotten = row
        known = None if quote is None or self._keys is None else self._unseal(quote)
        return LockRow(lock_id, pubkey, job_id, json.loads(invoice) if invoice else None, known, quote_mint, bolt11_id, bool(forgotten))

    def _outgoing(self, row: sqlite3.Row | None) -> OutgoingRow | None:
        if row is None:
            return None
        purpose, target, amount, mint, payment_id, state, request_id, refund_id, locktime, token, attempt, at = row
        return OutgoingRow(
            *(purpose, target, parse_raw(amount), mint, payment_id, state, request_id, refund_id, locktime),
            token="" if token is None or self._keys is None else self._unseal(token),
            attempt=attempt,
            at=at,
        )


def _keyset(row: sqlite3.Row) -> Keyset:
    keyset_id, unit, active, fee_ppk, keys, final_expiry = row
    return Keyset(keyset_id, unit, bool(active), fee_ppk, {int(amount): key for amount, key in json.loads(keys).items()}, final_expiry)


def _payment(row: sqlite3.Row) -> PaymentRow:
    payment_id, lock_id, mint, amount, received_at, state, request_id, note = row
    return PaymentRow(payment_id, lock_id, mint, parse_raw(amount), received_at, state, request_id, note)
