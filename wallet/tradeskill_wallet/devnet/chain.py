"""A living ledger: blocks come in, get confirmed in time, go wrong on request, and are remembered. No sockets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from tradeskill.errors import UsageError
from tradeskill.world import World
from tradeskill_wallet.devnet.clock import Clock, WorldClock
from tradeskill_wallet.devnet.confirmation import Confirmation
from tradeskill_wallet.devnet.faults import Faults
from tradeskill_wallet.devnet.genesis import EPOCH_LINKS, GENESIS_ACCOUNT, GENESIS_SECRET
from tradeskill_wallet.devnet.ledger import Entry, Ledger
from tradeskill_wallet.devnet.rules import Outcome, judge
from tradeskill_wallet.devnet.store import Record, Store
from tradeskill_wallet.devnet.wire import Tree
from tradeskill_wallet.devnet.work import find_work
from tradeskill_wallet.primitives import THRESHOLDS, StateBlock

__all__ = ["ACTIVE_HEIGHT", "ACTIVE_QUORUM", "Chain"]

ACTIVE_QUORUM: Final = "active_quorum"
ACTIVE_HEIGHT: Final = "active_confirmation_height"  # somebody asked again about a confirmed block


class Chain:
    """Ledger, confirmation, faults and store together. All calls are synchronous except `durable`.

    `view` is what reads see: the ledger, or its snapshot while the fault `lagging` is on.
    """

    def __init__(
        self,
        world: World,
        *,
        clock: Clock | None = None,
        confirmation_delay_ms: int | None = 150,
        epoch: int = 2,
        thresholds: Literal["dev", "live"] = "dev",
        data: Path | None = None,
    ) -> None:
        if epoch not in (0, 1, 2):
            raise UsageError(f"epoch {epoch} does not exist: use 0, 1 or 2")
        if confirmation_delay_ms is not None and confirmation_delay_ms < 0:
            raise UsageError(f"confirmation delay {confirmation_delay_ms} is negative: give milliseconds, 0 or more")
        self.world = world
        self.clock = clock or WorldClock(world)
        self.network = "dev" if thresholds == "dev" else "test"
        self.faults = Faults()
        self.on_entered: list[Callable[[Entry], None]] = []
        self.on_confirmed: list[Callable[[Entry, str], None]] = []
        self.started_ms = self.clock.now_ms()
        self.ledger = Ledger(THRESHOLDS[thresholds], self._now())
        self.view = self.ledger
        self.confirmation = Confirmation(self.ledger, confirmation_delay_ms)
        self._held: list[bytes] = []
        self._wake: tuple[int, Callable[[], None]] | None = None
        self._store: Store | None = None
        self._upgrade(epoch)
        if data is not None:
            self._store = Store(data, {"tradeskill devnet": 1, "epoch": epoch, "thresholds": thresholds}, world)
            self._replay(self._store.records)

    # --- blocks

    def submit(self, block: StateBlock, *, force: bool = False) -> Outcome:
        """Hand a block to the ledger. With `force`, a fork replaces an unconfirmed competitor; a confirmed one stays, silently."""
        if self.faults.drop_process and judge(self.ledger, block).outcome is Outcome.PROGRESS and self.faults.drop_process.hits(block):
            return Outcome.PROGRESS
        outcome, entered = self.ledger.process(block, self._now())
        if outcome is Outcome.FORK and force:
            rival = self.ledger.competitor(block)
            if rival is not None and not self.ledger.entries[rival].confirmed:
                self.rollback(rival)
                _, entered = self.ledger.process(block, self._now())
        self._entered(entered)
        return outcome

    def confirm(self, block_hash: bytes) -> None:
        """Cement a block with all it rests on, now, whatever the delay and the faults say."""
        done = self.ledger.confirm(block_hash)
        for entry in done:
            if self._store:
                self._store.append({"confirm": entry.hash.hex()})
            self.confirmation.confirmed(entry, self.clock.now_ms())
        for entry in done:
            for listener in self.on_confirmed:
                listener(entry, ACTIVE_QUORUM)
        self._arm()

    def confirm_all(self) -> None:
        """Cement everything that is in the ledger, in the order it came."""
        for entry in [item for item in self.ledger.entries.values() if not item.confirmed]:
            self.confirm(entry.hash)

    def ask(self, entry: Entry) -> None:
        """What `block_confirm` does: start an election, or tell again of a confirmed block."""
        if entry.confirmed:
            for listener in self.on_confirmed:
                listener(entry, ACTIVE_HEIGHT)
        else:
            self.confirmation.ask(entry, self.clock.now_ms())
            self._arm()

    def rollback(self, block_hash: bytes) -> None:
        """Take an unconfirmed block out again, with all that rests on it. Raises StateError on a confirmed one."""
        for entry in self.ledger.rollback(block_hash):
            if self._store:
                self._store.append({"rollback": entry.hash.hex()})
            self.confirmation.left(entry)

    async def durable(self) -> None:
        """Return when all that happened so far is on the disk (at once for a ledger in memory). Raises StorageError."""
        if self._store:
            await self._store.sync()

    def set_faults(self, wanted: dict[str, Tree]) -> None:
        """Switch faults on and off (see `Faults.change`); what they held back goes on. Raises UsageError, changing nothing."""
        was_lagging = self.faults.lagging
        self.faults.change(wanted)
        if self.faults.lagging != was_lagging:
            self.view = self.ledger.snapshot() if self.faults.lagging else self.ledger
        for block_hash in self._held:
            self.confirmation.again(block_hash, self.clock.now_ms())
        self._held = []
        self._arm()

    def close(self) -> None:
        """Stop the timer and give up the store. Twice is safe."""
        if self._wake:
            self._wake[1]()
            self._wake = None
        if self._store:
            self._store.close()

    # --- within

    def _now(self) -> int:
        return self.clock.now_ms() // 1000

    def _entered(self, entries: list[Entry]) -> None:
        now = self.clock.now_ms()
        for entry in entries:
            if self._store:
                self._store.append({"block": entry.block.to_json(), "time": entry.timestamp})
            self.confirmation.entered(entry, now)
        for entry in entries:
            for listener in self.on_entered:
                listener(entry)
        if entries:
            self._arm()

    def _arm(self) -> None:
        due = self.confirmation.next_due()
        if due is None or (self._wake and self._wake[0] <= due):
            return
        if self._wake:
            self._wake[1]()
        self._wake = (due, self.clock.call_at(due, self._tick))

    def _tick(self) -> None:
        self._wake = None
        now = self.clock.now_ms()
        while (entry := self.confirmation.pop_due(now)) is not None:
            block = entry.block
            if not isinstance(block, StateBlock):
                continue
            if self.faults.rollback.hits(block):
                self.rollback(entry.hash)
            elif self.faults.unconfirmed.hits(block):
                self._held.append(entry.hash)
            else:
                self.confirm(entry.hash)
        self._arm()

    def _upgrade(self, epoch: int) -> None:
        """Bring the genesis account to its epoch, confirmed. At live thresholds the blocks have no work: it would take a minute."""
        for link, number in EPOCH_LINKS.items():
            if number > epoch:
                break
            account = self.ledger.accounts[GENESIS_ACCOUNT]
            block = StateBlock(GENESIS_ACCOUNT, account.head, account.representative, account.balance, link, work="0" * 16)
            if self.network == "dev":
                block = block.with_work(find_work(block.root, self.ledger.thresholds.needed(number, receive=True)))
            self.ledger.process(block.signed(GENESIS_SECRET, self.world.random_bytes), self._now(), trusted=True)
            self.ledger.confirm(block.hash)

    def _replay(self, records: list[Record]) -> None:
        for record in records:
            block = record.get("block")
            if isinstance(block, dict):
                self.ledger.process(StateBlock.from_json(block), int(str(record["time"])), trusted=True)
            elif "confirm" in record:
                self.ledger.confirm(bytes.fromhex(str(record["confirm"])))
            else:
                self.ledger.rollback(bytes.fromhex(str(record["rollback"])))
        for entry in self.ledger.entries.values():
            if not entry.confirmed:
                self.confirmation.entered(entry, self.clock.now_ms())
        self._arm()
