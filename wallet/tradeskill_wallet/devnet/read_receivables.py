"""Actions that look at what waits to be received, under their present and their old names."""

from __future__ import annotations

from typing import Final

from tradeskill_wallet.devnet.answers import Action, Answer, entry_of, upper
from tradeskill_wallet.devnet.chain import Chain
from tradeskill_wallet.devnet.ledger import Receivable
from tradeskill_wallet.devnet.request import ALL, Request
from tradeskill_wallet.devnet.wire import Tree
from tradeskill_wallet.primitives import encode_address

__all__ = ["RECEIVABLES"]


def _visible(chain: Chain, block_hash: bytes, *, active: bool, only_confirmed: bool) -> bool:
    entry = chain.view.entries[block_hash]
    if entry.confirmed or (active and not only_confirmed):
        return True
    return not only_confirmed and not chain.confirmation.active(entry)


def _receivable(chain: Chain, request: Request) -> Answer:
    account, count, offset, threshold = request.account(), request.count(ALL), request.offset(), request.threshold()
    source, min_version = request.flag("source", default=False), request.flag("min_version", default=False)
    active = request.flag("include_active", default=False)
    only_confirmed = request.flag("include_only_confirmed", default=True)
    sorting = request.flag("sorting", default=False)
    simple = not (threshold or source or min_version or sorting)
    found: list[tuple[bytes, Receivable]] = []
    skipped = 0
    for block_hash, item in chain.view.receivables(account):
        if not sorting and len(found) >= count:
            break
        if not _visible(chain, block_hash, active=active, only_confirmed=only_confirmed):
            continue
        if not sorting and skipped < offset:
            skipped += 1  # the offset counts also what the threshold would leave out
        elif item.amount >= threshold:
            found.append((block_hash, item))
    if sorting:
        found = sorted(found, key=lambda pair: -pair[1].amount)[offset : offset + count]
    if simple:
        return {"blocks": [upper(block_hash) for block_hash, _ in found]}
    return {"blocks": {upper(block_hash): _item(item, source=source, min_version=min_version) for block_hash, item in found}}


def _item(item: Receivable, *, source: bool, min_version: bool) -> Tree:
    if not source and not min_version:
        return str(item.amount)
    answer: Answer = {"amount": str(item.amount)}
    if source:
        answer["source"] = encode_address(item.source)
    if min_version:
        answer["min_version"] = str(item.epoch)
    return answer


def _accounts_receivable(chain: Chain, request: Request) -> Answer:
    count, threshold = request.count(ALL), request.threshold()
    source, sorting = request.flag("source", default=False), request.flag("sorting", default=False)
    only_confirmed = request.flag("include_only_confirmed", default=True)
    simple = not (threshold or source or sorting)
    blocks: Answer = {}
    for text in request.items("accounts"):
        account = request.account(text)
        found: list[tuple[bytes, Receivable]] = []
        for block_hash, item in chain.view.receivables(account):
            if len(found) >= count:
                break
            if item.amount >= threshold and (not only_confirmed or chain.view.entries[block_hash].confirmed):
                found.append((block_hash, item))
        if sorting:
            found.sort(key=lambda pair: -pair[1].amount)
        if found and simple:
            blocks[encode_address(account)] = [upper(block_hash) for block_hash, _ in found]
        elif found:
            blocks[encode_address(account)] = {upper(key): _item(item, source=source, min_version=False) for key, item in found}
    return {"blocks": blocks}


def _receivable_exists(chain: Chain, request: Request) -> Answer:
    entry = entry_of(chain, request.hash())
    active = request.flag("include_active", default=False)
    only_confirmed = request.flag("include_only_confirmed", default=True)
    waits = entry.kind == "send" and chain.view.receivable(entry.block.link, entry.hash) is not None
    return {"exists": "1" if waits and _visible(chain, entry.hash, active=active, only_confirmed=only_confirmed) else "0"}


def _deprecated(ask: Action) -> Action:
    """An old name of an action: it says so first."""
    return lambda chain, request: {"deprecated": "1", **ask(chain, request)}


RECEIVABLES: Final[dict[str, Action]] = {
    "accounts_pending": _deprecated(_accounts_receivable),
    "accounts_receivable": _accounts_receivable,
    "pending": _deprecated(_receivable),
    "pending_exists": _deprecated(_receivable_exists),
    "receivable": _receivable,
    "receivable_exists": _receivable_exists,
}
