"""Nano wallets on a real dev ledger, for tests: the bench that the rail's own conformance tests use."""

from __future__ import annotations

from tradeskill_wallet.devnet.conformance import PASSWORD, NanoBench, WiredBench, make_wallet

__all__ = ["PASSWORD", "NanoBench", "WiredBench", "make_wallet"]
