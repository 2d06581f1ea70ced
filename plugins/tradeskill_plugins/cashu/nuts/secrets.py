"""Locks inside secrets: NUT-10's form, NUT-11's rules (P2PK). Made, read strictly, signed for, judged: who may spend when. Pure.

Mints are lenient in places where each is lenient in another way (a secret that one cannot read may be anyone's to spend there). So a secret that
looks like a lock and is not exactly one is refused here; and `demand` says whether a lock is what was asked for, with no other way in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from tradeskill.errors import InputError
from tradeskill.signing import parse_json
from tradeskill_plugins.cashu.nuts import curve
from tradeskill_plugins.cashu.nuts.errors import TokenError
from tradeskill_plugins.cashu.nuts.model import Output, Proof

__all__ = [
    "MAX_SECRET",
    "Lock",
    "demand",
    "lock_of",
    "message_of_all",
    "paths",
    "secret_text",
    "sign_all",
    "sign_inputs",
    "unlocked",
    "unlocked_all",
]

MAX_SECRET: Final = 1024  # characters; what mints take
MAX_SIGNATURES: Final = 32
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


@dataclass(frozen=True)
class Lock:
    """NUT-11. `n_sigs` of `key` and `pubkeys` may spend at any time; once `locktime` is over, also `n_sigs_refund` of `refund`, or anyone if there are none."""

    key: str
    pubkeys: tuple[str, ...] = ()
    n_sigs: int = 1
    locktime: int | None = None  # unix seconds; None: never over
    refund: tuple[str, ...] = ()
    n_sigs_refund: int = 1
    sigflag: Literal["SIG_INPUTS", "SIG_ALL"] = "SIG_INPUTS"
    others: tuple[tuple[str, ...], ...] = ()  # tags that nothing here knows


def secret_text(lock: Lock, nonce: str) -> str:
    """The secret that locks: canonical, so that the same lock and nonce always make the same text. TokenError for a lock that no mint would open."""
    tags: list[list[str]] = [["sigflag", lock.sigflag]]
    tags += [["n_sigs", str(lock.n_sigs)]] if lock.n_sigs != 1 else []
    tags += [["locktime", str(lock.locktime)]] if lock.locktime is not None else []
    tags += [["refund", *lock.refund]] if lock.refund else []
    tags += [["n_sigs_refund", str(lock.n_sigs_refund)]] if lock.n_sigs_refund != 1 else []
    tags += [["pubkeys", *lock.pubkeys]] if lock.pubkeys else []
    tags += [list(tag) for tag in lock.others]
    text = json.dumps(["P2PK", {"nonce": nonce, "data": lock.key, "tags": tags}], separators=(",", ":"))
    if lock_of(text) != lock:
        raise TokenError("this lock does not read back as it was meant: its keys must be lowercase and its other tags unknown ones")
    return text


def lock_of(secret: str) -> Lock | None:
    """The lock in a secret, None for an ordinary one. TokenError for what looks like a lock and is malformed, of another kind, or can never be opened."""
    if len(secret) > MAX_SECRET:
        raise TokenError(f"a secret of {len(secret)} characters: {MAX_SECRET} at most are taken")
    if not secret.lstrip().startswith("["):
        return None
    try:
        value = parse_json(secret, "secret")
    except InputError as error:
        raise TokenError(f"a secret that looks like a lock cannot be read: {error}") from error
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str) or not isinstance(value[1], dict):
        raise TokenError("a secret that looks like a lock is none: [kind, {nonce, data, tags}] is")
    kind, body = value[0], value[1]
    if kind != "P2PK":
        raise TokenError(f"a lock of kind {kind[:40]!r} is not taken here: P2PK is")
    tags, data = body.get("tags", []), body.get("data")
    if not body.keys() <= {"nonce", "data", "tags"} or not isinstance(body.get("nonce"), str) or not isinstance(data, str):
        raise TokenError("a lock has a nonce, data, perhaps tags, and nothing else")
    if not isinstance(tags, list) or not all(isinstance(tag, list) and len(tag) > 1 and all(isinstance(part, str) for part in tag) for tag in tags):
        raise TokenError("a lock's tags are lists of two or more strings")
    return _read(data, [tuple(str(part) for part in tag) for tag in tags if isinstance(tag, list)])


def _read(data: str, tags: Sequence[tuple[str, ...]]) -> Lock:
    found: dict[str, tuple[str, ...]] = {}
    for name, *values in tags:
        if name in found:
            raise TokenError(f"a lock has the tag {name[:40]!r} twice")
        found[name] = tuple(values)
    key, *more = (_key(text) for text in (data, *found.get("pubkeys", ())))
    refund = tuple(_key(text) for text in found.get("refund", ()))
    for keys in ((key, *more), refund):
        if len({each[2:] for each in keys}) != len(keys):
            raise TokenError("a lock names one key twice on the same path")
    sigflag = found.get("sigflag", ("SIG_INPUTS",))
    if sigflag not in (("SIG_INPUTS",), ("SIG_ALL",)):
        raise TokenError(f"a lock's sigflag is {' '.join(sigflag)[:40]!r}: SIG_INPUTS or SIG_ALL are known")
    locktime = _number(found["locktime"], "locktime", 0, 10**18) if "locktime" in found else None
    n_sigs = _number(found["n_sigs"], "n_sigs", 1, 1 + len(more)) if "n_sigs" in found else 1
    n_sigs_refund = _number(found["n_sigs_refund"], "n_sigs_refund", 1, len(refund)) if "n_sigs_refund" in found else 1
    known = {"pubkeys", "refund", "sigflag", "locktime", "n_sigs", "n_sigs_refund"}
    return Lock(
        key=key,
        pubkeys=tuple(more),
        n_sigs=n_sigs,
        locktime=locktime,
        refund=refund,
        n_sigs_refund=n_sigs_refund,
        sigflag="SIG_ALL" if sigflag == ("SIG_ALL",) else "SIG_INPUTS",
        others=tuple((name, *values) for name, values in found.items() if name not in known),
    )


def demand(secret: str, key: str, locktime: int, refund: str | None = None) -> Lock:
    """The lock of a payment to `key`: it alone may spend, for at least until `locktime`, and afterwards at most one refund key (`refund`, where given).

    TokenError says what is otherwise. Read as what it allows: no second key, no SIG_ALL, no unknown tag, never anyone's to spend.
    """
    lock = lock_of(secret)
    if lock is None:
        raise TokenError("a proof is not locked: whoever saw it on its way can spend it")
    if lock.key != key:
        raise TokenError(f"a proof is locked to {lock.key}, not to {key}")
    if lock.pubkeys or lock.n_sigs != 1 or lock.sigflag != "SIG_INPUTS" or lock.others:
        raise TokenError("a proof's lock has more than was asked for: other keys, SIG_ALL or unknown tags")
    if lock.locktime is not None and lock.locktime < locktime:
        raise TokenError(f"a proof's lock ends at {lock.locktime}, before {locktime}")
    if lock.locktime is not None and len(lock.refund) != 1:
        raise TokenError("a proof's lock ends with no single refund key: it would be anyone's")
    if refund is not None and lock.refund not in ((), (refund,)):
        raise TokenError("a proof's lock goes back to another key than the one named")
    return lock


def paths(lock: Lock, now: int) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """The ways to spend at `now` (unix seconds, the mint's): (signatures needed, of these keys). () means: anyone, without any."""
    always = (lock.n_sigs, (lock.key, *lock.pubkeys))
    if lock.locktime is None or now <= lock.locktime:
        return (always,)
    return (always, (lock.n_sigs_refund, lock.refund)) if lock.refund else ()


def sign_inputs(proofs: Iterable[Proof], *keys: bytes) -> tuple[Proof, ...]:
    """The proofs, those with a lock signed by each key that the lock names (SIG_INPUTS), ordinary ones without a witness. TokenError for SIG_ALL."""
    signed = []
    for proof in proofs:
        lock = lock_of(proof.secret)
        if lock is not None and lock.sigflag == "SIG_ALL":
            raise TokenError("a lock wants all inputs and outputs signed together: use sign_all")
        signed.append(replace(proof, witness="" if lock is None else _witness(_signatures(lock, proof.secret.encode(), keys))))
    return tuple(signed)


def message_of_all(inputs: Sequence[Proof], outputs: Sequence[Output], quote_id: str = "", older: bool = False) -> bytes:
    """What SIG_ALL signs: every input's secret and C, every output's amount and B_, for a melt the quote's id.

    `older`: secrets and B_ without C and amounts, as mints before the rule of late 2025 still want it (nutshell 0.20 is one).
    """
    if older:
        return ("".join(proof.secret for proof in inputs) + "".join(output.point for output in outputs) + quote_id).encode()
    text = "".join(proof.secret + proof.signature for proof in inputs)
    return (text + "".join(f"{output.amount}{output.point}" for output in outputs) + quote_id).encode()


def sign_all(inputs: Sequence[Proof], outputs: Sequence[Output], *keys: bytes, quote_id: str = "", older: bool = False) -> tuple[Proof, ...]:
    """The inputs with the one witness that SIG_ALL wants, on the first. TokenError unless all have the same lock but for the nonce."""
    lock = _one_lock(inputs)
    signatures = _signatures(lock, message_of_all(inputs, outputs, quote_id, older), keys)
    return (replace(inputs[0], witness=_witness(signatures)), *inputs[1:])


def unlocked(proof: Proof, now: int) -> bool:
    """Whether a mint whose clock says `now` would take the proof's witness (SIG_INPUTS). TokenError for a malformed lock, or one with SIG_ALL."""
    lock = lock_of(proof.secret)
    if lock is None:
        return proof.witness == ""
    if lock.sigflag == "SIG_ALL":
        raise TokenError("a lock wants all inputs and outputs signed together: use unlocked_all")
    return _opens(lock, proof.witness, proof.secret.encode(), now)


def unlocked_all(inputs: Sequence[Proof], outputs: Sequence[Output], now: int, quote_id: str = "") -> bool:
    """As `unlocked`, for a whole transaction under SIG_ALL."""
    return _opens(_one_lock(inputs), inputs[0].witness, message_of_all(inputs, outputs, quote_id), now)


def _one_lock(inputs: Sequence[Proof]) -> Lock:
    locks = {lock_of(proof.secret) for proof in inputs}
    lock = locks.pop() if len(locks) == 1 else None
    if lock is None or lock.sigflag != "SIG_ALL":
        raise TokenError("SIG_ALL needs one and the same lock on every input")
    return lock


def _opens(lock: Lock, witness: str, message: bytes, now: int) -> bool:
    ways = paths(lock, now)
    signatures = _signatures_in(witness)
    return not ways or any(sum(any(curve.signed_by(message, signature, key) for signature in signatures) for key in keys) >= needed for needed, keys in ways)


def _signatures(lock: Lock, message: bytes, keys: Sequence[bytes]) -> list[str]:
    named = {each[2:] for each in (lock.key, *lock.pubkeys, *lock.refund)}
    return [curve.sign(message, key) for key in keys if curve.public_key(key)[2:] in named]


def _witness(signatures: list[str]) -> str:
    return json.dumps({"signatures": signatures}, separators=(",", ":"))


def _signatures_in(witness: str) -> list[str]:
    """Of a P2PK witness; none where it cannot be read, or has more than any lock needs."""
    try:
        value = parse_json(witness, "witness")
    except InputError:
        return []
    found = value.get("signatures") if isinstance(value, dict) else None
    if not isinstance(found, list) or len(found) > MAX_SIGNATURES:
        return []
    return [each.lower() for each in found if isinstance(each, str)]


def _key(text: str) -> str:
    try:
        return curve.check_point(text.lower(), "a lock's key")
    except InputError as error:
        raise TokenError(str(error)) from error


def _number(values: tuple[str, ...], name: str, least: int, most: int) -> int:
    if len(values) != 1 or _NUMBER.fullmatch(values[0]) is None or not least <= int(values[0]) <= most:
        raise TokenError(f"a lock's {name} is {' '.join(values)[:40]!r}: one number from {least} to {most} is needed")
    return int(values[0])
