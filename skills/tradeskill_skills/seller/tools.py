"""The seller's tools: the worker's steps by hand, on the same rows, with the same checks and the same fence."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from tradeskill.contracts import Limits
from tradeskill.downloads import FOLDER as DOWNLOADS
from tradeskill.errors import InputError, NotFoundError, StateError
from tradeskill.journal import Fulfilment, selling
from tradeskill.journal.records import read_document
from tradeskill.model import Job, Result
from tradeskill.money import Amount, format_amount
from tradeskill.skills import tool

if TYPE_CHECKING:
    from tradeskill.profile import Profile

__all__ = ["FulfilmentView", "deliver", "fulfilment_view", "list_jobs", "lock", "quote", "register_offer", "sell", "verify_payment"]

NO_OFFERS = "this profile's configuration has no offers: write them into its config.yaml, or give the file with --config"
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*(?:; ?[a-z0-9-]+=[A-Za-z0-9._-]+)*", re.ASCII)


class FulfilmentView(TypedDict):
    job_id: str
    state: str
    offer: str
    buyer: str
    input: Any
    invoices: list[dict[str, str]]
    payments: list[dict[str, str]]
    fence: int
    attempt: int
    result_sha256: str | None
    error: dict[str, str] | None
    untrusted: Literal[True]


@tool(spends=False, repeatable=True)
async def register_offer(profile: Profile, name: str = "") -> list[dict[str, Any]]:
    """Publish the configured offers (or the one called `name`) on the market. Repeatable; an unchanged offer keeps its version."""
    from tradeskill_skills.buyer.views import offer_view

    listings = profile.listings()
    if name and name not in listings:
        raise NotFoundError(f"offer {name!r} is not configured: {', '.join(listings) or NO_OFFERS}")
    await (await profile.seller()).publish()
    return [dict(offer_view(listing.offer)) for listing in listings.values() if name in ("", listing.name)]


@tool(reads=True)
async def list_jobs(profile: Profile, states: list[str] | None = None, limit: int = 50) -> list[FulfilmentView]:
    """The jobs of this seller, with input and payments. Reads only.

    First those that were requested at the market and not looked at yet (state `requested`), then the rest, newest change first.
    """
    wanted = tuple(states or ())
    fresh = [_requested_view(job) for job in await _unseen(profile)] if not wanted or "requested" in wanted else []
    rows = profile.journal.read(lambda c: selling.fulfilments(c, wanted, limit))
    return [*fresh, *[fulfilment_view(profile, row) for row in rows]][:limit]


@tool(spends=False, repeatable=True)
async def quote(profile: Profile, job_id: str) -> FulfilmentView:
    """Check a requested job (signature, offer version, input, capacity) and send a signed quote with a fresh invoice, or decline it with the reason."""
    if not profile.config.offers:
        raise NotFoundError(f"job {job_id} cannot be judged: {NO_OFFERS}")
    seller = await profile.seller()
    await seller.publish()
    await seller.observe(await (await profile.market()).get(job_id))
    await seller.run_effects_of(job_id)
    return fulfilment_view(profile, _row(profile, job_id))


@tool(spends=True, repeatable=True)
async def verify_payment(profile: Profile, job_id: str) -> FulfilmentView:
    """Look for final money on the job's invoices, on this profile's own node. Only this makes a job paid."""
    row = _row(profile, job_id)
    seller = await profile.seller()
    if row.state == "quoted":
        await seller.observe(await (await profile.market()).get(job_id))
    await seller.settling.settle(job_id)
    return fulfilment_view(profile, _row(profile, job_id))


@tool(spends=False, repeatable=True)
async def lock(profile: Profile, job_id: str) -> FulfilmentView:
    """Take the lease on a paid job under a new fence, before working on it. Refused while it is unpaid or another worker holds it."""
    row = _row(profile, job_id)
    if row.state not in ("paid", "leased", "started"):
        raise StateError(f"job {job_id} is {row.state}: only a paid job can be locked")
    leased = await (await profile.seller()).executing.lease(job_id)
    if not isinstance(leased, Fulfilment):
        raise StateError(f"job {job_id} cannot be locked now: another worker holds it, or the buyer has not submitted the payment yet")
    return fulfilment_view(profile, leased)


@tool(spends=False, repeatable=True)
async def deliver(profile: Profile, job_id: str, text: str | None = None, file: str | None = None, media_type: str = "") -> FulfilmentView:
    """Deliver a result made by hand (`text`, or the bytes of `file`) with a signed receipt. Refused unless the job is paid and locked."""
    if (text is None) == (file is None):
        raise InputError("deliver: give either text or file")
    row = _row(profile, job_id)
    if row.state == "delivered":
        return fulfilment_view(profile, row)
    if row.state not in ("leased", "started", "executed"):
        raise StateError(f"job {job_id} is {row.state}: only a paid and locked job can be delivered; use verify_payment, then lock")
    seller = await profile.seller()
    if row.state != "executed":
        data = text.encode() if text is not None else await profile.world.offload(lambda: _read(file or "", profile.home))
        _check_result(profile, row, data, media_type)
        held = await seller.executing.lease(job_id)
        if not isinstance(held, Fulfilment):
            raise StateError(f"job {job_id} cannot be locked now: another worker holds it")
        kind = media_type or ("text/plain; charset=utf-8" if text is not None else "application/octet-stream")
        await seller.executing.finish_by_hand(held, Result(data, kind))
    await seller.run_effects_of(job_id)
    return fulfilment_view(profile, _row(profile, job_id))


@tool(repeatable=True, slow=True)
async def sell(profile: Profile, idle_seconds: float | None = None, drain: bool = False) -> dict[str, int]:
    """Run the worker: quote, verify, execute and deliver until idle for `idle_seconds` (or, with `drain`, until nothing paid is left)."""
    if idle_seconds is None and not drain:
        raise InputError("sell: give idle_seconds or drain: a tool call must end (people use `tradeskill sell`)")
    seller = await profile.seller()
    await seller.run(idle_seconds=idle_seconds, drain=drain)
    counts: dict[str, int] = {}
    for row in profile.journal.read(lambda c: selling.fulfilments(c, (), 1_000_000)):
        counts[row.state] = counts.get(row.state, 0) + 1
    return counts


async def _unseen(profile: Profile) -> list[Job]:
    """Jobs requested since the worker last looked, or at all where none ever ran, that the journal does not know."""
    market = await profile.market()
    found, more, cursor = [], True, profile.journal.read(lambda c: selling.cursor(c, "market"))
    while more:
        changes = await market.changes(cursor)
        found += [job for job in changes.jobs if job.seller == profile.identity.key and job.state == "requested"]
        cursor, more = changes.cursor, changes.more
    return [job for job in found if profile.journal.read(partial(selling.find_fulfilment, job_id=job.job_id)) is None]


def _check_result(profile: Profile, row: Fulfilment, data: bytes, media_type: str) -> None:
    """Before anything is written: a market takes only so much, and a receipt names the type for ever."""
    offer = next((offer for offer in profile.config.offers if offer.name == row.offer_name), None)
    most = Limits().output if offer is None else offer.limits.output
    if len(data) > most:
        raise InputError(f"deliver: the result has {len(data)} bytes, the offer's limits.output is {most}")
    if media_type and (len(media_type) > 255 or _MEDIA_TYPE.fullmatch(media_type) is None):
        raise InputError(f"deliver: media_type {media_type!r:.80} is not one, like text/markdown or image/png")


def _requested_view(job: Job) -> FulfilmentView:
    return {
        "job_id": job.job_id,
        "state": "requested",
        "offer": job.offer_id,
        "buyer": job.buyer,
        "input": job.request.body.get("input"),
        "invoices": [],
        "payments": [],
        "fence": 0,
        "attempt": 0,
        "result_sha256": None,
        "error": None,
        "untrusted": True,
    }


def fulfilment_view(profile: Profile, row: Fulfilment) -> FulfilmentView:
    invoices = profile.journal.read(lambda c: selling.invoices_of(c, row.job_id))
    payments = profile.journal.read(lambda c: selling.payments_of(c, row.job_id))
    return {
        "job_id": row.job_id,
        "state": row.state,
        "offer": row.offer_name,
        "buyer": row.buyer,
        "input": read_document(row.request).body.get("input"),
        "invoices": [{"rail": i.rail, "address": i.address, "amount_raw": i.amount, "unit": i.unit} for i in invoices],
        "payments": [
            {"payment_id": p.payment_id, "state": p.state, "amount_raw": p.amount, "unit": p.unit, "amount": format_amount(Amount(p.value, p.unit))}
            for p in payments
        ],
        "fence": row.fence,
        "attempt": row.attempt,
        "result_sha256": row.result_sha256,
        "error": None if row.error_code is None else {"code": row.error_code, "message": row.error_message or ""},
        "untrusted": True,
    }


def _row(profile: Profile, job_id: str) -> Fulfilment:
    return profile.journal.read(lambda c: selling.fulfilment(c, job_id))


def _read(name: str, home: Path) -> bytes:
    """InputError for the profile's own files (keys, journal): whoever talks a model into delivering one gets nothing. What was downloaded may go."""
    path = Path(name).resolve()
    if path.is_relative_to(home.resolve()) and not path.is_relative_to((home / DOWNLOADS).resolve()):
        raise InputError(f"file {name} belongs to the profile itself and is never delivered")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"file {name} cannot be read: {error.strerror}") from error
