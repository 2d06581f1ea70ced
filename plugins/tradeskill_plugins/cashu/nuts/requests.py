"""Requests that change something at a mint, as the exact bytes to store before they are sent; and the outputs in them, made from the seed. Pure.

Bytes depend on nothing but the arguments (witnesses excepted: a Schnorr signature is random), so store `Request.body` and send that, now and at
every repetition. `answers` reads what comes back, with the same outputs: keep them, or their keyset, amounts, counters and lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from tradeskill.errors import InputError, RefusedError
from tradeskill.model import Json
from tradeskill_plugins.cashu.nuts import curve
from tradeskill_plugins.cashu.nuts.derivation import derive
from tradeskill_plugins.cashu.nuts.keysets import fee
from tradeskill_plugins.cashu.nuts.model import Keyset, MeltQuote, Output, Proof
from tradeskill_plugins.cashu.nuts.secrets import Lock, secret_text

__all__ = [
    "MAX_ITEMS",
    "Request",
    "blank_outputs",
    "locked_outputs",
    "melt",
    "mint",
    "outputs",
    "restore",
    "swap",
]

MAX_ITEMS: Final = 1000  # inputs, or outputs, in one request: what mints take


@dataclass(frozen=True)
class Request:
    """One request as it goes out: POST `body` to the mint's `path`. `outputs` are what the answer is read with."""

    kind: Literal["swap", "mint", "melt", "restore"]
    path: str
    body: bytes = field(repr=False)
    outputs: tuple[Output, ...] = field(repr=False)


def outputs(seed: bytes, keyset: Keyset, amounts: Sequence[int], counter: int) -> tuple[Output, ...]:
    """Ordinary outputs from counters `counter`, `counter` + 1, …: as many as `amounts`. Advance the stored counter by that many *before* sending."""
    made = (derive(seed, keyset.id, counter + offset) for offset in range(len(amounts)))
    return tuple(Output(_signed_for(amount, keyset), keyset.id, secret, r, curve.blind(secret, r)) for amount, (secret, r) in zip(amounts, made, strict=True))


def locked_outputs(seed: bytes, keyset: Keyset, amounts: Sequence[int], counter: int, lock: Lock) -> tuple[Output, ...]:
    """As `outputs`, each locked: the derived secret is the lock's nonce. A restore finds them only by whoever remembers the lock."""
    made = []
    for offset, amount in enumerate(amounts):
        nonce, r = derive(seed, keyset.id, counter + offset)
        secret = secret_text(lock, nonce)
        made.append(Output(_signed_for(amount, keyset), keyset.id, secret, r, curve.blind(secret, r)))
    return tuple(made)


def blank_outputs(seed: bytes, keyset: Keyset, at_most: int, counter: int) -> tuple[Output, ...]:
    """Outputs of no amount for what a melt gives back (NUT-08): enough for any change up to `at_most` (the fee reserve and what is overpaid)."""
    made = (derive(seed, keyset.id, counter + offset) for offset in range(max(at_most - 1, 0).bit_length() or int(at_most > 0)))
    return tuple(Output(0, keyset.id, secret, r, curve.blind(secret, r)) for secret, r in made)


def swap(inputs: Sequence[Proof], wanted: Sequence[Output], known: Mapping[str, Keyset]) -> Request:
    """NUT-03. Outputs are put in ascending order of amount (a mint shall not learn which are change). RefusedError unless inputs = outputs + fee."""
    paid, got, charge = _total(inputs), sum(output.amount for output in wanted), fee(inputs, known)
    if paid != got + charge:
        raise RefusedError(f"a swap of {paid} into {got} with a fee of {charge} does not balance: no request was made")
    ordered = tuple(sorted(wanted, key=lambda output: output.amount))
    return Request("swap", "/v1/swap", _bytes({"inputs": _inputs(inputs), "outputs": _messages(ordered)}), ordered)


def mint(quote_id: str, wanted: Sequence[Output], key: bytes | None = None) -> Request:
    """NUT-04: take the ecash of a paid quote. `key` is the private key that locks the quote (NUT-20), if one does."""
    ordered = tuple(sorted(wanted, key=lambda output: output.amount))
    body: dict[str, Json] = {"quote": quote_id, "outputs": _messages(ordered)}
    if key is not None:
        body["signature"] = curve.sign((quote_id + "".join(output.point for output in ordered)).encode(), key)
    return Request("mint", "/v1/mint/bolt11", _bytes(body), ordered)


def melt(quote: MeltQuote, inputs: Sequence[Proof], blanks: Sequence[Output], known: Mapping[str, Keyset]) -> Request:
    """NUT-05: pay the quote's invoice with `inputs`. RefusedError where they do not cover amount, fee reserve and their own fee."""
    paid, needed = _total(inputs), quote.amount + quote.fee_reserve + fee(inputs, known)
    if paid < needed:
        raise RefusedError(f"a melt of {quote.amount} needs {needed} with its fees, {paid} are given: no request was made")
    body: dict[str, Json] = {"quote": quote.id, "inputs": _inputs(inputs)}
    if blanks:
        body["outputs"] = _messages(blanks)
    return Request("melt", "/v1/melt/bolt11", _bytes(body), tuple(blanks))


def restore(wanted: Sequence[Output]) -> Request:
    """NUT-09: what had the mint signed of these? Changes nothing; their amounts do not matter."""
    return Request("restore", "/v1/restore", _bytes({"outputs": _messages(wanted)}), tuple(wanted))


def _signed_for(amount: int, keyset: Keyset) -> int:
    if amount not in keyset.keys:
        raise InputError(f"keyset {keyset.id} has no key for {amount}: split the amount first")
    return amount


def _total(inputs: Iterable[Proof]) -> int:
    return sum(proof.amount for proof in inputs)


def _inputs(proofs: Sequence[Proof]) -> list[Json]:
    _check_count(len(proofs), "inputs")
    if len({proof.secret for proof in proofs}) != len(proofs):
        raise InputError("one proof stands twice among the inputs: no request was made")
    return [_input(proof) for proof in proofs]


def _input(proof: Proof) -> dict[str, Json]:
    """Without its DLEQ: `r` would show the mint which of its signatures this was."""
    body: dict[str, Json] = {"amount": proof.amount, "id": proof.keyset_id, "secret": proof.secret, "C": proof.signature}
    return {**body, "witness": proof.witness} if proof.witness else body


def _messages(wanted: Sequence[Output]) -> list[Json]:
    _check_count(len(wanted), "outputs")
    if len({output.point for output in wanted}) != len(wanted):
        raise InputError("one output stands twice: was a counter used twice? No request was made")
    return [{"amount": output.amount, "id": output.keyset_id, "B_": output.point} for output in wanted]


def _check_count(count: int, what: str) -> None:
    if not 0 < count <= MAX_ITEMS:
        raise InputError(f"{count} {what}: 1 to {MAX_ITEMS} are taken by mints")


def _bytes(body: dict[str, Json]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
