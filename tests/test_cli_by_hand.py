"""Selling without a program: the seller's tools take one job through quote, payment, lock and delivery, and refuse every short cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import ADVICE, PASSWORD, PATIENCE, Home, Stage, shout
from tradeskill.profile import Profile
from tradeskill.skills import call_tool


class Hand:
    """A seller without a worker, and what it is asked for."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.seller, self.buyer = stage, stage.profile("hand"), stage.funded("buyer")
        self.config = stage.config("hand", [ADVICE, shout("loud")])

    def call(self, tool: str, **arguments: Any) -> Any:
        return self.try_to(tool, **arguments).ok().json

    def try_to(self, tool: str, **arguments: Any) -> Any:
        return self.seller.run("call", f"seller.{tool}", json.dumps(arguments), "--config", self.config)

    @contextlib.contextmanager
    def asked(self, text: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
        """A buyer who waits in its own process; its job as the seller sees it."""
        wish = [sys.executable, "-m", "tradeskill", "hire", "advice", "--input", json.dumps({"text": text}), "--yes", "--json"]
        process = subprocess.Popen(wish, env=self.buyer.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield self.first({"text": text}), process
        finally:
            process.kill()
            process.communicate(timeout=PATIENCE)

    def lock(self, job_id: str) -> Any:
        """In a process that ends, as a lease is held by a process."""
        return self.seller.process("call", "seller.lock", json.dumps({"job_id": job_id}), "--config", self.config).ok().json

    def first(self, wish: dict[str, str]) -> str:
        """The requested job with this input; asked for until the market has it."""
        for _ in range(1000):
            for job in self.call("list_jobs", states=["requested"]):
                if job["input"] == wish:
                    return str(job["job_id"])
        raise AssertionError("the request never came")

    def until_paid(self, job_id: str) -> Any:
        for _ in range(1000):
            job = self.call("verify_payment", job_id=job_id)
            if job["state"] == "paid":
                return job
        raise AssertionError("the payment never came")


@pytest.fixture(scope="module")
def hand(stage: Stage) -> Hand:
    made = Hand(stage)
    made.call("register_offer")
    return made


def test_one_job_goes_all_the_way_by_hand(hand: Hand) -> None:
    with hand.asked("shall I?") as (job_id, waiting):
        hand.try_to("deliver", job_id=job_id, text="yes").failed(3, job_id)
        hand.try_to("verify_payment", job_id=job_id).failed(3, job_id)
        quoted = hand.call("quote", job_id=job_id)
        assert (quoted["state"], quoted["invoices"][0]["amount_raw"]) == ("quoted", str(10**27))
        assert hand.call("quote", job_id=job_id)["invoices"] == quoted["invoices"]
        paid = hand.until_paid(job_id)
        assert [payment["state"] for payment in paid["payments"]] == ["allocated"]
        hand.try_to("deliver", job_id=job_id, text="yes").failed(4, "paid", "lock")
        locked = hand.lock(job_id)
        assert (locked["state"], locked["attempt"]) == ("leased", 0)
        hand.try_to("deliver", job_id=job_id).failed(2, "text or file")
        hand.try_to("deliver", job_id=job_id, text="x", media_type="not a type").failed(2, "media_type")
        hand.try_to("deliver", job_id=job_id, text="x" * (4 * 2**20 + 1)).failed(2, "limits.output")
        delivered = hand.call("deliver", job_id=job_id, text="yes", media_type="text/markdown")
        assert (delivered["state"], delivered["attempt"]) == ("delivered", 1)
        assert delivered["fence"] >= locked["fence"]
        assert hand.call("deliver", job_id=job_id, text="something else")["result_sha256"] == delivered["result_sha256"]
        out, err = waiting.communicate(timeout=PATIENCE)
        assert waiting.returncode == 0, err
        bought = json.loads(out)
    assert (bought["state"], bought["result"]["text"], bought["result"]["media_type"]) == ("received", "yes", "text/markdown")
    assert hand.seller.json("earnings")["by_offer"]["advice"]["raw"] == str(10**27)


def test_what_is_quoted_but_not_paid_is_neither_locked_nor_delivered(hand: Hand) -> None:
    asked = hand.buyer.run("hire", "advice", "--input", '{"text": "unpaid"}', "--yes", "--max", "0.0001 XNO")
    asked.failed(5, "0.0001 XNO")
    wish = {"offer_id": "advice", "input": {"text": "unpaid"}}
    with _requesting(hand.buyer, wish) as process:
        job_id = hand.first({"text": "unpaid"})
        hand.call("quote", job_id=job_id)
        assert process.wait(PATIENCE) == 0
    assert hand.call("verify_payment", job_id=job_id)["state"] == "quoted"
    hand.try_to("lock", job_id=job_id).failed(4, "quoted", "only a paid job")
    hand.try_to("deliver", job_id=job_id, text="for nothing").failed(4, "quoted")


def test_a_worker_leaves_what_is_done_by_hand_alone(hand: Hand) -> None:
    with hand.seller.selling(hand.config) as worker, _requesting(hand.buyer, {"offer_id": "advice", "input": {"text": "both"}}) as process:
        assert process.wait(PATIENCE) == 0  # the worker quotes
        purchase = json.dumps({"purchase_id": json.loads(_out(process))["purchase_id"]})
        hand.buyer.run("call", "buyer.accept", purchase).ok()
        job_id = hand.buyer.run("call", "buyer.pay", purchase).ok().json["job_id"]
        assert hand.until_paid(job_id)["attempt"] == 0
        loud = hand.buyer.json("hire", "loud", "--input", '{"text": "meanwhile"}', "--yes")
        assert loud["result"]["text"] == "MEANWHILE\n"
        hand.lock(job_id)
        assert hand.call("deliver", job_id=job_id, text="by hand")["state"] == "delivered"
        assert hand.buyer.run("call", "buyer.result", purchase).ok().json["text"] == "by hand"
        worker.process.terminate()
        assert worker.ended()["jobs_by_status"]["delivered"] >= 2


def test_one_open_profile_delivers_what_it_locked(hand: Hand) -> None:
    async def by_one(job_id: str) -> Any:
        async with Profile.load(hand.seller.path, lambda: PASSWORD, overlay=Path(hand.config)) as profile:
            locked = await call_tool(profile, "seller.lock", {"job_id": job_id})
            assert locked["state"] == "leased"
            return await call_tool(profile, "seller.deliver", {"job_id": job_id, "text": "at once"})

    with hand.asked("in one go") as (job_id, waiting):
        hand.call("quote", job_id=job_id)
        hand.until_paid(job_id)
        assert asyncio.run(by_one(job_id))["state"] == "delivered"
        assert json.loads(waiting.communicate(timeout=PATIENCE)[0])["result"]["text"] == "at once"


def test_a_request_that_does_not_fit_is_declined_with_the_reason(hand: Hand) -> None:
    with _requesting(hand.buyer, {"offer_id": "loud", "input": {"text": "x"}, "label": "declined"}) as process:
        job_id = hand.first({"text": "x"})
        other = hand.stage.config("other", [{**ADVICE, "name": "other"}])
        refused = hand.seller.run("call", "seller.quote", json.dumps({"job_id": job_id}), "--config", other).ok().json
        assert (refused["state"], refused["error"]["code"]) == ("refused", "invalid_request")
        assert process.wait(PATIENCE) == 0
    assert json.loads(_out(process))["state"] == "canceled"


def test_without_offers_a_tool_says_where_they_belong_instead_of_declining(hand: Hand) -> None:
    with _requesting(hand.buyer, {"offer_id": "loud", "input": {"text": "kept"}}) as process:
        job_id = hand.first({"text": "kept"})
        hand.seller.run("call", "seller.quote", json.dumps({"job_id": job_id})).failed(3, "--config")
        assert hand.call("quote", job_id=job_id)["state"] == "quoted"
        assert process.wait(PATIENCE) == 0


@contextlib.contextmanager
def _requesting(buyer: Home, wish: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """`buyer.request`, which waits for the quote, in a process of its own."""
    command = [sys.executable, "-m", "tradeskill", "call", "buyer.request", json.dumps(wish)]
    process = subprocess.Popen(command, env=buyer.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        if process.stdout is not None and not process.stdout.closed:
            process.communicate(timeout=PATIENCE)


def _out(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=PATIENCE)[0]
