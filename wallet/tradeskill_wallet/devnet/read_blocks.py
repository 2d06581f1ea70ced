"""Actions that look at blocks: block_info, blocks_info, chain, successors, unchecked and the counts."""

from __future__ import annotations

from typing import Final

from tradeskill_wallet.devnet.answers import Action, Answer, entry_of, shown_block, upper, walk
from tradeskill_wallet.devnet.chain import Chain
from tradeskill_wallet.devnet.ledger import Entry
from tradeskill_wallet.devnet.request import ALL, Refused, Request
from tradeskill_wallet.devnet.wire import Tree, decode_hash
from tradeskill_wallet.primitives import ZERO, encode_address

__all__ = ["BLOCKS"]


def _block_fields(request: Request, entry: Entry) -> Answer:
    answer: Answer = {
        "block_account": encode_address(entry.account),
        "amount": str(entry.amount),
        "balance": str(entry.balance),
        "height": str(entry.height),
        "local_timestamp": str(entry.timestamp),
        "successor": upper(entry.successor),
        "confirmed": "true" if entry.confirmed else "false",
        "contents": shown_block(request, entry.block),
    }
    if entry.kind:
        answer["subtype"] = entry.kind
    return answer


def _block_info(chain: Chain, request: Request) -> Answer:
    return _block_fields(request, entry_of(chain, request.hash()))


def _blocks_info(chain: Chain, request: Request) -> Answer:
    receivable = request.flag("receivable", request.flag("pending", default=False))
    receive_hash = request.flag("receive_hash", default=False)
    source = request.flag("source", default=False)
    include_not_found = request.flag("include_not_found", default=False)
    blocks: Answer = {}
    missing: list[Tree] = []
    for text in request.items("hashes"):
        block_hash = decode_hash(text)
        if block_hash is None:
            raise Refused("Bad hash number")
        entry = chain.view.entries.get(block_hash)
        if entry is None:
            if not include_not_found:
                raise Refused("Block not found")
            missing.append(text)
            continue
        answer = _block_fields(request, entry)
        if receivable:
            waits = "1" if entry.kind == "send" and chain.view.receivable(entry.block.link, entry.hash) else "0"
            answer |= {"pending": waits, "receivable": waits}
        if receive_hash:
            answer["receive_hash"] = upper(chain.view.received_by.get(entry.hash, ZERO))
        if source:
            sent = chain.view.entries[entry.block.link] if entry.kind == "receive" else None
            answer["source_account"] = encode_address(sent.account) if sent else "0"
        blocks[text] = answer
    return {"blocks": blocks, "blocks_not_found": missing} if include_not_found else {"blocks": blocks}


def _block_account(chain: Chain, request: Request) -> Answer:
    return {"account": encode_address(entry_of(chain, request.hash()).account)}


def _block_count(chain: Chain, request: Request) -> Answer:
    ledger = chain.view
    return {"count": str(len(ledger.entries)), "unchecked": str(len(ledger.unchecked)), "cemented": str(ledger.cemented)}


def _chain(chain: Chain, request: Request, *, forwards: bool = False) -> Answer:
    forwards = forwards != request.flag("reverse", default=False)
    start, count, offset = request.hash("block"), request.count(), request.offset()
    blocks: list[Tree] = []
    for place, entry in enumerate(walk(chain.view, start, forwards=forwards)):
        if len(blocks) >= count:
            break
        if place >= offset:
            blocks.append(upper(entry.hash))
    return {"blocks": blocks}


def _successors(chain: Chain, request: Request) -> Answer:
    return _chain(chain, request, forwards=True)


def _unchecked(chain: Chain, request: Request) -> Answer:
    count = request.count(ALL)
    waiting = list(chain.view.unchecked.items())[:count]
    return {"blocks": {upper(block_hash): shown_block(request, block) for block_hash, block in waiting}}


BLOCKS: Final[dict[str, Action]] = {
    "block_account": _block_account,
    "block_count": _block_count,
    "block_info": _block_info,
    "blocks_info": _blocks_info,
    "chain": _chain,
    "successors": _successors,
    "unchecked": _unchecked,
}
