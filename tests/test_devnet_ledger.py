"""The block lattice keeps its books whatever comes: supply, weights, forks, gaps, cementing, rollback, epochs."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeskill.errors import StateError
from tradeskill.money import MAX_RAW
from tradeskill_wallet.devnet.genesis import EPOCH_LINKS, GENESIS, GENESIS_ACCOUNT, GENESIS_SECRET
from tradeskill_wallet.devnet.ledger import Ledger
from tradeskill_wallet.devnet.rules import Outcome
from tradeskill_wallet.primitives import BURN, ZERO, StateBlock, Thresholds, derive_key, public_key

NO_WORK = Thresholds(epoch_1=0, epoch_2=0, epoch_2_receive=0)
SECRETS = {GENESIS_ACCOUNT: GENESIS_SECRET} | {public_key(derive_key(bytes(32), index)): derive_key(bytes(32), index) for index in range(3)}
PEOPLE = list(SECRETS)
ALICE, BOB = PEOPLE[1], PEOPLE[2]
EPOCH_1, EPOCH_2 = EPOCH_LINKS


def fresh() -> Ledger:
    return Ledger(NO_WORK, 0)


def signed(block: StateBlock, secret: bytes | None = None) -> StateBlock:
    return block.with_work("0" * 16).signed(secret or SECRETS[block.account], os.urandom)


def send(ledger: Ledger, source: bytes, destination: bytes, raw: int) -> StateBlock:
    account = ledger.accounts[source]
    return signed(StateBlock(source, account.head, account.representative, account.balance - raw, destination))


def receive(ledger: Ledger, account: bytes, sent: bytes, raw: int) -> StateBlock:
    info = ledger.accounts.get(account)
    return signed(StateBlock(account, info.head if info else ZERO, account, (info.balance if info else 0) + raw, sent))


def put(ledger: Ledger, block: StateBlock) -> bytes:
    outcome, entered = ledger.process(block, 1)
    assert outcome is Outcome.PROGRESS
    assert entered[0].block is block
    return block.hash


def books(ledger: Ledger) -> object:
    """Everything that must agree between two ledgers with the same blocks."""
    waiting = {name: [(key, item.source, item.amount, item.epoch) for key, item in ledger.receivables(name)] for name in PEOPLE}
    accounts = {
        name: (item.head, item.open_block, item.balance, item.representative, item.count, item.epoch, item.confirmed_height, item.confirmed_frontier)
        for name, item in ledger.accounts.items()
    }
    totals = {name: (ledger.balance_of(name, confirmed=False), ledger.balance_of(name, confirmed=True)) for name in PEOPLE}
    links = {item.hash: (item.successor, item.height, item.confirmed, item.kind) for item in ledger.entries.values()}
    return waiting, accounts, totals, links, ledger.weights, ledger.received_by, ledger.cemented


def check(ledger: Ledger) -> None:
    held = sum(item.balance for item in ledger.accounts.values())
    sums = {name: sum(item.amount for _, item in ledger.receivables(name)) for name in PEOPLE}
    assert held + sum(sums.values()) == MAX_RAW
    assert sum(ledger.weights.values()) == held
    assert {name: ledger.balance_of(name, confirmed=False)[1] for name in PEOPLE} == sums
    for name in PEOPLE:
        sure = sum(item.amount for key, item in ledger.receivables(name) if ledger.entries[key].confirmed)
        assert ledger.balance_of(name, confirmed=True)[1] == sure
        assert [key for key, _ in ledger.receivables(name)] == sorted(key for key, _ in ledger.receivables(name))
    assert ledger.cemented == sum(item.confirmed for item in ledger.entries.values())
    for entry in ledger.entries.values():
        assert not entry.confirmed or all(item.confirmed for item in ledger.depends_on(entry))


@given(st.integers(0, 2**32), st.integers(5, 60))
@settings(max_examples=40, deadline=None)
def test_no_sequence_of_steps_makes_or_loses_money(seed: int, steps: int) -> None:
    choose = random.Random(seed)
    ledger = fresh()
    late: list[StateBlock] = []
    for _ in range(steps):
        who = choose.choice([name for name in PEOPLE if name in ledger.accounts])
        balance = ledger.accounts[who].balance
        step = choose.choice(["send", "send", "receive", "receive", "change", "fork", "confirm", "rollback", "late", "again"])
        free = [item for item in ledger.entries.values() if not item.confirmed]
        if step == "send" and balance:
            put(ledger, send(ledger, who, choose.choice(PEOPLE), choose.randint(1, balance)))
        elif step == "receive":
            waiting = [(name, key, item) for name in PEOPLE for key, item in ledger.receivables(name)]
            if waiting:
                name, key, item = choose.choice(waiting)
                put(ledger, receive(ledger, name, key, item.amount))
        elif step == "change":
            account = ledger.accounts[who]
            put(ledger, signed(StateBlock(who, account.head, choose.choice(PEOPLE), balance, ZERO))) if account.representative else None
        elif step == "fork" and free:
            rival = choose.choice(free).block
            block = signed(StateBlock(rival.account, rival.previous, os.urandom(32), rival.balance, rival.link))
            before = books(ledger)
            assert ledger.process(block, 1)[0] is Outcome.FORK
            assert books(ledger) == before
        elif step == "confirm" and free:
            ledger.confirm(choose.choice(free).hash)
        elif step == "rollback" and free:
            ledger.rollback(choose.choice(free).hash)
        elif step == "late" and balance > 1 and not late:
            first = send(ledger, who, choose.choice(PEOPLE), 1)
            child = signed(StateBlock(who, first.hash, who, first.balance - 1, choose.choice(PEOPLE)))
            assert ledger.process(child, 1) == (Outcome.GAP_PREVIOUS, [])
            outcome, entered = ledger.process(first, 1)
            assert (outcome, [item.hash for item in entered]) == (Outcome.PROGRESS, [first.hash, child.hash])
        elif step == "again" and free:
            before = books(ledger)
            block = choose.choice(free).block
            assert isinstance(block, StateBlock)
            assert ledger.process(block, 1)[0] in (Outcome.OLD, Outcome.FORK)
            assert books(ledger) == before
        check(ledger)
    sure = [item for item in ledger.entries.values() if item.confirmed and isinstance(item.block, StateBlock)]
    for entry in [item for item in ledger.entries.values() if not item.confirmed]:
        if entry.hash in ledger.entries:
            ledger.rollback(entry.hash)
    other = fresh()
    for entry in sure:
        assert isinstance(entry.block, StateBlock)
        put(other, entry.block)
        other.confirm(entry.hash)
    assert books(other) == books(ledger)


def test_of_two_sends_from_one_place_the_second_is_a_fork() -> None:
    ledger = fresh()
    first, second = send(ledger, GENESIS_ACCOUNT, ALICE, 5), send(ledger, GENESIS_ACCOUNT, BOB, 5)
    put(ledger, first)
    assert ledger.process(second, 1) == (Outcome.FORK, [])
    assert ledger.competitor(second) == first.hash


def test_a_rollback_takes_out_what_others_received_from_it() -> None:
    ledger = fresh()
    first = put(ledger, send(ledger, GENESIS_ACCOUNT, ALICE, 10))
    opened = put(ledger, receive(ledger, ALICE, first, 10))
    passed_on = put(ledger, send(ledger, ALICE, BOB, 4))
    last = put(ledger, receive(ledger, BOB, passed_on, 4))
    assert [item.hash for item in ledger.rollback(first)] == [last, passed_on, opened, first]
    assert list(ledger.entries) == [GENESIS.hash]
    assert set(ledger.accounts) == {GENESIS_ACCOUNT}
    check(ledger)


def test_confirming_a_receive_confirms_its_send_and_all_below_oldest_first() -> None:
    ledger = fresh()
    sends = [put(ledger, send(ledger, GENESIS_ACCOUNT, ALICE, 1)) for _ in range(3)]
    opened = put(ledger, receive(ledger, ALICE, sends[2], 1))
    assert [item.hash for item in ledger.confirm(opened)] == [*sends, opened]
    assert ledger.confirm(opened) == []


def test_a_confirmed_block_never_leaves() -> None:
    ledger = fresh()
    block_hash = put(ledger, send(ledger, GENESIS_ACCOUNT, ALICE, 1))
    ledger.confirm(block_hash)
    with pytest.raises(StateError, match="confirmed"):
        ledger.rollback(block_hash)
    assert block_hash in ledger.entries


def test_a_long_chain_given_backwards_enters_whole_when_its_first_block_comes() -> None:
    ledger = fresh()
    blocks: list[StateBlock] = []
    head, balance = ledger.accounts[GENESIS_ACCOUNT].head, MAX_RAW
    for _ in range(1500):
        balance -= 1
        blocks.append(signed(StateBlock(GENESIS_ACCOUNT, head, GENESIS_ACCOUNT, balance, ALICE)))
        head = blocks[-1].hash
    for block in reversed(blocks[1:]):
        assert ledger.process(block, 1)[0] is Outcome.GAP_PREVIOUS
    assert len(ledger.unchecked) == 1499
    assert len(ledger.process(blocks[0], 1)[1]) == 1500
    assert ledger.unchecked == {}
    assert ledger.balance_of(ALICE, confirmed=False) == (0, 1500)


def test_a_receive_enters_by_itself_when_its_send_comes() -> None:
    ledger = fresh()
    sent = send(ledger, GENESIS_ACCOUNT, ALICE, 7)
    opened = receive(ledger, ALICE, sent.hash, 7)
    assert ledger.process(opened, 1)[0] is Outcome.GAP_SOURCE
    assert [item.hash for item in ledger.process(sent, 1)[1]] == [sent.hash, opened.hash]


def test_a_block_signed_by_somebody_else_is_refused_and_not_kept() -> None:
    ledger = fresh()
    block = signed(StateBlock(GENESIS_ACCOUNT, GENESIS.hash, ALICE, 1, ALICE), SECRETS[ALICE])
    assert ledger.process(block, 1) == (Outcome.BAD_SIGNATURE, [])
    assert ledger.unchecked == {}


def test_nobody_opens_the_burn_account() -> None:
    ledger = fresh()
    put(ledger, send(ledger, GENESIS_ACCOUNT, BURN, 7))
    assert ledger.balance_of(BURN, confirmed=False) == (0, 7)


def test_epochs_come_in_order_and_raise_what_is_received_from_them() -> None:
    ledger = fresh()
    early = put(ledger, send(ledger, GENESIS_ACCOUNT, ALICE, 1))

    def epoch_block(link: bytes) -> StateBlock:
        account = ledger.accounts[GENESIS_ACCOUNT]
        return signed(StateBlock(GENESIS_ACCOUNT, account.head, account.representative, account.balance, link))

    assert ledger.process(epoch_block(EPOCH_2), 1)[0] is Outcome.BLOCK_POSITION
    put(ledger, epoch_block(EPOCH_1))
    put(ledger, epoch_block(EPOCH_2))
    assert ledger.process(epoch_block(EPOCH_2), 1)[0] is Outcome.BLOCK_POSITION
    late = put(ledger, send(ledger, GENESIS_ACCOUNT, ALICE, 1))
    put(ledger, receive(ledger, ALICE, early, 1))
    assert ledger.accounts[ALICE].epoch == 0
    put(ledger, receive(ledger, ALICE, late, 1))
    assert ledger.accounts[ALICE].epoch == 2


def test_an_epoch_block_opens_an_account_only_where_money_waits_and_by_the_genesis_key() -> None:
    ledger = fresh()
    opening = StateBlock(ALICE, ZERO, ZERO, 0, EPOCH_2)
    assert ledger.process(signed(opening), 1)[0] is Outcome.BAD_SIGNATURE
    by_genesis = signed(opening, GENESIS_SECRET)
    assert ledger.process(by_genesis, 1)[0] is Outcome.GAP_EPOCH_OPEN
    sent = send(ledger, GENESIS_ACCOUNT, ALICE, 3)
    assert [item.hash for item in ledger.process(sent, 1)[1]] == [sent.hash, by_genesis.hash]
    # the invoice account now has a first block that its owner did not make: a receive must follow it
    put(ledger, receive(ledger, ALICE, sent.hash, 3))
    assert ledger.accounts[ALICE].count == 2
    check(ledger)


def test_an_epoch_block_changes_neither_balance_nor_representative() -> None:
    ledger = fresh()
    account = ledger.accounts[GENESIS_ACCOUNT]
    other = signed(StateBlock(GENESIS_ACCOUNT, account.head, ALICE, account.balance, EPOCH_1))
    assert ledger.process(other, 1)[0] is Outcome.OTHER
    as_send = signed(StateBlock(GENESIS_ACCOUNT, account.head, ALICE, account.balance - 1, EPOCH_1))
    assert ledger.process(as_send, 1)[0] is Outcome.PROGRESS
    assert ledger.entries[as_send.hash].kind == "send"
