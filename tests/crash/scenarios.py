"""Which actor dies at a label, and the scene that leads it there: a sale, a purchase, a refund, receiving, sweeping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from signal import SIGKILL, SIGTERM

from tests.crash.actors import Actor
from tests.crash.evidence import read_books
from tests.crash.invariants import Outcome, judge, since_death
from tests.crash.scene import FUNDS, OFFER, PRICE, Scene
from tradeskill.journal import Purchase

Scenario = Callable[[Scene, str], Awaitable[list[str]]]

SELL = ("sell", "--json")


class NotReachedError(AssertionError):
    """The actor lived through the whole scene: the label is not where the flow goes."""


def scenario_of(label: str) -> Scenario:
    """KeyError for a label nobody leads to: then the walk is not whole."""
    side, _, step = label.partition(".")
    return SCENARIOS["confirming" if (side, step) == ("receive", "confirmed") else side]


async def selling(scene: Scene, crash_at: str) -> list[str]:
    """A seller process dies; the buyer, here, does not know. The next seller process finishes the job."""
    gated = crash_at.endswith("seller.heartbeat")
    return await _seller_dies(scene, crash_at, "delivered", scene.wish(gated=gated))


async def refunding(scene: Scene, crash_at: str) -> list[str]:
    """The work fails, and the seller process dies on the way to giving the money back."""
    return await _seller_dies(scene, crash_at, "refunded", scene.wish(failing=True))


async def _seller_dies(scene: Scene, crash_at: str, outcome: Outcome, wish: dict[str, object]) -> list[str]:
    await scene.fund(scene.buyer_home)
    async with Actor(scene.seller_home, SELL, crash_at=crash_at) as seller:
        assert await seller.line(), seller.said
        buying = asyncio.create_task(scene.buy(wish))
        dying = asyncio.create_task(seller.ended())
        await asyncio.wait((buying, dying), return_when=asyncio.FIRST_COMPLETED)
        if not dying.done():  # the buyer has all it wants; the seller may die of what it does afterwards
            seller.send(SIGTERM)
        await _died(seller, crash_at)
    at_death = read_books(scene.seller_home)
    scene.open_gate()
    async with Actor(scene.seller_home, SELL) as seller:
        assert await seller.line(), seller.said
        purchase = await buying
        seller.send(SIGTERM)
        code = await seller.ended()
    found = [] if code == 0 else [f"the restarted seller ended with {code}: {seller.said}"]
    return [*found, *await _over(scene, outcome, purchase), *since_death(at_death, read_books(scene.seller_home))]


async def buying(scene: Scene, crash_at: str) -> list[str]:
    """A `hire` process dies; the same command again goes on with the same purchase."""
    gated = crash_at.endswith("pay.confirmed")  # the payment is looked at again while the work takes its time
    command = hire_command(scene.wish(gated=gated))
    await scene.fund(scene.buyer_home)
    async with scene.selling():
        async with Actor(scene.buyer_home, command, crash_at=crash_at) as buyer:
            await _died(buyer, crash_at)
        at_death = read_books(scene.buyer_home)
        scene.open_gate()
        async with Actor(scene.buyer_home, command) as buyer:
            code = await buyer.ended()
    found = [] if code == 0 else [f"the repeated hire ended with {code}: {buyer.said}"]
    async with scene.profile(scene.buyer_home) as profile:
        from tradeskill.journal import buying

        purchase = profile.journal.read(buying.purchases)[0]
    return [*found, *await _over(scene, "delivered", purchase), *since_death(at_death, read_books(scene.buyer_home))]


def hire_command(wish: dict[str, object]) -> list[str]:
    import json

    return ["hire", OFFER, "--input", json.dumps(wish), "--yes", "--json"]


async def receiving(scene: Scene, crash_at: str) -> list[str]:
    """`wallet receive` dies; the same command again brings the money in, once."""
    await scene.fund(scene.seller_home)
    found = await _twice(scene, ["wallet", "receive", "--json"], crash_at)
    return found + await _received(scene)


async def sweeping(scene: Scene, crash_at: str) -> list[str]:
    """`wallet sweep` dies on the way from a paid invoice to the main account."""
    purchase = await _sold(scene)
    found = await _twice(scene, ["wallet", "sweep", "--json"], crash_at)
    return found + await _over(scene, "delivered", purchase)


async def confirming(scene: Scene, crash_at: str) -> list[str]:
    """A worker dies as it notes that the block of an earlier command was confirmed."""
    await scene.fund(scene.seller_home)
    async with Actor(scene.seller_home, ["wallet", "receive", "--json"]) as first:
        assert await first.ended() == 0, first.said
    await scene.ledger.settle()
    return await _twice(scene, SELL, crash_at) + await _received(scene)


async def _sold(scene: Scene) -> Purchase:
    await scene.fund(scene.buyer_home)
    async with scene.selling():
        return await scene.buy(scene.wish())


async def _twice(scene: Scene, command: tuple[str, ...] | list[str], crash_at: str) -> list[str]:
    async with Actor(scene.seller_home, command, crash_at=crash_at) as actor:
        await _died(actor, crash_at)
    at_death = read_books(scene.seller_home)
    async with Actor(scene.seller_home, command) as actor:
        if command == SELL:
            assert await actor.line(), actor.said
            actor.send(SIGTERM)
        code = await actor.ended()
    found = [] if code == 0 else [f"{' '.join(command)} ended with {code} after the crash: {actor.said}"]
    after = read_books(scene.seller_home)
    if left := [block["purpose"] for block in after.blocks if block["state"] == "signed"]:
        found.append(f"{' '.join(command)} left blocks unpublished: {left}")
    return found + since_death(at_death, after)


async def _died(actor: Actor, crash_at: str) -> None:
    try:
        code = await actor.ended()
    except TimeoutError as error:
        raise NotReachedError(f"{crash_at}: nothing died there, the process goes on: {actor.said}") from error
    if code != -SIGKILL:
        raise NotReachedError(f"{crash_at}: nothing died there, the process ended with {code}: {actor.said}")


async def _received(scene: Scene) -> list[str]:
    await scene.gather_money()
    books, held = read_books(scene.seller_home), await scene.held(scene.seller_home)
    found = []
    if held != FUNDS or [(block["kind"], block["amount"], block["state"]) for block in books.blocks] != [("receive", str(FUNDS), "confirmed")]:
        found.append(f"{held} of {FUNDS} received in blocks {books.blocks}")
    return found


async def _over(scene: Scene, outcome: Outcome, purchase: Purchase) -> list[str]:
    """Collect the money, then judge; a delivered purchase carries what was bought and its proof."""
    await scene.gather_money()
    found = await judge(scene, outcome)
    if outcome == "delivered" and purchase.result_sha256:  # without one the judge has said so
        async with scene.profile(scene.buyer_home) as profile:
            data = profile.blobs.get(purchase.result_sha256)
        if data != b"HELLO" or not scene.verified(purchase, data):
            found.append(f"received {data!r}, or a receipt that does not stand")
        if purchase.amount != str(PRICE):
            found.append(f"the purchase says {purchase.amount} raw")
    return found


SCENARIOS: dict[str, Scenario] = {
    "seller": selling,
    "refund": refunding,
    "buyer": buying,
    "pay": buying,
    "receive": receiving,
    "sweep": sweeping,
    "confirming": confirming,
}
