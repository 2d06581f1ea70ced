"""What the reading actions share: how a block, a hash and a missing block are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tradeskill_wallet.devnet.chain import Chain
from tradeskill_wallet.devnet.genesis import LegacyOpen
from tradeskill_wallet.devnet.ledger import Entry, Ledger
from tradeskill_wallet.devnet.request import Refused, Request
from tradeskill_wallet.devnet.wire import Tree, dump
from tradeskill_wallet.primitives import StateBlock, encode_address

__all__ = ["Action", "Answer", "contents", "entry_of", "shown_block", "upper", "walk"]

Answer = dict[str, Tree]
Action = Callable[[Chain, Request], Answer]


def upper(value: bytes) -> str:
    return value.hex().upper()


def contents(block: StateBlock | LegacyOpen) -> Answer:
    """A block as the node shows it: as it is sent, with `link_as_account` before the signature."""
    shown: Answer = dict(block.to_json())
    if isinstance(block, StateBlock):
        signature, work = shown.pop("signature"), shown.pop("work")
        shown |= {"link_as_account": encode_address(block.link), "signature": signature, "work": work}
    return shown


def shown_block(request: Request, block: StateBlock | LegacyOpen) -> Tree:
    shown = contents(block)
    return shown if request.flag("json_block", default=False) else dump(shown)


def entry_of(chain: Chain, block_hash: bytes) -> Entry:
    entry = chain.view.entries.get(block_hash)
    if entry is None:
        raise Refused("Block not found")
    return entry


def walk(ledger: Ledger, start: bytes, *, forwards: bool) -> Iterator[Entry]:
    """The chain from a block on, towards its account's newest block or towards its first."""
    entry = ledger.entries.get(start)
    while entry is not None:
        yield entry
        entry = ledger.entries.get(entry.successor if forwards else entry.previous)
