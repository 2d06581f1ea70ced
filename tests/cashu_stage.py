"""A seller and a buyer at one real mint, for the tests of the rail cashu: opened, paid and closed within one event loop."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.cashu_bench import make_wallet
from tests.mint import Mint
from tradeskill.model import Invoice, PaymentStatus
from tradeskill.money import Amount
from tradeskill.world import World
from tradeskill_plugins.cashu.wallet import CashuWallet

PRICE = 1000
HOUR = 3_600_000


class Clock(World):
    """The real clock, set forward."""

    ahead = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead


class Shop:
    """A seller and a buyer at one mint, for as long as a test runs."""

    def __init__(self, home: Path, mints: Sequence[str]) -> None:
        self.home, self.mints = home, mints
        self.world = Clock()
        self.opened: list[CashuWallet] = []

    async def open(self, name: str, secret: bytes | None = None, mints: Sequence[str] = (), **settings: Any) -> CashuWallet:
        wallet = make_wallet(self.home / name, mints or self.mints, self.world, secret, **settings)
        await wallet.open()
        self.opened.append(wallet)
        return wallet

    async def invoice(self, seller: CashuWallet, job: str = "job", price: int = PRICE, until: int = HOUR) -> Invoice:
        return await seller.invoice(job, Amount(price, "sat"), self.world.now_ms() + until)

    async def close(self) -> None:
        for wallet in self.opened:
            await wallet.close()


def play_at(mints: Sequence[str], home: Path, body: Callable[[Shop], Coroutine[Any, Any, None]], seconds: float = 60) -> None:
    async def whole() -> None:
        shop = Shop(home, mints)
        try:
            await asyncio.wait_for(body(shop), seconds)
        finally:
            await shop.close()

    asyncio.run(whole())


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not await true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def held(wallet: CashuWallet) -> int:
    return (await wallet.balance()).available.value


def total(status: PaymentStatus) -> int:
    return sum(payment.amount.value for payment in status.payments)


Play = Callable[[Callable[[Shop], Coroutine[Any, Any, None]]], None]


def restart(mint: Mint) -> None:
    """Start a mint that was killed as its operator would: nutshell forgets to free what it had under way when it dies.

    Outputs that it calls pending for ever are left to the wallet.
    """
    database = next((mint.folder / "database").glob("*.sqlite3"))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE melt_quotes SET state = 'UNPAID' WHERE state = 'PENDING' AND request IN (SELECT request FROM mint_quotes)")
        connection.execute("DELETE FROM proofs_pending WHERE melt_quote IS NULL OR melt_quote IN (SELECT quote FROM melt_quotes WHERE state = 'UNPAID')")
        connection.execute("UPDATE mint_quotes SET state = 'PAID' WHERE state = 'PENDING'")
        connection.commit()
    mint.start()
