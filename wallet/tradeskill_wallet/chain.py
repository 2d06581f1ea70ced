"""Our own accounts' chains: choose the next block on our own journal, store it signed, publish those bytes and no others, learn what became of it.

Rules held here: one living block on a `previous` and one for a purpose (the store's unique indexes); the balance to build on comes from a block whose
hash was recomputed and that our key signed; a block is replaced only when another *confirmed* block took its `previous`, or (a receive, which can move
no money out) when the ledger refuses it for good. A doubtful answer is never a failure.

Past 400 lines because the rules for one account's next block hold only together.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from tradeskill.errors import AmountError, RefusedError, StateError, UnavailableError, UsageError
from tradeskill.model import Json, Network
from tradeskill.money import MAX_RAW
from tradeskill.world import World
from tradeskill_wallet.evidence import blocks_info
from tradeskill_wallet.keys import Keys
from tradeskill_wallet.primitives import THRESHOLDS, ZERO, StateBlock, encode_address, work_valid
from tradeskill_wallet.rpc import Nodes, RpcError
from tradeskill_wallet.store import AccountRow, BlockRow, Rows, Store
from tradeskill_wallet.work import WorkSource, cheap

__all__ = ["Chain"]

log = logging.getLogger("tradeskill.nano")

WALK: Final = 500  # blocks fetched at once when a chain is walked
LONGEST: Final = 200_000  # blocks of one account; more and the node is making them up
WORK_REFUSED: Final = ("Block work is less than threshold", "Block work is insufficient")
GAPS: Final = ("Gap previous block", "Gap source block")
NEVER: Final = ("Unreceivable", "Balance and amount delta do not match")  # a receive that got one of these will never enter
LABELLED: Final = {"pay": "pay", "send": "pay", "receive": "receive", "sweep": "sweep", "refund": "refund"}


class Chain:
    """The next block of each of our accounts. Any number of tasks and processes may call it at once."""

    def __init__(
        self,
        store: Store,
        nodes: Nodes,
        work: WorkSource,
        keys: Callable[[], Awaitable[Keys]],
        world: World,
        network: Network,
        representative: bytes | None,
    ) -> None:
        self._store, self._nodes, self._work, self._keys, self._world = store, nodes, work, keys, world
        self._thresholds = THRESHOLDS[network]
        self._strongest = max(self._thresholds.epoch_1, self._thresholds.epoch_2)
        self._representative = representative
        self._publishing: dict[bytes, asyncio.Lock] = {}

    # --- making blocks

    async def send(self, kind: str, purpose: str, sources: Sequence[AccountRow], to: bytes, amount: int) -> BlockRow:
        """Sign (once per purpose) and publish a send of `amount` raw. Of the sources that hold it the least busy one pays.

        RefusedError while nothing living was signed for the purpose: too little money. StateError when the purpose was used for something else.
        """
        known = self._store.rows.by_purpose(purpose)
        if known is not None and (known.block.link, known.amount) != (to, amount):
            raise StateError(f"{purpose} already sent {known.amount} raw to {encode_address(known.block.link)}: use a new key for another payment")
        if known is None or known.state == "dead":
            if to == ZERO or any(to == source.account for source in sources):
                raise RefusedError(f"{encode_address(to)} is the burn account or the sender itself: nothing was signed")
            with self._world.step(f"{LABELLED[kind]}.intent"):
                for source in sources:
                    await self.know(source.account)
                keys = await self._keys()
            with self._world.step(f"{LABELLED[kind]}.block-stored"):
                known = await self._world.offload(partial(self._sign_send, keys, kind, purpose, sources, to, amount))
            if (known.block.link, known.amount) != (to, amount):  # another task was first, for something else
                raise StateError(f"{purpose} already sent {known.amount} raw to {encode_address(known.block.link)}: use a new key for another payment")
        return await self.publish(known)

    async def receive(self, account: AccountRow, source: str, amount: int) -> BlockRow:
        """Sign (once per source) and publish the receive of a verified, final send of `amount` raw; opens the account if it is new."""
        purpose = f"receive:{source}"
        known = self._store.rows.by_purpose(purpose)
        if known is None or known.state == "dead":
            with self._world.step("receive.intent"):
                await self.know(account.account)
                keys = await self._keys()
            with self._world.step("receive.block-stored"):
                known = await self._world.offload(partial(self._sign_receive, keys, purpose, account, bytes.fromhex(source), amount))
        return await self.publish(known)

    def _sign_send(self, keys: Keys, kind: str, purpose: str, sources: Sequence[AccountRow], to: bytes, amount: int) -> BlockRow:
        with self._store.write() as rows:
            known = rows.by_purpose(purpose)
            if known is not None and known.state != "dead":
                return known
            heads = [(rows.head(source.account), source) for source in sources]
            able = [(rows.queue(source.account), head, source) for head, source in heads if head is not None and head.block.balance >= amount]
            if not able:
                held = max((head.block.balance for head, _ in heads if head is not None), default=0)
                raise RefusedError(f"no account holds {amount} raw (the fullest holds {held}): fund {encode_address(sources[0].account)}; nothing was signed")
            _, head, source = min(able, key=lambda item: item[0])
            block = StateBlock(source.account, head.block.hash, self._rep(head), head.block.balance - amount, to)
            return self._store_signed(rows, keys.secret(source.index), BlockRow(block, head.height + 1, kind, "send", amount, purpose, "signed"))

    def _sign_receive(self, keys: Keys, purpose: str, account: AccountRow, source: bytes, amount: int) -> BlockRow:
        with self._store.write() as rows:
            known = rows.by_purpose(purpose)
            if known is not None and known.state != "dead":
                return known
            head = rows.head(account.account)
            balance = (head.block.balance if head else 0) + amount
            if balance > MAX_RAW:
                raise RefusedError(f"receiving {amount} raw would make more than 2^128 - 1: nothing was signed")
            previous, height = (head.block.hash, head.height + 1) if head else (ZERO, 1)
            block = StateBlock(account.account, previous, self._rep(head) if head else self._representative or account.account, balance, source)
            return self._store_signed(rows, keys.secret(account.index), BlockRow(block, height, "receive", "receive", amount, purpose, "signed"))

    def _store_signed(self, rows: Rows, secret: bytes, row: BlockRow) -> BlockRow:
        signed = row.block.signed(secret, self._world.random_bytes)
        kept = rows.work(row.block.root)
        work = kept if kept and work_valid(row.block.root, kept, self._threshold(row)) else self._work.quick(row.block.root, self._threshold(row))
        if kept:
            rows.drop_work(row.block.root)
        row = replace(row, block=signed.with_work(work) if work else signed)
        rows.add_block(row)
        return row

    def _rep(self, head: BlockRow) -> bytes:
        return self._representative or head.block.representative

    def _threshold(self, row: BlockRow) -> int:
        """Receive grade where it is worth it; where work is cheap, send grade fits every epoch."""
        if cheap(self._strongest):
            return self._strongest
        return self._thresholds.needed(2, receive=row.subtype == "receive")

    # --- publishing

    async def publish(self, row: BlockRow) -> BlockRow:
        """Publish what is unpublished of the block's account, oldest first, and say where this block stands now. Never signs anything new
        for this purpose, except after its block was proved dead."""
        if row.state == "signed":
            await self.flush(row.block.account)
        return self._store.rows.by_purpose(row.purpose) or row

    async def flush(self, account: bytes) -> None:
        """Publish the account's signed blocks in order, until one meets a doubt. Sends whose block was proved dead are signed again."""
        async with self._publishing.setdefault(account, asyncio.Lock()):
            for _ in range(2):
                for row in self._store.rows.unpublished(account):
                    if not await self._publish_one(row):
                        break
                if not await self._sign_again(account):
                    return

    async def flush_all(self) -> None:
        """After a start or a doubt: everything signed and not published yet. Unreachable nodes are left for the next time."""
        for account in self._store.rows.unpublished_accounts():
            await self.flush(account)

    async def _sign_again(self, account: bytes) -> bool:
        owner = self._store.rows.account(account)
        abandoned = self._store.rows.abandoned(account)
        if owner is None or not abandoned:
            return False
        keys = await self._keys()
        for row in abandoned:
            try:
                await self._world.offload(partial(self._sign_send, keys, row.kind, row.purpose, [owner], row.block.link, row.amount))
            except RefusedError as error:  # another instance of this seed spent the money: the purpose stays unpaid
                log.warning("%s cannot be sent again: %s", row.purpose, error)
        return True

    async def _publish_one(self, row: BlockRow) -> bool:
        row = await self._with_work(row)
        with self._world.step(f"{LABELLED.get(row.kind, 'pay')}.published"):
            outcome = await self._process(row)
            if outcome == "published":
                await self._write(lambda rows: rows.set_state(row.block.hash_hex, "published"))
        return outcome == "published"

    async def _process(self, row: BlockRow, again: bool = True) -> str:
        """Hand the block to a node. `published` only when a node is known to have it; else `unknown` or `dead`."""
        wanted = row.block.hash_hex
        try:
            answer = await self._nodes.call("process", json_block="true", subtype=row.subtype, block=dict(row.block.to_json()))
        except RpcError as error:
            if error.error in WORK_REFUSED and again:
                return await self._process(await self._stronger(row), again=False)
            return await self._doubt(row, error.error)
        except UnavailableError as error:
            log.info("block %s may or may not have been published: %s", wanted, error)
            return "unknown"
        said = answer.get("hash")
        return "published" if isinstance(said, str) and said.upper() == wanted else await self._doubt(row, "another hash")

    async def _doubt(self, row: BlockRow, answer: str) -> str:
        """A refusal may be the answer to our own earlier, successful try. So look for the block itself before believing anything."""
        try:
            if await self._find(row.block.hash_hex) is not None:
                return "published"
            if answer in GAPS:
                return "unknown"  # it waits in the node and enters by itself; a replacement could double it
            await self.sync(row.block.account)
        except UnavailableError:
            return "unknown"
        now = self._store.rows.block(row.block.hash_hex)
        if now is not None and now.state == "dead":
            return "dead"
        if row.subtype == "receive" and answer in NEVER and self._store.rows.child(row.block.account, row.block.hash) is None:
            log.warning("receive %s is given up: the ledger refuses it for good (%s)", row.block.hash_hex, answer)
            await self._write(lambda rows: rows.kill_branch(row.block.account, row.height))
            return "dead"
        log.warning("block %s (%s) is not accepted: %s; it stays stored and is tried again", row.block.hash_hex, row.purpose, answer)
        return "unknown"

    async def _with_work(self, row: BlockRow) -> BlockRow:
        if row.block.work:
            return row
        work = await self._work.find(row.block.root, self._threshold(row))
        return await self._fix_work(row, work, None)

    async def _stronger(self, row: BlockRow) -> BlockRow:
        """The node wants more work than we thought (an account of an older epoch). The block's hash does not change with its work."""
        if work_valid(row.block.root, row.block.work, self._strongest):
            return row
        return await self._fix_work(row, await self._work.find(row.block.root, self._strongest), row.block.work)

    async def _fix_work(self, row: BlockRow, work: str, instead_of: str | None) -> BlockRow:
        await self._write(lambda rows: rows.set_work(row.block.hash_hex, work, instead_of))
        return self._store.rows.block(row.block.hash_hex) or row

    async def prepare(self, account: bytes) -> None:
        """Compute the work of the account's next block ahead, at send grade, where that takes long. Safe to cancel."""
        head = self._store.rows.head(account)
        root = head.block.hash if head else account
        if self._store.rows.work(root) is None and not cheap(self._strongest):
            work = await self._work.find(root, self._thresholds.epoch_2)
            await self._write(lambda rows: rows.keep_work(root, work))

    # --- learning from the ledger

    async def confirm(self, limit: int = 200) -> int:
        """Look for published blocks on the ledger: confirmed ones are noted, vanished ones go back to be published again. Returns how many wait."""
        waiting = self._store.rows.published(limit)
        if not waiting:
            return 0
        infos = await blocks_info(self._nodes, [row.block.hash_hex for row in waiting])
        left = 0
        for row in waiting:
            info = _entry(infos.get(row.block.hash_hex), row.block.hash_hex)
            if info is None:
                await self._write(partial(_set_state, row.block.hash_hex, "signed"))
                left += 1
            elif info.get("confirmed") == "true":
                with self._world.step(f"{LABELLED.get(row.kind, 'pay')}.confirmed"):
                    await self._write(partial(_set_state, row.block.hash_hex, "confirmed"))
            else:
                left += 1
        return left

    async def look(self, row: BlockRow) -> BlockRow:
        """The row after asking the ledger for this one block; unchanged when no node answers."""
        if row.state != "published":
            return row
        try:
            info = await self._find(row.block.hash_hex)
        except UnavailableError:
            return row
        if info is None:
            await self._write(partial(_set_state, row.block.hash_hex, "signed"))
        elif info.get("confirmed") == "true":
            with self._world.step(f"{LABELLED.get(row.kind, 'pay')}.confirmed"):
                await self._write(partial(_set_state, row.block.hash_hex, "confirmed"))
        return self._store.rows.block(row.block.hash_hex) or row

    async def know(self, account: bytes) -> None:
        """Make sure the account's head is known: from the journal, else from the ledger, verified."""
        if self._store.rows.head(account) is None:
            await self.sync(account)

    async def sync(self, account: bytes, *, whole: bool = False) -> bool:
        """Adopt what the ledger shows of our account beyond our journal: blocks our key signed, back to one we know. True when something was new.

        Without `whole` a fresh journal begins at the frontier, whose balance our own signature proves; with it the chain is walked to its start.
        """
        try:
            info = await self._nodes.call("account_info", account=encode_address(account))
        except RpcError as error:
            if error.error == "Account not found":
                return False
            raise
        frontier = str(info.get("frontier", "")).upper()
        known = self._store.rows.block(frontier)
        if known is not None and known.state != "dead":
            return False
        new = await self._walk(account, frontier, whole or self._store.rows.head(account) is not None)
        if new:
            await self._world.offload(partial(self._adopt, account, new, _height(info) - len(new)))
        return bool(new)

    async def _walk(self, account: bytes, frontier: str, whole: bool) -> list[tuple[StateBlock, bool]]:
        """Blocks from the first unknown one up to the frontier, each with whether it is confirmed; verified link by link."""
        found: list[tuple[StateBlock, bool]] = []
        wanted, place = frontier, encode_address(account)
        while len(found) < LONGEST:
            answer = await self._nodes.call("chain", block=wanted, count=str(WALK if whole else 2))
            hashes = answer.get("blocks")
            infos = await blocks_info(self._nodes, [str(h).upper() for h in hashes] if isinstance(hashes, list) else [wanted])
            if wanted not in infos:
                raise UnavailableError(f"a node does not show block {wanted} of our account {place}: not building on its answers")
            while wanted in infos:
                info = _entry(infos.pop(wanted), wanted)
                block = None if info is None else _own(info, account)
                if info is None or block is None:
                    raise UnavailableError(f"a node shows a block {wanted} of our account {place} that is not valid: not building on it")
                found.append((block, info.get("confirmed") == "true"))
                wanted = block.previous.hex().upper()
                before = self._store.rows.block(wanted)
                if before is not None and before.state != "dead":
                    return _checked(found[::-1], before.block.balance)
                if block.previous == ZERO:
                    return _checked(found[::-1], 0)
                if block.verified() and not whole:
                    return _checked(found[::-1], None)
        raise UnavailableError(f"the chain of {place} does not end: not building on it")

    def _adopt(self, account: bytes, blocks: Sequence[tuple[StateBlock, bool]], height: int) -> None:
        with self._store.write() as rows:
            first = blocks[0][0]
            before = rows.block(first.previous.hex().upper())
            height = before.height if before else max(0, height)
            rival = rows.child(account, first.previous)
            if rival is not None and rival.block.hash != first.hash:
                if not blocks[0][1] or rival.state == "confirmed":
                    return  # undecided: ours may still win
                rows.kill_branch(account, rival.height)
                log.warning("block %s (%s) lost its place to the confirmed block %s", rival.block.hash_hex, rival.purpose, first.hash_hex)
            balance = before.block.balance if before else 0 if first.previous == ZERO else None
            for block, confirmed in blocks:
                height += 1
                known = rows.block(block.hash_hex)
                if known is None:
                    _add_found(rows, block, balance, height, confirmed)
                elif known.state == "dead":  # a receive given up too early is on the ledger after all
                    rows.revive(block.hash_hex)
                balance = block.balance

    async def _find(self, block_hash: str) -> dict[str, Json] | None:
        """The node's entry of a block, its hash recomputed; None when the node does not know it."""
        try:
            info = await self._nodes.call("block_info", hash=block_hash, json_block="true")
        except RpcError as error:
            if error.error == "Block not found":
                return None
            raise
        return _entry(info, block_hash)

    async def _write(self, change: Callable[[Rows], None]) -> None:
        def work() -> None:
            with self._store.write() as rows:
                change(rows)

        await self._world.offload(work)


def _set_state(block_hash: str, state: str, rows: Rows) -> None:
    rows.set_state(block_hash, "signed" if state == "signed" else "confirmed")


def _add_found(rows: Rows, block: StateBlock, balance: int | None, height: int, confirmed: bool) -> None:
    """A block of ours that we did not know. Its purpose is known only for receives."""
    delta = 0 if balance is None else block.balance - balance
    subtype = "receive" if delta > 0 else "send" if delta < 0 else "change"
    purpose = f"receive:{block.link.hex().upper()}" if delta > 0 else f"ledger:{block.hash_hex}"
    row = BlockRow(block, height, "ledger", subtype, abs(delta), purpose, "confirmed" if confirmed else "published")
    try:
        rows.add_block(row)
    except sqlite3.IntegrityError:  # a living receive of ours has that purpose: keep both apart
        rows.add_block(replace(row, purpose=f"ledger:{block.hash_hex}"))


def _entry(info: Json, block_hash: str) -> dict[str, Json] | None:
    """A `block_info` entry if its contents hash to what was asked for, else None (as if the node did not know it)."""
    contents = info.get("contents") if isinstance(info, dict) else None
    if not isinstance(info, dict) or not isinstance(contents, dict):
        return None
    try:
        return info if StateBlock.from_json(contents).hash_hex == block_hash else None
    except (UsageError, AmountError):
        return None


def _own(info: dict[str, Json], account: bytes) -> StateBlock | None:
    contents = info.get("contents")
    block = StateBlock.from_json(contents) if isinstance(contents, dict) else None
    return block if block is not None and block.account == account else None


def _checked(blocks: list[tuple[StateBlock, bool]], balance: int | None) -> list[tuple[StateBlock, bool]]:
    """Oldest first, on top of a known balance. What our key did not sign is an epoch block, which changes no balance; anything else is refused."""
    for block, _ in blocks:
        if not block.verified() and block.balance != balance:
            raise UnavailableError(f"a node shows a block {block.hash_hex} on our account {encode_address(block.account)} that we did not sign")
        balance = block.balance
    return blocks


def _height(info: dict[str, Json]) -> int:
    count = info.get("block_count")
    return int(count) if isinstance(count, str) and count.isascii() and count.isdigit() and len(count) < 16 else 0
