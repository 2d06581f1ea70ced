"""Which accounts of a seed does the ledger know? The gap scan after a restore, and the check that a new address was never used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tradeskill.errors import AmountError, UnavailableError
from tradeskill.model import Json
from tradeskill.money import parse_raw
from tradeskill_wallet.keys import EPOCHS, MAINS, PER_EPOCH, Keys, invoice_index
from tradeskill_wallet.primitives import encode_address
from tradeskill_wallet.rpc import Nodes

__all__ = ["EMPTY_EPOCHS", "Found", "gap_scan", "probe"]

EMPTY_EPOCHS: Final = 8  # so many unused epochs in a row end a scan; a new epoch is always chosen nearer than that


@dataclass(frozen=True)
class Found:
    """An account of the seed that the ledger knows. Amounts as one node says, for showing only."""

    index: int
    epoch: int
    account: bytes
    opened: bool
    balance: int
    receivable: int

    @property
    def address(self) -> str:
        return encode_address(self.account)

    @property
    def main(self) -> bool:
        return self.index < MAINS


async def probe(nodes: Nodes, accounts: Sequence[tuple[int, bytes]]) -> list[Found]:
    """Those of the (index, account) pairs that were ever used: opened, or with anything on its way to them, confirmed or not."""
    addresses: list[Json] = [encode_address(account) for _, account in accounts]
    frontiers, balances = await asyncio.gather(
        nodes.call("accounts_frontiers", accounts=addresses),
        nodes.call("accounts_balances", accounts=addresses, include_only_confirmed="false"),
    )
    opened, amounts = frontiers.get("frontiers"), balances.get("balances")
    if not isinstance(amounts, dict):
        raise UnavailableError("a node answered accounts_balances without balances: try again, or use another node")
    found = []
    for index, account in accounts:
        address = encode_address(account)
        is_open = isinstance(opened, dict) and address in opened
        balance, receivable = _amounts(amounts.get(address))
        if is_open or balance or receivable:
            found.append(Found(index, index // PER_EPOCH, account, is_open, balance, receivable))
    return found


async def gap_scan(nodes: Nodes, keys: Keys, gap: int) -> list[Found]:
    """Every used account: the main ones, then each epoch's invoices until `gap` unused in a row, epochs until EMPTY_EPOCHS unused in a row.

    An invoice paid after more than `gap` unpaid ones in a row is missed: scan with a larger gap if you miss money.
    """
    found = await probe(nodes, [(index, keys.account(index)) for index in range(MAINS)])
    empty = epoch = 0
    while epoch < EPOCHS and empty < EMPTY_EPOCHS:
        used = await _scan_epoch(nodes, keys, epoch, gap)
        found += used
        empty = 0 if used else empty + 1
        epoch += 1
    return found


async def _scan_epoch(nodes: Nodes, keys: Keys, epoch: int, gap: int) -> list[Found]:
    found: list[Found] = []
    start, last = 0, -1
    while start <= last + gap and start < PER_EPOCH - MAINS:
        numbers = range(start, min(last + gap + 1, PER_EPOCH - MAINS))
        indexes = [invoice_index(epoch, number) for number in numbers]
        used = await probe(nodes, [(index, keys.account(index)) for index in indexes])
        found += used
        start = numbers.stop
        if used:
            last = used[-1].index - invoice_index(epoch, 0)
    return found


def _amounts(entry: Json) -> tuple[int, int]:
    if not isinstance(entry, dict):
        raise UnavailableError("a node left an account out of accounts_balances: try again, or use another node")
    try:
        return parse_raw(entry.get("balance")), parse_raw(entry.get("receivable"))
    except AmountError as error:
        raise UnavailableError(f"a node answered accounts_balances with a bad amount: {error}") from error
