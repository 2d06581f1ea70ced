"""The Nano wallet keeps the wallet contract on a real dev ledger, over HTTP and websocket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nano_bench import NanoBench
from tradeskill.testing.wallet_contract import WalletBench, WalletContract


class TestNanoWallet(WalletContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> WalletBench:
        return NanoBench(tmp_path)


class TestNanoWalletWithSeveralSpendingAccounts(WalletContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> WalletBench:
        return NanoBench(tmp_path, accounts=3)
