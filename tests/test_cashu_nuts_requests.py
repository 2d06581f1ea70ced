"""requests.py and answers.py: exact bytes out, and of what comes back only what was asked for and can be shown to be signed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paper_mint import SEED, PaperMint
from tradeskill.errors import InputError, RefusedError, UntrustedError
from tradeskill_plugins.cashu.nuts import answers, curve, keysets, requests, secrets, tokens
from tradeskill_plugins.cashu.nuts.errors import TokenError
from tradeskill_plugins.cashu.nuts.model import KeysetInfo, MeltQuote, MintInfo, MintQuote, Output, ProofState

MINT, FREE, OTHER = PaperMint(), PaperMint("free", fee_ppk=0), PaperMint("other")
KEY = curve.public_key(b"\1" * 32)
MELT = MeltQuote("quote-1", "lnbc1", 10, "sat", 2, "UNPAID")
Change = Callable[[Any], Any]


def body_of(request: requests.Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.body)
    return body


def spoiled(answer: bytes, change: Change) -> bytes:
    value = json.loads(answer)
    return json.dumps(change(value) or value).encode()


def test_a_swap_says_what_goes_in_and_out_and_nothing_more() -> None:
    inputs, outputs = MINT.proofs(8, 4), MINT.outputs(8, 1, 2, counter=10)
    request = requests.swap([replace(inputs[0], witness="{}"), inputs[1]], outputs, MINT.known)
    assert (request.kind, request.path) == ("swap", "/v1/swap")
    assert [output.amount for output in request.outputs] == [1, 2, 8]
    assert body_of(request) == {
        "inputs": [
            {"amount": 8, "id": MINT.keyset.id, "secret": inputs[0].secret, "C": inputs[0].signature, "witness": "{}"},
            {"amount": 4, "id": MINT.keyset.id, "secret": inputs[1].secret, "C": inputs[1].signature},
        ],
        "outputs": [{"amount": output.amount, "id": MINT.keyset.id, "B_": output.point} for output in request.outputs],
    }
    for hidden in (inputs[0].secret, outputs[0].secret, outputs[0].r):
        assert hidden not in repr(request)


def test_the_same_arguments_make_the_same_bytes() -> None:
    lock = secrets.Lock(KEY, locktime=1_800_000_000, refund=(MINT.keyset.keys[2],))

    def made() -> list[bytes]:
        outputs = requests.locked_outputs(SEED, MINT.keyset, [1, 2, 8], 5, lock)
        return [
            requests.swap(MINT.proofs(8, 4), outputs, MINT.known).body,
            requests.mint("quote-1", MINT.outputs(1, 2)).body,
            requests.melt(MELT, MINT.proofs(16), requests.blank_outputs(SEED, MINT.keyset, 5, 9), MINT.known).body,
            requests.restore(MINT.outputs(1, 2)).body,
        ]

    assert made() == made()


@settings(deadline=None, max_examples=30)
@given(amounts=st.lists(st.sampled_from(sorted(MINT.keyset.keys)), min_size=1, max_size=12), counter=st.integers(0, 10_000))
def test_what_an_honest_mint_signs_verifies_and_can_be_made_again_from_the_seed(amounts: list[int], counter: int) -> None:
    outputs = requests.outputs(SEED, MINT.keyset, amounts, counter)
    assert outputs == requests.outputs(SEED, MINT.keyset, amounts, counter)
    proofs = answers.proofs(outputs, MINT.answer(outputs), MINT.known)
    tokens.verify(proofs, MINT.known)
    assert [proof.amount for proof in proofs] == amounts
    assert proofs == tuple(MINT.proof_of(output) for output in outputs)


def test_a_locked_output_is_locked_and_its_nonce_is_the_derived_secret() -> None:
    lock = secrets.Lock(KEY, locktime=1_800_000_000, refund=(MINT.keyset.keys[2],))
    outputs = requests.locked_outputs(SEED, MINT.keyset, [1, 2], 7, lock)
    plain = requests.outputs(SEED, MINT.keyset, [1, 2], 7)
    assert [secrets.lock_of(output.secret) for output in outputs] == [lock, lock]
    assert [json.loads(output.secret)[1]["nonce"] for output in outputs] == [output.secret for output in plain]
    assert [output.r for output in outputs] == [output.r for output in plain]
    tokens.verify(answers.proofs(outputs, MINT.answer(outputs), MINT.known), MINT.known)


@pytest.mark.parametrize("amount", [0, 3, -1, 2**30])
def test_an_output_of_an_amount_without_a_key_is_not_made(amount: int) -> None:
    with pytest.raises(InputError, match="has no key"):
        requests.outputs(SEED, MINT.keyset, [amount], 0)
    with pytest.raises(InputError, match="has no key"):
        requests.locked_outputs(SEED, MINT.keyset, [amount], 0, secrets.Lock(KEY))


@pytest.mark.parametrize(("at_most", "count"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (7, 3), (8, 3), (9, 4), (1000, 10)])
def test_blank_outputs_are_enough_for_any_change(at_most: int, count: int) -> None:
    assert len(requests.blank_outputs(SEED, MINT.keyset, at_most, 0)) == count
    assert max((len(keysets.split(change, MINT.keyset.keys)) for change in range(at_most + 1)), default=0) <= count


def test_a_swap_that_does_not_balance_is_not_made() -> None:
    inputs = MINT.proofs(8, 4)
    requests.swap(inputs, MINT.outputs(1, 2, 8, counter=9), MINT.known)
    for amounts in ([4, 8], [2, 8], [8]):
        with pytest.raises(RefusedError, match="does not balance"):
            requests.swap(inputs, MINT.outputs(*amounts, counter=9), MINT.known)
    with pytest.raises(TokenError, match="not one of this mint"):
        requests.swap(inputs, MINT.outputs(1, 2, 8, counter=9), OTHER.known)


def test_nothing_stands_twice_in_a_request_and_nothing_is_too_long() -> None:
    proof, output = FREE.proofs(1)[0], FREE.outputs(1)[0]
    with pytest.raises(InputError, match="twice among the inputs"):
        requests.swap([proof, proof], FREE.outputs(2), FREE.known)
    with pytest.raises(InputError, match="counter used twice"):
        requests.mint("quote-1", [output, output])
    with pytest.raises(InputError, match="0 outputs"):
        requests.mint("quote-1", [])
    with pytest.raises(InputError, match="0 inputs"):
        requests.swap([], [], FREE.known)
    many = [replace(output, point=str(number)) for number in range(1001)]
    with pytest.raises(InputError, match="1001 outputs"):
        requests.restore(many)


def test_a_mint_request_is_signed_where_the_quote_is_locked() -> None:
    outputs = MINT.outputs(4, 1)
    assert body_of(requests.mint("quote-1", outputs)).keys() == {"quote", "outputs"}
    body = body_of(requests.mint("quote-1", outputs, b"\1" * 32))
    message = "quote-1" + "".join(each["B_"] for each in body["outputs"])
    assert [each["amount"] for each in body["outputs"]] == [1, 4]
    assert curve.signed_by(message.encode(), body["signature"], KEY)


def test_a_melt_covers_amount_reserve_and_fee() -> None:
    inputs = MINT.proofs(8, 4, 1)
    blanks = requests.blank_outputs(SEED, MINT.keyset, 2, 50)
    request = requests.melt(MELT, inputs, blanks, MINT.known)
    assert (request.kind, request.path, request.outputs) == ("melt", "/v1/melt/bolt11", blanks)
    assert body_of(request)["outputs"] == [{"amount": 0, "id": MINT.keyset.id, "B_": blanks[0].point}]
    assert "outputs" not in body_of(requests.melt(MELT, inputs, (), MINT.known))
    with pytest.raises(RefusedError, match="needs 13 with its fees, 12 are given"):
        requests.melt(MELT, inputs[:2], blanks, MINT.known)


OUTPUTS = MINT.outputs(1, 2, 8)
ANSWER = MINT.answer(OUTPUTS)


def changed(**fields: Any) -> Change:
    return lambda body: body["signatures"][1].update(fields)


LIES: dict[str, tuple[Change, str]] = {
    "no signatures": (lambda body: {"signatures": []}, "0 signatures for 3"),
    "one less": (lambda body: body["signatures"].remove(body["signatures"][2]), "2 signatures for 3"),
    "one more": (lambda body: body["signatures"].append(body["signatures"][0]), "4 signatures for 3"),
    "none at all": (lambda body: {"ok": True}, "signatures is no list"),
    "another order": (lambda body: body["signatures"].reverse(), "signed 8 for an output of 1"),
    "less money": (changed(**MINT.signature(OUTPUTS[1].point, 1)), "signed 1 for an output of 2"),
    "less money by another name": (changed(**{**MINT.signature(OUTPUTS[1].point, 1), "amount": 2}), "cannot show"),
    "more than nothing": (changed(amount=0), "amount is no whole number"),
    "an amount without a key": (changed(amount=3), "signed 3 for an output of 2"),
    "another keyset": (changed(id=OTHER.keyset.id), OTHER.keyset.id),
    "another mint's key": (changed(**{**OTHER.signature(OUTPUTS[1].point, 2), "id": MINT.keyset.id}), "cannot show"),
    "another output's signature": (changed(**MINT.signature(OUTPUTS[0].point, 2)), "cannot show"),
    "no DLEQ": (changed(dleq=None), "cannot show"),
    "a DLEQ of another": (changed(dleq=MINT.dleq(OUTPUTS[0].point, 2)), "cannot show"),
    "a DLEQ of nothing": (changed(dleq={}), "dleq e is no text"),
    "no point": (changed(C_="02" + "ff" * 32), "C_ is not on the curve"),
    "a point that is another": (changed(C_=KEY), "cannot show"),
    "no object": (lambda body: [1], "not an object"),
}


@pytest.mark.parametrize(("change", "words"), LIES.values(), ids=LIES.keys())
def test_signatures_that_are_not_what_was_asked_for_are_untrusted(change: Change, words: str) -> None:
    assert len(answers.proofs(OUTPUTS, ANSWER, MINT.known)) == 3
    with pytest.raises(UntrustedError, match=words):
        answers.proofs(OUTPUTS, spoiled(ANSWER, change), MINT.known)


@pytest.mark.parametrize("answer", [b"", b"<html>", b"null", b"[]", b'{"signatures":[]', b"\xff", b"{" * 5000, b'{"signatures":[],"signatures":[]}'])
def test_an_answer_that_cannot_be_read_is_untrusted(answer: bytes) -> None:
    readers: list[Callable[[], object]] = [
        lambda: answers.proofs(OUTPUTS, answer, MINT.known),
        lambda: answers.restored(OUTPUTS, answer, MINT.known),
        lambda: answers.states([KEY], answer),
        lambda: answers.keysets(answer),
        lambda: answers.keys(answer, MINT.keyset.id),
        lambda: answers.mint_quote(answer),
        lambda: answers.melt_quote(answer),
        lambda: answers.info(answer),
    ]
    for read in readers:
        with pytest.raises(UntrustedError, match="cannot be taken"):
            read()


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, len(ANSWER) - 1), byte=st.integers(0, 255))
def test_an_answer_changed_in_one_byte_is_untrusted_or_the_same_money(place: int, byte: int) -> None:
    answer = ANSWER[:place] + bytes([byte]) + ANSWER[place + 1 :]
    try:
        proofs = answers.proofs(OUTPUTS, answer, MINT.known)
    except UntrustedError as error:
        assert "\n" not in str(error)  # noqa: PT017 - it need not be raised at all
        return
    assert proofs == tuple(MINT.proof_of(output) for output in OUTPUTS)


def restored_answer(*places: int) -> bytes:
    messages = [{"amount": OUTPUTS[place].amount, "id": MINT.keyset.id, "B_": OUTPUTS[place].point} for place in places]
    return json.dumps({"outputs": messages, "signatures": [MINT.signature(OUTPUTS[place].point, OUTPUTS[place].amount) for place in places]}).encode()


def test_a_restore_finds_what_was_signed_by_its_place() -> None:
    assert answers.restored(OUTPUTS, restored_answer(2, 0), MINT.known) == {0: MINT.proof_of(OUTPUTS[0]), 2: MINT.proof_of(OUTPUTS[2])}
    assert answers.restored(OUTPUTS, restored_answer(), MINT.known) == {}
    unknown_amount = [replace(OUTPUTS[0], amount=0)]
    assert answers.restored(unknown_amount, restored_answer(0), MINT.known) == {0: MINT.proof_of(OUTPUTS[0])}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: body["signatures"].remove(body["signatures"][1]), "1 signatures for 2 outputs"),
        (lambda body: body["outputs"][0].update(B_=KEY), "not asked for"),
        (lambda body: body["outputs"][0].update(B_=None), "B_ is no text"),
        (lambda body: {name: [rows[0], rows[0]] for name, rows in body.items()}, "or one twice"),
        (lambda body: body["signatures"].reverse(), "cannot show"),
        (lambda body: body.update(outputs=body["outputs"] * 2), "4 entries"),
    ],
)
def test_a_restore_of_something_else_is_untrusted(change: Change, words: str) -> None:
    with pytest.raises(UntrustedError, match=words):
        answers.restored(OUTPUTS, spoiled(restored_answer(0, 1), change), MINT.known)


def test_states_are_of_what_was_asked_in_that_order() -> None:
    ys = [KEY, MINT.keyset.keys[2]]
    rows = [{"Y": ys[0], "state": "SPENT", "witness": "{}"}, {"Y": ys[1], "state": "PENDING", "witness": None}]
    answer = json.dumps({"states": rows}).encode()
    assert answers.states(ys, answer) == (ProofState(ys[0], "SPENT", "{}"), ProofState(ys[1], "PENDING"))
    for wrong in (ys[::-1], ys[:1], [*ys, ys[0]]):
        with pytest.raises(UntrustedError):
            answers.states(wrong, answer)
    with pytest.raises(UntrustedError, match="state is 'BURNT'"):
        answers.states(ys, answer.replace(b"SPENT", b"BURNT"))


def test_keysets_that_are_not_spoken_here_are_left_out_and_doubled_ones_are_a_lie() -> None:
    rows = [
        {"id": MINT.keyset.id, "unit": "sat", "active": True, "input_fee_ppk": 100, "final_expiry": None},
        {"id": "02" + "ab" * 32, "unit": "sat", "active": True},
        {"id": "DSAl9nvvyfva", "unit": "sat", "active": False},
        {"id": 7},
        {"id": "00456a94ab4e1c46", "unit": "usd", "active": False, "final_expiry": 1_800_000_000},
    ]
    found = answers.keysets(json.dumps({"keysets": rows}).encode())
    assert found == (MINT.info, KeysetInfo("00456a94ab4e1c46", "usd", False, 0, 1_800_000_000))
    for wrong in ([rows[0], rows[0]], [{**rows[0], "active": 1}], [{**rows[0], "input_fee_ppk": -1}], [{**rows[0], "id": "00456A94AB4E1C46"}]):
        with pytest.raises(UntrustedError):
            answers.keysets(json.dumps({"keysets": wrong}).encode())


def test_keys_are_those_of_the_one_keyset() -> None:
    keys = {str(amount): key for amount, key in MINT.keyset.keys.items()}
    answer = json.dumps({"keysets": [{"id": MINT.keyset.id, "unit": "sat", "keys": keys}]}).encode()
    assert answers.keys(answer, MINT.keyset.id) == MINT.keyset.keys
    with pytest.raises(UntrustedError, match="no keys for keyset"):
        answers.keys(answer, OTHER.keyset.id)
    for wrong in ({"01": KEY}, {"1.0": KEY}, {"٣": KEY}, {"-1": KEY}, {"1" * 21: KEY}, {"1": "04"}, [KEY]):
        with pytest.raises(UntrustedError):
            answers.keys(json.dumps({"keysets": [{"id": MINT.keyset.id, "keys": wrong}]}).encode(), MINT.keyset.id)


MINT_QUOTE: dict[str, Any] = {"quote": "a-B_9", "request": "lnbc1", "amount": 5, "unit": "sat", "state": "PAID", "expiry": None, "pubkey": ""}
MELT_QUOTE: dict[str, Any] = {**MINT_QUOTE, "fee_reserve": 1, "state": "PENDING", "payment_preimage": None, "expiry": 9, "change": None}


def test_quotes_are_read_and_never_shown_with_their_secrets() -> None:
    quote = answers.mint_quote(json.dumps({**MINT_QUOTE, "pubkey": KEY}).encode())
    assert quote == MintQuote("a-B_9", "lnbc1", 5, "sat", "PAID", None, KEY)
    assert "a-B_9" not in repr(quote)
    melt = answers.melt_quote(json.dumps({**MELT_QUOTE, "payment_preimage": "ab" * 32}).encode())
    assert melt == MeltQuote("a-B_9", "lnbc1", 5, "sat", 1, "PENDING", 9, "ab" * 32)
    assert "ab" * 32 not in repr(melt)


@pytest.mark.parametrize(
    "change",
    [
        {"quote": "../../v1/swap"},
        {"quote": "a/b"},
        {"quote": "a?b"},
        {"quote": ""},
        {"quote": "x" * 257},
        {"quote": None},
        {"request": 5},
        {"amount": 0},
        {"amount": "5"},
        {"unit": None},
        {"state": "DONE"},
        {"state": None},
        {"expiry": -1},
        {"expiry": "soon"},
    ],
    ids=str,
)
def test_a_quote_with_a_field_that_cannot_be_is_untrusted(change: dict[str, Any]) -> None:
    for quote, read in ((MINT_QUOTE, answers.mint_quote), (MELT_QUOTE, answers.melt_quote)):
        with pytest.raises(UntrustedError, match="cannot be taken"):
            read(json.dumps({**quote, **change}).encode())


def test_change_comes_on_the_first_blank_outputs_in_amounts_that_the_mint_chose() -> None:
    blanks = requests.blank_outputs(SEED, MINT.keyset, 8, 70)
    signatures = [MINT.signature(blanks[0].point, 4), MINT.signature(blanks[1].point, 1)]
    quote = answers.melt_quote(json.dumps({**MELT_QUOTE, "state": "PAID", "change": signatures}).encode())
    proofs = answers.change(blanks, quote, MINT.known)
    assert [proof.amount for proof in proofs] == [4, 1]
    tokens.verify(proofs, MINT.known)
    assert answers.change(blanks, replace(quote, change=()), MINT.known) == ()
    with pytest.raises(UntrustedError, match="change on 2 outputs: 1 were sent"):
        answers.change(blanks[:1], quote, MINT.known)
    with pytest.raises(UntrustedError, match="cannot show"):
        answers.change(blanks, replace(quote, change=quote.change[::-1]), MINT.known)


def test_what_a_mint_says_of_itself_is_read_as_claims() -> None:
    body = {
        "name": "Mint\x1b[2J",
        "version": "Nutshell/0.20.2",
        "pubkey": KEY,
        "description": None,
        "motd": "hello",
        "nuts": {
            "4": {"methods": [], "disabled": False},
            "5": {"methods": [], "disabled": True},
            "7": {"supported": True},
            "8": {"supported": False},
            "12": {"supported": None},
            "15": [{"method": "bolt11"}],
            "17": {
                "supported": [
                    {"method": "bolt11", "commands": ["proof_state"]},
                    {"method": "bolt12", "commands": ["bolt12_mint_quote"]},
                    {"method": "bolt11", "commands": 7},
                ]
            },
            "19": {"ttl": None, "cached_endpoints": [{"method": "POST", "path": "/v1/swap"}]},
            "four": {"supported": True},
            "9999": {"supported": True},
        },
    }
    assert answers.info(json.dumps(body).encode()) == MintInfo(
        name="Mint [2J",
        version="Nutshell/0.20.2",
        pubkey=KEY,
        description="",
        nuts=frozenset({4, 7, 17, 19}),
        cached=frozenset({"/v1/swap"}),
        cache_seconds=None,
        subscriptions=frozenset({"proof_state"}),
        motd="hello",
    )
    assert answers.info(b'{"nuts":{}}') == MintInfo("", "", "", "", frozenset())
    assert answers.info(b'{"nuts":{"19":{"ttl":60},"17":{"supported":[]}}}').cache_seconds == 60
    for wrong in (b"{}", b'{"nuts":[]}', b'{"nuts":{"19":{"ttl":"x"}}}', b'{"nuts":{"17":{"supported":7}}}', b'{"nuts":{},"name":7}'):
        with pytest.raises(UntrustedError):
            answers.info(wrong)


def test_an_output_is_the_message_that_the_mint_sees() -> None:
    output: Output = MINT.outputs(4)[0]
    assert (output.message.amount, output.message.keyset_id, output.message.point) == (4, MINT.keyset.id, output.point)
