"""The table of calls: method, path, who may call, and how each becomes a step on the book. Routing, OpenAPI and metrics read this table."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from tradeskill.world import World
from tradeskill_plugins.market.book import Book, JobRow
from tradeskill_plugins.relay import wire
from tradeskill_plugins.relay.rawjson import Member
from tradeskill_plugins.relay.server import bodies, lists, tables
from tradeskill_plugins.relay.server.answers import job_json, offer_json
from tradeskill_plugins.relay.server.desk import Answer, Turn

__all__ = ["ENDPOINTS", "Asked", "Endpoint", "find"]


@dataclass(frozen=True)
class Asked:
    """One signed request, as far as a call needs to know. `id`: the path's one parameter, `base`: the URL that this relay is reached at."""

    caller: str
    id: str
    query: bytes
    members: Mapping[str, Member]
    world: World
    base: str
    totals: lists.Totals


Act = Callable[[Turn], Answer]


@dataclass(frozen=True)
class Endpoint:
    """`prepare` checks everything that needs no database and returns the step; what it raises is answered in the step's place."""

    name: str  # the label in metrics and logs, and the operation's id
    method: str
    path: str
    about: str
    kind: Literal["open", "signed", "stream"]
    prepare: Callable[[Asked], Act] | None = None
    bucket: str = "default"
    body: str | None = None  # the name of its schema in openapi.py
    success: int = 200


def _job(row: JobRow, turn: Turn, status: int = 200, data: bytes | None = None) -> Answer:
    if data is None and row["result_size"] is not None:
        data = turn.book.result(row["job_id"])
    return Answer(status, f'{{"job":{job_json(row, data=data)}}}', moved=_moved(row))


def _moved(row: JobRow) -> tuple[str, str | None, str] | None:
    """A row that a step gave back holds the state that it `was` in; a new job has revision 1."""
    return (row["job_id"], row.get("was"), row["state"]) if "was" in row or row["revision"] == 1 else None


def _add_offer(asked: Asked) -> Act:
    entry = bodies.offer(asked.members, asked.caller, _new_id(asked))
    return lambda turn: Answer(201, f'{{"offer":{offer_json(turn.book.publish(entry, turn.now_ms))}}}')


def _put_offer(asked: Asked) -> Act:
    offer_id = wire.job_id("offer_id", asked.id)
    entry = bodies.offer(asked.members, asked.caller, offer_id)
    if entry.offer_id != offer_id:
        raise bodies.wrong_offer(offer_id)

    def put(turn: Turn) -> Answer:
        turn.book.offer(offer_id)  # an offer is made by POST only
        return Answer(200, f'{{"offer":{offer_json(turn.book.publish(entry, turn.now_ms))}}}')

    return put


def _withdraw(asked: Asked) -> Act:
    offer_id = wire.job_id("offer_id", asked.id)
    return lambda turn: Answer(200, f'{{"offer":{offer_json(turn.book.withdraw(asked.caller, offer_id, turn.now_ms))}}}')


def _add_job(asked: Asked) -> Act:
    entry, job_id = bodies.request(asked.members, asked.caller), _new_id(asked)
    return lambda turn: _job(turn.book.request(entry, job_id, turn.now_ms), turn, 201)


def _list_jobs(asked: Asked) -> Act:
    query = lists.query_of(asked.query)
    if "cursor" in query:
        return lambda turn: Answer(200, "", later=lambda book: lists.changes_page(book, asked.caller, query))
    return lambda turn: Answer(200, "", later=lambda book: lists.jobs_page(book, asked.caller, query, asked.totals, asked.world.now_ms()))


def _get_job(asked: Asked) -> Act:
    job_id = wire.job_id("job_id", asked.id)
    return lambda turn: replace(_job(turn.book.get(asked.caller, job_id), turn), moved=None)


def _quote(asked: Asked) -> Act:
    entry = bodies.quote(asked.members, asked.caller, wire.job_id("job_id", asked.id), asked.world.now_ms())
    return lambda turn: _job(turn.book.quote(entry, turn.now_ms), turn)


def _decline(asked: Asked) -> Act:
    job_id, error = wire.job_id("job_id", asked.id), bodies.decline(asked.members)
    return lambda turn: _job(turn.book.decline(asked.caller, job_id, error, turn.now_ms), turn)


def _accept(asked: Asked) -> Act:
    job_id = wire.job_id("job_id", asked.id)
    return lambda turn: _job(turn.book.accept(asked.caller, job_id, turn.now_ms), turn)


def _pay(asked: Asked) -> Act:
    job_id, claim = wire.job_id("job_id", asked.id), bodies.payment(asked.members)
    return lambda turn: _job(turn.book.submit_payment(asked.caller, job_id, claim, turn.now_ms), turn)


def _lock(asked: Asked) -> Act:
    job_id = wire.job_id("job_id", asked.id)

    def lock(turn: Turn) -> Answer:
        row = turn.book.lock(asked.caller, job_id, turn.now_ms)
        left = row["lock_expires_at"] - turn.now_ms
        body = f'{{"job":{job_json(row)},"market_fence":{row["market_fence"]},"lock_expires_in_ms":{left}}}'
        return Answer(200, body, moved=_moved(row))

    return lock


def _deliver(asked: Asked) -> Act:
    job_id = wire.job_id("job_id", asked.id)
    entry, fence = bodies.deliver(asked.members, asked.caller, job_id)
    if entry.data is None:
        return lambda turn: _job(turn.book.deliver(asked.caller, job_id, entry, fence, turn.now_ms), turn)
    token = base64.urlsafe_b64encode(asked.world.random_bytes(24)).decode()
    linked = replace(entry, papers={**entry.papers, "url": f"{asked.base}/v1/results/{token}"})

    def deliver(turn: Turn) -> Answer:
        row = turn.book.deliver(asked.caller, job_id, linked, fence, turn.now_ms)
        turn.db.execute(tables.LINK_ADD, (token, job_id))
        return _job(row, turn, data=linked.data)

    return deliver


def _cancel(asked: Asked) -> Act:
    job_id, reason = wire.job_id("job_id", asked.id), bodies.cancel(asked.members)
    return lambda turn: _job(turn.book.cancel(asked.caller, job_id, reason, turn.now_ms), turn)


def _follow(asked: Asked) -> Act:
    return lambda turn: Answer(200, turn.book.market_id())


def _new_id(asked: Asked) -> str:
    return str(uuid.UUID(bytes=asked.world.random_bytes(16), version=4))


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint("health", "GET", "/health", "Whether the process answers.", "open"),
    Endpoint("ready", "GET", "/ready", "Whether the database answers too.", "open"),
    Endpoint("metrics", "GET", "/metrics", "Prometheus metrics.", "open"),
    Endpoint("docs", "GET", "/docs", "This list, for people.", "open"),
    Endpoint("openapi", "GET", "/docs/json", "This list, as OpenAPI.", "open"),
    Endpoint("capabilities", "GET", "/v1/capabilities", "What this relay can do beyond the protocol, and its limits.", "open"),
    Endpoint("list_offers", "GET", "/v1/offers", "Find offers, newest first.", "open"),
    Endpoint("get_offer", "GET", "/v1/offers/{id}", "One offer, also a withdrawn one.", "open"),
    Endpoint("get_result", "GET", "/v1/results/{id}", "The bytes of a result that was delivered inline.", "open"),
    Endpoint("add_offer", "POST", "/v1/offers", "Put up an offer.", "signed", _add_offer, "strict", "OfferBody", 201),
    Endpoint("put_offer", "PUT", "/v1/offers/{id}", "Replace one's own offer.", "signed", _put_offer, body="OfferBody"),
    Endpoint("withdraw_offer", "DELETE", "/v1/offers/{id}", "Take one's own offer down.", "signed", _withdraw),
    Endpoint("add_job", "POST", "/v1/jobs", "Request a job.", "signed", _add_job, "strict", "JobBody", 201),
    Endpoint("list_jobs", "GET", "/v1/jobs", "One's own jobs, on either side.", "signed", _list_jobs),
    Endpoint("get_job", "GET", "/v1/jobs/{id}", "One job of one's own.", "signed", _get_job),
    Endpoint("quote", "POST", "/v1/jobs/{id}/quote", "Seller: say the price and where to pay it.", "signed", _quote, body="QuoteBody"),
    Endpoint("decline", "POST", "/v1/jobs/{id}/decline", "Seller: say no, with a reason.", "signed", _decline, body="DeclineBody"),
    Endpoint("accept", "POST", "/v1/jobs/{id}/accept", "Buyer: accept the quote.", "signed", _accept, body="EmptyBody"),
    Endpoint("payment", "POST", "/v1/jobs/{id}/payment", "Buyer: say which payment pays.", "signed", _pay, body="PaymentBody"),
    Endpoint("lock", "POST", "/v1/jobs/{id}/lock", "Seller: take or renew the lock.", "signed", _lock, body="EmptyBody"),
    Endpoint("deliver", "POST", "/v1/jobs/{id}/deliver", "Seller: deliver a result or an error.", "signed", _deliver, body="DeliverBody"),
    Endpoint("cancel", "POST", "/v1/jobs/{id}/cancel", "Buyer: cancel before paying.", "signed", _cancel, body="CancelBody"),
    Endpoint("events", "GET", "/v1/events", "Changes of one's own jobs as server-sent events.", "stream", _follow),
)
_EXACT: Final = {(e.method, e.path): e for e in ENDPOINTS if "{id}" not in e.path}
_WITH_ID: Final = {(e.method, e.path.replace("{id}", "*")): e for e in ENDPOINTS if "{id}" in e.path}
_ID = re.compile(r"(/v1/(?:offers|jobs|results))/([^/]{1,200})(/[a-z]+)?")


def find(method: str, path: str) -> tuple[Endpoint, str] | None:
    """The call at a path, and the path's parameter ("" where it has none)."""
    if method == "HEAD":  # as GET, for what is open; the server leaves the body out
        found = find("GET", path)
        return found if found is not None and found[0].kind == "open" else None
    exact = _EXACT.get((method, path))
    if exact is not None:
        return exact, ""
    match = _ID.fullmatch(path)
    endpoint = None if match is None else _WITH_ID.get((method, f"{match[1]}/*{match[3] or ''}"))
    return None if endpoint is None or match is None else (endpoint, match[2])


def open_offer(book: Book, offer_id: str) -> str:
    return f'{{"offer":{offer_json(book.offer(wire.job_id("offer_id", offer_id)))}}}'
