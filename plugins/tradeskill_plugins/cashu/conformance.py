"""How the conformance kit tries the rail `cashu`: wallets at a real mint that is started for it, from where `--with mint=` says or a checkout has one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import pytest

from tradeskill.contracts import PluginContext, Wallet
from tradeskill.errors import UnavailableError
from tradeskill.model import Invoice
from tradeskill.money import Amount
from tradeskill.signing import Identity
from tradeskill.testing.given import Given
from tradeskill.testing.wallet_bench import LedgerFault
from tradeskill.testing.wallet_contract import WalletBench, WalletContract
from tradeskill.testing.wire import FaultyWire
from tradeskill.world import World
from tradeskill_plugins.cashu.nutshell import INSTALL, Mint, lacking, minting, of_checkout
from tradeskill_plugins.cashu.plugin import tradeskill_create_wallet, tradeskill_open_wallet

__all__ = ["PASSWORD", "CashuBench", "TestCashu", "deposit", "make_wallet"]

if absent := [name for name in ("coincurve", "cbor2") if find_spec(name) is None]:
    pytest.skip(f"the rail needs {', '.join(absent)}: pip install 'tradeskill[cashu]'", allow_module_level=True)

from tradeskill_plugins.cashu.keys import SEED_FILE, open_seed
from tradeskill_plugins.cashu.wallet import CashuWallet

tradeskill_takes: Final = {"mint": "the folder of an environment that nutshell is installed in; a mint is started from it, and ended"}
_MAKE: Final = f"make one (python3 -m venv mint && mint/bin/pip install {INSTALL}), then: tradeskill plugins check cashu --with mint=./mint"


PASSWORD: Final = "correct horse"  # noqa: S105 - of secrets that live for one test


def make_wallet(home: Path, mints: Sequence[str], world: World | None = None, secret: bytes | None = None, **settings: Any) -> CashuWallet:
    """A wallet in `home`, not opened; its seed file is made on the first call."""
    clock = world or World()
    context = PluginContext("cashu", "dev", home, clock, Identity(bytes(31) + b"\x01"), lambda: PASSWORD)
    entry = {"mints": list(mints), "timeout_seconds": 10, **settings}
    if not (home / SEED_FILE).exists():
        tradeskill_create_wallet(entry, context, secret or clock.random_bytes(32))
    wallet = tradeskill_open_wallet(entry, context)
    assert isinstance(wallet, CashuWallet)
    return wallet


async def deposit(wallet: CashuWallet, amount: int, key: str = "") -> None:
    """New money, from a mint that pays its own invoices."""
    invoice = await wallet.deposit(key or World().random_bytes(8).hex(), Amount(amount, "sat"))
    deadline = time.monotonic() + 20
    while (await wallet.settle(invoice, None)).state != "paid":
        assert time.monotonic() < deadline, "the mint does not pay its own invoice"
        await asyncio.sleep(0.02)


class CashuBench(WalletBench):
    """One mint without fees, so that amounts are the contract's own; all wallets reach it over one wire, which fails on request.

    They are funded by invoices that the mint's test backend pays itself.
    """

    lacks: ClassVar[Mapping[str, str]] = {
        "pending": "a token is worth nothing until it is swapped, then it is final",
        "hints": "a token comes with its submission; nobody else could tell of it",
    }
    patience: ClassVar[float] = 60.0

    def __init__(self, home: Path, port: int, **settings: Any) -> None:
        self.home, self.settings, self.world = home, settings, World()
        self.wire = FaultyWire("127.0.0.1", port)
        self._opened: list[CashuWallet] = []
        self._homes: dict[int, Path] = {}  # of the opened ones
        self._strangers = 0

    async def start(self) -> None:
        await self.wire.start()

    async def stop(self) -> None:
        for wallet in self._opened:
            await wallet.close()
        await self.wire.stop()

    async def open(self, name: str) -> CashuWallet:
        wallet = make_wallet(self.home / name, [self.wire.url], self.world, **self.settings)
        await wallet.open()
        self._opened.append(wallet)
        self._homes[id(wallet)] = self.home / name
        return wallet

    async def fund(self, wallet: Wallet, amount: int) -> None:
        assert isinstance(wallet, CashuWallet)
        await deposit(wallet, amount)

    async def send(self, invoice: Invoice, amount: int) -> str | None:
        self._strangers += 1
        stranger = await self.open(f"stranger-{self._strangers}")
        await deposit(stranger, amount)
        return (await stranger.pay(replace(invoice, amount=Amount(amount, "sat")), "key")).token

    async def settle_ledger(self) -> None: ...

    async def received(self, wallet: Wallet) -> int:
        await wallet.collect()
        return (await wallet.balance()).available.value

    def now_ms(self) -> int:
        return self.world.now_ms()

    async def fault(self, kind: LedgerFault) -> None:
        self.wire.fail(kind)

    def secrets(self, wallet: Wallet) -> Sequence[str]:
        assert isinstance(wallet, CashuWallet)
        seed = open_seed(self._homes[id(wallet)] / SEED_FILE, "dev", PASSWORD)
        return [PASSWORD, seed.hex(), repr(seed)]


@pytest.fixture(scope="module")
def mint(tradeskill_given: Given) -> Iterator[Mint]:
    environment = tradeskill_given.path("mint") or of_checkout()
    if environment is None:
        pytest.skip(f"its tests need a Cashu mint of their own, and none was named: {_MAKE}")
    if why := lacking(environment):
        pytest.skip(f"its tests need a Cashu mint of their own, and {why}: {_MAKE}")
    try:
        with minting(environment, fee_ppk=0) as started:
            yield started
    except UnavailableError as error:
        pytest.skip(str(error))


class TestCashu(WalletContract):
    @pytest.fixture
    def bench(self, tmp_path: Path, mint: Mint) -> WalletBench:
        return CashuBench(tmp_path, urlsplit(mint.url).port or 0)
