"""The action `process`: the checks the node makes before its ledger sees a block, in its order."""

from __future__ import annotations

from tradeskill_wallet.devnet.answers import Answer
from tradeskill_wallet.devnet.chain import Chain
from tradeskill_wallet.devnet.genesis import EPOCH_LINKS
from tradeskill_wallet.devnet.request import Legacy, Refused, Request
from tradeskill_wallet.devnet.rules import Outcome
from tradeskill_wallet.primitives import ZERO, StateBlock, work_value

__all__ = ["process"]

_BAD_BALANCE = "Invalid block balance for given subtype"
_BAD_PREVIOUS = "Invalid previous block for given subtype"


def _check_subtype(chain: Chain, block: StateBlock, subtype: str) -> None:
    """The node compares with the account's *present* balance: a retried send fails here, before it could be called old."""
    if block.previous != ZERO and block.previous not in chain.ledger.entries:
        raise Refused(Outcome.GAP_PREVIOUS.value)
    account = chain.ledger.accounts.get(block.account)
    held = account.balance if account else 0
    if subtype == "send":
        problem = _BAD_BALANCE if held <= block.balance else ""
    elif subtype == "receive":
        problem = _BAD_BALANCE if held > block.balance else ""
    elif subtype == "open":
        problem = _BAD_PREVIOUS if block.previous != ZERO else ""
    elif subtype == "change":
        problem = _BAD_BALANCE if held != block.balance else _BAD_PREVIOUS if block.previous == ZERO else ""
    elif subtype == "epoch":
        problem = _BAD_BALANCE if held != block.balance else "Invalid epoch link" if block.link not in EPOCH_LINKS else ""
    else:
        problem = "Invalid block subtype"
    if problem:
        raise Refused(problem)


async def process(chain: Chain, request: Request) -> Answer:
    """Publish a block. The answer says that it is in the ledger and durable, or why not; `async` hides what the ledger says."""
    hidden = request.flag("async", default=False)
    block = request.block()
    if isinstance(block, Legacy):
        # Legacy blocks may only follow legacy blocks, and of those there is one: genesis, which nobody has a reason to build on.
        if hidden:
            raise Refused("Must be a state block")
        known = block.kind == "open" or block.previous in chain.ledger.entries
        raise Refused((Outcome.BLOCK_POSITION if known else Outcome.GAP_PREVIOUS).value)
    subtype = request.optional("subtype")
    if subtype:
        _check_subtype(chain, block, subtype)
    if work_value(block.root, block.work) < chain.ledger.thresholds.entry:
        raise Refused("Block work is less than threshold")
    force = request.flag("force", default=False)
    outcome = chain.submit(block, force=force and not hidden)
    await chain.durable()
    if hidden:
        return {"started": "1"}
    if outcome is Outcome.PROGRESS or (outcome is Outcome.FORK and force):
        return {"hash": block.hash_hex}
    raise Refused(outcome.value)
