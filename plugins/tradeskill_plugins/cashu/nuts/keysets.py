"""Keysets: ids derived from keys and checked, short ids, fees, splitting an amount into what the mint signs (NUT-01, 02). Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from tradeskill.errors import AmountError, InputError, UntrustedError
from tradeskill_plugins.cashu.nuts import curve
from tradeskill_plugins.cashu.nuts.errors import TokenError
from tradeskill_plugins.cashu.nuts.model import MAX_AMOUNT, Keyset, KeysetInfo, Proof

__all__ = [
    "MAX_KEYS",
    "amounts_for",
    "check_id",
    "derive_id",
    "fee",
    "find",
    "input_fee",
    "keyset",
    "short_id",
    "split",
]

MAX_KEYS: Final = 256  # in one keyset; 64 powers of two are usual
MAX_FEE_PPK: Final = 1_000_000  # a fee of a thousand units an input is a mistake or a trap
K = TypeVar("K", Keyset, KeysetInfo)
_V1 = re.compile(r"00[0-9a-f]{14}", re.ASCII)
_V2 = re.compile(r"01[0-9a-f]{64}", re.ASCII)


def check_id(text: str) -> str:
    """`text`, once it is a keyset id of a generation that is spoken here (00 or 01); else InputError. Ids of BLS keysets (02) are refused by name."""
    if isinstance(text, str) and (_V1.fullmatch(text) or _V2.fullmatch(text)):
        return text
    if isinstance(text, str) and re.fullmatch(r"02[0-9a-f]*", text, re.ASCII):
        raise InputError("keyset id is of generation 02 (BLS12-381), which is not spoken here: use a mint with keysets 00 or 01")
    raise InputError(f"{str(text)[:80]!r} is no keyset id: 16 hex that begin with 00, or 66 that begin with 01")


def derive_id(version: int, keys: Mapping[int, str], unit: str, fee_ppk: int = 0, final_expiry: int | None = None) -> str:
    """The id of these keys: generation 0 hashes the points alone; generation 1 amounts, points, unit, fee (unless 0) and expiry (unless None)."""
    ordered = sorted(keys.items())
    if version == 0:
        return "00" + hashlib.sha256(b"".join(bytes.fromhex(key) for _, key in ordered)).hexdigest()[:14]
    if version != 1:
        raise InputError(f"keyset ids of generation {version} are not spoken here: 0 and 1 are")
    text = ",".join(f"{amount}:{key}" for amount, key in ordered) + f"|unit:{unit}"
    text += f"|input_fee_ppk:{fee_ppk}" if fee_ppk else ""
    text += f"|final_expiry:{final_expiry}" if final_expiry is not None else ""
    return "01" + hashlib.sha256(text.encode()).hexdigest()


def keyset(info: KeysetInfo, keys: Mapping[int, str]) -> Keyset:
    """A keyset that can be relied on: every key is a point, and the id follows from what it must. UntrustedError names what does not.

    An id of generation 0 says nothing of unit, fee and expiry: those are the mint's word, and the wallet keeps the unit that it saw first.
    """
    if not 1 <= len(keys) <= MAX_KEYS:
        raise UntrustedError(f"keyset {info.id} has {len(keys)} keys: 1 to {MAX_KEYS} are taken")
    try:
        check_id(info.id)
        for amount, key in keys.items():
            if not 0 < amount <= 2**64:
                raise InputError(f"amount {amount} is out of range")
            curve.check_point(key, f"key for amount {amount}")
    except InputError as error:
        raise UntrustedError(f"keyset {info.id}: {error}") from error
    if len(set(keys.values())) != len(keys):
        raise UntrustedError(f"keyset {info.id} has one key for two amounts")
    if not 0 <= info.fee_ppk <= MAX_FEE_PPK:
        raise UntrustedError(f"keyset {info.id} asks for {info.fee_ppk} thousandths an input: {MAX_FEE_PPK} at most are taken")
    derived = derive_id(int(info.id[:2], 16), keys, info.unit, info.fee_ppk, info.final_expiry)
    if derived != info.id:
        raise UntrustedError(f"keyset {info.id} is not what its id says: these keys, unit, fee and expiry make {derived}")
    return Keyset(info.id, info.unit, info.active, info.fee_ppk, dict(keys), info.final_expiry)


def short_id(keyset_id: str) -> str:
    """The 16 hex by which V4 tokens may name a keyset; ids of generation 0 are as short already."""
    return keyset_id[:16]


def find(keyset_id: str, known: Iterable[K]) -> K:
    """The one keyset with that id, full or short. TokenError when none or several have it."""
    matching = {each.id: each for each in known if each.id == keyset_id or (len(keyset_id) == 16 and short_id(each.id) == keyset_id)}
    if len(matching) != 1:
        raise TokenError(f"keyset {keyset_id} {'is not one of this mint' if not matching else 'may mean ' + ' or '.join(sorted(matching))}")
    return next(iter(matching.values()))


def fee(proofs: Iterable[Proof], known: Mapping[str, Keyset] | Mapping[str, KeysetInfo]) -> int:
    """What the mint keeps for taking these inputs: their thousandths together, rounded up to whole units. TokenError for an unknown keyset."""
    total = 0
    for proof in proofs:
        if proof.keyset_id not in known:
            raise TokenError(f"keyset {proof.keyset_id} is not one of this mint")
        total += known[proof.keyset_id].fee_ppk
    return -(-total // 1000)


def split(amount: int, amounts: Iterable[int]) -> tuple[int, ...]:
    """`amount` in as few of the mint's `amounts` as taking the largest first finds, ascending. AmountError where it does not come out even."""
    if not 0 <= amount <= MAX_AMOUNT:
        raise AmountError(f"{amount} cannot be split: 0 to {MAX_AMOUNT} can")
    parts: list[int] = []
    rest = amount
    for part in sorted(amounts, reverse=True):
        parts += [part] * (rest // part if rest // part <= 1000 else 1001)
        if len(parts) > 1000:
            raise AmountError(f"{amount} needs more than 1000 proofs of what this mint signs")
        rest %= part
    if rest:
        raise AmountError(f"{amount} cannot be made of what this mint signs: {rest} is left over")
    return tuple(sorted(parts))


def amounts_for(net: int, keys: Keyset) -> tuple[int, ...]:
    """Proofs of this keyset that are worth `net` to whoever swaps them: little more than `net` and their own fee. AmountError as `split`."""
    face = net
    while True:
        parts = split(face, keys.keys)
        lacking = net - (face - input_fee(len(parts), keys.fee_ppk))
        if lacking <= 0:
            return parts
        face += lacking


def input_fee(count: int, fee_ppk: int) -> int:
    """The fee of `count` inputs of one keyset."""
    return -(-count * fee_ppk // 1000)

