"""A dev node in this process: the chain behind HTTP and websocket, with a faucet."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tradeskill.errors import RefusedError, StorageError, UsageError
from tradeskill.money import MAX_RAW
from tradeskill.world import World
from tradeskill_wallet.devnet.chain import Chain
from tradeskill_wallet.devnet.clock import Clock
from tradeskill_wallet.devnet.faults import Faults
from tradeskill_wallet.devnet.genesis import GENESIS_ACCOUNT, GENESIS_SECRET
from tradeskill_wallet.devnet.http import HttpServer
from tradeskill_wallet.devnet.ledger import Ledger
from tradeskill_wallet.devnet.rpc import Rpc
from tradeskill_wallet.devnet.rules import Outcome
from tradeskill_wallet.devnet.websocket import WebsocketServer
from tradeskill_wallet.devnet.wire import Tree
from tradeskill_wallet.devnet.work import WorkPool
from tradeskill_wallet.primitives import StateBlock, decode_address

__all__ = ["DevNode"]


class DevNode:
    """`async with DevNode() as node:` serves until the block ends; nothing outlives it but the folder `data`.

    Ports 0 mean any. `confirmation_delay_ms=None` confirms nothing by itself: call `confirm`. The `clock` may be a
    ManualClock. Reading `ledger` and calling `confirm`, `rollback` and `set_faults` is meant for tests.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        clock: Clock | None = None,
        host: str = "127.0.0.1",
        rpc_port: int = 0,
        ws_port: int = 0,
        confirmation_delay_ms: int | None = 150,
        epoch: int = 2,
        thresholds: Literal["dev", "live"] = "dev",
        control: bool = True,
        data: Path | None = None,
    ) -> None:
        self._world = world or World()
        self._clock = clock
        self._host, self._ports = host, (rpc_port, ws_port)
        self._chain_options = (confirmation_delay_ms, epoch, thresholds, data)
        self._control = control
        self._failure: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Open and listen. Raises UsageError if a port is taken, and what `Chain` raises for `data`."""
        delay, epoch, thresholds, data = self._chain_options
        self._failure = asyncio.get_running_loop().create_future()
        self.chain = Chain(self._world, clock=self._clock, confirmation_delay_ms=delay, epoch=epoch, thresholds=thresholds, data=data)
        self.clock = self.chain.clock
        self.rpc = Rpc(self.chain, control=self._control)
        self._faucet, self._funding = WorkPool(), asyncio.Lock()
        self._http = HttpServer(self.rpc, self._failed)
        self._websocket = WebsocketServer(self.chain)
        try:
            self.rpc_port = await self._listen(self._http, self._ports[0], "--rpc-port")
            self.ws_port = await self._listen(self._websocket, self._ports[1], "--ws-port")
        except BaseException:
            await self._close()
            raise
        self.rpc_url = f"http://{self._host}:{self.rpc_port}"
        self.ws_url = f"ws://{self._host}:{self.ws_port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close()

    @property
    def ledger(self) -> Ledger:
        return self.chain.ledger

    @property
    def faults(self) -> Faults:
        return self.chain.faults

    @property
    def network(self) -> str:
        """What `version` says: `dev`, or `test` with live thresholds."""
        return self.chain.network

    def set_faults(self, **wanted: Tree) -> None:
        """As the action `devnet_faults`: `set_faults(unconfirmed="all")`, `set_faults(lies={"balance": "0"})`; "none", "false" and {} end one."""
        self.chain.set_faults(dict(wanted))

    def confirm(self, block_hash: str | None = None) -> None:
        """Cement one block with all below it, or everything, at once."""
        if block_hash is None:
            self.chain.confirm_all()
        else:
            self.chain.confirm(bytes.fromhex(block_hash))

    def rollback(self, block_hash: str) -> None:
        """Take an unconfirmed block out again, with all that rests on it. Raises StateError on a confirmed one."""
        self.chain.rollback(bytes.fromhex(block_hash))

    async def fund(self, address: str, raw: int, *, confirm: bool = True) -> str:
        """Send raw from genesis; returns the send's hash, confirmed at once unless `confirm` is False. Each call sends again."""
        destination = decode_address(address)
        async with self._funding:
            account = self.ledger.accounts[GENESIS_ACCOUNT]
            if type(raw) is not int or not 0 < raw <= min(account.balance, MAX_RAW):
                raise UsageError(f"amount {raw!r} raw cannot be sent: the faucet holds {account.balance} raw")
            block = StateBlock(GENESIS_ACCOUNT, account.head, account.representative, account.balance - raw, destination)
            work = await self._faucet.generate(block.root, self.ledger.thresholds.needed(account.epoch, receive=False))
            signed = block.with_work(work or "0" * 16).signed(GENESIS_SECRET, self._world.random_bytes)
            outcome = self.chain.submit(signed)
            if outcome is not Outcome.PROGRESS:
                raise RefusedError(f"the faucet's send to {address} was refused: {outcome.value}: fund again")
            if confirm and signed.hash in self.ledger.entries:
                self.chain.confirm(signed.hash)
            await self.chain.durable()
        return signed.hash_hex

    async def failed(self) -> None:
        """Wait until the store fails; raises its StorageError. A server waits for this beside its stop signal."""
        assert self._failure is not None
        await asyncio.shield(self._failure)

    def _failed(self, error: StorageError) -> None:
        if self._failure and not self._failure.done():
            self._failure.set_exception(error)

    async def _listen(self, server: HttpServer | WebsocketServer, port: int, option: str) -> int:
        try:
            return await server.start(self._host, port)
        except OSError as error:
            raise UsageError(
                f"port {port} on {self._host} cannot be used ({os.strerror(error.errno) if error.errno else error}): choose another {option}, or 0 for any"
            ) from error

    async def _close(self) -> None:
        await self._http.stop()
        await self._websocket.stop()
        self.rpc.close()
        self._faucet.close()
        self.chain.close()
        if self._failure and self._failure.done() and not self._failure.cancelled():
            self._failure.exception()  # seen: an unwatched failure is not a second error
