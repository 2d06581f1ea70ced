"""What strangers, owners, operators and the weather do in a schedule, at moments it draws. Each deed counts itself once it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tradeskill.errors import TradeskillError
from tradeskill.testing.fakes import FakeWallet, Transfer
from tradeskill.testing.fakes import _address as fake_address
from tradeskill.testing.virtual_time import Crashed

from .handles import WalletHandle
from .life import Life

if TYPE_CHECKING:
    from .schedule import Play

__all__ = ["DEEDS", "STRANGER", "collect", "nod_off", "sleep"]

STRANGER: Final = fake_address("dev", "stranger", "main")


async def sleep(play: Play, life: Life) -> None:
    """SIGCONT after a SIGSTOP, mostly when its leases have lapsed."""
    await asyncio.sleep(play.rng.choice((5.0, 65.0, 130.0, 130.0)))
    if play.asleep is life:
        play.asleep = None
        play.tell(f"{life.name} wakes")
        life.wake()


async def nod_off(life: Life) -> None:
    life.pause()
    await asyncio.sleep(10.0)
    life.wake()


async def _nothing(play: Play) -> None:
    """Done elsewhere: `process.paused` at a label, `buyer.gone` by the buyer."""


async def _hold(play: Play) -> None:
    await asyncio.sleep(play.rng.uniform(0.0, 0.6))
    play.faults.count("ledger.held")
    play.ledger.hold = True
    await asyncio.sleep(play.rng.choice((0.5, 10.0, 100.0, 400.0)))
    play.ledger.hold = False
    play.ledger.confirm_all()


async def _roll_market_back(play: Play) -> None:
    await asyncio.sleep(play.rng.choice((0.0, 0.01, 0.1, 0.3, 1.0)))
    copy = play.market_table.dump()
    await asyncio.sleep(play.rng.choice((0.05, 0.2, 1.0, 20.0)))
    play.faults.count("market.rolled-back")
    play.market_table.restore(copy)


async def _kill(play: Play) -> None:
    await asyncio.sleep(play.rng.uniform(0.0, 1.0))
    life = play.rng.choice(list(play.lives.values()))
    if life.alive:
        play.faults.count("process.killed")
        life.die()


async def _drain(play: Play) -> None:
    await asyncio.sleep(play.rng.uniform(0.0, 1.0))
    life = play.lives["seller-0"]
    if life.name not in play.sellers:
        await asyncio.sleep(0.5)
        life = play.lives["seller-0"]
    if life.name in play.sellers and life.alive:
        play.faults.count("process.drained")
        play.sellers[life.name].drain()


async def _jump(play: Play) -> None:
    await asyncio.sleep(play.rng.uniform(0.0, 0.5))
    play.faults.count("clock.jumped")
    side = play.rng.choice(("seller", "buyer"))
    play.skew[side] = play.rng.choice((-300_000, -60_000, 60_000, 300_000))
    for role, life in play.lives.items():
        if role.startswith(side):
            life.world.skew_ms = play.skew[side]


async def _parallel(play: Play) -> None:
    await asyncio.sleep(play.rng.uniform(0.0, 0.5))
    play.faults.count("buyer.parallel")
    await play.keep("buyer-0-again", play.buy)


async def _cancel(play: Play) -> None:
    """The owner cancels, at whatever point its purchase is."""
    for _ in range(20):
        await asyncio.sleep(play.rng.choice((0.001, 0.03, 0.1, 0.3)))
        purchases = play.buyer_disks[0].table.raw.execute("SELECT purchase_id FROM purchases ORDER BY purchase_id").fetchall()
        if purchases and play.rng.random() < 0.5:
            break
    else:
        return
    life = play.lives["buyer-0"]
    buyer = play.buyers.get("buyer-0")
    if buyer is None or not life.alive:
        return
    play.faults.count("buyer.canceled")
    with suppress(TradeskillError, asyncio.CancelledError, Crashed):
        await life.start(buyer.cancel(play.rng.choice(purchases)[0]))


async def _invoices(play: Play) -> list[tuple[str, int, int]]:
    """Of the first quoted job, in an order that is drawn: address, amount, expiry of each. None where nothing was quoted."""
    try:
        await asyncio.wait_for(play.quoted.wait(), 60.0)
    except TimeoutError:
        return []
    rows = play.seller_disk.table.raw.execute("SELECT job_id, address, amount, expires_at FROM invoices ORDER BY job_id, rail").fetchall()
    found = [(address, int(amount), expires_at) for job_id, address, amount, expires_at in rows if job_id == rows[0][0]]
    return play.rng.sample(found, len(found)) if len(found) > 1 else found


def _send(play: Play, to: str, amount: int, number: int) -> None:
    play.ledger.publish(Transfer(f"{play.outcome.seed:032x}{number:032x}", STRANGER, to, amount))


async def _stranger_pays(play: Play, kind: str, amounts: Callable[[int], list[int]]) -> None:
    invoices = await _invoices(play)
    if not invoices:
        return
    address, price, expires_at = invoices[0]
    if kind == "third.late":
        now = play.market_world.now_ms()
        await asyncio.sleep((expires_at - now) / 1000 + play.rng.choice((1.0, 30.0, 100.0, 2200.0)))
    play.faults.count(kind)
    for number, amount in enumerate(amounts(price)):
        await asyncio.sleep(play.rng.choice((0.0, 0.05, 0.2, 1.0, 5.0)))
        _send(play, address, amount, number + 16 * list(DEEDS).index(kind))
    if kind == "third.double":  # once more, on the other rail
        for address, price, _ in invoices[1:]:
            _send(play, address, price, 8 + 16 * list(DEEDS).index(kind))


def _under(play: Play) -> Coroutine[Any, Any, None]:
    return _stranger_pays(play, "third.under", lambda price: [play.rng.choice((1, 49, price // 2, price - 1))])


def _over(play: Play) -> Coroutine[Any, Any, None]:
    return _stranger_pays(play, "third.over", lambda price: [price + play.rng.choice((1, 49, 50, price))])


def _split(play: Play) -> Coroutine[Any, Any, None]:
    def parts(price: int) -> list[int]:
        first = play.rng.randrange(1, price - 1)
        second = play.rng.randrange(1, price - first)
        return [first, second, price - first - second]

    return _stranger_pays(play, "third.split", parts)


def _double(play: Play) -> Coroutine[Any, Any, None]:
    return _stranger_pays(play, "third.double", lambda price: [price, price])


def _late(play: Play) -> Coroutine[Any, Any, None]:
    return _stranger_pays(play, "third.late", lambda price: [price])


async def collect(play: Play) -> None:
    """The owner's `wallet sweep`, again and again, in processes of its own."""
    if not await _invoices(play):
        return
    for number in range(12):
        await asyncio.sleep(play.rng.choice((0.1, 0.5, 1.0, 3.0)))
        life = play.born("seller-sweep", number)
        task = life.start(_sweep(play, life))
        await asyncio.wait([task])
        life.die()
        if task.cancelled() or task.exception() is None:
            continue
        if not isinstance(task.exception(), TradeskillError) and life.alive:
            raise task.exception()  # type: ignore[misc]  # it is one
    del play.lives["seller-sweep"]


async def _sweep(play: Play, life: Life) -> None:
    for rail in play.scenario.rails:
        wallet = WalletHandle(play.ledger, "seller", life, play.network, rail)
        await FakeWallet.open(wallet)
        await wallet.collect()
        await life.world.sleep(1.0)
        await wallet.collect()
        await wallet.close()


DEEDS: Final[dict[str, Callable[[Play], Coroutine[Any, Any, None]]]] = {
    "ledger.held": _hold,
    "market.rolled-back": _roll_market_back,
    "third.under": _under,
    "third.over": _over,
    "third.split": _split,
    "third.double": _double,
    "third.late": _late,
    "buyer.canceled": _cancel,
    "buyer.parallel": _parallel,
    "buyer.gone": _nothing,
    "process.paused": _nothing,
    "process.drained": _drain,
    "process.killed": _kill,
    "clock.jumped": _jump,
}
