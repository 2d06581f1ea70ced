"""The Nano wallet keeps the wallet contract, as everybody can try with `tradeskill plugins check nano`."""

from __future__ import annotations

from tradeskill_wallet.devnet.conformance import TestNano, TestNanoWithSeveralSpendingAccounts

__all__ = ["TestNano", "TestNanoWithSeveralSpendingAccounts"]
