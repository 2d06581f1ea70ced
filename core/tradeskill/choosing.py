"""Which of a quote's invoices the buyer pays: one that its wallets can pay and its caps allow, by the rail that its policy likes best."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tradeskill import policy
from tradeskill.contracts import Wallet
from tradeskill.errors import RefusedError, TradeskillError, UntrustedError
from tradeskill.model import Invoice
from tradeskill.money import Amount, in_unit

__all__ = ["by_preference", "payable"]

log = logging.getLogger("tradeskill.buyer")


def payable(invoices: Sequence[Invoice], wallets: Mapping[str, Wallet], prices: Sequence[Amount], job: str) -> list[Invoice]:
    """Those on a rail of ours, in a unit of the offer's `prices` where it has some, because no other can be compared with them.

    UntrustedError where a seller signed one that no wallet may pay; RefusedError, with the reason, where none is left.
    """
    found: list[Invoice] = []
    trouble: RefusedError | None = None
    for invoice in invoices:
        wallet = wallets.get(invoice.rail)
        if wallet is None or wallet.unit != invoice.amount.unit or (prices and in_unit(prices, wallet.unit) is None):
            continue
        try:
            wallet.check(invoice)
        except UntrustedError:
            raise
        except RefusedError as error:
            trouble = trouble or error
        else:
            found.append(invoice)
    if not found:
        rails = ", ".join(invoice.rail for invoice in invoices)
        raise trouble or RefusedError(f"job {job}: payable by {rails}, this profile has {', '.join(wallets) or 'no wallet'}")
    return found


async def by_preference(
    found: Sequence[Invoice], verdicts: Sequence[policy.Verdict], rails: Sequence[str], wallets: Mapping[str, Wallet]
) -> Invoice:
    """The first that no rule refuses and whose wallet holds enough, by the order of `rails`, then of the wallets; where there is none, the least bad.

    `verdicts`: what the policy says of each. What is chosen is judged again when it is reserved.
    """
    order = [*rails, *wallets]
    ranks = []
    for place, (invoice, verdict) in enumerate(zip(found, verdicts, strict=True)):
        refused, asks = isinstance(verdict, policy.Refused), isinstance(verdict, policy.Ask)
        ranks.append((refused, await _lacking(wallets[invoice.rail], invoice.amount), asks, order.index(invoice.rail), place))
    return found[min(ranks)[-1]]


async def _lacking(wallet: Wallet, amount: Amount) -> bool:
    """Whether the wallet says that it holds less. One that cannot be asked may hold enough."""
    try:
        balance = await wallet.balance()
    except TradeskillError as error:
        log.warning("balance of the rail %s: %s", wallet.rail, error)
        return False
    return balance.available.value + balance.incoming.value < amount.value
