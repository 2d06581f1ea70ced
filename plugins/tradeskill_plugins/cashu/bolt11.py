"""What a wallet reads of a Lightning invoice itself: that it is whole, which chain it is for, and how much it asks. The rest is the mint's to read."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from tradeskill.errors import InputError

__all__ = ["bolt11_id", "chain_of", "sats_of"]

_HEAD = re.compile(r"ln(bcrt|tbs|bc|tb)(?:([1-9][0-9]{0,17})([munp])?)?", re.ASCII)
_LETTERS: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_PER_BTC: Final = 100_000_000_000  # millisatoshi
_PARTS: Final = {None: 1, "m": 1_000, "u": 1_000_000, "n": 1_000_000_000, "p": 1_000_000_000_000}
MAX_LENGTH: Final = 4096


def bolt11_id(text: str) -> str:
    """The payment id of what is paid to this invoice: both sides know the invoice, so both name the payment alike."""
    return hashlib.sha256(b"tradeskill/cashu/bolt11\n" + text.lower().encode()).hexdigest()


def chain_of(text: str) -> str:
    """`bc`, `tb`, `tbs` or `bcrt`. InputError as `sats_of`."""
    return _head(text)[0]


def sats_of(text: str) -> int:
    """The satoshi it asks for. InputError when it is no invoice, is damaged, or asks for nothing or for a part of a satoshi."""
    _, amount, part = _head(text)
    if amount is None:
        raise InputError("the Lightning invoice names no amount")
    msat, rest = divmod(int(amount) * _PER_BTC, _PARTS[part])
    if rest or msat % 1000:
        raise InputError("the Lightning invoice asks for a part of a satoshi")
    return msat // 1000


def _head(text: str) -> tuple[str, str | None, str | None]:
    lower = text.lower() if text.isascii() and len(text) <= MAX_LENGTH and text in (text.lower(), text.upper()) else ""
    head, _, data = lower.rpartition("1")
    match = _HEAD.fullmatch(head)
    if match is None or len(data) < 110 or any(c not in _LETTERS for c in data) or not _checks(head, data):
        raise InputError("that is no Lightning invoice (bolt11), or it is damaged")
    return match.group(1), match.group(2), match.group(3)


def _checks(head: str, data: str) -> bool:
    """BIP 173's checksum."""
    values = [ord(c) >> 5 for c in head] + [0] + [ord(c) & 31 for c in head] + [_LETTERS.index(c) for c in data]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check == 1
