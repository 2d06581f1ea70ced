"""The demo's money: a dev ledger for `nano`, a real mint for `cashu`. Starts what holds it, makes profiles, funds the buyer, judges payments from outside."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol

from tradeskill.errors import NotFoundError, UnavailableError, UsageError

__all__ = ["RAILS", "CashuRail", "NanoRail", "Rail", "Theatre", "rail_named"]

RAILS: Final = ("nano", "cashu")
MINT_FOLDER: Final = ".venv-mint"
MINT_SECONDS: Final = 60.0
AT_ONCE: Final = 20  # tokens on one command line
MINT: Final[Mapping[str, str]] = {
    "MINT_BACKEND_BOLT11_SAT": "FakeWallet",
    "FAKEWALLET_BRR": "TRUE",
    "FAKEWALLET_DELAY_INCOMING_PAYMENT": "0",
    "FAKEWALLET_DELAY_OUTGOING_PAYMENT": "0",
    "MINT_LISTEN_HOST": "127.0.0.1",
    "MINT_RATE_LIMIT": "FALSE",
    "MINT_QUOTE_BACKEND_CHECK_RATE_LIMIT": "0",
    "MINT_INPUT_FEE_PPK": "0",  # so that what the seller holds afterwards is the sum of the prices
    "TOR": "FALSE",
}


class Theatre(Protocol):
    """What a rail is given of the stage."""

    home: Path
    examples: Path

    def say(self, text: str) -> None: ...

    async def start(self, what: str, arguments: Sequence[str], home: Path) -> dict[str, Any]: ...

    async def command(self, what: str, arguments: Sequence[str], home: Path) -> dict[str, Any]: ...

    async def program(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> asyncio.subprocess.Process: ...

    def password(self, name: str) -> Path: ...


class Rail(Protocol):
    """`price` of one job; `unit` its smallest unit; `finality` what a payment is made of, for people."""

    price: str
    unit: str
    finality: str

    async def open(self) -> None: ...

    async def profile(self, name: str, market: Sequence[str]) -> dict[str, Any]:
        """A home with its own secrets and password; at least its `identity`."""

    async def fund(self, buyer: dict[str, Any], jobs: int) -> str:
        """Gives the buyer enough for all jobs. Says where it is."""

    async def judge(self, reports: Sequence[dict[str, Any]]) -> list[tuple[bool, int]]:
        """For each of the buyer's reports: is its payment final, and how much of it came to the invoice? Asked of whoever holds the money."""

    async def received(self) -> int:
        """What the seller's own wallet holds; it began with nothing."""


class NanoRail:
    price = "0.001 XNO"
    unit = "raw"
    finality = "block"

    def __init__(self, theatre: Theatre) -> None:
        self._theatre = theatre

    async def open(self) -> None:
        self._ledger = await self._theatre.start("the ledger", ["devnet", "--rpc-port", "0", "--ws-port", "0", "--json"], self._theatre.home)
        self._theatre.say(f"dev ledger: {self._ledger['rpc']}")

    async def profile(self, name: str, market: Sequence[str]) -> dict[str, Any]:
        home = self._theatre.home / name
        home.mkdir(mode=0o700)
        self._theatre.password(name)
        nodes = ["--rpc", self._ledger["rpc"], "--ws", self._ledger["ws"]]
        return await self._theatre.command(f"init {name}", ["init", "--non-interactive", "--network", "dev", *nodes, *market, "--json"], home)

    async def fund(self, buyer: dict[str, Any], jobs: int) -> str:
        order = ["devnet", "fund", buyer["address"], f"{1 + jobs // 100} XNO", "--rpc", self._ledger["rpc"], "--json"]
        await self._theatre.command("fund", order, self._theatre.home / "buyer")
        return str(buyer["address"])

    async def judge(self, reports: Sequence[dict[str, Any]]) -> list[tuple[bool, int]]:
        import httpx

        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:  # one for all: making one takes longer than asking

            async def ask(body: dict[str, Any]) -> dict[str, Any]:
                value: dict[str, Any] = (await client.post(self._ledger["rpc"], json=body)).json()
                return value

            return [await self._judged(report, ask) for report in reports]

    async def _judged(self, report: dict[str, Any], ask: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> tuple[bool, int]:
        if not report["payment_hash"]:
            return False, 0
        block = await ask({"action": "block_info", "json_block": "true", "hash": report["payment_hash"]})
        final = block.get("confirmed") == "true"
        came = final and block.get("contents", {}).get("link_as_account") == report["invoice_address"]
        return final, int(block["amount"]) if came else 0

    async def received(self) -> int:
        found = await self._theatre.command("balance", ["wallet", "balance", "--json"], self._theatre.home / "seller")
        return int(found["available_raw"]) + int(found["incoming_raw"])


class CashuRail:
    price = "21 sat"
    unit = "sat"
    finality = "token"

    def __init__(self, theatre: Theatre) -> None:
        """NotFoundError where no mint is installed."""
        self._theatre = theatre
        self._python = theatre.examples.parent / MINT_FOLDER / "bin" / "python"
        if not self._python.exists():
            raise NotFoundError(f"no Cashu mint is installed here ({MINT_FOLDER} beside the examples): `make test` in a checkout makes it; or use --rail nano")

    async def open(self) -> None:
        folder, log = self._theatre.home / "mint", self._theatre.home / "mint.log"
        folder.mkdir(mode=0o700)
        environment = {**MINT, "HOME": str(folder), "CASHU_DIR": str(folder), "MINT_DATABASE": str(folder / "database"), "MINT_PRIVATE_KEY": "demo"}
        mint = await self._theatre.program([str(self._python), "-m", "cashu.mint", "--port", "0"], environment, folder, log)
        deadline = asyncio.get_running_loop().time() + MINT_SECONDS
        while (found := re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text("utf-8", "replace"))) is None:
            if mint.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise UnavailableError(f"the mint did not start: {log.read_text('utf-8', 'replace')[-500:]}")
            await asyncio.sleep(0.05)
        self._url = found.group(1)
        self._theatre.say(f"mint: {self._url} (it pays its own Lightning invoices)")

    async def profile(self, name: str, market: Sequence[str]) -> dict[str, Any]:
        from tradeskill.profile import create_profile
        from tradeskill.world import World

        place = {"plugin": "relay", "url": market[3]} if market[1] == "relay" else {"plugin": "embedded", "path": market[1]}
        wallets = [{"plugin": "cashu", "mints": [self._url]}]
        config = {"network": "dev", "market": place, "wallets": wallets}
        password = self._theatre.password(name).read_text()
        # in this thread: while a plugin loads, stdout is redirected for all of them
        return {"identity": create_profile(self._theatre.home / name, config, "dev", password, World())}

    async def fund(self, buyer: dict[str, Any], jobs: int) -> str:
        await self._theatre.command("fund", ["cashu", "mint", str(21 * jobs + 100), "--json"], self._theatre.home / "buyer")
        return f"{21 * jobs + 100} sat at the mint"

    async def judge(self, reports: Sequence[dict[str, Any]]) -> list[tuple[bool, int]]:
        """The mint says whether every proof of the token that the buyer handed over was spent, which only the seller's key could do."""
        handed = self._tokens()
        tokens = [handed.get(str(report["payment_hash"]), "") for report in reports]
        found: dict[str, tuple[bool, int]] = {}
        for start in range(0, len(tokens), AT_ONCE):
            part = [token for token in tokens[start : start + AT_ONCE] if token]
            said: Any = await self._theatre.command("inspect", ["cashu", "inspect", *part, "--json"], self._theatre.home / "buyer") if part else []
            for token, entry in zip(part, said, strict=True):
                spent = entry["state"] == "SPENT"
                found[token] = (spent, int(entry["amount"]) if spent else 0)
        return [found.get(token, (False, 0)) for token in tokens]

    def _tokens(self) -> dict[str, str]:
        """payment -> token, from the buyer's journal."""
        with closing(sqlite3.connect(f"file:{self._theatre.home / 'buyer' / 'journal.db'}?mode=ro", uri=True)) as connection:
            return {str(row[0]): str(row[1]) for row in connection.execute("SELECT payment_id, token FROM purchases WHERE token IS NOT NULL")}

    async def received(self) -> int:
        found = await self._theatre.command("balance", ["cashu", "balance", "--json"], self._theatre.home / "seller")
        return sum(int(place["held"]) for place in found["mints"])


def rail_named(name: str, theatre: Theatre) -> Rail:
    """UsageError for a rail that the demo does not know; NotFoundError where what it needs is not installed."""
    if name not in RAILS:
        raise UsageError(f"--rail {name!r} is not one of {', '.join(RAILS)}")
    return NanoRail(theatre) if name == "nano" else CashuRail(theatre)
