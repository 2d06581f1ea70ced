"""Spending through the whole flow: caps shared by processes, one payment an intent, unknown never freed, nothing signed late (FAULTS 16, 78, I5)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.rig import PRICE, Rig, at_work
from tradeskill import policy
from tradeskill.buyer import Buyer, BuyerSettings
from tradeskill.configvalues import Place
from tradeskill.errors import InputError, PolicyError, StateError
from tradeskill.journal import Purchase, spending
from tradeskill.model import Invoice, Proof
from tradeskill.money import Amount
from tradeskill.policy import Caps, Guard, Question
from tradeskill.policy.owner import freeze, make_grant
from tradeskill.policy.sealed import parse_policy
from tradeskill.seller import SellerSettings
from tradeskill.testing.fake_backend import Plan
from tradeskill.testing.fakes import FakeWallet
from tradeskill.testing.virtual_time import run_virtual

DUE = PRICE.value


def play(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


def sends(rig: Rig) -> list[int]:
    return [transfer.amount for purpose, transfer in rig.ledger.stores["buyer"].sends.items() if purpose.startswith("pay:")]


def held(rig: Rig) -> tuple[int, int]:
    """(spent, reserved)."""
    return rig.journal("buyer").read(lambda c: policy.spent_and_reserved(c, "raw"))


def capped(**caps: Amount) -> BuyerSettings:
    return BuyerSettings(caps=Caps(**{kind: (cap,) for kind, cap in caps.items()}), poll_seconds=1.0)


async def hire(rig: Rig, buyer: Buyer, url: str = "http://a/", cap: int | None = None) -> Purchase:
    purchase = await buyer.intend(rig.offer(), {"url": url}, caps=() if cap is None else (Amount(cap, "raw"),))
    return await buyer.drive(purchase.purchase_id)


@pytest.mark.parametrize("caps", [{"per_payment": Amount(DUE - 1, "raw")}, {"in_total": Amount(DUE - 1, "raw")}, {"in_total": Amount(10**9, "sat")}])
def test_over_a_cap_nothing_is_signed_and_the_seller_is_told(caps: dict[str, Amount]) -> None:
    async def main() -> None:
        rig = Rig(buyer_settings=capped(**caps))
        async with at_work(await rig.seller()):
            purchase = await hire(rig, await rig.buyer())
            assert (purchase.state, purchase.error_code) == ("abandoned", "refused.policy")
            assert rig.ledger.stores["buyer"].sends == {}
            assert held(rig) == (0, 0)
            await rig.until(lambda: rig.fulfilments()[0].state == "canceled")

    play(main())


def test_the_cap_of_one_purchase_binds_that_purchase() -> None:
    async def main() -> None:
        rig = Rig()
        async with at_work(await rig.seller()):
            buyer = await rig.buyer()
            assert (await hire(rig, buyer, "http://a/", cap=DUE - 1)).state == "abandoned"
            assert (await hire(rig, buyer, "http://b/", cap=DUE)).state == "received"
        assert held(rig) == (DUE, 0)

    play(main())


def test_until_something_was_received_from_a_seller_the_cap_for_strangers_holds() -> None:
    async def main() -> None:
        rig = Rig(buyer_settings=BuyerSettings(first_use_cap=(Amount(DUE - 1, "raw"),)))
        async with at_work(await rig.seller()):
            buyer = await rig.buyer()
            for url in ("http://a/", "http://b/"):  # trying again does not make it known
                assert (await hire(rig, buyer, url)).state == "abandoned"
            rig.buyer_settings = BuyerSettings()
            assert (await hire(rig, await rig.buyer(), "http://c/")).state == "received"
            assert (await hire(rig, buyer, "http://d/")).state == "received"

    play(main())


def test_one_cap_holds_for_all_processes_of_a_profile() -> None:
    async def main() -> None:
        rig = Rig(buyer_settings=capped(in_total=Amount(3 * DUE, "raw")))
        async with at_work(await rig.seller()):
            one, two = await rig.buyer(), await rig.buyer()
            done = await asyncio.gather(*[hire(rig, (one, two)[i % 2], f"http://{i}/") for i in range(10)])
        assert sorted(purchase.state for purchase in done) == ["abandoned"] * 7 + ["received"] * 3
        assert sends(rig) == [DUE] * 3
        assert held(rig) == (3 * DUE, 0)

    play(main())


def test_a_hundred_hires_of_one_wish_pay_once() -> None:
    async def main() -> None:
        rig = Rig()
        async with at_work(await rig.seller()):
            buyers = [await rig.buyer() for _ in range(4)]
            done = await asyncio.gather(*[hire(rig, buyers[i % 4]) for i in range(100)])
        assert {purchase.state for purchase in done} == {"received"}
        assert len({purchase.purchase_id for purchase in done}) == 1
        assert sends(rig) == [DUE]
        assert held(rig) == (DUE, 0)
        assert list(rig.machine.started.values()) == [1]

    play(main())


def test_another_label_is_another_wish() -> None:
    async def main() -> None:
        rig = Rig()
        async with at_work(await rig.seller()):
            buyer = await rig.buyer()
            one = await rig.hire(buyer, label="monday")
            two = await rig.hire(buyer, label="tuesday")
            again = await rig.hire(buyer, label="monday")
        assert one == again
        assert one.purchase_id != two.purchase_id
        assert sends(rig) == [DUE, DUE]

    play(main())


def test_a_wrong_input_is_refused_before_anything_is_written_down() -> None:
    async def main() -> None:
        rig = Rig()
        buyer = await rig.buyer()
        with pytest.raises(InputError, match="url"):
            await buyer.intend(rig.offer(), {})
        assert rig.purchases() == []
        assert rig.ledger.stores["buyer"].invoices == {}

    play(main())


def test_a_refund_frees_the_cap() -> None:
    async def main() -> None:
        plans = iter([Plan(end="failed")])
        rig = Rig(buyer_settings=capped(in_total=Amount(DUE, "raw")), plan=lambda execution_id, task: next(plans, Plan()))
        async with at_work(await rig.seller()):
            buyer = await rig.buyer()
            assert (await hire(rig, buyer, "http://a/")).state == "refunded"
            assert held(rig) == (0, 0)
            assert (await hire(rig, buyer, "http://b/")).state == "received"
        assert held(rig) == (DUE, 0)

    play(main())


def test_a_refund_that_comes_late_is_found_when_asked_again() -> None:
    async def main() -> None:
        rig = Rig(plan=lambda execution_id, task: Plan(end="failed"))
        async with at_work(await rig.seller()):
            buyer = await rig.buyer()
            driving = asyncio.create_task(hire(rig, buyer))
            await rig.until(lambda: rig.fulfilments() and rig.fulfilments()[0].state == "failed")
            rig.ledger.hold = True
            purchase = await driving
            assert (purchase.state, held(rig)) == ("failed", (0, DUE))
            rig.ledger.hold = False
            rig.ledger.confirm_all()
            assert (await buyer.drive(purchase.purchase_id)).state == "refunded"
        assert held(rig) == (0, 0)

    play(main())


@pytest.mark.parametrize("trouble", ["unreached", "answer-lost", "answer-raised", "dropped"])
def test_whatever_became_of_a_publication_nothing_is_freed_or_paid_twice(trouble: str) -> None:
    async def main() -> None:
        rig = Rig()
        troubles = iter([trouble] * 3)
        states: list[tuple[int, int]] = []

        def fault(place: str) -> str:
            if place != "publish":
                return ""
            states.append(held(rig))
            return next(troubles, "")

        async with at_work(await rig.seller()):
            purchase = await hire(rig, await rig.buyer(wallet=await rig.open_wallet("buyer", fault=fault)))
        assert purchase.state == "received"
        assert set(states) == {(0, DUE)}
        assert sends(rig) == [DUE]
        assert held(rig) == (DUE, 0)

    play(main())


class Emptied(FakeWallet):
    """A wallet whose money is gone when it should pay."""

    refusals = 0

    async def pay(self, invoice: Invoice, key: str) -> Proof:
        self.refusals += 1
        return await super().pay(invoice, key)


def test_a_wallet_that_signed_nothing_frees_the_reservation() -> None:
    async def main() -> None:
        rig = Rig()
        async with at_work(await rig.seller()):
            wallet = Emptied(rig.ledger, rig.world, "buyer")
            await wallet.open()
            purchase = await hire(rig, await rig.buyer(wallet=wallet, fund=DUE - 1))
        assert purchase.state == "abandoned"
        assert purchase.error_message is not None
        assert "fund it" in purchase.error_message
        assert wallet.refusals == 1
        assert held(rig) == (0, 0)

    play(main())


async def interrupted(rig: Rig, state: str) -> Purchase:
    """A purchase whose process died in this state."""
    purchase = await rig.hire(await rig.buyer(), until=[state])
    assert purchase.state == state
    return purchase


@pytest.mark.parametrize(("state", "end"), [("reserved", "expired"), ("accepted", "expired"), ("paying", "abandoned")])
def test_after_the_deadline_nothing_is_signed_whatever_state_the_crash_left(state: str, end: str) -> None:
    async def main() -> None:
        rig = Rig(settings=SellerSettings(quote_ttl_ms=300_000, poll_seconds=1.0))
        async with at_work(await rig.seller()):
            purchase = await interrupted(rig, state)
            await rig.world.sleep(181.0)  # less than two minutes are left
            done = await (await rig.buyer(fund=0)).drive(purchase.purchase_id)
        assert done.state == end
        assert rig.ledger.stores["buyer"].sends == {}
        assert held(rig) == (0, 0)

    play(main())


def test_what_was_signed_before_the_crash_is_published_however_late() -> None:
    async def main() -> None:
        rig = Rig(settings=SellerSettings(quote_ttl_ms=300_000, poll_seconds=1.0))
        async with at_work(await rig.seller()):
            troubles = iter(["unreached"])
            wallet = await rig.open_wallet("buyer", fault=lambda place: next(troubles, "") if place == "publish" else "")
            buyer = await rig.buyer(wallet=wallet)
            purchase = await rig.hire(buyer, until=["paying"])
            assert (await wallet.pay(wallet_invoice(purchase), purchase.purchase_id)).state == "unknown"
            await rig.world.sleep(190.0)
            done = await (await rig.buyer(fund=0)).drive(purchase.purchase_id)
        assert done.state == "received"
        assert sends(rig) == [DUE]

    play(main())


def wallet_invoice(purchase: Purchase) -> Invoice:
    from tradeskill.journal.records import read_invoice

    return read_invoice(purchase.invoice or "")


@pytest.mark.parametrize("state", ["intended", "requested", "verified", "reserved", "accepted"])
def test_a_buyer_may_leave_until_it_pays_and_then_not_any_more(state: str) -> None:
    async def main() -> None:
        rig = Rig()
        async with at_work(await rig.seller()):
            buyer = await rig.buyer()
            purchase = await rig.hire(buyer, until=[state])
            assert (await buyer.cancel(purchase.purchase_id, "changed my mind")).state == "canceled"
            assert held(rig) == (0, 0)
            assert (await buyer.drive(purchase.purchase_id)).state == "canceled"
            paying = await rig.hire(buyer, "http://b/", until=["paying"])
            with pytest.raises(StateError):
                await buyer.cancel(paying.purchase_id)
            assert held(rig) == (0, DUE)

    play(main())


@pytest.mark.parametrize("moment", [lambda rig: rig.fulfilments(), lambda rig: rig.fulfilments() and rig.fulfilments()[0].state == "quoted"])
def test_an_outage_of_the_wallet_hides_no_delivery(moment: Callable[[Rig], object]) -> None:
    async def main() -> None:
        rig = Rig(plan=lambda execution_id, task: Plan(seconds=20.0), confirm_after=1.0)
        down = {"now": False}
        wallet = await rig.open_wallet("buyer", fault=lambda place: "unavailable" if place == "call" and down["now"] else "")
        async with at_work(await rig.seller()):
            buyer = await rig.buyer(wallet=wallet)
            driving = asyncio.create_task(hire(rig, buyer))
            await rig.until(lambda: moment(rig))
            await rig.until(lambda: bool(sends(rig)) and rig.purchases()[0].state == "waiting")
            down["now"] = True
            assert (await asyncio.wait_for(driving, 60.0)).state == "received"

    play(main())


# freezing, grants, asking


@pytest.mark.parametrize("state", ["reserved", "accepted", "paying"])
def test_frozen_what_is_reserved_is_not_paid_and_goes_on_afterwards(state: str) -> None:
    async def main() -> None:
        rig = Rig()
        async with at_work(await rig.seller()):
            purchase = await interrupted(rig, state)
            journal = rig.journal("buyer")
            await journal.write(lambda tx: freeze(tx, 1))
            buyer = await rig.buyer(fund=0)
            with pytest.raises(PolicyError, match="frozen"):
                await buyer.drive(purchase.purchase_id)
            assert sends(rig) == []
            assert held(rig) == (0, DUE)
            await journal.write(lambda tx: spending.forget_meta(tx, "spending.frozen"))
            assert (await buyer.drive(purchase.purchase_id)).state == "received"

    play(main())


def test_frozen_what_was_signed_is_still_published() -> None:
    async def main() -> None:
        rig = Rig()
        async with at_work(await rig.seller()):
            troubles = iter(["unreached"])
            wallet = await rig.open_wallet("buyer", fault=lambda place: next(troubles, "") if place == "publish" else "")
            buyer = await rig.buyer(wallet=wallet)
            purchase = await rig.hire(buyer, until=["paying"])
            assert (await wallet.pay(wallet_invoice(purchase), purchase.purchase_id)).state == "unknown"
            await rig.journal("buyer").write(lambda tx: freeze(tx, 1))
            assert (await buyer.drive(purchase.purchase_id)).state == "received"
        assert sends(rig) == [DUE]

    play(main())


def test_hires_under_a_grant_debit_it_and_what_it_comes_from_and_a_refund_gives_back() -> None:
    async def main() -> None:
        plans = iter([Plan(end="failed")])
        rig = Rig(plan=lambda execution_id, task: next(plans, Plan()))
        rig.buyer_settings = BuyerSettings(guard=lambda: Guard(grant="child"), poll_seconds=1.0)

        def granted(tx: Any) -> None:
            make_grant(tx, "root", "", {"raw": 3 * DUE}, None, "", 1)
            make_grant(tx, "child", "root", {"raw": 2 * DUE}, None, "", 1)

        await rig.journal("buyer").write(granted)
        async with at_work(await rig.seller()):
            buyer = await rig.buyer()
            done = [(await hire(rig, buyer, f"http://{i}/")).state for i in range(4)]
        assert done == ["refunded", "received", "received", "abandoned"]
        grants = rig.journal("buyer").read(spending.grants)
        assert [grant.budgets["raw"] for grant in grants] == [(3 * DUE, 2 * DUE), (2 * DUE, 2 * DUE)]

    play(main())


@pytest.mark.parametrize(("answer", "state"), [(True, "received"), (False, "abandoned"), (None, "abandoned")])
def test_where_the_policy_asks_the_owner_decides(answer: bool | None, state: str) -> None:
    async def main() -> None:
        rig = Rig()
        content = {"ask_above": [f"{DUE - 1} raw"]}
        file = parse_policy(content, Place(Path("policy.yaml")))
        seal = {"serial": 1, "passes": 1, "memory_kib": 1024, "lanes": 1, "salt": "00" * 16, "mac": "00" * 32}
        await rig.journal("buyer").write(lambda tx: spending.set_meta(tx, "policy.accepted", json.dumps({**content, "seal": seal})))
        rig.buyer_settings = BuyerSettings(guard=lambda: Guard(file=file), poll_seconds=1.0)
        asked: list[str] = []

        async def ask(question: Question) -> bool:
            asked.append(question.text)
            return answer is True

        async with at_work(await rig.seller()):
            buyer = await rig.buyer(ask_owner=None if answer is None else ask)
            purchase = await hire(rig, buyer)
        assert purchase.state == state
        assert len(asked) == (answer is not None)
        assert len(sends(rig)) == (answer is True)
        if answer is not True:
            assert purchase.error_code == "refused.policy"

    play(main())
