"""A market that lies, forgets, repeats itself or loses its answers: the parties trust signatures and the ledger only (FAULTS 23, 25, 27, 97-105).

Past 400 lines because it is one catalogue of what a market can do to a trade.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.rig import PRICE, Rig, at_work
from tradeskill import policy
from tradeskill.agreement import read_offer, sign_offer
from tradeskill.buyer import BuyerSettings
from tradeskill.contracts import Changes
from tradeskill.errors import TradeskillError, UnknownOutcomeError, UntrustedError
from tradeskill.journal import Purchase
from tradeskill.model import Job, JobError, Json, Result, SignedDocument
from tradeskill.seller import SellerSettings
from tradeskill.signing import Identity
from tradeskill.testing.virtual_time import run_virtual

Twist = Callable[[Job], Job]
WRITES = ("publish", "request", "quote", "accept", "submit_payment", "lock", "deliver")
QUICK = SellerSettings(quote_ttl_ms=300_000, poll_seconds=1.0)


class Between:
    """Somebody between a party and the market: `twist` changes what is shown, `trouble(name, call)` what becomes of a call."""

    def __init__(self, market: Any, twist: Twist = lambda job: job, trouble: Callable[[str, Any], Any] | None = None) -> None:
        self._market, self._twist, self._trouble = market, twist, trouble

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._market, name)
        if name in ("events", "open", "close"):
            return real

        async def call(*arguments: Any, **options: Any) -> Any:
            answer = await (real(*arguments, **options) if self._trouble is None else self._trouble(name, lambda: real(*arguments, **options)))
            if isinstance(answer, Job):
                return self._twist(answer)
            if isinstance(answer, Changes):
                return replace(answer, jobs=tuple(self._twist(job) for job in answer.jobs))
            return answer

        return call


def play(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


async def hired(rig: Rig, *, buyer: Twist | None = None, seller: Twist | None = None) -> Purchase:
    """One purchase to its end, with somebody between each party and the market."""
    sells = await rig.seller(market=Between(await rig.market("seller"), seller or (lambda job: job)))
    async with at_work(sells):
        buys = await rig.buyer(market=Between(await rig.market("buyer"), buyer or (lambda job: job)))
        try:
            return await rig.hire(buys)
        finally:
            await buys.close()


def paid(rig: Rig) -> list[str]:
    """Where the buyer's money went."""
    return [transfer.to for purpose, transfer in rig.ledger.stores["buyer"].sends.items() if purpose.startswith("pay:")]


def reserved(rig: Rig) -> tuple[int, int]:
    return rig.journal("buyer").read(lambda c: policy.spent_and_reserved(c, "raw"))


# every field


def wrong(value: Json) -> Json:
    """Another value of the same shape."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return str(int(value) + 1) if value.isdigit() else ("f" if value[:1] != "f" else "e") + value[1:]
    if isinstance(value, dict):
        return {**value, "extra": "1"}
    if isinstance(value, list):
        return [*value, *value] or ["x"]
    return "x"


def leaves(value: Mapping[str, Json], path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for name, inner in value.items():
        yield (*path, name)
        if isinstance(inner, dict):
            yield from leaves(inner, (*path, name))
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield from leaves(inner[0], (*path, name, 0))


def changed(value: Any, path: tuple[Any, ...], new: Callable[[Json], Json] | None) -> Any:
    """A copy with the place at `path` changed by `new`, or taken away."""
    copy = list(value) if isinstance(value, list) else dict(value)
    if len(path) > 1:
        copy[path[0]] = changed(copy[path[0]], path[1:], new)
    elif new is None:
        del copy[path[0]]
    else:
        copy[path[0]] = new(copy[path[0]])
    return copy


def forgeries(document: SignedDocument) -> Iterator[tuple[str, SignedDocument]]:
    for path in leaves(document.body):
        name = ".".join(map(str, path))
        yield f"{name} changed", replace(document, body=changed(document.body, path, wrong))
        yield f"{name} gone", replace(document, body=changed(document.body, path, None))
    yield "key", replace(document, key=str(wrong(document.key)))
    yield "signature", replace(document, signature=str(wrong(document.signature)))
    yield "no signature", replace(document, signature="")
    yield "kind", replace(document, kind="offer")
    stranger = Identity(b"x" * 32)
    yield "signed by a stranger", stranger.sign(document.kind, document.body)
    yield "signed by a stranger under its own name", stranger.sign(document.kind, {**document.body, "seller": stranger.key})


def honest_trade() -> Job:
    """A delivered job, to know which fields there are."""

    async def main() -> Job:
        rig = Rig()
        purchase = await hired(rig)
        return await (await rig.market("buyer")).get(purchase.job_id or "")

    return run_virtual(main())


HONEST = honest_trade()
assert HONEST.quote is not None
assert HONEST.receipt is not None


def forged_by_name(document: SignedDocument | None, name: str) -> SignedDocument | None:
    return document if document is None else dict(forgeries(document))[name]


@pytest.mark.parametrize("name", [name for name, _ in forgeries(HONEST.quote)])
def test_a_quote_that_its_seller_did_not_sign_is_not_paid(name: str) -> None:
    async def main() -> None:
        rig = Rig()
        purchase = await hired(rig, buyer=lambda job: replace(job, quote=forged_by_name(job.quote, name)))
        assert purchase.state == "abandoned"
        assert paid(rig) == []
        assert reserved(rig) == (0, 0)

    play(main())


@pytest.mark.parametrize("name", [name for name, _ in forgeries(HONEST.request)])
def test_a_request_that_its_buyer_did_not_sign_is_not_quoted(name: str) -> None:
    async def main() -> None:
        rig = Rig()
        purchase = await hired(rig, seller=lambda job: replace(job, request=dict(forgeries(job.request))[name]))
        assert (purchase.state, purchase.error_code) == ("canceled", "invalid_request")
        assert rig.ledger.stores["seller"].invoices == {}
        assert paid(rig) == []

    play(main())


@pytest.mark.parametrize("name", [name for name, _ in forgeries(HONEST.receipt)])
def test_a_receipt_that_its_seller_did_not_sign_for_these_bytes_is_disputed_with_the_evidence(name: str) -> None:
    async def main() -> None:
        rig = Rig()
        purchase = await hired(rig, buyer=lambda job: replace(job, receipt=forged_by_name(job.receipt, name)))
        assert purchase.state == "disputed"
        assert purchase.quote is not None
        assert purchase.payment_id is not None
        assert purchase.result_sha256 is None
        assert reserved(rig) == (PRICE.value, 0)

    play(main())


@pytest.mark.parametrize(
    "result",
    [Result(b"", "application/json"), Result(b'{"url":"http://b/"}', "application/json"), Result(b'{"url":"http://a/"}', "text/html"), None],
)
def test_other_bytes_than_the_seller_made_are_disputed(result: Result | None) -> None:
    async def main() -> None:
        rig = Rig()
        purchase = await hired(rig, buyer=lambda job: replace(job, result=result) if job.state == "delivered" else job)
        assert purchase.state == "disputed"

    play(main())


def test_a_quote_for_another_job_of_ours_is_refused() -> None:
    async def main() -> None:
        rig = Rig()
        quotes: list[SignedDocument] = []

        def swap(job: Job) -> Job:
            if job.quote is not None:
                quotes.append(job.quote)
            return replace(job, quote=quotes[0]) if job.quote is not None else job

        async with at_work(await rig.seller()):
            buyer = await rig.buyer(market=Between(await rig.market("buyer"), swap))
            first = await rig.hire(buyer, "http://a/")
            second = await rig.hire(buyer, "http://b/")
            await buyer.close()
        assert (first.state, second.state) == ("received", "abandoned")
        assert len(paid(rig)) == 1

    play(main())


def test_an_offer_under_a_strangers_key_is_not_bought_where_the_seller_is_known() -> None:
    async def main() -> None:
        rig = Rig()
        async with at_work(await rig.seller()):
            buyer = await rig.buyer()
            assert (await rig.hire(buyer)).state == "received"
            body = rig.offer().document.body
            stranger = sign_offer(
                Identity(b"x" * 32),
                offer_id=str(body["offer_id"]),
                network="dev",
                title="t",
                description="d",
                tags=[],
                prices=(PRICE,),
                input_schema={},
                pure=True,
                trusted=True,
                created_at=1,
            )
            with pytest.raises(UntrustedError, match="pinned"):
                await buyer.intend(read_offer(stranger), {"url": "http://c/"})
            await buyer.close()
        assert len(paid(rig)) == 1

    play(main())


# states and times that nobody signed


@pytest.mark.parametrize("state", ["canceled", "expired"])
def test_an_end_that_only_the_market_tells_the_seller_of_costs_the_buyer_nothing(state: Any) -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        lie = {"on": False}
        sells = await rig.seller(market=Between(await rig.market("seller"), lambda job: replace(job, state=state) if lie["on"] else job))
        async with at_work(sells):
            job = await rig.order()
            lie["on"] = True
            await rig.claim(job, rig.pay(rig.invoice(job).address, PRICE.value))
            await rig.until(lambda: rig.money(job) == [("refunded", PRICE.value)])
        assert rig.row(job).state == state
        assert rig.machine.started == {}

    play(main())


@pytest.mark.parametrize("state", ["failed", "canceled", "expired"])
def test_an_end_that_only_the_market_tells_the_buyer_of_never_frees_what_it_paid(state: Any) -> None:
    async def main() -> None:
        rig = Rig()

        def lie(job: Job) -> Job:
            return replace(job, state=state, error=JobError("made", "up"), result=None, receipt=None) if job.payment_id is not None else job

        purchase = await hired(rig, buyer=lie)
        assert purchase.state == "failed"
        assert len(paid(rig)) == 1
        assert reserved(rig) == (0, PRICE.value)

    play(main())


@pytest.mark.parametrize(("code", "kept"), [("made", "made"), ("refused.policy", "failed"), ("NOT A CODE", "failed"), ("x" * 65, "failed")])
def test_a_seller_s_code_never_passes_for_the_owner_s_refusal(code: str, kept: str) -> None:
    async def main() -> None:
        def lie(job: Job) -> Job:
            return replace(job, state="failed", error=JobError(code, "up"), result=None, receipt=None) if job.payment_id is not None else job

        assert (await hired(Rig(), buyer=lie)).error_code == kept

    play(main())


def test_a_delivery_that_is_withheld_ends_in_a_dispute_with_the_evidence() -> None:
    async def main() -> None:
        rig = Rig(buyer_settings=BuyerSettings(deliver_timeout=60.0))
        purchase = await hired(rig, buyer=lambda job: replace(job, state="running") if job.state == "delivered" else job)
        assert (purchase.state, purchase.error_code) == ("disputed", "not_delivered")
        assert purchase.quote is not None
        assert len(paid(rig)) == 1

    play(main())


@pytest.mark.parametrize("shift", [-(10**9), 10**9])
def test_times_that_the_market_makes_up_change_nothing_or_stop_the_payment(shift: int) -> None:
    async def main() -> None:
        rig = Rig()

        def lie(job: Job) -> Job:
            return replace(
                job,
                created_at=job.created_at + shift,
                updated_at=job.updated_at + shift,
                accepted_at=job.accepted_at and job.accepted_at + shift,
                quote_expires_at=job.quote_expires_at and job.quote_expires_at + shift,
                lock_expires_at=job.lock_expires_at and job.lock_expires_at + shift,
            )

        purchase = await hired(rig, buyer=lie, seller=lie)
        assert purchase.state == ("received" if shift > 0 else "expired")
        assert len(paid(rig)) == (1 if shift > 0 else 0)

    play(main())


def test_a_claim_that_the_market_makes_up_starts_nothing() -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        sells = await rig.seller(market=Between(await rig.market("seller"), lambda job: replace(job, payment_id="f" * 64, payment_rail="fake")))
        async with at_work(sells):
            job = await rig.order()
            await rig.world.sleep(30.0)
            assert rig.row(job).state == "quoted"
        assert rig.machine.started == {}

    play(main())


# answers that get lost, come twice, or come late


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("fate", ["lost", "twice"])
def test_a_call_that_happened_unheard_or_twice_changes_nothing(name: str, fate: str) -> None:
    async def main() -> None:
        rig = Rig()
        hit: set[str] = set()

        async def trouble(called: str, call: Any) -> Any:
            if called != name or name in hit:
                return await call()
            hit.add(name)
            if fate == "twice":
                with suppress(TradeskillError):
                    await call()
                return await call()
            await call()
            raise UnknownOutcomeError("502 after success")

        sells = await rig.seller(market=Between(await rig.market("seller"), trouble=trouble))
        async with at_work(sells):
            buyer = await rig.buyer(market=Between(await rig.market("buyer"), trouble=trouble))
            purchase = await rig.hire(buyer)
            await buyer.close()
        assert hit == {name}
        assert purchase.state == "received"
        assert len(paid(rig)) == 1
        assert list(rig.machine.started.values()) == [1]
        assert rig.money(await (await rig.market("buyer")).get(purchase.job_id or "")) == [("allocated", PRICE.value)]

    play(main())


def test_news_in_any_order_and_number_comes_to_the_same_end() -> None:
    async def main() -> None:
        rig = Rig()
        seen: list[Job] = []

        def muddle(job: Job) -> Job:
            seen.append(job)
            return rig.world.random.choice([job, job, rig.world.random.choice([old for old in seen if old.job_id == job.job_id])])

        purchase = await hired(rig, buyer=muddle, seller=muddle)
        assert purchase.state == "received"
        assert len(paid(rig)) == 1
        assert list(rig.machine.started.values()) == [1]

    play(main())


# a market restored from an older copy


@pytest.mark.parametrize("known", ["requested", "quoted", "accepted", "submitted", "running"])
@pytest.mark.parametrize("when", ["paid", "delivered"])
def test_a_market_that_forgot_is_told_again_and_nobody_pays_or_works_twice(known: str, when: str) -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        copies: dict[str, Any] = {}

        def copy(job: Job) -> Job:
            copies.setdefault("submitted" if job.state == "accepted" and job.payment_id else job.state, rig.book.dump())
            return job

        forgot = {"done": False}

        def forget() -> bool:
            """Once: at the moment asked for."""
            if forgot["done"] or known not in copies:
                return False
            rows = rig.fulfilments()
            if not rows or rows[0].state not in (("started", "executed", "delivered") if when == "paid" else ("delivered",)):
                return False
            forgot["done"] = True
            rig.book.restore(copies[known])
            return True

        async with at_work(await rig.seller(market=Between(await rig.market("seller"), copy))):
            blind = {"to deliveries": True}

            def show(job: Job) -> Job:
                return replace(copy(job), state="running") if job.state == "delivered" and blind["to deliveries"] else copy(job)

            buyer = await rig.buyer(market=Between(await rig.market("buyer"), show))
            driving = asyncio.create_task(rig.hire(buyer))
            await rig.until(lambda: forget() or forgot["done"], seconds=30.0)
            blind["to deliveries"] = False
            purchase = await driving
            await buyer.close()
        assert len(paid(rig)) == 1
        assert list(rig.machine.started.values()) == [1]
        assert purchase.state == "received"

    play(main())


@pytest.mark.parametrize("allowed", [False, True])
def test_a_result_without_a_receipt_is_taken_only_where_the_owner_allows_it_and_then_as_unverified(allowed: bool) -> None:
    async def main() -> None:
        rig = Rig(buyer_settings=BuyerSettings(missing_receipts=allowed))
        purchase = await hired(rig, buyer=lambda job: replace(job, receipt=None))
        assert purchase.state == ("received" if allowed else "disputed")
        assert purchase.receipt is None
        assert purchase.countersign is None
        assert (purchase.result_sha256 is not None) == allowed

    play(main())


def test_a_wrong_receipt_is_not_taken_even_where_none_would_be() -> None:
    async def main() -> None:
        rig = Rig(buyer_settings=BuyerSettings(missing_receipts=True))
        purchase = await hired(rig, buyer=lambda job: replace(job, result=Result(b"swapped", "text/plain")) if job.receipt is not None else job)
        assert purchase.state == "disputed"

    play(main())
