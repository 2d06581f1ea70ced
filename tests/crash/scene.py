"""One scene of the walk: a fresh seller and buyer on the shared ledger, an offer, and ways to run either side here or as a process."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.crash.actors import PASSWORD, SECONDS, Actor
from tradeskill.faces.receipts import verify_chain
from tradeskill.journal import Purchase
from tradeskill.journal.records import read_document
from tradeskill.profile import Profile, create_profile
from tradeskill.seller import Seller
from tradeskill.signing import document_to_json
from tradeskill.world import World
from tradeskill_wallet.devnet.fund import asker, fund
from tradeskill_wallet.devnet.work import find_work
from tradeskill_wallet.nano import NanoWallet

PRICE = 10**27
FUNDS = 10**30
OFFER = "shout"


class Ledger:
    """A `tradeskill devnet` process, shared by all scenes."""

    def __init__(self, folder: Path) -> None:
        home = folder / "ledger"
        home.mkdir()
        self._actor = Actor(home, ["devnet", "--rpc-port", "0", "--ws-port", "0", "--confirmation-delay", "40", "--json"])
        self._funding = asyncio.Lock()

    async def __aenter__(self) -> Ledger:
        await self._actor.__aenter__()
        self.ready = await self._actor.line()
        assert self.ready, self._actor.said
        self._ask = asker(self.ready["rpc"])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._actor.__aexit__(kind, error, trace)

    async def ask(self, action: str, **fields: object) -> dict[str, Any]:
        return await asyncio.to_thread(self._ask, {"action": action, **fields})

    async def fund(self, address: str, raw: int) -> None:
        def send() -> None:
            fund(self._ask, address, raw, work=find_work, random_bytes=os.urandom, sleep=threading.Event().wait)

        async with self._funding:
            await asyncio.to_thread(send)

    async def settle(self) -> None:
        """Everything published is confirmed when this returns."""
        await self.ask("devnet_confirm")


class Scene:
    """Two profiles, one market file, one offer. `async with Scene(...)`; all processes it started are dead afterwards."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder, self.ledger = folder, ledger
        self.seller_home, self.buyer_home = folder / "seller", folder / "buyer"
        self.runs, self.gate, self.standing = folder / "runs", folder / "gate", folder / "standing"

    async def __aenter__(self) -> Scene:
        await asyncio.to_thread(self._make)
        self._gate, self._standing = (os.open(pipe, os.O_RDWR | os.O_NONBLOCK) for pipe in (self.gate, self.standing))  # so that opening never waits
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.open_gate()  # a job still waiting there ends
        os.close(self._gate)
        os.close(self._standing)

    def _make(self) -> None:
        self.folder.mkdir()
        os.mkfifo(self.gate, 0o600)
        os.mkfifo(self.standing, 0o600)
        (self.folder / "password").touch(0o600)
        (self.folder / "password").write_text(PASSWORD + "\n")
        common = {
            "network": "dev",
            "market": {"plugin": "embedded", "path": str(self.folder / "market.db")},
            "wallets": [{"plugin": "nano", "rpc": [self.ledger.ready["rpc"]], "ws": self.ledger.ready["ws"]}],
        }
        offer = {
            "name": OFFER,
            "title": "Text in capitals",
            "tags": [OFFER],
            "price": f"{PRICE} raw",
            "input": {"type": "object", "required": ["text", "runs"]},
            "trusted": True,
            "run": ["python", "-I", "-S", "work.py"],
            "folder": str(Path(__file__).parent),
            "limits": {"seconds": 30},
            "capacity": {"jobs": 50, "per_buyer": 50},
        }
        selling = {"offers": [offer], "seller": {"poll_seconds": 0.5, "lease_seconds": 2.0}}
        self.seller_key = create_profile(self.seller_home, {**common, **selling}, "dev", PASSWORD, World())
        create_profile(self.buyer_home, common, "dev", PASSWORD, World())

    def wish(self, *, gated: bool = False, failing: bool = False, text: str = "hello") -> dict[str, Any]:
        gates = {"gate": str(self.gate), "standing": str(self.standing)} if gated else {}
        return {"text": text, "runs": str(self.runs), **gates, **({"fail": True} if failing else {})}

    def open_gate(self, times: int = 8) -> None:
        os.write(self._gate, b"." * times)

    async def at_gate(self) -> None:
        """Wait until a program stands at the gate."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._standing, arrived.set)
        try:
            async with asyncio.timeout(SECONDS):
                await arrived.wait()
        finally:
            loop.remove_reader(self._standing)
        os.read(self._standing, 1)

    def ran(self) -> int:
        """How often the sold program really ran."""
        return len(self.runs.read_text().split()) if self.runs.exists() else 0

    # the two sides, here

    @asynccontextmanager
    async def profile(self, home: Path) -> AsyncIterator[Profile]:
        async with Profile.load(home, lambda: PASSWORD, world=World()) as profile:
            yield profile

    async def fund(self, home: Path, raw: int = FUNDS) -> None:
        async with self.profile(home) as profile:
            address = await (await profile.wallet()).address()
        await self.ledger.fund(address, raw)

    async def buy(self, wish: Mapping[str, Any]) -> Purchase:
        """The whole purchase in this process; the offer must be up."""
        async with self.profile(self.buyer_home) as profile:
            offers = await (await profile.market()).search()
            buyer = await profile.buyer()
            purchase = await buyer.intend(offers[0], dict(wish), caps=offers[0].prices)
            async with asyncio.timeout(SECONDS):
                return await buyer.drive(purchase.purchase_id)

    @asynccontextmanager
    async def selling(self) -> AsyncIterator[Seller]:
        """The seller at work in this process; drained at the end."""
        async with self.profile(self.seller_home) as profile:
            seller = await profile.seller()
            await seller.publish()
            work = asyncio.create_task(seller.run())
            try:
                yield seller
                seller.drain()
                async with asyncio.timeout(SECONDS):
                    await asyncio.shield(work)
            finally:
                seller.stop()
                with suppress(asyncio.CancelledError):
                    await work

    async def gather_money(self) -> None:
        """Bring all money of both sides home, as their owners would; afterwards the main accounts hold everything."""
        for _ in range(2):
            for home in (self.seller_home, self.buyer_home):
                await self.ledger.settle()
                async with self.profile(home) as profile:
                    await (await profile.wallet()).collect()
        await self.ledger.settle()
        for home in (self.seller_home, self.buyer_home):  # the last confirmations are noted
            async with self.profile(home) as profile:
                await (await profile.wallet()).collect()

    async def held(self, home: Path) -> int:
        """What the main account holds on the ledger, received and confirmed."""
        async with self.profile(home) as profile:
            wallet = await profile.wallet()
            assert isinstance(wallet, NanoWallet)
            address = await wallet.address()
        answer = await self.ledger.ask("account_info", account=address, include_confirmed="true")
        return int(answer.get("confirmed_balance", "0"))

    def verified(self, purchase: Purchase, data: bytes) -> bool:
        """The receipt, judged offline with the seller's key known from elsewhere."""
        texts = {"offer": purchase.offer, "request": purchase.request, "quote": purchase.quote, "receipt": purchase.receipt}
        chain, result = self.folder / f"{purchase.purchase_id}.json", self.folder / f"{purchase.purchase_id}.result"
        chain.write_text(json.dumps({name: document_to_json(read_document(text or "")) for name, text in texts.items()}))
        result.write_bytes(data)
        return verify_chain(chain, result, self.seller_key)["receipt_verified"] is True
