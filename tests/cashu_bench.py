"""Cashu wallets at a real mint, for tests: the bench that the rail's own conformance tests use."""

from __future__ import annotations

from tradeskill_plugins.cashu.conformance import PASSWORD, CashuBench, deposit, make_wallet

__all__ = ["PASSWORD", "CashuBench", "deposit", "make_wallet"]
