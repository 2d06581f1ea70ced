"""How the conformance kit tries this rail: a bench that sets it up as a user would, through its hook."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from tradeskill.contracts import PluginContext, Wallet
from tradeskill.model import Invoice
from tradeskill.money import Amount
from tradeskill.signing import Identity
from tradeskill.testing.wallet_bench import LedgerFault, WalletBench
from tradeskill.testing.wallet_contract import WalletContract
from tradeskill.world import World

from tradeskill_tally import tradeskill_open_wallet
from tradeskill_tally.ledger import NOWHERE, Ledger, Transfer
from tradeskill_tally.wallet import TallyWallet

MINUTE = 60_000


class Stepped(World):
    """A clock that moves when it is told to: what was written down a minute ago is final."""

    ahead = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead


class Bench(WalletBench):
    """A tally of its own for every test, and wallets in folders beside it."""

    lacks: ClassVar[Mapping[str, str]] = {
        "hints": "nobody tells it of payments; polling finds them",
        "secrets": "it has no key: whoever can write the tally is trusted",
    }

    def __init__(self, home: Path) -> None:
        self.home, self.world, self._fault, self._strangers = home, Stepped(), "", 0
        self._ledgers: list[Ledger] = []

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def open(self, name: str) -> Wallet:
        context = PluginContext("tally", "dev", self.home / name, self.world, Identity(bytes(31) + b"\x01"), lambda: "password")
        wallet = tradeskill_open_wallet({"path": str(self.home / "tally.db"), "settles_after_ms": MINUTE}, context)
        assert isinstance(wallet, TallyWallet)
        self._ledgers.append(wallet.ledger)
        wallet.ledger.fault = self._fault
        await wallet.open()
        return wallet

    async def fund(self, wallet: Wallet, amount: int) -> None:
        bank = Ledger(self.home / "tally.db", "dev", self.world, MINUTE)
        await bank.publish(Transfer(uuid.uuid4().hex, NOWHERE, await wallet.address(), amount))
        await self.settle_ledger()

    async def send(self, invoice: Invoice, amount: int) -> str | None:
        self._strangers += 1
        stranger = await self.open(f"stranger-{self._strangers}")
        await self.fund(stranger, amount)
        part = Invoice(invoice.rail, invoice.network, "part", "part", invoice.address, Amount(amount, stranger.unit), 0)
        return (await stranger.pay(part, "key")).payment_id

    async def settle_ledger(self) -> None:
        self.world.ahead += MINUTE

    async def received(self, wallet: Wallet) -> int:
        bank = Ledger(self.home / "tally.db", "dev", self.world, MINUTE)
        return sum(each.amount for each in await bank.incoming(await wallet.address()) if each.final)

    def now_ms(self) -> int:
        return self.world.now_ms()

    async def fault(self, kind: LedgerFault) -> None:
        self._fault = kind
        for ledger in self._ledgers:
            ledger.fault = kind


class TestTally(WalletContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> WalletBench:
        return Bench(tmp_path)
