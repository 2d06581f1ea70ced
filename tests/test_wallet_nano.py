"""The Nano wallet on a dev ledger that misbehaves: dropped blocks, roll-backs, forks, lies, lag, dust, crashes and restored backups.

Past 400 lines because it is one catalogue of what a ledger can do to a wallet.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.nano_bench import PASSWORD, NanoBench, make_wallet
from tradeskill.errors import (
    ConfigError,
    NetworkMismatchError,
    NotFoundError,
    PolicyError,
    RefusedError,
    SecretError,
    StateError,
    UnavailableError,
    UsageError,
)
from tradeskill.model import Invoice
from tradeskill.money import Amount
from tradeskill.world import World
from tradeskill_wallet.devnet.node import DevNode
from tradeskill_wallet.keys import PER_EPOCH
from tradeskill_wallet.nano import NanoWallet
from tradeskill_wallet.primitives import ZERO, StateBlock, decode_address, derive_key, encode_address, public_key
from tradeskill_wallet.work import compute

HOUR = 3_600_000
SEED = bytes(range(32))


class Crash(BaseException):
    """The process ends here."""


class CrashingWorld(World):
    """Stops at one label of the crash matrix; pauses of background work never end, so that nothing happens by itself."""

    def __init__(self, when: str = "", label: str = "") -> None:
        super().__init__()
        self.point = (when, label)
        self.passed: list[str] = []

    def crash(self, when: str, label: str) -> None:
        self.passed.append(f"{when}:{label}")
        if (when, label) == self.point:
            raise Crash

    async def sleep(self, seconds: float) -> None:
        if seconds >= 5:
            await asyncio.Event().wait()
        await super().sleep(0)


def run(tmp_path: Path, body: Callable[[NanoBench], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def whole() -> None:
        bench = NanoBench(tmp_path, CrashingWorld(), **settings)
        await bench.start()
        try:
            await asyncio.wait_for(body(bench), 30)
        finally:
            await bench.stop()

    asyncio.run(whole())


async def bill(bench: NanoBench, wallet: NanoWallet, job: str = "job", amount: int = 1000) -> Invoice:
    return await wallet.invoice(job, Amount(amount, "raw"), bench.now_ms() + HOUR)


def blocks_of(bench: NanoBench, address: str) -> list[StateBlock]:
    return [e.block for e in bench.node.ledger.entries.values() if isinstance(e.block, StateBlock) and e.block.account == decode_address(address)]


# --- publishing


def test_a_block_the_node_dropped_is_published_again_as_the_same_bytes(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller, buyer = await bench.open("seller"), await bench.open("buyer")
        await bench.fund(buyer, 5000)
        invoice = await bill(bench, seller)
        bench.node.set_faults(drop_process="1")
        first = await buyer.pay(invoice, "key")
        assert first.state == "published"  # so the node said
        stored = buyer._store.rows.block(first.payment_id)
        lost = await buyer.paid("key")
        assert lost is not None
        assert lost.state == "unknown"
        again = await buyer.pay(invoice, "key")
        assert (again.payment_id, again.state) == (first.payment_id, "published")
        assert stored is not None
        assert bench.node.ledger.entries[bytes.fromhex(first.payment_id)].block.to_json() == stored.block.to_json()
        bench.node.confirm()
        assert (await seller.settle(invoice, None)).surplus == 0

    run(tmp_path, body)


def test_a_rolled_back_payment_comes_back_and_starts_nothing_before(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller, buyer = await bench.open("seller"), await bench.open("buyer")
        await bench.fund(buyer, 5000)
        invoice = await bill(bench, seller)
        first = await buyer.pay(invoice, "key")
        assert (await seller.settle(invoice, first.payment_id)).state == "pending"
        bench.node.rollback(first.payment_id)
        assert (await seller.settle(invoice, first.payment_id)).state == "none"
        await buyer.paid("key")
        assert (await buyer.pay(invoice, "key")).payment_id == first.payment_id
        bench.node.confirm()
        assert (await seller.settle(invoice, first.payment_id)).state == "paid"

    run(tmp_path, body)


def test_payments_from_one_account_are_pipelined_on_unconfirmed_blocks(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller, buyer = await bench.open("seller"), await bench.open("buyer")
        await bench.fund(buyer, 20_000)
        invoices = [await bill(bench, seller, f"job-{n}") for n in range(20)]
        proofs = await asyncio.gather(*(buyer.pay(invoice, invoice.job_id) for invoice in invoices))
        assert {p.state for p in proofs} == {"published"}
        previous = [block.previous for block in blocks_of(bench, await buyer.address())]
        assert len(previous) == len(set(previous)) == 21
        bench.node.confirm()
        for invoice in invoices:
            assert (await seller.settle(invoice, None)).state == "paid"

    run(tmp_path, body)


def test_several_spending_accounts_share_the_work(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller, buyer = await bench.open("seller"), await bench.open("buyer")
        await bench.fund(buyer, 12_000)
        assert await buyer.spread("first") == 2
        bench.node.confirm()
        assert await buyer.receive() == 2
        assert await buyer.spread("first") == 2  # the same key shares nothing again
        proofs = [await buyer.pay(await bill(bench, seller, f"job-{n}"), f"{n}") for n in range(6)]
        senders = [bench.node.ledger.entries[bytes.fromhex(p.payment_id)].block for p in proofs]
        assert len({block.account for block in senders if isinstance(block, StateBlock)}) == 3

    run(tmp_path, body, accounts=3)


def test_a_gap_is_not_a_refusal(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller, buyer = await bench.open("seller"), await bench.open("buyer")
        await bench.fund(buyer, 5000)
        one, two = await bill(bench, seller, "one"), await bill(bench, seller, "two")
        bench.node.set_faults(drop_process="1")
        first = await buyer.pay(one, "one")  # lost in the node
        second = await buyer.pay(two, "two")  # so this one has a gap below it
        assert second.state == "unknown"
        assert await buyer.paid("one") is not None  # notices that the first is gone
        again = await buyer.pay(two, "two")
        assert (again.payment_id, again.state) == (second.payment_id, "published")
        known = await buyer.paid("one")
        assert known is not None
        assert (known.payment_id, known.state) == (first.payment_id, "published")
        assert len(blocks_of(bench, await buyer.address())) == 3

    run(tmp_path, body)


def test_an_unreachable_node_after_signing_is_unknown_and_the_next_call_continues(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller, buyer = await bench.open("seller"), await bench.open("buyer")
        await bench.fund(buyer, 5000)
        invoice = await bill(bench, seller)
        port = bench.node.rpc_port
        good, node = buyer._nodes.all, buyer._nodes.all[0]
        node.url = f"http://127.0.0.1:{port}/nothing-here\x7f"
        buyer._nodes.all = [node]
        assert (await buyer.pay(invoice, "key")).state == "unknown"
        signed = buyer._store.rows.by_purpose("pay:key")
        node.url, buyer._nodes.all = bench.node.rpc_url, good
        assert signed is not None
        assert (await buyer.pay(invoice, "key")) .payment_id == signed.block.hash_hex
        assert len(blocks_of(bench, await buyer.address())) == 2

    run(tmp_path, body)


def rival(bench: NanoBench, seed: bytes, amount: int) -> StateBlock:
    """Another instance of the same seed spends from the main account's head."""
    secret = derive_key(seed, 0)
    account = public_key(secret)
    state = bench.node.ledger.accounts[account]
    block = StateBlock(account, state.head, state.representative, state.balance - amount, public_key(derive_key(bytes(32), 99)))
    return block.with_work(compute(block.root, 0xFFC0000000000000, 0)).signed(secret, World().random_bytes)


def test_a_payment_whose_place_was_taken_by_a_confirmed_block_is_signed_again_with_the_same_amount(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        buyer = make_wallet(bench.home / "buyer", bench.world, bench.node, SEED)
        bench._opened.append(buyer)
        await buyer.open()
        await bench.fund(buyer, 5000)
        bench.node.confirm()
        invoice = await bill(bench, seller)
        other = rival(bench, SEED, 7)
        bench.node.chain.submit(other)
        first = await buyer.pay(invoice, "key")
        assert first.state == "unknown"  # a fork: undecided until one is confirmed
        assert (await buyer.pay(invoice, "key")).payment_id == first.payment_id
        bench.node.confirm()
        second = await buyer.pay(invoice, "key")
        assert second.payment_id != first.payment_id
        assert second.state == "published"
        bench.node.confirm()
        status = await seller.settle(invoice, None)
        assert (status.state, status.surplus, len(status.payments)) == ("paid", 0, 1)
        assert (await buyer.balance()).available.value == 5000 - 7 - 1000

    run(tmp_path, body)


def test_after_losing_its_place_without_money_left_paying_is_refused(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        buyer = make_wallet(bench.home / "buyer", bench.world, bench.node, SEED)
        bench._opened.append(buyer)
        await buyer.open()
        await bench.fund(buyer, 1500)
        bench.node.confirm()
        bench.node.chain.submit(rival(bench, SEED, 1000))
        bench.node.confirm()
        invoice = await bill(bench, seller)
        await buyer.pay(invoice, "key")
        with pytest.raises(RefusedError):
            await buyer.pay(invoice, "key")
        known = await buyer.paid("key")
        assert known is not None  # something was signed, though it can never confirm
        assert (await seller.status(invoice)).state == "none"

    run(tmp_path, body)


def test_two_workers_on_one_profile_pay_each_key_once_and_never_fork_their_chain(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller, one = await bench.open("seller"), await bench.open("buyer")
        await bench.fund(one, 12_000)
        two = await bench.open("buyer")  # the same folder: another process would see no more than this
        invoices = [await bill(bench, seller, f"job-{n}") for n in range(12)]
        proofs = await asyncio.gather(*(wallet.pay(invoice, invoice.job_id) for invoice in invoices for wallet in (one, two)))
        assert len({p.payment_id for p in proofs}) == 12
        bench.node.confirm()
        for invoice in invoices:
            await one.pay(invoice, invoice.job_id)
        bench.node.confirm()
        statuses = [await seller.settle(invoice, None) for invoice in invoices]
        assert [(s.state, s.surplus) for s in statuses] == [("paid", 0)] * 12
        assert len(blocks_of(bench, await one.address())) == 13

    run(tmp_path, body)


def test_money_that_another_worker_received_first_is_there_to_pay_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: NanoBench) -> None:
        seller, one, two = await bench.open("seller"), await bench.open("buyer"), await bench.open("buyer")
        await bench.node.fund(await one.address(), 5000)
        receive = two._purse.receive

        async def too_late() -> int:
            assert await one.receive() == 1
            return await receive()

        monkeypatch.setattr(two._purse, "receive", too_late)
        invoice = await bill(bench, seller)
        assert (await two.pay(invoice, "key")).state == "published"
        bench.node.confirm()
        assert (await seller.settle(invoice, None)).state == "paid"

    run(tmp_path, body)


# --- crashes: at every label the wallet is opened again and finishes the job once

STEPS = ("intent", "block-stored", "published", "confirmed")
POINTS = [(when, f"{kind}.{step}") for kind in ("pay", "receive", "sweep", "refund") for step in STEPS for when in ("before", "after")]
POINTS += [(when, "seller.index-reserved") for when in ("before", "after")]


async def trade(bench: NanoBench, wallet: NanoWallet, passed: Callable[[], Awaitable[None]]) -> None:
    """One wallet that issues, is paid, refunds, collects and pays; every call may be repeated from the start."""
    invoice = await bill(bench, wallet)
    await passed()
    if (await wallet.status(invoice)).state == "none":
        await bench.node.fund(invoice.address, 1000)
    payment = (await wallet.settle(invoice, None)).payments[0]
    await wallet.refund(payment, invoice, BACK, Amount(300, "raw"), "refund")
    while await wallet.collect():
        bench.node.confirm()
    bench.node.confirm()
    await wallet.collect()
    out = Invoice("nano", "dev", "out", "out", encode_address(public_key(derive_key(bytes(32), 51))), Amount(200, "raw"), 0)
    await wallet.pay(out, "out")
    bench.node.confirm()
    assert (await wallet.pay(out, "out")).state == "final"
    assert (await wallet.refund(payment, invoice, BACK, Amount(300, "raw"), "refund")).state == "final"


BACK = encode_address(public_key(derive_key(bytes(32), 50)))


@pytest.mark.parametrize("point", POINTS, ids=lambda p: f"{p[0]}-{p[1]}")
def test_a_crash_at_any_wallet_label_pays_refunds_and_sweeps_once(tmp_path: Path, point: tuple[str, str]) -> None:
    async def body(bench: NanoBench) -> None:
        async def nothing() -> None: ...

        world = CrashingWorld(*point)
        wallet = make_wallet(bench.home / "one", world, bench.node)
        await wallet.open()
        with pytest.raises(Crash):
            await trade(bench, wallet, nothing)
        await wallet.close()
        again = await bench.open("one")
        await trade(bench, again, nothing)
        received = {bytes.fromhex(e.block.hash_hex): e for e in bench.node.ledger.entries.values() if isinstance(e.block, StateBlock)}
        assert received
        for target, amount in ((BACK, 300), (encode_address(public_key(derive_key(bytes(32), 51))), 200)):
            purse = [e.block for e in bench.node.ledger.entries.values() if isinstance(e.block, StateBlock) and e.block.link == decode_address(target)]
            assert len(purse) == 1, f"{amount} was sent {len(purse)} times"
        assert (await again.balance()).available.value == 1000 - 300 - 200

    run(tmp_path, body)


# --- nodes that lie or lag


@pytest.mark.parametrize("lies", [{"confirmed": "True"}, {"confirmed": "1"}, {"confirmed": "false"}])
def test_only_true_is_confirmed_however_the_node_spells_it(tmp_path: Path, lies: dict[str, str]) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        invoice = await bill(bench, seller)
        await bench.node.fund(invoice.address, 1000)
        bench.node.set_faults(lies=lies)
        assert (await seller.settle(invoice, None)).state != "paid"
        bench.node.set_faults(lies={})
        assert (await seller.settle(invoice, None)).state == "paid"

    run(tmp_path, body)


def test_false_amounts_and_balances_change_nothing(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller, buyer = await bench.open("seller"), await bench.open("buyer")
        await bench.fund(buyer, 5000)
        invoice = await bill(bench, seller)
        bench.node.set_faults(lies={"amount": "999999", "balance": "7"})
        await buyer.pay(invoice, "key")
        bench.node.confirm()
        status = await seller.settle(invoice, None)
        assert [p.amount.value for p in status.payments] == [1000]
        await seller.collect()
        bench.node.set_faults(lies={})
        assert bench.node.ledger.accounts[decode_address(await buyer.address())].balance == 4000

    run(tmp_path, body)


def test_a_false_frontier_is_not_built_on(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        wallet = make_wallet(bench.home / "one", bench.world, bench.node, SEED)
        await wallet.open()
        await bench.fund(wallet, 5000)
        bench.node.confirm()
        await wallet.close()
        (bench.home / "one" / "wallet.db").unlink()
        foreign = blocks_of(bench, encode_address(public_key(GENESIS)))[-1]
        bench.node.set_faults(lies={"frontier": foreign.hash_hex})
        again = await bench.open("one")
        with pytest.raises(UnavailableError, match="not valid"):
            await again.pay(Invoice("nano", "dev", "i", "j", BACK, Amount(5, "raw"), 0), "key")
        assert await again.paid("key") is None
        bench.node.set_faults(lies={})
        await again.pay(Invoice("nano", "dev", "i", "j", BACK, Amount(5, "raw"), 0), "key")
        bench.node.confirm()
        assert (await again.balance()).available.value == 4995

    run(tmp_path, body)


GENESIS = bytes.fromhex("34F0A37AAD20F4A260F0A5B3CB3D7FB50673212263E58A380BC10474BB039CE4")


def test_a_node_far_behind_its_peers_cannot_say_unpaid(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        invoice = await bill(bench, seller)
        node = seller._nodes.all[0]
        call = node.call

        async def behind(action: str, **params: Any) -> Any:
            answer = await call(action, **params)
            return {**answer, "cemented_count": "5000"} if action == "telemetry" else answer

        node.call = behind  # type: ignore[method-assign]  # the one call that goes wrong
        status = await seller.settle(invoice, None)
        assert (status.state, "lags" in status.detail) == ("unknown", True)
        node.call = call  # type: ignore[method-assign]  # the one call that goes wrong
        assert (await seller.settle(invoice, None)).state == "none"

    run(tmp_path, body)


def test_a_node_that_does_not_know_our_confirmed_block_cannot_say_unpaid(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        invoice = await bill(bench, seller)
        await bench.fund(seller, 50)
        bench.node.confirm()
        await seller.collect()
        async with DevNode(confirmation_delay_ms=None) as behind:
            seller._nodes.all[0].url = behind.rpc_url
            status = await seller.settle(invoice, None)
            assert (status.state, "lags" in status.detail) == ("unknown", True)
            seller._nodes.all[0].url = bench.node.rpc_url
        assert (await seller.settle(invoice, None)).state == "none"

    run(tmp_path, body)


def test_what_a_lagging_node_did_not_show_is_found_later_and_in_time(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        invoice = await bill(bench, seller)
        bench.node.set_faults(lagging="true")
        await bench.node.fund(invoice.address, 1000)
        assert (await seller.settle(invoice, None)).payments == ()
        bench.node.set_faults(lagging="false")
        status = await seller.settle(invoice, None)
        assert (status.state, status.late) == ("paid", False)

    run(tmp_path, body)


def test_above_the_threshold_two_nodes_must_agree(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        async with DevNode(confirmation_delay_ms=None) as second:
            settings = {"rpc": [bench.node.rpc_url, second.rpc_url], "confirmations_from": 2, "two_node_threshold": "500 raw"}
            seller = make_wallet(bench.home / "two", bench.world, bench.node, **settings)
            await seller.open()
            small, large = await bill(bench, seller, "small", 500), await bill(bench, seller, "large", 501)
            for invoice in (small, large):
                await bench.node.fund(invoice.address, invoice.amount.value)
            assert (await seller.settle(small, None)).state == "paid"
            status = await seller.settle(large, None)
            assert (status.state, status.payments) == ("unknown", ())
            for entry in list(bench.node.ledger.entries.values()):
                if isinstance(entry.block, StateBlock) and entry.block.account == public_key(GENESIS):
                    second.chain.submit(entry.block)
            second.confirm()
            assert (await seller.settle(large, None)).state == "paid"
            await seller.close()

    run(tmp_path, body)


def test_a_dead_first_node_is_replaced_by_the_second(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        async with DevNode() as gone:
            dead = gone.rpc_url
        seller = make_wallet(bench.home / "two", bench.world, bench.node, rpc=[dead, bench.node.rpc_url])
        await seller.open()
        invoice = await bill(bench, seller)
        await bench.node.fund(invoice.address, 1000)
        assert (await seller.settle(invoice, None)).state == "paid"
        await seller.close()

    run(tmp_path, body)


def test_with_no_node_at_all_a_look_is_unknown_and_a_payment_unavailable(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        invoice = await bill(bench, seller)
        async with DevNode() as gone:
            dead = gone.rpc_url
        buyer = make_wallet(bench.home / "buyer", bench.world, bench.node, rpc=dead)
        await buyer.open()
        with pytest.raises(UnavailableError):
            await buyer.pay(invoice, "key")
        assert await buyer.paid("key") is None
        await buyer.close()
        seller._nodes.all[0].url = dead
        assert (await seller.settle(invoice, None)).state == "unknown"
        seller._nodes.all[0].url = bench.node.rpc_url

    run(tmp_path, body)


def test_a_node_of_another_network_stops_the_wallet_from_opening(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        async with DevNode(thresholds="live") as foreign:
            wallet = make_wallet(bench.home / "one", bench.world, foreign)
            with pytest.raises(NetworkMismatchError):
                await wallet.open()
            await wallet.close()

    run(tmp_path, body)


# --- invoices, dust, epochs


def test_more_than_a_page_of_dust_does_not_hide_the_payment(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        invoice = await bill(bench, seller, amount=10**6)
        for _ in range(700):
            await bench.node.fund(invoice.address, 1)
        await bench.node.fund(invoice.address, 10**6)
        status = await seller.settle(invoice, None)
        assert (status.state, status.surplus, len(status.payments)) == ("paid", 0, 1)

    run(tmp_path, body)


def test_many_real_parts_over_several_pages_are_all_counted(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        invoice = await bill(bench, seller, amount=520)
        for _ in range(520):
            await bench.node.fund(invoice.address, 1)
        status = await seller.settle(invoice, None)
        assert (status.state, len(status.payments)) == ("paid", 520)

    run(tmp_path, body)


def test_an_address_the_ledger_saw_before_is_skipped(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        wallet = make_wallet(bench.home / "one", bench.world, bench.node, SEED)
        await wallet.open()
        used = encode_address(public_key(derive_key(SEED, 64)))
        await bench.node.fund(used, 5, confirm=False)
        invoices = await asyncio.gather(*(bill(bench, wallet, f"job-{n}") for n in range(3)))
        assert used not in {invoice.address for invoice in invoices}
        assert len({invoice.address for invoice in invoices}) == 3
        await wallet.close()

    run(tmp_path, body)


def test_the_mapping_is_durable_before_the_address_leaves(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        world = CrashingWorld("after", "seller.index-reserved")
        wallet = make_wallet(bench.home / "one", world, bench.node)
        await wallet.open()
        with pytest.raises(Crash):
            await bill(bench, wallet)
        stored = wallet._store.rows.account_of_job("job")
        await wallet.close()
        assert stored is not None
        assert stored.invoice is not None
        assert (await bill(bench, await bench.open("one"))).address == stored.invoice["address"]

    run(tmp_path, body)


def test_invoices_of_another_wallet_or_job_are_not_settled_here(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller, other = await bench.open("seller"), await bench.open("other")
        mine, foreign = await bill(bench, seller), await bill(bench, other)
        main = Invoice("nano", "dev", "x", "job", await seller.address(), Amount(1, "raw"), 0)
        renamed = Invoice("nano", "dev", "x", "another job", mine.address, mine.amount, 0)
        broken = Invoice("nano", "dev", "x", "job", "nano_x", mine.amount, 0)
        for invoice in (foreign, main, renamed, broken):
            with pytest.raises(NotFoundError):
                await seller.settle(invoice, None)

    run(tmp_path, body)


def test_a_fresh_ledger_at_epoch_zero_works_as_well(tmp_path: Path) -> None:
    async def whole() -> None:
        bench = NanoBench(tmp_path, CrashingWorld())
        bench.node = DevNode(confirmation_delay_ms=None, epoch=0)
        await bench.start()
        try:
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            await bench.fund(buyer, 2000)
            invoice = await bill(bench, seller)
            await buyer.pay(invoice, "key")
            bench.node.confirm()
            assert (await seller.settle(invoice, None)).state == "paid"
            while await seller.collect():
                bench.node.confirm()
            assert (await seller.balance()).available.value == 1000
        finally:
            await bench.stop()

    asyncio.run(asyncio.wait_for(whole(), 30))


def test_every_block_says_its_subtype(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        wallet = await bench.open("one")
        said: list[Any] = []
        call = wallet._nodes.call

        async def listen(action: str, **params: Any) -> Any:
            if action == "process":
                said.append(params.get("subtype"))
            return await call(action, **params)

        wallet._nodes.call = listen  # type: ignore[method-assign]  # the one call that goes wrong
        invoice = await bill(bench, wallet)
        await bench.node.fund(invoice.address, 1000)
        await wallet.settle(invoice, None)
        await wallet.collect()
        assert said == ["receive", "send"]

    run(tmp_path, body)


# --- refunds and sends


def test_a_refund_goes_neither_to_ourselves_nor_to_the_burn_account_nor_beyond_what_came_in(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        invoice = await bill(bench, seller)
        await bench.node.fund(invoice.address, 1000)
        payment = (await seller.settle(invoice, None)).payments[0]
        burn = encode_address(ZERO)
        for to in (await seller.address(), invoice.address, burn):
            with pytest.raises(UsageError):
                await seller.refund(payment, invoice, to, Amount(5, "raw"), "key")
        with pytest.raises(RefusedError):
            await seller.refund(payment, invoice, BACK, Amount(1001, "raw"), "key")
        with pytest.raises(UsageError):
            await seller.refund(payment, invoice, BACK, Amount(0, "raw"), "key")
        other = await bill(bench, seller, "other")
        with pytest.raises(NotFoundError):
            await seller.refund(payment, other, BACK, Amount(5, "raw"), "key")
        assert blocks_of(bench, invoice.address) == []

    run(tmp_path, body)


def test_a_refund_key_never_moves_to_another_target(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        invoice = await bill(bench, seller)
        await bench.node.fund(invoice.address, 1000)
        payment = (await seller.settle(invoice, None)).payments[0]
        await seller.refund(payment, invoice, BACK, Amount(5, "raw"), "key")
        elsewhere = encode_address(public_key(derive_key(bytes(32), 52)))
        with pytest.raises(StateError):
            await seller.refund(payment, invoice, elsewhere, Amount(5, "raw"), "key")

    run(tmp_path, body)


def test_send_and_sweep_move_the_owners_money(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        wallet = await bench.open("one")
        invoice = await bill(bench, wallet)
        await bench.node.fund(invoice.address, 1000)
        await wallet.settle(invoice, None)
        assert await wallet.sweep(BACK) == 2
        assert await wallet.sweep(BACK) == 0
        await bench.fund(wallet, 70)
        assert (await wallet.send(BACK, Amount(30, "raw"), "k")).payment_id == (await wallet.send(BACK, Amount(30, "raw"), "k")).payment_id
        with pytest.raises(RefusedError):
            await wallet.send(await wallet.address(), Amount(1, "raw"), "self")
        bench.node.confirm()
        assert (await wallet.balance()).available.value == 40
        assert bench.node.ledger.accounts.get(decode_address(BACK)) is None  # nobody opened it, yet it is due 1030

    run(tmp_path, body)


# --- restored wallets


def test_around_what_a_sweep_sends_stands_the_gate_and_where_it_is_shut_nothing_is_signed(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        wallet = await bench.open("one")
        invoice = await bill(bench, wallet)
        await bench.node.fund(invoice.address, 1000)
        await wallet.settle(invoice, None)
        seen: list[tuple[str, int, bool]] = []

        @asynccontextmanager
        async def gate(purpose: str, amount: int) -> AsyncIterator[None]:
            seen.append((purpose, amount, wallet.signed(purpose)))
            if len(seen) == 1:
                raise PolicyError("shut")
            yield
            seen.append((purpose, amount, wallet.signed(purpose)))

        with pytest.raises(PolicyError, match="shut"):
            await wallet.sweep(BACK, gate)
        assert await wallet.sweep(BACK, gate) == 1
        purpose = seen[0][0]
        assert seen == [(purpose, 1000, False), (purpose, 1000, False), (purpose, 1000, True)]
        assert (wallet.owns(BACK), wallet.owns(await wallet.address())) == (False, True)

    run(tmp_path, body)


def test_a_seed_alone_brings_back_the_money_and_never_an_old_address(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        lost = make_wallet(bench.home / "lost", bench.world, bench.node, SEED)
        await lost.open()
        await bench.fund(lost, 500)
        old = [await bill(bench, lost, f"job-{n}") for n in range(6)]
        await bench.node.fund(old[1].address, 30)  # waiting
        await bench.node.fund(old[3].address, 1000)  # received, not swept
        await lost.settle(old[3], None)
        await lost._purse.receive_known(lost._store.rows.account(decode_address(old[3].address)))  # type: ignore[arg-type]  # the account is there
        bench.node.confirm()
        await lost.close()

        restored = make_wallet(bench.home / "restored", bench.world, bench.node, SEED)
        await restored.open()
        found = await restored.restore()
        assert {f.address for f in found} >= {await restored.address(), old[1].address, old[3].address}
        while await restored.collect():
            bench.node.confirm()
        assert (await restored.balance()).available.value == 1530
        fresh = await bill(bench, restored, "job-0")
        row = restored._store.rows.account(decode_address(fresh.address))
        assert row is not None
        assert row.index > PER_EPOCH
        assert fresh.address not in {invoice.address for invoice in old}
        await bench.node.fund(fresh.address, 7)
        assert fresh.address in {f.address for f in await restored.scan()}  # a later scan reaches the new epoch
        await restored.close()

    run(tmp_path, body)


def test_a_copied_wallet_begins_a_new_epoch_by_itself(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        wallet = make_wallet(bench.home / "one", bench.world, bench.node, SEED)
        await wallet.open()
        first = await bill(bench, wallet, "first")
        await wallet.close()
        shutil.copytree(bench.home / "one", bench.home / "copy")
        later = await bench.open("one")
        second = await bill(bench, later, "second")  # what the copy does not know
        copy = await bench.open("copy")
        assert (await bill(bench, copy, "first")) == first
        assert (await bill(bench, copy, "third")).address not in {first.address, second.address}

    run(tmp_path, body)


def test_a_backup_without_the_last_receive_still_sees_the_payment(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        wallet = make_wallet(bench.home / "one", bench.world, bench.node, SEED)
        await wallet.open()
        invoice = await bill(bench, wallet)
        await wallet.close()
        shutil.copytree(bench.home / "one", bench.home / "backup")
        wallet = make_wallet(bench.home / "one", bench.world, bench.node, SEED)
        await wallet.open()
        await bench.node.fund(invoice.address, 1000)
        await wallet.settle(invoice, None)
        while await wallet.collect():
            bench.node.confirm()
        await wallet.close()
        backup = await bench.open("backup")
        status = await backup.settle(invoice, None)
        assert (status.state, [p.amount.value for p in status.payments]) == ("paid", [1000])

    run(tmp_path, body)


def test_a_wrong_password_or_another_seed_opens_nothing(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        wallet = make_wallet(bench.home / "one", bench.world, bench.node, SEED)
        await wallet.open()
        await wallet.close()
        wrong = make_wallet(bench.home / "one", bench.world, bench.node, password=PASSWORD + "x")
        await wrong.open()  # what needs no key works
        assert await wrong.address() == encode_address(public_key(derive_key(SEED, 0)))
        with pytest.raises(SecretError):
            await bill(bench, wrong)
        await wrong.close()
        (bench.home / "one" / "seed.json").unlink()
        other = make_wallet(bench.home / "one", bench.world, bench.node)
        await other.open()
        with pytest.raises(SecretError, match="another seed"):
            await bill(bench, other)
        await other.close()
        (bench.home / "one" / "seed.json").unlink()
        (bench.home / "two").mkdir()
        missing = make_wallet(bench.home / "two", bench.world, bench.node)
        (bench.home / "two" / "seed.json").unlink()
        with pytest.raises(SecretError, match="does not exist"):
            await missing.open()
        assert not (bench.home / "two" / "seed.json").exists()

    run(tmp_path, body)


# --- hints


def test_hints_survive_a_node_that_restarts_and_cover_invoices_issued_meanwhile(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        seller = await bench.open("seller")
        first = await bill(bench, seller, "first")
        hints = seller.watch()
        waiting = asyncio.ensure_future(anext(hints))
        port = bench.node.ws_port
        while not waiting.done():
            await bench.node.fund(first.address, 1)
            await asyncio.wait([waiting], timeout=0.1)
        assert waiting.result() == first.invoice_id
        await bench.node._websocket.stop()
        waiting = asyncio.ensure_future(anext(hints))
        second = await bill(bench, seller, "second")
        await bench.node._websocket.start("127.0.0.1", port)
        while not waiting.done():
            await bench.node.fund(second.address, 1)
            await asyncio.wait([waiting], timeout=0.1)
        assert waiting.result() in (first.invoice_id, second.invoice_id)
        await seller.close()
        with pytest.raises(StopAsyncIteration):
            while True:
                await anext(hints)

    run(tmp_path, body)


def test_settings_that_cannot_be_meant_are_refused_by_name(tmp_path: Path) -> None:
    async def body(bench: NanoBench) -> None:
        for bad in ({"rcp": "x"}, {"rpc": 5}, {"rpc": []}, {"rpc": "ftp://x"}, {"ws": "http://x"}, {"work": "gpu"}, {"accounts": 0}, {"accounts": True}):
            with pytest.raises(ConfigError, match=next(iter(bad))):
                make_wallet(bench.home / "one", bench.world, bench.node, **bad)

    run(tmp_path, body)
