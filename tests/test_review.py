"""Money that no rule may decide on waits for the owner, who settles it each way; buyer, seller and ledger agree afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import PASSWORD, PATIENCE, Home, Stage, shout
from tradeskill.agreement import read_quote, sign_request
from tradeskill.model import Job
from tradeskill.profile import Profile

PRICE = 10**27
# Fails when told to; else says who it is and who looks after it, and waits until it is killed, unless it ran before.
FRAGILE = """
import json, os, pathlib, sys, time
wish = json.load(sys.stdin)["text"]
if wish == "fail":
    sys.exit("nothing doing")
note = pathlib.Path(sys.argv[1]) / wish
if not note.exists():
    note.with_suffix(".new").write_text(f"{os.getpid()} {os.getppid()}")
    note.with_suffix(".new").rename(note)
    time.sleep(600)
print("done at last")
"""


class Shop:
    """A seller whose program can be lost half-way, and which then asks its owner."""

    def __init__(self, stage: Stage, notes: Path) -> None:
        self.stage, self.notes = stage, notes
        self.seller, self.buyer = stage.profile("reviewer"), stage.funded("buyer")
        notes.mkdir(exist_ok=True)
        offer = shout("fragile", run=[sys.executable, "-I", "-c", FRAGILE, str(notes)], pure=False, limits={"seconds": 600})
        self.config = stage.config("fragile", [offer], seller={"uncertain": "review", "poll_seconds": 0.2})

    @contextlib.contextmanager
    def lost(self, text: str) -> Iterator[subprocess.Popen[str]]:
        """A buyer who waits for a job whose execution was killed, supervisor and all; its payment is in review."""
        wish = [sys.executable, "-m", "tradeskill", "hire", "fragile", "--input", json.dumps({"text": text}), "--yes", "--json"]
        waiting = subprocess.Popen(wish, env=self.buyer.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            until(lambda: (self.notes / text).exists())
            program, supervisor = map(int, (self.notes / text).read_text().split())
            for pid in (supervisor, program):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(lambda: self.waiting(text))
            yield waiting
        finally:
            waiting.kill()
            waiting.communicate(timeout=PATIENCE)

    def waiting(self, text: str) -> list[Any]:
        """Payments in review of jobs with this input."""
        jobs = {job["job_id"] for job in self.seller.json("jobs")["sold"] if job["input"] == {"text": text}}
        return [row for row in self.seller.json("review", "list") if row["job_id"] in jobs]


def until(true: Any) -> Any:
    """What it gives once it gives something; a bounded wait between looks."""
    pause = threading.Event()
    for _ in range(600):
        found = true()
        if found:
            return found
        pause.wait(0.05)
    raise AssertionError("it never came to pass")


@pytest.fixture(scope="module")
def shop(stage: Stage) -> Iterator[Shop]:
    made = Shop(stage, stage.folder / "notes")
    with made.seller.selling(made.config):
        yield made


def test_a_lost_job_is_run_again_by_the_owner_and_delivered(shop: Shop) -> None:
    with shop.lost("again") as waiting:
        (row,) = shop.waiting("again")
        assert (row["job_state"], row["amount_raw"], row["choices"]) == ("started", str(PRICE), ["refund", "keep", "run"])
        assert "effects" in row["reason"]
        assert shop.seller.json("review", "show", row["job_id"]) == row
        assert shop.seller.json("review", "run", row["job_id"])["state"] == "allocated"
        out, err = waiting.communicate(timeout=PATIENCE)
        assert waiting.returncode == 0, err
    assert json.loads(out)["result"]["text"] == "done at last\n"
    job = shop.seller.json("job", row["job_id"])
    assert (job["state"], job["attempt"]) == ("delivered", 2)
    assert shop.waiting("again") == []
    shop.seller.run("review", "run", row["payment"]).failed(4, "allocated", "not in review")


def test_a_lost_job_is_refunded_to_the_address_that_the_buyer_signed(shop: Shop) -> None:
    with shop.lost("back") as waiting:
        (row,) = shop.waiting("back")
        shop.seller.run("review", "refund", row["job_id"], "--to", "nano_1").failed(2, "nano_1")
        shop.seller.run("policy", "freeze").ok()  # by hand it is spending
        shop.seller.run("review", "refund", row["job_id"]).failed(5, "frozen")
        assert shop.waiting("back") == [row]
        shop.seller.run("policy", "unfreeze").ok()
        assert shop.seller.json("review", "refund", row["job_id"])["state"] in ("refund_due", "refunding", "refunded")
        out, _ = waiting.communicate(timeout=PATIENCE)
        assert waiting.returncode == 1
    bought = json.loads(out)
    assert (bought["state"], bought["money"], bought["error"]["code"]) == ("refunded", "returned", "settled_by_owner")
    settled = until(lambda: _in_state(shop, row["payment"], "refunded"))
    assert settled["job_state"] == "failed"
    assert shop.seller.json("policy", "show")["spent"]["day"] == {"raw": str(PRICE)}
    assert int(shop.buyer.json("wallet", "balance")["incoming_raw"]) >= PRICE


def test_what_is_kept_by_agreement_ends_the_job_and_counts_as_earned(shop: Shop) -> None:
    before = int(shop.seller.json("earnings")["total"]["raw"])
    with shop.lost("kept") as waiting:
        (row,) = shop.waiting("kept")
        assert shop.seller.json("review", "keep", row["payment"])["state"] == "surplus"
        out = until(lambda: shop.buyer.json("jobs", "--state", "failed")["bought"])
        waiting.terminate()
    assert out[0]["error"]["code"] == "settled_by_owner"
    assert int(shop.seller.json("earnings")["total"]["raw"]) == before + PRICE


def test_a_failed_job_without_a_refund_address_waits_for_one(shop: Shop) -> None:
    job_id, address = asyncio.run(_buy_without_address(shop.buyer))
    (row,) = until(lambda: shop.waiting("fail"))
    assert (row["job_id"], row["job_state"], row["refund_to"], row["choices"]) == (job_id, "failed", None, ["refund", "keep"])
    assert "no refund address" in row["reason"]
    assert job_id in shop.seller.run("review", "list").ok().out
    assert "choices" in shop.seller.run("review", "show", job_id).ok().out
    shop.seller.run("review", "run", job_id).failed(4, "failed", "refund or keep")
    shop.seller.run("review", "refund", job_id).failed(4, "--to")
    shop.seller.run("review", "refund", job_id, "--to", address[:-1]).failed(2, address[:-1])
    assert shop.waiting("fail") == [row]
    shop.seller.run("review", "refund", job_id, "--to", address).ok()
    assert until(lambda: _in_state(shop, row["payment"], "refunded"))["refund_to"] == address
    shop.seller.run("review", "keep", row["payment"]).failed(4, "refunded")


def _in_state(shop: Shop, payment: str, state: str) -> Any:
    job = shop.seller.json("review", "show", payment)
    paid = {p["payment_id"]: p["state"] for p in shop.seller.json("job", job["job_id"])["payments"]}
    return job if paid[payment.split("/")[2]] == state else None


async def _buy_without_address(home: Home) -> tuple[str, str]:
    """A payment by somebody whose request signs no refund address; what our own buyer never does. The job's id, and where the money came from."""
    async with Profile.load(home.path, lambda: PASSWORD) as profile:
        market, wallet = await profile.market(), await profile.wallet()
        offer = next(offer for offer in await market.search() if "fragile" in offer.tags)
        request = sign_request(profile.identity, offer, input_value={"text": "fail"}, refund_to={}, nonce="ab" * 16, created_at=profile.world.now_ms())
        job: Job = await market.request(request)
        async with asyncio.timeout(PATIENCE):
            while job.quote is None:
                await profile.world.sleep(0.05)
                job = await market.get(job.job_id)
        (invoice,) = read_quote(job.quote, offer.seller).invoices
        await market.accept(job.job_id)
        proof = await wallet.pay(invoice, job.job_id)
        await market.submit_payment(job.job_id, invoice.rail, proof.payment_id)
        return job.job_id, await wallet.address()
