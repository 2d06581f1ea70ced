"""How the conformance kit tries the rail `nano`: wallets on a real dev ledger, over HTTP and websocket, with a wire between them that fails on request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tradeskill.contracts import PluginContext, Wallet
from tradeskill.model import Invoice
from tradeskill.signing import Identity
from tradeskill.testing.wallet_bench import LedgerFault
from tradeskill.testing.wallet_contract import WalletBench, WalletContract
from tradeskill.testing.wire import FaultyWire
from tradeskill.world import World
from tradeskill_wallet.devnet.node import DevNode
from tradeskill_wallet.nano import NanoWallet, tradeskill_open_wallet
from tradeskill_wallet.seedfile import create_seed, open_seed

__all__ = ["PASSWORD", "NanoBench", "TestNano", "TestNanoWithSeveralSpendingAccounts", "WiredBench", "make_wallet"]

PASSWORD: Final = "correct horse"  # noqa: S105 - of seeds that live for one test


def make_wallet(home: Path, world: World, node: DevNode, seed: bytes | None = None, password: str = PASSWORD, **settings: Any) -> NanoWallet:
    """A wallet in `home`, not opened; its seed file is made on the first call."""
    if not (home / "seed.json").exists():
        create_seed(home / "seed.json", "dev", PASSWORD, world.random_bytes, seed)
    context = PluginContext("nano", "dev", home, world, Identity(bytes(31) + b"\x01"), lambda: password)
    return tradeskill_open_wallet({"rpc": node.rpc_url, "ws": node.ws_url, **settings}, context)


class NanoBench(WalletBench):
    """Confirms only when told (`settle_ledger`)."""

    def __init__(self, home: Path, world: World | None = None, **settings: Any) -> None:
        self.home, self.world, self.settings = home, world or World(), settings
        self.node = DevNode(confirmation_delay_ms=None)
        self.named: dict[str, NanoWallet] = {}  # the one opened last under each name
        self._opened: list[NanoWallet] = []

    async def start(self) -> None:
        await self.node.__aenter__()

    async def stop(self) -> None:
        for wallet in self._opened:
            await wallet.close()
        await self.node.__aexit__(None, None, None)

    async def open(self, name: str) -> NanoWallet:
        wallet = make_wallet(self.home / name, self.world, self.node, **self.settings)
        await wallet.open()
        self._opened.append(wallet)
        self.named[name] = wallet
        return wallet

    async def fund(self, wallet: Wallet, amount: int) -> None:
        await self.node.fund(await wallet.address(), amount)
        await wallet.collect()

    async def send(self, invoice: Invoice, amount: int) -> str | None:
        return await self.node.fund(invoice.address, amount, confirm=False)

    async def settle_ledger(self) -> None:
        self.node.confirm()

    async def received(self, wallet: Wallet) -> int:
        balance = await wallet.balance()
        return balance.available.value + balance.incoming.value

    def now_ms(self) -> int:
        return self.world.now_ms()


class WiredBench(NanoBench):
    """Each wallet speaks to the node over a wire of the kit's."""


    async def start(self) -> None:
        await super().start()
        self.wire = FaultyWire("127.0.0.1", self.node.rpc_port)
        await self.wire.start()
        self.settings = {**self.settings, "rpc": self.wire.url}

    async def stop(self) -> None:
        await super().stop()
        await self.wire.stop()

    async def fault(self, kind: LedgerFault) -> None:
        self.wire.fail(kind)

    def secrets(self, wallet: Wallet) -> Sequence[str]:
        home = next(name for name, opened in self.named.items() if opened is wallet)
        seed = open_seed(self.home / home / "seed.json", "dev", PASSWORD)
        return [PASSWORD, seed.hex(), seed.hex().upper(), repr(seed)]


class TestNano(WalletContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> WalletBench:
        return WiredBench(tmp_path)


class TestNanoWithSeveralSpendingAccounts(WalletContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> WalletBench:
        return WiredBench(tmp_path, accounts=3)
