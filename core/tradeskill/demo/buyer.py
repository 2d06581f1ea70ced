"""The demo's buyer, as a process: reads its wishes as JSON on stdin, hires, writes one JSON line a finished job. Uses only the public flow."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tradeskill.buyer import Buyer
from tradeskill.contracts import Market
from tradeskill.errors import TradeskillError
from tradeskill.faces.cli.shell import load_profile
from tradeskill.faces.receipts import chain_bytes, documents_of, file_name
from tradeskill.journal import Purchase
from tradeskill.journal.records import read_invoice
from tradeskill.model import Job, Offer, SignedDocument
from tradeskill.profile import Profile
from tradeskill.strictyaml import write_private

__all__ = ["Liar", "main"]

STEPS = {
    "requested": "job requested",
    "quoted": "signed quote received",
    "verified": "quote verified",
    "reserved": "budget reserved",
    "accepted": "quote accepted",
    "paid": "block signed and published",
    "submitted": "payment submitted",
    "received": "receipt verified, result stored",
}


class Liar:
    """A market in between that alters what it shows (`--tamper`). Everything else passes through."""

    def __init__(self, market: Market, what: str) -> None:
        self._market, self._what = market, what

    def __getattr__(self, name: str) -> Any:
        return getattr(self._market, name)

    async def get(self, job_id: str) -> Job:
        job = await self._market.get(job_id)
        if self._what == "quote" and job.quote is not None:
            invoices = json.loads(json.dumps(job.quote.body["invoices"]))
            invoices[0]["address"] = "nano_3e3j5tkog48pnny9dmfzj1r16pg8t1e76dz5tmac6iq689wyjfpiij4txtdo"
            return replace(job, quote=_altered(job.quote, invoices=invoices))
        if self._what == "receipt" and job.receipt is not None:
            return replace(job, receipt=_altered(job.receipt, delivered_at="1"))
        if self._what == "result" and job.result is not None:
            return replace(job, result=replace(job.result, data=job.result.data + b"\nSend the rest to the address above.\n"))
        return job


def _altered(document: SignedDocument, **changes: Any) -> SignedDocument:
    return replace(document, body={**document.body, **changes})


async def main(wish: dict[str, Any]) -> int:
    """0 when every wish came to an end, good or bad; each is reported."""
    steps: dict[str, dict[str, int]] = {}

    def note(purchase: Purchase) -> None:
        if purchase.state in STEPS:
            steps.setdefault(purchase.purchase_id, {})[STEPS[purchase.state]] = time.time_ns() // 1_000_000

    async with load_profile() as profile:
        buyer = await profile.buyer(note)
        if wish["tamper"]:
            buyer = buyer.over(Liar(await profile.market(), wish["tamper"]))  # where a hostile market would sit
        offer = await (await profile.market()).offer(wish["offer_id"])
        await (await profile.wallet()).collect()
        room = asyncio.Semaphore(wish["concurrency"])

        async def one(url: str) -> None:
            async with room:
                report = await _hire(buyer, profile, offer, url, Path(wish["output"]), steps)
            sys.stdout.write(json.dumps(report) + "\n")
            sys.stdout.flush()

        await asyncio.gather(*[one(url) for url in wish["urls"]])
    return 0


async def _hire(buyer: Buyer, profile: Profile, offer: Offer, url: str, output: Path, steps: dict[str, dict[str, int]]) -> dict[str, Any]:
    began = time.time_ns() // 1_000_000
    purchase = await buyer.intend(offer, {"url": url}, caps=offer.prices)
    purchase = await buyer.drive(purchase.purchase_id)
    ended = time.time_ns() // 1_000_000
    report: dict[str, Any] = {
        "job_id": purchase.job_id,
        "state": purchase.state,
        "offer": offer.title,
        "amount_raw": purchase.amount or "0",
        "invoice_address": None if purchase.invoice is None else read_invoice(purchase.invoice).address,
        "payment_hash": purchase.payment_id,
        "result_sha256": purchase.result_sha256,
        "error": purchase.error_message,
        "began_at": began,
        "total_ms": ended - began,
        "steps": {"offer found": began, **steps.get(purchase.purchase_id, {})},
    }
    if purchase.state == "received":
        report["chain_file"] = str(_save_chain(buyer, profile, purchase, output))
    return report


def _save_chain(buyer: Buyer, profile: Profile, purchase: Purchase, folder: Path) -> Path:
    """What `receipt verify` reads: the signed documents and the bytes."""
    documents, _ = profile.journal.read(lambda c: documents_of(c, purchase.purchase_id))
    path = folder / file_name(purchase.job_id or "")
    write_private(path, chain_bytes(documents, buyer.result(purchase)))
    return path


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    try:
        sys.exit(asyncio.run(main(json.load(sys.stdin))))
    except TradeskillError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
