"""The Cashu wallet keeps the wallet contract at a real mint, with a wire between them that fails on request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cashu_bench import CashuBench
from tests.mint import Mint, minting, missing
from tradeskill.testing.wallet_contract import WalletBench, WalletContract


@pytest.fixture(scope="module")
def free_mint() -> Iterator[Mint]:
    if lacking := missing():
        pytest.skip(lacking)
    with minting(fee_ppk=0) as mint:
        yield mint


class TestCashuWallet(WalletContract):
    @pytest.fixture
    def bench(self, tmp_path: Path, free_mint: Mint) -> WalletBench:
        return CashuBench(tmp_path, urlsplit(free_mint.url).port or 0)
