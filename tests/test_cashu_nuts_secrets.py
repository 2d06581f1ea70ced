"""secrets.py: who may spend when, by the published vectors and by every lock made here; what looks like a lock and is none is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paper_mint import PaperMint
from tradeskill_plugins.cashu.nuts import curve, secrets
from tradeskill_plugins.cashu.nuts.errors import TokenError
from tradeskill_plugins.cashu.nuts.model import Output, Proof
from tradeskill_plugins.cashu.nuts.secrets import Lock

VECTORS = Path(__file__).parent / "vectors" / "cashu"
NUT10: dict[str, Any] = json.loads((VECTORS / "nut10.json").read_text())
NUT11: dict[str, Any] = json.loads((VECTORS / "nut11.json").read_text())
NOW = 1_750_000_000
PRIVATE = [bytes([number]) * 32 for number in range(1, 7)]
KEYS = [curve.public_key(key) for key in PRIVATE]
MINT = PaperMint()
LOCK = Lock(KEYS[0], locktime=NOW + 100, refund=(KEYS[1],))


def a_proof(secret: str, signatures: list[str] | None = None, signature: str = KEYS[5], amount: int = 1) -> Proof:
    witness = json.dumps({"signatures": signatures}) if signatures is not None else ""
    return Proof(amount, NUT11["keyset"], secret, signature, witness=witness)


def locked(lock: Lock, nonce: str = "nonce") -> Proof:
    return a_proof(secrets.secret_text(lock, nonce))


def text_of(data: str = KEYS[0], tags: Any = (), kind: str = "P2PK", **more: Any) -> str:
    return json.dumps([kind, {"nonce": "n", "data": data, "tags": list(tags), **more}])


@pytest.mark.parametrize("vector", NUT11["inputs"], ids=lambda vector: vector["name"])
def test_a_published_proof_opens_as_published(vector: dict[str, Any]) -> None:
    assert secrets.unlocked(a_proof(vector["secret"], vector["signatures"], vector["C"]), NOW) is vector["valid"]


@pytest.mark.parametrize("vector", NUT11["all"], ids=lambda vector: vector["name"])
def test_a_published_transaction_under_sig_all_opens_as_published(vector: dict[str, Any]) -> None:
    inputs = [a_proof(each["secret"], each["signatures"] or None, each["C"], each["amount"]) for each in vector["inputs"]]
    outputs = [Output(amount, NUT11["keyset"], "", "", point) for amount, point in vector["outputs"]]
    quote = vector.get("quote", "")
    if "digest" in vector:
        assert hashlib.sha256(secrets.message_of_all(inputs, outputs, quote)).hexdigest() == vector["digest"]
    if len({secrets.lock_of(proof.secret) for proof in inputs}) > 1:
        with pytest.raises(TokenError, match="one and the same lock"):
            secrets.unlocked_all(inputs, outputs, NOW, quote)
        assert not vector["valid"]
    else:
        assert secrets.unlocked_all(inputs, outputs, NOW, quote) is vector["valid"]
    with pytest.raises(TokenError, match=r"unlocked_all|one and"):
        secrets.unlocked(inputs[0], NOW)


@pytest.mark.parametrize("vector", NUT10["locks"], ids=lambda vector: vector["secret"][18:30])
def test_a_published_secret_reads_as_its_lock(vector: dict[str, Any]) -> None:
    wanted = {name: tuple(value) if isinstance(value, list) else value for name, value in vector.items() if name != "secret"}
    assert secrets.lock_of(vector["secret"]) == Lock(**wanted)


def test_published_secrets_of_other_kinds_are_refused_or_ordinary() -> None:
    for secret in NUT11["another_kind"]:
        with pytest.raises(TokenError, match="kind 'HTLC'"):
            secrets.lock_of(secret)
    with pytest.raises(TokenError, match="not on the curve"):
        secrets.lock_of(NUT10["keys_that_are_no_points"])
    for one, other in NUT10["malformed_keys"]:
        with pytest.raises(TokenError, match="twice on the same path"):
            secrets.lock_of(text_of(one, [["pubkeys", other]]))
        assert secrets.lock_of(text_of(one, [["refund", other]])) == Lock(one, refund=(other,))
    assert secrets.lock_of(NUT10["nutroot_secret"]) is None


LOCKS = st.builds(
    lambda keys, more, n, locktime, refund, m, flag, others: Lock(keys[0], tuple(keys[1 : 1 + more]), n, locktime, tuple(refund), m, flag, others),
    keys=st.permutations(KEYS),
    more=st.just(2),
    n=st.integers(1, 3),
    locktime=st.none() | st.integers(0, 10**18 - 1),
    refund=st.permutations(KEYS).map(lambda keys: keys[:2]),
    m=st.integers(1, 2),
    flag=st.sampled_from(["SIG_INPUTS", "SIG_ALL"]),
    others=st.just(()) | st.just((("purpose", "offline"),)),
)


@settings(deadline=None)
@given(lock=LOCKS, nonce=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_lock_reads_back_as_it_was_written(lock: Lock, nonce: str) -> None:
    text = secrets.secret_text(lock, nonce)
    assert secrets.lock_of(text) == lock
    assert text == secrets.secret_text(lock, nonce)
    assert nonce in json.loads(text)[1]["nonce"]


@settings(deadline=None, max_examples=200)
@given(lock=LOCKS.map(lambda lock: replace(lock, sigflag="SIG_INPUTS")), held=st.sets(st.sampled_from(range(6))), before=st.booleans())
def test_whoever_holds_enough_keys_of_one_path_opens_and_nobody_else(lock: Lock, held: set[int], before: bool) -> None:
    now = (lock.locktime or NOW) + (0 if before else 1)
    mine = {KEYS[number] for number in held}
    wanted = len(mine & {lock.key, *lock.pubkeys}) >= lock.n_sigs
    if lock.locktime is not None and not before:
        wanted = wanted or len(mine & set(lock.refund)) >= lock.n_sigs_refund
    signed = secrets.sign_inputs([locked(lock)], *(PRIVATE[number] for number in held))[0]
    assert secrets.unlocked(signed, now) is wanted


@pytest.mark.parametrize("lock", [LOCK, replace(LOCK, sigflag="SIG_ALL")], ids=lambda lock: lock.sigflag)
def test_after_the_locktime_a_lock_without_refund_keys_is_anyones(lock: Lock) -> None:
    anyones = replace(lock, refund=())
    assert secrets.paths(anyones, NOW + 100) == ((1, (KEYS[0],)),)
    assert secrets.paths(anyones, NOW + 101) == ()
    assert secrets.paths(lock, NOW + 101) == ((1, (KEYS[0],)), (1, (KEYS[1],)))
    assert secrets.paths(replace(lock, locktime=None), 10**18) == ((1, (KEYS[0],)),)
    opened = secrets.unlocked_all([locked(anyones)], [], NOW + 101) if lock.sigflag == "SIG_ALL" else secrets.unlocked(locked(anyones), NOW + 101)
    assert opened


def test_one_signature_does_not_count_for_two_keys_nor_twice_for_one() -> None:
    two = locked(Lock(KEYS[0], (KEYS[1],), 2))
    one = curve.sign(two.secret.encode(), PRIVATE[0])
    again = curve.sign(two.secret.encode(), PRIVATE[0])
    assert one != again
    assert not secrets.unlocked(a_proof(two.secret, [one, again, one]), NOW)
    assert secrets.unlocked(a_proof(two.secret, [one, again, curve.sign(two.secret.encode(), PRIVATE[1]).upper()]), NOW)


@pytest.mark.parametrize("witness", ["", "[]", "{}", '{"signatures":"ab"}', '{"signatures":[1,null]}', '{"signatures":[],"signatures":[]}', "{", "[" * 5000])
def test_a_witness_that_cannot_be_read_opens_nothing(witness: str) -> None:
    assert not secrets.unlocked(replace(locked(LOCK), witness=witness), NOW)


def test_more_signatures_than_any_lock_needs_are_not_tried() -> None:
    proof = locked(LOCK)
    good = curve.sign(proof.secret.encode(), PRIVATE[0])
    assert secrets.unlocked(a_proof(proof.secret, ["ab"] * 31 + [good]), NOW)
    assert not secrets.unlocked(a_proof(proof.secret, ["ab"] * 32 + [good]), NOW)


def test_an_ordinary_secret_is_open_unless_it_comes_with_a_witness() -> None:
    plain = a_proof("9a6dbb847bd232ba76db0df197216b29d3b8cc14553cd27827fc1cc942fedb4e")
    assert secrets.lock_of(plain.secret) is None
    assert secrets.unlocked(plain, NOW)
    assert not secrets.unlocked(replace(plain, witness="{}"), NOW)
    assert secrets.sign_inputs([replace(plain, witness="{}")], PRIVATE[0]) == (plain,)


def test_sig_all_signs_once_for_everything_and_only_for_that() -> None:
    lock = replace(LOCK, sigflag="SIG_ALL")
    inputs = [locked(lock, "one"), locked(lock, "two")]
    outputs = MINT.outputs(1, 1)
    signed = secrets.sign_all(inputs, outputs, PRIVATE[0], PRIVATE[4])
    assert [bool(proof.witness) for proof in signed] == [True, False]
    assert secrets.unlocked_all(signed, outputs, NOW)
    assert not secrets.unlocked_all(signed, outputs[::-1], NOW)
    assert not secrets.unlocked_all(signed, outputs, NOW, "quote")
    assert not secrets.unlocked_all(secrets.sign_all(inputs, outputs, PRIVATE[1]), outputs, NOW)
    assert secrets.unlocked_all(secrets.sign_all(inputs, outputs, PRIVATE[1]), outputs, NOW + 101)
    older = secrets.sign_all(inputs, outputs, PRIVATE[0], quote_id="q", older=True)
    message = (inputs[0].secret + inputs[1].secret + outputs[0].point + outputs[1].point + "q").encode()
    assert curve.signed_by(message, json.loads(older[0].witness)["signatures"][0], KEYS[0])
    assert not secrets.unlocked_all(older, outputs, NOW, "q")
    with pytest.raises(TokenError, match="sign_all"):
        secrets.sign_inputs(inputs, PRIVATE[0])
    for mixed in ([inputs[0], locked(LOCK)], [locked(LOCK)], [inputs[0], a_proof("plain")], [a_proof("plain")]):
        with pytest.raises(TokenError, match="one and the same lock"):
            secrets.sign_all(mixed, outputs, PRIVATE[0])


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("[", "cannot be read"),
        (" \n[1, 2]", "is none"),
        ('["P2PK"]', "is none"),
        ('["P2PK", []]', "is none"),
        ('[1, {"nonce": "n", "data": "d"}]', "is none"),
        ('["P2PK", {"nonce": "n", "data": "d"}, 3]', "is none"),
        ('["P2PK", {"nonce": "n", "data": "d", "data": "e"}]', "duplicate key"),
        ('["P2PK", {"data": "d"}]', "nothing else"),
        ('["P2PK", {"nonce": 7, "data": "d"}]', "nothing else"),
        ('["P2PK", {"nonce": "n", "data": null}]', "nothing else"),
        (text_of(extra=1), "nothing else"),
        ('["P2PK", {"nonce": "n", "data": "d", "tags": {}}]', "lists of two"),
        (text_of(tags=[["locktime"]]), "lists of two"),
        (text_of(tags=[["locktime", 7]]), "lists of two"),
        (text_of(tags=[["n_sigs", "1"], ["n_sigs", "1"]]), "'n_sigs' twice"),
        (text_of(tags=[["n_sigs", "0"]]), "n_sigs is '0'"),
        (text_of(tags=[["n_sigs", "2"]]), "n_sigs is '2'"),
        (text_of(tags=[["n_sigs", "1", "1"]]), "n_sigs is '1 1'"),
        (text_of(tags=[["n_sigs", "٢"], ["pubkeys", KEYS[1]]]), "n_sigs is"),
        (text_of(tags=[["n_sigs_refund", "1"]]), "n_sigs_refund"),
        (text_of(tags=[["n_sigs_refund", "2"], ["refund", KEYS[1]]]), "n_sigs_refund"),
        (text_of(tags=[["locktime", "-1"]]), "locktime is '-1'"),
        (text_of(tags=[["locktime", "1_000"]]), "locktime"),
        (text_of(tags=[["locktime", "007"]]), "locktime"),
        (text_of(tags=[["locktime", "9" * 19]]), "locktime"),
        (text_of(tags=[["sigflag", "SIG_NONE"]]), "sigflag is 'SIG_NONE'"),
        (text_of(tags=[["sigflag", "SIG_ALL", "SIG_INPUTS"]]), "sigflag"),
        (text_of("02" + "ff" * 32), "not on the curve"),
        (text_of("nobody"), "not a compressed point"),
        (text_of(tags=[["refund", "nobody"]]), "not a compressed point"),
        (text_of(tags=[["refund", KEYS[1], KEYS[1].upper()]]), "twice on the same path"),
        (text_of(kind="HTLC"), "kind 'HTLC'"),
        ("x" * 1025, "1024 at most"),
        (text_of() + " " * 1000, "1024 at most"),
        ("[" * 1000, "cannot be read"),
    ],
)
def test_what_looks_like_a_lock_and_is_none_is_refused(secret: str, words: str) -> None:
    with pytest.raises(TokenError, match=words):
        secrets.lock_of(secret)
    with pytest.raises(TokenError, match=words):
        secrets.unlocked(a_proof(secret), NOW)


LOCKED = secrets.secret_text(replace(LOCK, pubkeys=(KEYS[2],), n_sigs=2), "nonce")


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, len(LOCKED) - 1), letter=st.characters(exclude_categories=["Cs"]) | st.sampled_from(list('[]{}",0129 ')))
def test_a_lock_changed_in_one_letter_is_refused_or_means_what_it_says(place: int, letter: str) -> None:
    changed = LOCKED[:place] + letter + LOCKED[place + 1 :]
    try:
        lock = secrets.lock_of(changed)
    except TokenError:
        return
    if lock is None:
        assert not changed.lstrip().startswith("[")
    else:
        assert secrets.lock_of(secrets.secret_text(lock, "another nonce")) == lock


@given(st.text(max_size=60) | st.text('[]{}",:P2PK0 ', max_size=60))
def test_any_text_is_a_lock_an_ordinary_secret_or_refused(text: str) -> None:
    try:
        assert secrets.lock_of(text) is None or text.lstrip().startswith("[")
    except TokenError:
        assert text.lstrip().startswith("[")


def test_a_lock_without_tags_or_with_large_letters_is_read() -> None:
    assert secrets.lock_of('["P2PK", {"nonce": "n", "data": "' + KEYS[0] + '"}]') == Lock(KEYS[0])
    assert secrets.lock_of(text_of(KEYS[0].upper())) == Lock(KEYS[0])


@pytest.mark.parametrize(
    "lock",
    [replace(LOCK, key=KEYS[0].upper()), replace(LOCK, others=(("refund", KEYS[2]),)), replace(LOCK, n_sigs=3), replace(LOCK, refund=(KEYS[1], KEYS[1]))],
)
def test_a_lock_that_would_not_read_back_is_not_made(lock: Lock) -> None:
    with pytest.raises(TokenError):
        secrets.secret_text(lock, "n")


def test_a_demanded_lock_is_taken_and_one_with_more_time_or_none_at_all() -> None:
    assert secrets.demand(secrets.secret_text(LOCK, "n"), KEYS[0], NOW, KEYS[1]) == LOCK
    assert secrets.demand(secrets.secret_text(LOCK, "n"), KEYS[0], NOW + 100) == LOCK
    for_ever = Lock(KEYS[0])
    assert secrets.demand(secrets.secret_text(for_ever, "n"), KEYS[0], NOW, KEYS[1]) == for_ever


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        (replace(LOCK, key=KEYS[2]), "is locked to"),
        (replace(LOCK, key=("03" if KEYS[0].startswith("02") else "02") + KEYS[0][2:]), "is locked to"),
        (replace(LOCK, pubkeys=(KEYS[2],)), "more than was asked"),
        (replace(LOCK, pubkeys=(KEYS[2],), n_sigs=2), "more than was asked"),
        (replace(LOCK, sigflag="SIG_ALL"), "more than was asked"),
        (replace(LOCK, others=(("unknown", "1"),)), "more than was asked"),
        (replace(LOCK, locktime=NOW + 49), "before"),
        (replace(LOCK, refund=()), "anyone's"),
        (replace(LOCK, refund=(KEYS[1], KEYS[2])), "no single refund key"),
        (replace(LOCK, refund=(KEYS[2],)), "another key"),
        (replace(LOCK, locktime=None, refund=(KEYS[2],)), "another key"),
    ],
)
def test_a_lock_with_another_way_in_is_refused(lock: Lock, words: str) -> None:
    with pytest.raises(TokenError, match=words):
        secrets.demand(secrets.secret_text(lock, "n"), KEYS[0], NOW + 50, KEYS[1])


def test_a_proof_without_a_lock_is_refused_where_one_is_demanded() -> None:
    with pytest.raises(TokenError, match="not locked"):
        secrets.demand("ab" * 32, KEYS[0], NOW)


def test_nothing_printed_shows_what_spends() -> None:
    signed = secrets.sign_inputs([replace(MINT.proofs(8)[0], secret=secrets.secret_text(LOCK, "nonce-of-mine"))], PRIVATE[0])[0]
    output = MINT.outputs(8)[0]
    shown = f"{signed!r} {signed} {[signed]} {output!r}"
    assert "amount=8" in shown
    assert signed.dleq is not None
    for hidden in (signed.secret, "nonce-of-mine", signed.signature, signed.witness[:40], signed.dleq.r, output.secret, output.r):
        assert hidden not in shown
