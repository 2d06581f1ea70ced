"""The Nano wallet keeps the wallet contract on a real dev ledger, over HTTP and websocket, with a wire between them that fails on request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.nano_bench import PASSWORD, NanoBench
from tradeskill.contracts import Wallet
from tradeskill.testing.wallet_bench import LedgerFault
from tradeskill.testing.wallet_contract import WalletBench, WalletContract
from tradeskill.testing.wire import FaultyWire
from tradeskill_wallet.nano import NanoWallet
from tradeskill_wallet.seedfile import open_seed


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
        assert isinstance(wallet, NanoWallet)
        seed = open_seed(wallet._context.home / "seed.json", "dev", PASSWORD)
        return [PASSWORD, seed.hex(), seed.hex().upper(), repr(seed)]


class TestNanoWallet(WalletContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> WalletBench:
        return WiredBench(tmp_path)


class TestNanoWalletWithSeveralSpendingAccounts(WalletContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> WalletBench:
        return WiredBench(tmp_path, accounts=3)
