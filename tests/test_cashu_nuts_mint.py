"""The protocol against a real mint: keys, quotes, swaps, locks, fees, double spends, melts, restores, lost answers, kill -9, hints.

One file on purpose: one catalogue, and one more mint that all of it shares.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets as randomness
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest

from tests.mint import FEE_PPK, Mint, minting
from tests.mint_between import Between, between, lost, says, twice
from tests.mint_between import hangs as hang
from tradeskill.errors import TradeskillError, UnavailableError, UnknownOutcomeError
from tradeskill_plugins.cashu.nuts import answers, curve, keysets, requests, secrets, tokens
from tradeskill_plugins.cashu.nuts.client import MintClient
from tradeskill_plugins.cashu.nuts.errors import MintRefusedError, TokenError
from tradeskill_plugins.cashu.nuts.model import Keyset, MeltQuote, Output, Proof, Token
from tradeskill_plugins.cashu.nuts.secrets import Lock
from tradeskill_plugins.cashu.nuts.websocket import hints

T = TypeVar("T")
CAROL, ALICE, EVE = (bytes([number]) * 32 for number in (1, 2, 3))
DAY = 24 * 3600


@dataclass
class Hand:
    """What a test needs of a wallet: a seed, counters, and no memory."""

    client: MintClient
    keyset: Keyset
    seed: bytes = field(default_factory=lambda: randomness.token_bytes(32))
    counter: int = 0

    @property
    def known(self) -> dict[str, Keyset]:
        return {self.keyset.id: self.keyset}

    def next(self, count: int) -> int:
        self.counter += count
        return self.counter - count

    def outputs(self, amount: int, lock: Lock | None = None) -> tuple[Output, ...]:
        amounts = keysets.split(amount, self.keyset.keys)
        start = self.next(len(amounts))
        if lock is None:
            return requests.outputs(self.seed, self.keyset, amounts, start)
        return requests.locked_outputs(self.seed, self.keyset, amounts, start, lock)

    async def fund(self, amount: int) -> tuple[Proof, ...]:
        """By a quote that the mint pays for itself."""
        quote = await self.client.new_mint_quote(amount, self.keyset.unit)
        request = requests.mint(quote.id, self.outputs(amount))
        return answers.proofs(request.outputs, await self.client.send_request(request), self.known, "mint")

    def swap_for(self, inputs: Sequence[Proof], lock: Lock | None = None) -> requests.Request:
        return requests.swap(inputs, self.outputs(value(inputs, self.known), lock), self.known)

    async def swap(self, inputs: Sequence[Proof], lock: Lock | None = None) -> tuple[Proof, ...]:
        request = self.swap_for(inputs, lock)
        return answers.proofs(request.outputs, await self.client.send_request(request), self.known)

    async def states(self, proofs: Sequence[Proof]) -> set[str]:
        return {state.state for state in await self.client.states([curve.y_of(proof.secret) for proof in proofs])}

    def melt_of(self, quote: MeltQuote, inputs: Sequence[Proof]) -> requests.Request:
        over = value(inputs, self.known) - quote.amount
        blanks = requests.blank_outputs(self.seed, self.keyset, over, self.next(over.bit_length() + 1))
        return requests.melt(quote, inputs, blanks, self.known)


def value(proofs: Sequence[Proof], known: dict[str, Keyset]) -> int:
    return sum(proof.amount for proof in proofs) - keysets.fee(proofs, known)


def play(url: str, scenario: Callable[[Hand], Awaitable[T]], seconds: float = 30.0) -> T:
    async def bounded() -> T:
        async with MintClient(url, seconds, seconds) as client:
            info = next(each for each in await client.keysets() if each.active)
            return await scenario(Hand(client, await client.keyset(info)))

    return asyncio.run(asyncio.wait_for(bounded(), 120))


async def refused(call: Awaitable[object]) -> MintRefusedError:
    with pytest.raises(MintRefusedError) as caught:
        await call
    return caught.value


@pytest.fixture(scope="module")
def own_mint() -> Iterator[Mint]:
    """For tests that stop, kill or change it; each starts it again as it needs it."""
    with minting(key="another mint") as made:
        yield made


@pytest.fixture
def way(mint: Mint) -> Iterator[Between]:
    with between(mint.url) as made:
        yield made


def test_the_mint_says_what_it_offers_and_its_keys_make_its_id(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        info = await hand.client.info()
        assert info.version.startswith("Nutshell/")
        assert {4, 5, 7, 8, 9, 10, 11, 12, 17} <= info.nuts
        assert {"bolt11_mint_quote", "proof_state"} <= info.subscriptions
        assert hand.keyset.id.startswith("01")
        assert (hand.keyset.unit, hand.keyset.fee_ppk, len(hand.keyset.keys)) == ("sat", FEE_PPK, 64)

    play(mint.url, scenario)


def test_a_quote_is_minted_once(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        quote = await hand.client.new_mint_quote(100, "sat")
        assert quote.request.startswith("lnbc1u1")
        assert (await hand.client.mint_quote(quote.id)).state == "PAID"
        with pytest.raises(TradeskillError):
            await hand.client.send_request(requests.mint(quote.id, hand.outputs(99)))
        proofs = answers.proofs((request := requests.mint(quote.id, hand.outputs(100))).outputs, await hand.client.send_request(request), hand.known)
        assert sum(proof.amount for proof in proofs) == 100
        assert (await refused(hand.client.send_request(requests.mint(quote.id, hand.outputs(100))))).issued
        assert (await hand.client.mint_quote(quote.id)).state == "ISSUED"
        assert await hand.states(proofs) == {"UNSPENT"}

    play(mint.url, scenario)


def test_a_quote_locked_to_a_key_is_minted_by_that_key_alone(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        quote = await hand.client.new_mint_quote(8, "sat", curve.public_key(CAROL))
        for wrong in (None, EVE):
            assert (await refused(hand.client.send_request(requests.mint(quote.id, hand.outputs(8), wrong)))).mint_code == 20008
        request = requests.mint(quote.id, hand.outputs(8), CAROL)
        assert len(answers.proofs(request.outputs, await hand.client.send_request(request), hand.known)) == 1

    play(mint.url, scenario)


def test_a_token_is_sent_checked_offline_swapped_and_then_worthless(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        text = tokens.encode(Token(mint.url, "sat", await hand.fund(77)))
        token = tokens.resolve(tokens.decode(text), await hand.client.keysets())
        tokens.verify(token.proofs, hand.known)
        mine = await hand.swap(token.proofs)
        assert sum(proof.amount for proof in mine) == 76
        assert await hand.states(token.proofs) == {"SPENT"}
        assert await hand.states(mine) == {"UNSPENT"}
        assert (await refused(hand.swap(token.proofs))).spent
        assert (await refused(hand.swap([token.proofs[0], *mine]))).spent
        assert await hand.states(mine) == {"UNSPENT"}

    play(mint.url, scenario)


def test_of_many_swaps_of_one_token_at_once_one_is_taken(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        proofs = await hand.fund(31)
        requested = [hand.swap_for(proofs) for _ in range(8)]
        results = await asyncio.gather(*(hand.client.send_request(request) for request in requested), return_exceptions=True)
        taken = [number for number, result in enumerate(results) if isinstance(result, bytes)]
        assert len(taken) == 1
        restored = [len(await hand.client.restore(request.outputs, hand.known)) for request in requested]
        assert [number for number, found in enumerate(restored) if found] == taken

    play(mint.url, scenario)


@pytest.mark.parametrize("offset", [-1, 1])
def test_a_swap_that_pays_another_fee_than_is_asked_for_is_refused(mint: Mint, offset: int) -> None:
    async def scenario(hand: Hand) -> None:
        proofs = await hand.fund(63)
        assert keysets.fee(proofs, hand.known) == 1
        tricked = {hand.keyset.id: replace(hand.keyset, fee_ppk=0 if offset > 0 else 1000)}
        outputs = hand.outputs(63 - keysets.fee(proofs, tricked))
        error = await refused(hand.client.send_request(requests.swap(proofs, outputs, tricked)))
        assert error.mint_code in (11000, 11005)
        assert await hand.states(proofs) == {"UNSPENT"}

    play(mint.url, scenario)


def test_a_lock_opens_for_the_receiver_and_for_nobody_else_before_its_time(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        lock = Lock(curve.public_key(CAROL), locktime=int(time.time()) + DAY, refund=(curve.public_key(ALICE),))
        locked = await hand.swap(await hand.fund(40), lock)
        tokens.verify(locked, hand.known)
        for proof in locked:
            assert secrets.demand(proof.secret, curve.public_key(CAROL), int(time.time()), curve.public_key(ALICE)) == lock
        for keys in ((), (ALICE,), (EVE,)):
            with pytest.raises((MintRefusedError, UnknownOutcomeError)):
                await hand.swap(secrets.sign_inputs(locked, *keys))
        assert await hand.states(locked) == {"UNSPENT"}
        mine = await hand.swap(secrets.sign_inputs(locked, CAROL))
        assert await hand.states(locked) == {"SPENT"}
        assert sum(proof.amount for proof in mine) == value(locked, hand.known)
        witness = (await hand.client.states([curve.y_of(locked[0].secret)]))[0].witness
        assert secrets.unlocked(replace(locked[0], witness=witness), int(time.time()))

    play(mint.url, scenario)


def test_a_lock_goes_back_to_its_refund_key_after_its_time_and_to_nobody_else(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        over = Lock(curve.public_key(CAROL), locktime=int(time.time()) - 10, refund=(curve.public_key(ALICE),))
        locked = await hand.swap(await hand.fund(40), over)
        for keys in ((), (EVE,)):
            with pytest.raises((MintRefusedError, UnknownOutcomeError)):
                await hand.swap(secrets.sign_inputs(locked, *keys))
        assert await hand.swap(secrets.sign_inputs(locked, ALICE))
        carols = await hand.swap(await hand.fund(40), over)
        assert await hand.swap(secrets.sign_inputs(carols, CAROL))
        anyones = await hand.swap(await hand.fund(40), replace(over, refund=()))
        with pytest.raises(TokenError, match="anyone's"):
            secrets.demand(anyones[0].secret, curve.public_key(CAROL), 0)
        assert await hand.swap(anyones)

    play(mint.url, scenario)


def test_two_of_three_keys_open_and_sig_all_binds_the_outputs(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        two = Lock(curve.public_key(CAROL), (curve.public_key(ALICE), curve.public_key(EVE)), 2)
        locked = await hand.swap(await hand.fund(10), two)
        with pytest.raises((MintRefusedError, UnknownOutcomeError)):
            await hand.swap(secrets.sign_inputs(locked, ALICE))
        assert await hand.swap(secrets.sign_inputs(locked, ALICE, EVE))

        every = replace(two, n_sigs=1, sigflag="SIG_ALL")
        bound = await hand.swap(await hand.fund(10), every)
        meant, other = hand.swap_for(bound), hand.swap_for(bound)
        signed = secrets.sign_all(bound, meant.outputs, EVE, older=True)
        with pytest.raises((MintRefusedError, UnknownOutcomeError)):
            await hand.client.send_request(requests.swap(signed, other.outputs, hand.known))
        right = requests.swap(signed, meant.outputs, hand.known)
        assert answers.proofs(right.outputs, await hand.client.send_request(right), hand.known)

    play(mint.url, scenario)


def test_an_external_invoice_is_melted_with_change_and_once(mint: Mint, own_mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        async with MintClient(own_mint.url) as elsewhere:
            invoice = (await elsewhere.new_mint_quote(500, "sat")).request
        quote = await hand.client.new_melt_quote(invoice, "sat")
        assert (quote.amount, quote.state) == (500, "UNPAID")
        assert quote.fee_reserve > 0
        proofs = await hand.fund(600)
        request = hand.melt_of(quote, proofs)
        paid = answers.melt_quote(await hand.client.send_request(request))
        assert paid.state == "PAID"
        back = answers.change(request.outputs, paid, hand.known)
        assert sum(proof.amount for proof in back) == 600 - 500 - keysets.fee(proofs, hand.known) - 1  # what the other side's channel cost
        assert await hand.states(proofs) == {"SPENT"}
        assert await hand.swap(back)
        assert (await hand.client.melt_quote(quote.id)).state == "PAID"
        with pytest.raises((MintRefusedError, UnknownOutcomeError)):
            await hand.client.send_request(hand.melt_of(quote, await hand.fund(600)))

    play(mint.url, scenario)


def test_a_quote_stays_unpaid_until_it_is_paid_by_melting(own_mint: Mint) -> None:
    own_mint.restart(pays=True)
    proofs = play(own_mint.url, lambda hand: hand.fund(300))
    own_mint.restart(pays=False)

    async def scenario(hand: Hand) -> None:
        bought = await hand.client.new_mint_quote(200, "sat")
        assert (await hand.client.mint_quote(bought.id)).state == "UNPAID"
        assert (await refused(hand.client.send_request(requests.mint(bought.id, hand.outputs(200))))).unpaid
        quote = await hand.client.new_melt_quote(bought.request, "sat")
        request = hand.melt_of(quote, proofs)
        paid = answers.melt_quote(await hand.client.send_request(request))
        assert (paid.state, sum(proof.amount for proof in answers.change(request.outputs, paid, hand.known))) == ("PAID", 99)
        assert (await hand.client.mint_quote(bought.id)).state == "PAID"
        taken = requests.mint(bought.id, hand.outputs(200))
        assert len(answers.proofs(taken.outputs, await hand.client.send_request(taken), hand.known)) == 3

    play(own_mint.url, scenario)


def test_a_seed_finds_all_that_it_ever_had_signed(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        first = await hand.fund(100)
        second = await hand.swap(first[:2])
        hand.next(5)  # counters that were burned
        third = await hand.fund(7)
        again = Hand(hand.client, hand.keyset, hand.seed)
        asked = requests.outputs(again.seed, again.keyset, [1] * 60, 0)
        found = await hand.client.restore(asked, hand.known)
        assert set(found.values()) == {*first, *second, *third}
        states = await hand.client.states([curve.y_of(proof.secret) for proof in found.values()])
        held = [proof for proof, state in zip(found.values(), states, strict=True) if state.state == "UNSPENT"]
        assert set(held) == {*first[2:], *second, *third}
        assert await hand.swap(held)
        assert await hand.client.restore(requests.outputs(b"\7" * 32, hand.keyset, [1] * 5, 0), hand.known) == {}

    play(mint.url, scenario)


@pytest.mark.parametrize("fault", [lost, says(502, b"<html>"), says(200, b'{"signatures":'), hang], ids=["lost", "a proxy's page", "cut short", "hangs"])
def test_a_swap_whose_answer_is_lost_is_found_again_by_restoring(way: Between, fault: Callable[..., None]) -> None:
    async def scenario(hand: Hand) -> None:
        proofs = await hand.fund(50)
        request = hand.swap_for(proofs)
        way.plan("/v1/swap", fault)
        with pytest.raises(TradeskillError) as caught:
            answers.proofs(request.outputs, await hand.client.send_request(request), hand.known)
        assert not isinstance(caught.value, MintRefusedError)
        assert (await refused(hand.client.send_request(request))).spent
        found = await hand.client.restore(request.outputs, hand.known)
        assert sorted(found) == list(range(len(request.outputs)))
        assert await hand.states(list(found.values())) == {"UNSPENT"}
        assert sum(proof.amount for proof in found.values()) == value(proofs, hand.known)

    play(way.url, scenario, 2.0)


def test_a_swap_that_never_arrived_is_sent_again_as_it_was(way: Between) -> None:
    async def scenario(hand: Hand) -> None:
        proofs = await hand.fund(50)
        request = hand.swap_for(proofs)
        way.plan("/v1/swap", lambda passing: None)
        with pytest.raises(UnknownOutcomeError):
            await hand.client.send_request(request)
        assert await hand.client.restore(request.outputs, hand.known) == {}
        assert await hand.states(proofs) == {"UNSPENT"}
        assert answers.proofs(request.outputs, await hand.client.send_request(request), hand.known)

    play(way.url, scenario)
    swaps = [body for _, path, body in way.seen if path == "/v1/swap"]
    assert len(swaps) == 2
    assert swaps[0] == swaps[1]


def test_a_mint_that_keeps_its_answers_gives_the_same_again(mint: Mint) -> None:
    with between(mint.url, keeps=True) as keeping:

        async def scenario(hand: Hand) -> None:
            request = hand.swap_for(await hand.fund(50))
            keeping.plan("/v1/swap", lost)
            with pytest.raises(UnknownOutcomeError):
                await hand.client.send_request(request)
            first = answers.proofs(request.outputs, await hand.client.send_request(request), hand.known)
            assert first == answers.proofs(request.outputs, await hand.client.send_request(request), hand.known)
            assert await hand.states(first) == {"UNSPENT"}

        play(keeping.url, scenario)


def test_a_request_that_arrives_twice_is_done_once(way: Between) -> None:
    async def scenario(hand: Hand) -> None:
        request = hand.swap_for(await hand.fund(50))
        way.plan("/v1/swap", twice)
        assert (await refused(hand.client.send_request(request))).spent
        assert len(await hand.client.restore(request.outputs, hand.known)) == len(request.outputs)

    play(way.url, scenario)


def test_an_output_signed_before_is_not_signed_again(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        proofs = await hand.fund(8)
        hand.counter = 0
        quote = await hand.client.new_mint_quote(8, "sat")
        assert (await refused(hand.client.send_request(requests.mint(quote.id, hand.outputs(8))))).signed
        assert await hand.states(proofs) == {"UNSPENT"}

    play(mint.url, scenario)


def test_a_mint_that_is_killed_keeps_what_it_signed_and_serves_on(own_mint: Mint) -> None:
    own_mint.restart(pays=True)

    async def before(hand: Hand) -> tuple[bytes, int, requests.Request, tuple[Proof, ...]]:
        proofs = await hand.fund(50)
        request = hand.swap_for(proofs)
        await hand.client.send_request(request)
        own_mint.kill()
        with pytest.raises(UnavailableError):
            await hand.states(proofs)
        with pytest.raises(UnknownOutcomeError):
            await hand.client.send_request(request)
        return hand.seed, hand.counter, request, proofs

    seed, counter, request, proofs = play(own_mint.url, before)
    own_mint.start()

    async def after(hand: Hand) -> None:
        hand.seed, hand.counter = seed, counter
        assert await hand.states(proofs) == {"SPENT"}
        found = await hand.client.restore(request.outputs, hand.known)
        assert len(await hand.swap([found[place] for place in sorted(found)])) > 0

    play(own_mint.url, after)


def test_another_mints_proofs_are_refused_by_both_the_check_and_the_mint(mint: Mint, own_mint: Mint) -> None:
    own_mint.restart(pays=True)
    theirs = play(own_mint.url, lambda hand: hand.fund(8))

    async def scenario(hand: Hand) -> None:
        with pytest.raises(TokenError, match="not one of this mint"):
            tokens.resolve(Token(mint.url, "sat", theirs), await hand.client.keysets())
        forged = [replace(proof, keyset_id=hand.keyset.id) for proof in theirs]
        with pytest.raises(TradeskillError, match="DLEQ"):
            tokens.verify(forged, hand.known)
        with pytest.raises((MintRefusedError, UnknownOutcomeError)):
            await hand.swap(forged)

    play(mint.url, scenario)


def test_hints_come_when_a_quote_is_paid_and_when_a_proof_is_spent(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        quote = await hand.client.new_mint_quote(16, "sat")
        stream = hints(mint.url, "bolt11_mint_quote", [quote.id])
        assert await asyncio.wait_for(anext(stream), 20) == quote.id
        await stream.aclose()

        proofs = await hand.fund(8)
        y = curve.y_of(proofs[0].secret)
        spent = hints(mint.url, "proof_state", [y])
        assert await asyncio.wait_for(anext(spent), 20) == y
        await hand.swap(proofs)
        for _ in itertools.repeat(None, 10):
            assert await asyncio.wait_for(anext(spent), 20) == y
            if await hand.states(proofs) == {"SPENT"}:
                break
        await spent.aclose()

    play(mint.url, scenario)


def test_a_receiver_gets_exactly_what_was_asked_for_after_the_fee(mint: Mint) -> None:
    async def scenario(hand: Hand) -> None:
        funds = await hand.fund(2048)
        for net in (1, 7, 100, 1000):
            amounts = keysets.amounts_for(net, hand.keyset)
            rest = value(funds, hand.known) - sum(amounts)
            sent = requests.outputs(hand.seed, hand.keyset, amounts, hand.next(len(amounts)))
            request = requests.swap(funds, (*sent, *hand.outputs(rest)), hand.known)
            proofs = answers.proofs(request.outputs, await hand.client.send_request(request), hand.known)
            secrets_sent = {output.secret for output in sent}
            funds = tuple(proof for proof in proofs if proof.secret not in secrets_sent)
            got = await hand.swap([proof for proof in proofs if proof.secret in secrets_sent])
            assert sum(proof.amount for proof in got) == net

    play(mint.url, scenario)


@pytest.mark.parametrize("outcome", ["PENDING", "UNKNOWN", "FAILED"])
def test_a_melt_that_lightning_does_not_settle_is_pending_or_gives_the_money_back(mint: Mint, own_mint: Mint, outcome: str) -> None:
    """FakeWallet says what the payment came to, at once and when it is asked again; a payment unknown twice this mint calls failed."""
    own_mint.restart(pays=True, FAKEWALLET_PAY_INVOICE_STATE=outcome, FAKEWALLET_PAYMENT_STATE=outcome)
    try:

        async def scenario(hand: Hand) -> None:
            async with MintClient(mint.url) as elsewhere:
                invoice = (await elsewhere.new_mint_quote(100, "sat")).request
            proofs = await hand.fund(128)
            quote = await hand.client.new_melt_quote(invoice, "sat")
            request = hand.melt_of(quote, proofs)
            if outcome != "PENDING":
                assert (await refused(hand.client.send_request(request))).lightning
                assert await hand.states(proofs) == {"UNSPENT"}
                assert (await hand.client.melt_quote(quote.id)).state == "UNPAID"
                assert await hand.swap(proofs)
                return
            answered = answers.melt_quote(await hand.client.send_request(request))
            assert (answered.state, answered.change) == ("PENDING", ())
            assert await hand.states(proofs) == {"PENDING"}
            assert (await refused(hand.swap(proofs))).pending
            assert (await refused(hand.client.send_request(request))).mint_code == 11000  # which says nothing of the first try
            assert (await hand.client.melt_quote(quote.id)).state == "PENDING"

        play(own_mint.url, scenario)
    finally:
        own_mint.restart(FAKEWALLET_PAY_INVOICE_STATE="SETTLED", FAKEWALLET_PAYMENT_STATE="SETTLED")
