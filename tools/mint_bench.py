"""The section `cashu` of `make bench`: what our wallet adds to a mint's swap when it takes a token, and what paying takes. At a real mint, by turns.

The bare swap is one POST on an open connection, of a token like those that the wallet takes, with everything prepared: inputs signed, outputs blinded,
bytes made. The wallet's receiving is all that a seller waits for: reading and checking the token (DLEQ proofs, locks), the journal before the request, the
swap, checking and unblinding what came, the journal after it. The mint takes a fee, and its Lightning is made up.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import httpx

    from tradeskill.model import Invoice
    from tradeskill_plugins.cashu.wallet import CashuWallet

__all__ = ["cashu"]

ROOT = Path(__file__).parent.parent
PRICE = 1000
HOUR_MS = 3_600_000
T = TypeVar("T")
Spread = Callable[[Sequence[float]], dict[str, float]]


def cashu(rounds: int, folder: Path, spread: Spread) -> dict[str, Any]:
    """A machine without a mint says why instead."""
    sys.path.append(str(ROOT))
    from tests.mint import minting, missing

    if lacking := missing():
        return {"absent": lacking}
    with minting() as ours, minting(key="another mint") as theirs:
        return asyncio.run(_cashu(rounds, folder, spread, ours.url, theirs.url))


async def _cashu(rounds: int, folder: Path, spread: Spread, mint: str, other: str) -> dict[str, Any]:
    import httpx
    from tests.cashu_bench import deposit, make_wallet

    taken: dict[str, list[float]] = {name: [] for name in ("swap", "receive", "pay", "minted", "melt")}
    async with AsyncExitStack() as stack:
        buyer, seller, stranger = (make_wallet(folder / name, [url]) for name, url in (("buyer", mint), ("seller", mint), ("stranger", other)))
        for wallet in (buyer, seller, stranger):
            await wallet.open()
            stack.push_async_callback(wallet.close)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60, trust_env=False))
        await deposit(buyer, (rounds + 1) * 4 * PRICE)
        for number in range(rounds + 1):
            seconds, token = await _paid(buyer, seller, f"bare {number}")
            taken["pay"].append(seconds)
            taken["swap"].append(await _bare(http, mint, seller, token))
            invoice = await _invoice(seller, f"whole {number}")
            seconds, proof = await _timed(buyer.pay(invoice, f"whole {number}"))
            taken["pay"].append(seconds)
            seconds, status = await _timed(seller.settle(invoice, proof.token))
            assert status.state == "paid", status
            taken["receive"].append(seconds)
            taken["minted"].append((await _timed(deposit(buyer, PRICE)))[0])
            bolt11 = (await stranger.deposit(f"{number}", _sat(PRICE))).details["bolt11"]
            seconds, proof = await _timed(buyer.by_hand.melt(str(bolt11), f"{number}"))
            assert proof.state == "final", proof
            taken["melt"].append(seconds)
    found = {f"{name}_ms": spread([each * 1000 for each in seconds[len(seconds) // (rounds + 1) :]]) for name, seconds in taken.items()}  # the first warms
    whats = "swap: bare POST; receive: a locked token, checked to booked; pay: making one; minted: Lightning quote to ecash; melt: quote to paid"
    return {
        "what": whats,
        **found,
        "receive_to_swap": round(found["receive_ms"]["median"] / found["swap_ms"]["median"], 3),
        "pay_to_swap": round(found["pay_ms"]["median"] / found["swap_ms"]["median"], 3),
    }


async def _paid(buyer: CashuWallet, seller: CashuWallet, name: str) -> tuple[float, str]:
    seconds, proof = await _timed(buyer.pay(await _invoice(seller, name), name))
    assert proof.token, proof
    return seconds, proof.token


async def _bare(http: httpx.AsyncClient, mint: str, seller: CashuWallet, text: str) -> float:
    """The seller's swap of this token, without the seller."""
    from tradeskill_plugins.cashu.nuts import requests, tokens
    from tradeskill_plugins.cashu.nuts.keysets import input_fee, split
    from tradeskill_plugins.cashu.nuts.secrets import lock_of, sign_inputs

    known, keyset = await seller.mints.keysets(mint), await seller.mints.active(mint)
    proofs = tokens.resolve(tokens.decode(text), known.values()).proofs
    lock = lock_of(proofs[0].secret)
    assert lock is not None
    row = seller.store.read(lambda rows: rows.lock_of_key(lock.key))
    assert row is not None
    keys = await seller.keys()
    parts = split(sum(proof.amount for proof in proofs) - input_fee(len(proofs), keyset.fee_ppk), keyset.keys)
    first = await seller.store.write(lambda rows: rows.take_counters(keyset.id, len(parts)))
    outputs = requests.outputs(keys.nut13_seed, keyset, parts, first)
    request = requests.swap(sign_inputs(proofs, keys.lock(row.lock_id)), outputs, known)
    seconds, answer = await _timed(http.post(mint + request.path, content=request.body, headers={"Content-Type": "application/json"}))
    assert answer.status_code == 200, answer.text
    return seconds


async def _invoice(seller: CashuWallet, name: str) -> Invoice:
    return await seller.invoice(name, _sat(PRICE), time.time_ns() // 1_000_000 + HOUR_MS)


def _sat(amount: int) -> Any:
    from tradeskill.money import Amount

    return Amount(amount, "sat")


async def _timed(call: Awaitable[T]) -> tuple[float, T]:
    began = time.perf_counter()
    answer = await call
    return time.perf_counter() - began, answer
