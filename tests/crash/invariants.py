"""What must hold once a scene is over, whatever died in it: judged from both journals, both wallets' stores, the disk and the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tests.crash.evidence import Books, read_books
from tests.crash.scene import FUNDS, PRICE, Scene
from tradeskill_wallet.primitives import encode_address

Outcome = Literal["delivered", "refunded"]
KEPT = {"starts": "job_id", "fulfilments": "job_id", "invoices": "invoice_id", "payments": "payment_id", "blocks": "hash", "accounts": "account"}


async def judge(scene: Scene, outcome: Outcome, jobs: int = 1, kept: int = 0) -> list[str]:
    """The violations of a scene with `jobs` purchases that all ended as `outcome`; call after `Scene.gather_money`.

    `kept`: executions that must stay, because a worker that was only asleep might have asked for them again.
    """
    seller, buyer = read_books(scene.seller_home), read_books(scene.buyer_home)
    found = [*_selling(seller, outcome, jobs), *_buying(buyer, outcome, jobs), *_addresses(seller)]
    if scene.ran() != jobs:
        found.append(f"the program ran {scene.ran()} times for {jobs} jobs")
    left = [path.name for path in (scene.seller_home / "backends" / "process").glob("[!.]*")]
    if len(left) != kept:
        found.append(f"executions left behind, {kept} should be: {left}")
    return found + await _money(scene, seller, buyer, outcome, jobs) + await _chains(scene, seller) + await _chains(scene, buyer)


def _selling(books: Books, outcome: Outcome, jobs: int) -> Iterator[str]:
    state, payment = ("delivered", "allocated") if outcome == "delivered" else ("failed", "refunded")
    if [row["state"] for row in books.fulfilments] != [state] * jobs:
        yield f"fulfilments are {[row['state'] for row in books.fulfilments]}, not {jobs} {state}"
    if sorted((row["job_id"], row["attempt"]) for row in books.starts) != sorted((row["job_id"], 1) for row in books.fulfilments):
        yield f"{len(books.starts)} committed starts for {jobs} jobs: {books.starts}"
    if [(row["state"], row["amount"]) for row in books.payments] != [(payment, str(PRICE))] * jobs:
        yield f"payments are {[(row['state'], row['amount']) for row in books.payments]}, not {jobs} {payment} of {PRICE}"
    if outcome == "delivered" and len([row for row in books.fulfilments if row["result_sha256"] and row["receipt"]]) != jobs:
        yield "a delivered job lacks its result or receipt"
    if books.effects:
        yield f"effects not done: {[(row['name'], row['state'], row['last_error']) for row in books.effects]}"
    fences = [row["fence"] for row in books.fulfilments]
    if min(fences, default=0) < 1 or max(fences, default=0) > books.fence or len(set(fences)) != len(fences):
        yield f"fences {fences} with the counter at {books.fence}"


def _buying(books: Books, outcome: Outcome, jobs: int) -> Iterator[str]:
    state, held = ("received", "committed") if outcome == "delivered" else ("refunded", "released")
    if [row["state"] for row in books.purchases] != [state] * jobs:
        yield f"purchases are {[(row['state'], row['error_message']) for row in books.purchases]}, not {jobs} {state}"
    if [(row["state"], row["amount"]) for row in books.reservations] != [(held, str(PRICE))] * jobs:
        yield f"reservations are {[(row['state'], row['amount']) for row in books.reservations]}, not {jobs} {held} of {PRICE}"
    totals = {"spent:raw": jobs * PRICE if outcome == "delivered" else 0, "reserved:raw": 0}
    if {name: books.totals.get(name, 0) for name in totals} != totals:
        yield f"totals are {books.totals}, not {totals}"
    if len(books.block("pay:")) != jobs:
        yield f"the buyer signed {len(books.block('pay:'))} payments for {jobs} purchases"


def _addresses(books: Books) -> Iterator[str]:
    issued = [row["address"] for row in books.invoices]
    if len(set(issued)) != len(issued):
        yield "an address was given to two jobs"
    known = {encode_address(bytes.fromhex(row["account"])): row for row in books.accounts}
    for invoice in books.invoices:
        row = known.get(invoice["address"])
        if row is None or row["job_id"] != invoice["job_id"]:
            yield f"the wallet does not know {invoice['address']} as the address of job {invoice['job_id']}"


async def _money(scene: Scene, seller: Books, buyer: Books, outcome: Outcome, jobs: int) -> list[str]:
    """Exactly one confirmed send to each invoice; every raw is where it belongs."""
    found = []
    earned = jobs * PRICE if outcome == "delivered" else 0
    holds = {"seller": await scene.held(scene.seller_home), "buyer": await scene.held(scene.buyer_home)}
    if holds != {"seller": earned, "buyer": FUNDS - earned}:
        found.append(f"the main accounts hold {holds}; the seller should have earned {earned} out of {FUNDS}")
    mains = [row["account"] for row in buyer.accounts if row["kind"] == "main"]
    sends = [entry for account in mains for entry in await _history(scene, account) if entry["subtype"] == "send"]
    to = sorted((entry["account"], entry["amount"], entry["confirmed"]) for entry in sends)
    if to != sorted((invoice["address"], str(PRICE), "true") for invoice in seller.invoices):
        found.append(f"the buyer's sends are {to}, the invoices {[invoice['address'] for invoice in seller.invoices]}")
    for invoice in seller.invoices:
        account = next((row["account"] for row in seller.accounts if row["job_id"] == invoice["job_id"]), "")
        moves = [(entry["subtype"], entry["amount"]) for entry in await _history(scene, account)] if account else []
        if sorted(moves) != [("receive", str(PRICE)), ("send", str(PRICE))]:
            found.append(f"on the invoice {invoice['address']} the ledger shows {moves}, not one receive and one send")
    return found


async def _chains(scene: Scene, books: Books) -> list[str]:
    """The store and the ledger tell the same story: no living block that is not confirmed there, and none there that is not stored."""
    stored = {block["hash"] for block in books.blocks if block["state"] == "confirmed"}
    shown = {entry["hash"] for row in books.accounts for entry in await _history(scene, row["account"])}
    dead = [block["purpose"] for block in books.blocks if block["state"] == "dead"]
    found = [f"a block was signed in vain: {purpose}" for purpose in dead]
    return found if stored == shown else [*found, f"{len(stored)} blocks are confirmed in the store, {len(shown)} on the ledger, {len(stored & shown)} in both"]


async def _history(scene: Scene, account: str) -> list[dict[str, str]]:
    answer = await scene.ledger.ask("account_history", account=encode_address(bytes.fromhex(account)), count="-1", raw="true")
    history: list[dict[str, str]] = answer.get("history") or []
    return history


def since_death(before: Books, after: Books) -> list[str]:
    """What a death must not undo: nothing that was committed is gone, nothing signed is signed anew, the fence only grows."""
    found = []
    for name, key in KEPT.items():
        lost = {row[key] for row in getattr(before, name)} - {row[key] for row in getattr(after, name)}
        if lost:
            found.append(f"lost from {name}: {lost}")
    held = [row["fence"] for row in before.fulfilments if row["state"] in ("leased", "started")]
    if after.fence < before.fence or (held and max(row["fence"] for row in after.fulfilments) <= max(held)):
        found.append(f"the fence went from {before.fence} to {after.fence}, held {held}")
    before_purposes = {block["purpose"] for block in before.blocks}
    if anew := {block["purpose"] for block in after.blocks if block["hash"] not in {b["hash"] for b in before.blocks}} & before_purposes:
        found.append(f"signed anew after the crash: {anew}")
    return found
