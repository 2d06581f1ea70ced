"""A hundred different purchases at once against a cap with room for ten: ten are paid, to the raw, in one process and in four (I5, FAULTS 78)."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import PATIENCE, Home, Stage, shout
from tests.rig import PRICE, Rig, at_work, under_policy
from tradeskill import policy
from tradeskill.buyer import BuyerSettings
from tradeskill.journal import Purchase, spending
from tradeskill.model import Proof
from tradeskill.money import Amount
from tradeskill.policy import Caps, Guard
from tradeskill.policy.owner import make_grant
from tradeskill.profile import Profile
from tradeskill.testing.fakes import FakeWallet
from tradeskill.testing.virtual_time import run_virtual

CROWD, ROOM, DUE, FUNDS = 100, 10, PRICE.value, 1_000_000


# in one process, in virtual time, through the whole flow


def judge(rig: Rig, done: list[Purchase], rule: str, paid: int = ROOM) -> None:
    """So many received, the others refused by that rule, nothing held beyond what was paid, and the ledger says the same."""
    refused = [purchase for purchase in done if purchase.state != "received"]
    assert len(done) - len(refused) == paid
    assert {purchase.state for purchase in refused} == {"abandoned"}
    assert {purchase.error_code for purchase in refused} == {"refused.policy"}
    assert [purchase.error_message for purchase in refused if rule not in (purchase.error_message or "")] == []
    sends = [transfer.amount for purpose, transfer in rig.ledger.stores["buyer"].sends.items() if purpose.startswith("pay:")]
    assert sends == [DUE] * paid
    assert rig.journal("buyer").read(lambda c: policy.spent_and_reserved(c, "raw")) == (paid * DUE, 0)


async def balance(wallet: FakeWallet) -> int:
    return (await wallet.balance()).available.value


@pytest.mark.parametrize(
    ("rule", "content", "says"),
    [
        ("total", {"caps": {"total": [f"{ROOM * DUE} raw"]}}, "total cap is"),
        ("day", {"caps": {"day": [f"{ROOM * DUE + DUE - 1} raw"]}}, "cap per day is"),
        ("seller", {"caps": {"seller": [f"{ROOM * DUE} raw"]}}, "cap per seller is"),
        ("offer", {"caps": {"offer": [f"{ROOM * DUE} raw"]}}, "cap per offer is"),
        ("configured", None, "total cap is"),
    ],
)
def test_of_a_hundred_different_purchases_at_once_ten_are_paid_where_a_cap_has_room_for_ten(rule: str, content: dict[str, Any] | None, says: str) -> None:
    async def main() -> None:
        rig = Rig(capacity=(2 * CROWD, 2 * CROWD))
        rig.buyer_settings = (
            BuyerSettings(caps=Caps(in_total=(Amount(ROOM * DUE, "raw"),)), poll_seconds=1.0) if content is None else await under_policy(rig, content)
        )
        async with at_work(await rig.seller()):
            wallet = await rig.open_wallet("buyer")
            buyer = await rig.buyer(wallet=wallet, fund=FUNDS)
            done = await asyncio.gather(*(rig.hire(buyer, f"http://{number}/") for number in range(CROWD)))
            judge(rig, done, says)
            assert await balance(wallet) == FUNDS - ROOM * DUE

    run_virtual(main())


class Deaf(FakeWallet):
    """The answer to its first payment is lost, again and again, until it hears again. The money did leave."""

    deaf = True
    first = ""

    async def _publish(self, purpose: str) -> Proof:
        proof = await super()._publish(purpose)
        if purpose.startswith("pay:") and self.deaf:
            self.first = self.first or purpose
            if purpose == self.first:
                return Proof(proof.payment_id, "unknown")
        return proof


def test_a_payment_whose_outcome_is_unknown_counts_as_spent_while_the_crowd_passes() -> None:
    async def main() -> None:
        rig = Rig(capacity=(2 * CROWD, 2 * CROWD))
        rig.buyer_settings = await under_policy(rig, {"caps": {"total": [f"{ROOM * DUE} raw"]}})
        async with at_work(await rig.seller()):
            wallet = Deaf(rig.ledger, rig.world, "buyer")
            await wallet.open()
            buyer = await rig.buyer(wallet=wallet, fund=FUNDS)
            crowd = [asyncio.create_task(rig.hire(buyer, f"http://{number}/")) for number in range(CROWD)]
            await rig.until(lambda: sum(task.done() for task in crowd) == CROWD - 1)
            states = [task.result().state for task in crowd if task.done()]
            assert (states.count("received"), states.count("abandoned")) == (ROOM - 1, CROWD - ROOM)
            assert rig.journal("buyer").read(lambda c: policy.spent_and_reserved(c, "raw")) == ((ROOM - 1) * DUE, DUE)
            late = await rig.hire(buyer, "http://late/")
            assert (late.state, late.error_code) == ("abandoned", "refused.policy")
            wallet.deaf = False
            judge(rig, [*await asyncio.gather(*crowd), late], "total cap is")
            assert await balance(wallet) == FUNDS - ROOM * DUE

    run_virtual(main())


@pytest.mark.parametrize(("above", "each", "refused_by"), [(ROOM, 7, ("root", "one", "two")), (CROWD, ROOM // 2, ("one", "two"))])
def test_under_two_grants_the_crowd_stays_within_both_and_within_what_they_come_from(above: int, each: int, refused_by: tuple[str, ...]) -> None:
    async def main() -> None:
        rig = Rig(capacity=(2 * CROWD, 2 * CROWD))

        def granted(tx: Any) -> None:
            make_grant(tx, "root", "", {"raw": above * DUE}, None, "", 1)
            for name in ("one", "two"):
                make_grant(tx, name, "root", {"raw": each * DUE}, None, "", 1)

        await rig.journal("buyer").write(granted)
        async with at_work(await rig.seller()):
            wallet = await rig.open_wallet("buyer")
            buyers = []
            for name, fund in (("one", FUNDS), ("two", 0)):
                rig.buyer_settings = BuyerSettings(guard=lambda name=name: Guard(grant=name), poll_seconds=1.0)  # type: ignore[misc]  # bound now
                buyers.append(await rig.buyer(wallet=wallet, fund=fund))
            done = await asyncio.gather(*(rig.hire(buyers[number % 2], f"http://{number}/") for number in range(CROWD)))
            judge(rig, done, "the budget of grant")
            assert {purchase.error_message.split(" ")[4] for purchase in done if purchase.error_message} <= set(refused_by)
            assert await balance(wallet) == FUNDS - ROOM * DUE
        held = {grant.grant_id: grant.budgets["raw"][1] for grant in rig.journal("buyer").read(spending.grants)}
        assert held["root"] == held["one"] + held["two"] == ROOM * DUE
        assert max(held["one"], held["two"]) <= each * DUE

    run_virtual(main())


# in four processes of one profile, with a real ledger, a market in a file and a seller at work

COST = 10**27  # raw, the price of a shout


@dataclass
class Fair:
    stage: Stage

    def buyer(self, name: str, rules: dict[str, Any] | None = None) -> Home:
        home = self.stage.funded(name)
        if rules is not None:
            (self.stage.folder / f"{name}-rules.yaml").write_text(json.dumps(rules))  # JSON is YAML
            word = self.stage.password_file("the owner's passphrase", "crowd-passphrase")
            home.run("policy", "set", str(self.stage.folder / f"{name}-rules.yaml"), "--passphrase-file", str(word)).ok()
        return home


@pytest.fixture(scope="module")
def fair(stage: Stage) -> Iterator[Fair]:
    seller = stage.profile("crowd-seller")
    config = stage.config("crowd-offers", [shout("crowded", capacity={"jobs": 500, "per_buyer": 500})])
    with seller.selling(config):
        yield Fair(stage)


def wishes(names: range) -> list[dict[str, Any]]:
    return [{"offer_id": "crowded", "input": {"text": f"number {name}"}, "max": "0.01 XNO"} for name in names]


def started(home: Home, calls: list[dict[str, Any]], **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).parent / "crowd_hirer.py"), str(home.path), home.environment["TRADESKILL_PASSWORD_FILE"], json.dumps(calls)]
    return subprocess.Popen(command, env={**home.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> list[list[str]]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return list(json.loads(out.splitlines()[-1]))


def money(home: Home) -> int:
    return int(home.json("wallet", "balance")["available_raw"])


def books(home: Home) -> tuple[int, int, dict[str, int]]:
    """Spent, reserved, and what each grant holds, in raw, as the journal has it."""

    async def main() -> tuple[int, int, dict[str, int]]:
        async with Profile.load(home.path, lambda: "") as profile:
            grants = profile.journal.read(spending.grants)
            return *profile.journal.read(lambda c: policy.spent_and_reserved(c, "raw")), {each.grant_id: each.budgets["raw"][1] for each in grants}

    return asyncio.run(main())


def test_from_four_processes_ten_of_a_hundred_are_paid_and_one_of_unknown_outcome_is_among_them(fair: Fair) -> None:
    home = fair.buyer("crowd-buyer", {"caps": {"total": ["0.01 XNO"]}})
    before = money(home)
    doomed = started(home, wishes(range(1)), TRADESKILL_CRASH_AT="after:pay.block-stored")  # signed, perhaps sent: nobody knows
    doomed.communicate(timeout=PATIENCE)
    assert doomed.returncode == -signal.SIGKILL
    crowd = [started(home, wishes(range(first, first + CROWD // 4))) for first in range(1, CROWD, CROWD // 4)]
    answers = [answer for process in crowd for answer in ended(process)]
    assert len(answers) == CROWD
    assert [state for state, _, _ in answers].count("received") == ROOM - 1
    refused = [message for state, _, message in answers if state != "received"]
    assert [message for message in refused if "total cap is 0.01 XNO" not in message] == []
    ((state, payment, _),) = ended(started(home, wishes(range(1))))
    assert state == "received"
    assert len({payment, *(paid for _, paid, _ in answers if paid)}) == ROOM
    assert before - money(home) == ROOM * COST
    assert books(home) == (ROOM * COST, 0, {})


def test_from_four_processes_under_two_grants_ten_of_forty_are_paid(fair: Fair) -> None:
    home = fair.buyer("crowd-granted")
    before = money(home)
    root = home.json("policy", "grant", "--max", "0.01 XNO")["grant"]
    bound = {"TRADESKILL_GRANT": root}
    two = [home.run("policy", "grant", "--max", "0.007 XNO", "--json", environment=bound).ok().json["grant"] for _ in range(2)]
    crowd = [started(home, wishes(range(10 * number, 10 * number + 10)), TRADESKILL_GRANT=two[number % 2]) for number in range(4)]
    answers = [answer for process in crowd for answer in ended(process)]
    assert [state for state, _, _ in answers].count("received") == ROOM
    assert [message for state, _, message in answers if state != "received" and "the budget of grant" not in message] == []
    assert before - money(home) == ROOM * COST
    spent, reserved, granted = books(home)
    assert (spent, reserved) == (ROOM * COST, 0)
    assert granted[root] == granted[two[0]] + granted[two[1]] == ROOM * COST
    assert max(granted[name] for name in two) <= 7 * COST
