"""The wallet's own money: which accounts spend, how what came in is received, swept and given back. Chains do the signing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from tradeskill.errors import AmountError, RefusedError, StateError, UnavailableError
from tradeskill.money import parse_raw
from tradeskill.world import World
from tradeskill_wallet.chain import Chain
from tradeskill_wallet.evidence import Evidence, Question
from tradeskill_wallet.primitives import encode_address
from tradeskill_wallet.rpc import Nodes
from tradeskill_wallet.settlement import Answers, weigh
from tradeskill_wallet.store import AccountRow, BlockRow, IncomingRow, Store

__all__ = ["Gate", "Purse"]

Gate = Callable[[str, int], contextlib.AbstractAsyncContextManager[None]]  # around a send under this purpose, of so much raw

SWEEPS: Final = 8  # accounts swept at the same time
AT_ONCE: Final = 100  # sends received into one main account by one `receive`


class Purse:
    """Main accounts spend; invoice accounts are emptied into them. Every call may be repeated and continues where it was."""

    def __init__(self, store: Store, chain: Chain, evidence: Evidence, nodes: Nodes, world: World, accounts: int) -> None:
        self._store, self._chain, self._evidence, self._nodes = store, chain, evidence, nodes
        self._world, self._accounts = world, accounts

    def mains(self) -> list[AccountRow]:
        mains = self._store.rows.mains()
        if not mains:
            raise StateError(f"{self._store.path} has no accounts yet: open the wallet with its password once")
        return mains[: self._accounts]

    async def balance(self) -> tuple[int, int]:
        """Raw that can be spent now, and final raw that is not collected yet."""
        available = incoming = 0
        for main in self.mains():
            await self._chain.know(main.account)
            head = self._store.rows.head(main.account)
            available += head.block.balance if head else 0
            answer = await self._nodes.call("accounts_balances", accounts=[encode_address(main.account)])
            entries = answer.get("balances")
            entry = entries.get(encode_address(main.account)) if isinstance(entries, dict) else None
            try:
                incoming += parse_raw(entry.get("receivable")) if isinstance(entry, dict) else 0
            except AmountError as error:
                raise UnavailableError(f"a node answered accounts_balances with a bad amount: {error}") from error
        waiting = self._store.rows.uncollected()
        for account in {row.account for row in waiting}:
            head = self._store.rows.head(account)
            incoming += head.block.balance if head else 0
        incoming += sum(row.amount for row in waiting if self._store.rows.by_purpose(f"receive:{row.hash}") is None)
        return available, incoming

    async def receive(self) -> int:
        """Receive final sends waiting for the main accounts, largest first. Returns how many receive blocks were made."""
        return sum([await self._receive_into(main) for main in self.mains()])

    async def sweep(self, to: bytes | None, gate: Gate | None = None) -> int:
        """What paid invoices hold goes to the account `to`, else to the first main one. Returns how many blocks were made."""
        target = self.mains()[0].account if to is None else to
        turns = asyncio.Semaphore(SWEEPS)

        async def sweep(account: bytes) -> int:
            owner = self._store.rows.account(account)
            async with turns:
                return 0 if owner is None else await self.receive_known(owner) + await self._sweep_one(owner, target, gate)

        waiting = dict.fromkeys(row.account for row in self._store.rows.uncollected())
        results = await asyncio.gather(*(sweep(account) for account in waiting), return_exceptions=True)
        for result in results:  # all have ended; the first trouble is told
            if isinstance(result, BaseException):
                raise result
        return sum(result for result in results if isinstance(result, int))

    async def spend(self, kind: str, purpose: str, to: bytes, amount: int) -> BlockRow:
        """From a main account; what waits for them is received first where it is needed, whoever receives it. RefusedError: nothing was signed."""
        with contextlib.suppress(RefusedError):
            return await self._chain.send(kind, purpose, self.mains(), to, amount)
        await self.receive()  # none is left to receive when another process of the profile was quicker: then the money is here
        return await self._chain.send(kind, purpose, self.mains(), to, amount)

    async def refund(self, account: bytes, purpose: str, to: bytes, amount: int) -> BlockRow:
        """From the invoice's own account while the money is there, else from the main ones."""
        owner = self._store.rows.account(account)
        assert owner is not None
        await self.receive_known(owner)
        head = self._store.rows.head(account)
        known = self._store.rows.by_purpose(purpose)
        if known is not None or (head is not None and head.block.balance >= amount):
            with contextlib.suppress(RefusedError):  # a sweep was quicker
                return await self._chain.send("refund", purpose, [owner], to, amount)
        return await self.spend("refund", purpose, to, amount)

    async def spread(self, key: str) -> int:
        """Share the first main account's money evenly with the other spending accounts, once per `key`. Returns how many sends were made."""
        first, *others = self.mains()
        await self._chain.know(first.account)
        head = self._store.rows.head(first.account)
        share = head.block.balance // (len(others) + 1) if head else 0
        for other in others if share else []:
            known = self._store.rows.by_purpose(f"send:{key}/{other.index}")
            await self._chain.send("send", f"send:{key}/{other.index}", [first], other.account, known.amount if known else share)
        return len(others) if share else 0

    async def remember_sends(self, account: bytes) -> None:
        """Put what a found account holds up for collection."""
        sends = await self._final_sends(account)
        head = self._store.rows.head(account)
        now = self._world.now_ms()
        new = [IncomingRow(send, account, amount, "", now) for send, amount in sends]
        if head is not None and head.block.balance > 0:
            new += [IncomingRow(source.hex().upper(), account, 0, "", now) for source in self._store.rows.received_sources(account)[-1:]]
        if new:
            await self._world.offload(partial(self._note, new, ()))

    async def _final_sends(self, account: bytes, limit: int | None = None) -> list[tuple[str, int]]:
        """Verified final sends waiting for an account, from the first node that answers."""
        answers: Sequence[Answers] = await self._evidence.gather(Question(account, limit=limit), 1)
        last = answers[-1]
        if last.problem and not last.sends:
            raise UnavailableError(last.problem)
        weighed = [(seen.hash, weigh(seen, account)) for seen in last.sends]
        return [(send, weight.amount) for send, weight in weighed if weight.verdict == "final"]

    async def receive_known(self, owner: AccountRow) -> int:
        made = 0
        for row in self._store.rows.incoming(owner.account):
            if self._unreceived(row.hash):
                await self._chain.receive(owner, row.hash, row.amount)
                made += 1
        return made

    async def _receive_into(self, main: AccountRow) -> int:
        made = 0
        for send, amount in await self._final_sends(main.account, AT_ONCE):
            if self._unreceived(send):
                await self._chain.receive(main, send, amount)
                made += 1
        return made

    def _unreceived(self, send: str) -> bool:
        row = self._store.rows.by_purpose(f"receive:{send}")
        return row is None or row.state == "dead"

    async def _sweep_one(self, owner: AccountRow, target: bytes, gate: Gate | None) -> int:
        head = self._store.rows.head(owner.account)
        made = 0
        if head is not None and head.block.balance > 0 and target != owner.account:
            purpose, amount = f"sweep:{head.block.hash_hex}", head.block.balance
            async with contextlib.nullcontext() if gate is None else gate(purpose, amount):
                with contextlib.suppress(RefusedError):  # a refund was quicker
                    await self._chain.send("sweep", purpose, [owner], target, amount)
                    made = 1
            head = self._store.rows.head(owner.account)
        if head is not None and head.block.balance == 0:
            done = [row.hash for row in self._store.rows.incoming(owner.account) if not self._unreceived(row.hash)]
            await self._world.offload(partial(self._note, (), done))
        return made

    def _note(self, found: Sequence[IncomingRow], done: Sequence[str]) -> None:
        with self._store.write() as rows:
            for payment in found:
                rows.add_incoming(payment)
            for send in done:
                rows.collected(send)
