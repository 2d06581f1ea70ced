"""Actions that look at accounts: account_info, balances, frontiers, representatives and history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tradeskill_wallet.devnet.answers import Action, Answer, entry_of, upper, walk
from tradeskill_wallet.devnet.chain import Chain
from tradeskill_wallet.devnet.genesis import GENESIS_ACCOUNT, LegacyOpen
from tradeskill_wallet.devnet.ledger import Entry, Ledger
from tradeskill_wallet.devnet.request import Refused, Request
from tradeskill_wallet.devnet.wire import Tree, decode_hash
from tradeskill_wallet.primitives import BURN, ZERO, encode_address

__all__ = ["ACCOUNTS"]


def _account_info(chain: Chain, request: Request) -> Answer:
    ledger, account = chain.view, request.account()
    info = ledger.accounts.get(account)
    if info is None:
        raise Refused("Account not found")
    confirmed = request.flag("include_confirmed", default=False)
    frontier = ledger.entries.get(info.confirmed_frontier)
    answer: Answer = {
        "frontier": upper(info.head),
        "open_block": upper(info.open_block),
        "representative_block": upper(info.head),
        "balance": str(info.balance),
    }
    if confirmed:
        answer["confirmed_balance"] = str(frontier.balance if frontier else 0)
    answer |= {
        "modified_timestamp": str(info.modified),
        "block_count": str(info.count),
        "account_version": str(info.epoch),
        "confirmed_height" if confirmed else "confirmation_height": str(info.confirmed_height),
        "confirmed_frontier" if confirmed else "confirmation_height_frontier": upper(info.confirmed_frontier),
    }
    if request.flag("representative", default=False):
        answer["representative"] = encode_address(info.representative)
        if confirmed:
            answer["confirmed_representative"] = encode_address(frontier.block.representative if frontier else BURN)
    if request.flag("weight", default=False):
        answer["weight"] = str(ledger.weights.get(account, 0))
    if request.flag("receivable", request.flag("pending", default=False)):
        total = str(ledger.balance_of(account, confirmed=False)[1])
        answer |= {"pending": total, "receivable": total}
        if confirmed:
            total = str(ledger.balance_of(account, confirmed=True)[1])
            answer |= {"confirmed_pending": total, "confirmed_receivable": total}
    return answer


def _balances(chain: Chain, request: Request, account: bytes) -> Answer:
    balance, receivable = chain.view.balance_of(account, confirmed=request.flag("include_only_confirmed", default=True))
    return {"balance": str(balance), "pending": str(receivable), "receivable": str(receivable)}


def _account_balance(chain: Chain, request: Request) -> Answer:
    return _balances(chain, request, request.account())


def _by_account(request: Request, name: str, ask: Callable[[str, bytes], tuple[str, Tree]]) -> Answer:
    """What `ask` says of each account, and under `errors` why it has nothing to say."""
    found: Answer = {}
    errors: Answer = {}
    for text in request.items("accounts"):
        try:
            key, value = ask(text, request.account(text))
            found[key] = value
        except Refused as error:
            errors[text] = str(error)
    answer: Answer = {name: found} if found else {}
    return answer | ({"errors": errors} if errors else {})


def _accounts_balances(chain: Chain, request: Request) -> Answer:
    return _by_account(request, "balances", lambda text, account: (text, _balances(chain, request, account)))


def _accounts_frontiers(chain: Chain, request: Request) -> Answer:
    def frontier(text: str, account: bytes) -> tuple[str, Tree]:
        info = chain.view.accounts.get(account)
        if info is None:
            raise Refused("Account not found")
        return encode_address(account), upper(info.head)

    return _by_account(request, "frontiers", frontier)


def _account_representative(chain: Chain, request: Request) -> Answer:
    info = chain.view.accounts.get(request.account())
    if info is None:
        raise Refused("Account not found")
    return {"representative": encode_address(info.representative)}


def _history_entry(ledger: Ledger, entry: Entry, wanted: set[bytes], *, raw: bool) -> Answer:
    """One line of history; empty when the node would leave it out."""
    block = entry.block
    line: Answer = {}
    if isinstance(block, LegacyOpen):
        line["type"] = "open" if raw else "receive"
        if raw:
            line |= {"representative": encode_address(block.representative), "source": upper(block.source), "opened": encode_address(block.account)}
        return line | {"account": encode_address(block.account), "amount": str(entry.amount)}
    if raw:
        line = {
            "type": "state",
            "representative": encode_address(block.representative),
            "link": upper(block.link),
            "balance": str(block.balance),
            "previous": upper(block.previous),
        }
    kind = "subtype" if raw else "type"
    if entry.kind in ("change", "epoch"):
        if raw and not wanted:
            line[kind] = entry.kind
            if entry.kind == "epoch":
                line["account"] = encode_address(GENESIS_ACCOUNT)
        return line
    other = block.link if entry.kind == "send" else ledger.entries[block.link].account
    if wanted and other not in wanted:
        return {}
    return line | {kind: entry.kind, "account": encode_address(other), "amount": str(entry.amount)}


def _account_history(chain: Chain, request: Request) -> Answer:
    ledger = chain.view
    wanted = {request.account(text) for text in request.items("account_filter")} if request.has("account_filter") else set()
    reverse, raw = request.flag("reverse", default=False), request.flag("raw", default=False)
    count, offset = request.count(), request.offset()
    if request.has("head"):
        start = decode_hash(request.text("head"))
        if start is None:
            raise Refused("Bad hash number")
        account = entry_of(chain, start).account
    else:
        account = request.account()
        info = ledger.accounts.get(account)
        if info is None and reverse:
            raise Refused("Account not found")
        start = ZERO if info is None else info.open_block if reverse else info.head
    history: list[Tree] = []
    rest = ZERO
    for place, entry in enumerate(walk(ledger, start, forwards=reverse)):
        if len(history) >= count:
            rest = entry.hash
            break
        line = _history_entry(ledger, entry, wanted, raw=raw) if place >= offset else {}
        if line:
            line |= {
                "local_timestamp": str(entry.timestamp),
                "height": str(entry.height),
                "hash": upper(entry.hash),
                "confirmed": "true" if entry.confirmed else "false",
            }
            if raw:
                shown = entry.block.to_json()
                line |= {"work": shown["work"], "signature": shown["signature"]}
            history.append(line)
    answer: Answer = {"account": encode_address(account), "history": history}
    if rest != ZERO:
        answer["next" if reverse else "previous"] = upper(rest)
    return answer


ACCOUNTS: Final[dict[str, Action]] = {
    "account_balance": _account_balance,
    "account_history": _account_history,
    "account_info": _account_info,
    "account_representative": _account_representative,
    "accounts_balances": _accounts_balances,
    "accounts_frontiers": _accounts_frontiers,
}
