"""One RPC request as the node reads it: lenient fields, and its error for each that does not fit."""

from __future__ import annotations

from typing import Final

from tradeskill_wallet.devnet.wire import (
    BadJSON,
    Tree,
    decode_account,
    decode_amount,
    decode_bool,
    decode_hash,
    decode_hex,
    decode_u64,
    decode_unsigned,
    parse,
    text_of,
)
from tradeskill_wallet.primitives import ZERO, StateBlock

__all__ = ["ALL", "Legacy", "Refused", "Request"]

ALL: Final = (1 << 64) - 1
_LEGACY: Final = {
    "send": ("previous", "destination", "balance"),
    "receive": ("previous", "source"),
    "open": ("source", "representative", "account"),
    "change": ("previous", "representative"),
}


class Refused(Exception):  # noqa: N818 -- not a failure of ours: the node's own answer, with HTTP status 200
    """The node answers `{"error": str(self)}`."""


class Legacy:
    """A legacy block in a request. The ledger holds none but genesis, so all that counts is what it claims to follow."""

    def __init__(self, kind: str, previous: bytes) -> None:
        self.kind = kind
        self.previous = previous


class Request:
    """The fields of a request. A missing required field raises BadJSON, a wrong one raises Refused."""

    def __init__(self, fields: dict[str, Tree]) -> None:
        self.fields = fields
        self.hyphenated = False  # an address came in the oldest spelling, with a hyphen: the answer says so

    def has(self, name: str) -> bool:
        return name in self.fields

    def optional(self, name: str) -> str | None:
        return text_of(self.fields[name]) if name in self.fields else None

    def text(self, name: str) -> str:
        if name not in self.fields:
            raise BadJSON(name)
        return text_of(self.fields[name])

    def items(self, name: str) -> list[str]:
        """The texts inside a list or map; a plain string has none inside."""
        if name not in self.fields:
            raise BadJSON(name)
        value = self.fields[name]
        inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        return [text_of(item) for item in inside]

    def flag(self, name: str, default: bool) -> bool:
        value = decode_bool(self.optional(name))
        return default if value is None else value

    def account(self, text: str = "") -> bytes:
        """`text`, or the field `account` when it is empty."""
        text = text or self.text("account")
        account = decode_account(text)
        if account is None:
            raise Refused("Bad account number")
        self.hyphenated = self.hyphenated or "-" in text
        return account

    def hash(self, name: str = "hash") -> bytes:
        value = decode_hash(self.text(name))
        if value is None:
            raise Refused("Invalid block hash")
        return value

    def amount(self) -> int:
        value = decode_amount(self.text("amount"))
        if value is None:
            raise Refused("Invalid amount number")
        return value

    def count(self, default: int | None = None) -> int:
        """With a default the field may be missing or zero; without one it may be neither."""
        text = self.text("count") if default is None else self.optional("count")
        if text is None:
            return default or 0
        value = decode_unsigned(text)
        if value is None or (default is None and value == 0):
            raise Refused("Invalid count")
        return value

    def offset(self) -> int:
        text = self.optional("offset")
        value = 0 if text is None else decode_unsigned(text)
        if value is None:
            raise Refused("Invalid offset")
        return value

    def threshold(self) -> int:
        text = self.optional("threshold")
        value = 0 if text is None else decode_amount(text)
        if value is None:
            raise Refused("Bad threshold number")
        return value

    def work(self) -> int:
        text = self.optional("work")
        value = 0 if text is None else decode_u64(text)
        if value is None:
            raise Refused("Bad work")
        return value

    def block(self) -> StateBlock | Legacy:
        """The field `block`: an object with `json_block`, else a JSON text. Raises Refused("Block is invalid")."""
        if self.flag("json_block", default=False):
            if "block" not in self.fields:
                raise BadJSON("block")
            value = self.fields["block"]
        else:
            text = self.text("block")
            try:
                value = parse(text)
            except BadJSON as error:
                raise Refused("Block is invalid") from error
        return _block(value if isinstance(value, dict) else {})


def _block(fields: dict[str, Tree]) -> StateBlock | Legacy:
    kind = text_of(fields.get("type", ""))
    if kind in _LEGACY:
        return _legacy(kind, fields)
    if kind != "state":
        raise Refused("Block is invalid")
    names = ("account", "previous", "representative", "balance", "link", "work", "signature")
    if not all(name in fields for name in names):
        raise Refused("Block is invalid")
    texts = {name: text_of(fields[name]) for name in names}
    account = decode_account(texts["account"])
    previous = decode_hash(texts["previous"])
    representative = decode_account(texts["representative"])
    balance = decode_amount(texts["balance"])
    link = decode_account(texts["link"]) if "_" in texts["link"] or "-" in texts["link"] else None
    link = link if link is not None else decode_hash(texts["link"])
    work = decode_u64(texts["work"])
    signature = decode_hex(texts["signature"], 64)
    if account is None or previous is None or representative is None or balance is None or link is None or work is None or signature is None:
        raise Refused("Block is invalid")
    return StateBlock(account, previous, representative, balance, link, signature, f"{work:016x}")


def _legacy(kind: str, fields: dict[str, Tree]) -> Legacy:
    texts = {name: text_of(fields[name]) for name in (*_LEGACY[kind], "work", "signature") if name in fields}
    if len(texts) != len(_LEGACY[kind]) + 2:
        raise Refused("Block is invalid")
    for name, text in texts.items():
        if name in ("destination", "representative", "account"):
            good = decode_account(text) is not None
        elif name == "balance":
            good = decode_hex(text, 16) is not None
        elif name == "work":
            good = decode_u64(text) is not None
        else:
            good = decode_hex(text, 64 if name == "signature" else 32) is not None
        if not good:
            raise Refused("Block is invalid")
    previous = decode_hash(texts["previous"]) if "previous" in texts else None
    return Legacy(kind, previous or ZERO)
