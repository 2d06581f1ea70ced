"""Lists: what is in them, in which order, by which words, and what is no list at all. Black-box, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.relay_started import Stand, place_for, stand
from tests.relay_wire import PLAIN_OFFER, Floor, iso

MINUTE = 60_000


@pytest.fixture(scope="module", params=["ours", "postgres", "old"])
def either(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param, place_for(request.param, request)) as made:
        yield made


@pytest.fixture
def floor(either: Stand) -> Iterator[Floor]:
    with either.wire() as wire:
        yield Floor.at(wire)


@pytest.fixture(scope="module", params=["ours", "postgres"])
def ours(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param, place_for(request.param, request)) as made:
        yield made


@pytest.fixture
def our_floor(ours: Stand) -> Iterator[Floor]:
    with ours.wire() as wire:
        yield Floor.at(wire)


def put_up(floor: Floor, either: Stand, title: str, **changes: Any) -> str:
    either.clock.advance(1000)
    return str(floor.offer(title=title, **changes)["offer_id"])


def found(floor: Floor, query: str = "", seller: bool = True) -> list[str]:
    """The titles that an open search finds, of this test's seller unless it says otherwise."""
    mine = f"&seller_pubkey={floor.seller.key}" if seller else ""
    return [offer["title"] for offer in floor.wire.send("GET", f"/v1/offers?{query}{mine}").ok["offers"]]


def test_offers_come_newest_first_in_pages_of_20(floor: Floor, either: Stand) -> None:
    for n in range(23):
        put_up(floor, either, f"t{n}")
    page = floor.wire.send("GET", f"/v1/offers?seller_pubkey={floor.seller.key}").ok
    assert list(page) == ["offers", "limit", "offset", "total"]
    assert (page["limit"], page["offset"], page["total"]) == (20, 0, 23)
    titles = [f"t{n}" for n in reversed(range(23))]
    assert [offer["title"] for offer in page["offers"]] == titles[:20]
    assert found(floor, "limit=100") == titles
    assert found(floor, "limit=5&offset=20") == titles[20:]
    assert found(floor, "limit=1&offset=1") == titles[1:2]
    beyond = floor.wire.send("GET", f"/v1/offers?offset=23&limit=7&seller_pubkey={floor.seller.key}").ok
    assert (beyond["offers"], beyond["limit"], beyond["offset"], beyond["total"]) == ([], 7, 23, 23)
    assert found(floor, "", seller=False)[:3] == titles[:3]


def test_offers_are_found_by_their_words_without_regard_to_case(floor: Floor, either: Stand) -> None:
    put_up(floor, either, "Web page to Markdown", description="Any language")
    put_up(floor, either, "Straße nach STRASSBURG", description="Kartendienst, with maps")
    for query, wanted in (("q=WEB", 1), ("q=b%20pAge", 1), ("q=b+page", 1), ("q=dienst", 1), ("q=ar", 2), ("q=a", 2), ("q=MAPS", 1), ("q=xyz", 0), ("q=", 2)):
        assert len(found(floor, query)) == wanted, query
    assert len(found(floor, "q=%20%20markdown%20")) == 1  # trimmed


def test_percent_and_underscore_are_letters_like_any_other(our_floor: Floor, ours: Stand) -> None:
    for title in ("100% cotton", "100 cotton", "snake_case", "snakeXcase", 'say "hello"', "back\\slash", "a%", "b_", "*star*"):
        put_up(our_floor, ours, title)
    for query, titles in (
        ("100%25", ["100% cotton"]),
        ("%25", ["a%", "100% cotton"]),
        ("_", ["b_", "snake_case"]),
        ("e_c", ["snake_case"]),
        ("%22hello%22", ['say "hello"']),
        ("%5C", ["back\\slash"]),
        ("%5Cslash", ["back\\slash"]),
        ("*", ["*star*"]),
        ("*star", ["*star*"]),
        ("%25%25", []),
    ):
        assert found(our_floor, f"q={query}") == titles, query


def test_a_total_counts_what_is_there_now(our_floor: Floor, ours: Stand) -> None:
    def total(query: str) -> int:
        return int(our_floor.wire.send("GET", f"/v1/offers?{query}&seller_pubkey={our_floor.seller.key}").ok["total"])

    queries = ("", "q=page", "tags=a", "pricing_mode=quote", "active=false")
    assert [total(query) for query in queries] == [0, 0, 0, 0, 0]
    made = put_up(our_floor, ours, "Page", tags=["a"])
    assert [total(query) for query in queries] == [1, 1, 1, 1, 0]
    our_floor.wire.call(our_floor.seller, "PUT", f"/v1/offers/{made}", PLAIN_OFFER | {"title": "x", "description": "y", "tags": ["b"]}).done()
    assert [total(query) for query in queries] == [1, 0, 0, 1, 0]
    our_floor.wire.call(our_floor.seller, "DELETE", f"/v1/offers/{made}").done()
    assert [total(query) for query in queries] == [0, 0, 0, 0, 1]


def test_an_offer_needs_all_the_tags_asked_for(floor: Floor, either: Stand) -> None:
    put_up(floor, either, "both", tags=["web", "markdown"])
    put_up(floor, either, "one", tags=["web"])
    put_up(floor, either, "none")
    assert found(floor, "tags=web") == ["one", "both"]
    assert found(floor, "tags=web,markdown") == ["both"]
    assert found(floor, "tags=markdown,%20web%20") == ["both"]
    assert found(floor, "tags=we") == []
    assert found(floor, "tags=web&q=bot") == ["both"]
    assert found(floor, "tags=") == ["none", "one", "both"]


def test_offers_are_chosen_by_mode_and_by_whether_they_are_up(floor: Floor, either: Stand) -> None:
    put_up(floor, either, "fixed", pricing_mode="fixed", fixed_price_raw="5")
    put_up(floor, either, "quote")
    put_up(floor, either, "down", active=False)
    assert found(floor) == ["quote", "fixed"]
    assert found(floor, "active=true") == ["quote", "fixed"]
    assert found(floor, "active=false") == ["down"]
    assert found(floor, "pricing_mode=fixed") == ["fixed"]
    assert found(floor, "pricing_mode=quote") == ["quote"]
    assert found(floor, f"seller_pubkey={floor.buyer.key}", seller=False) == []


WRONG = ["limit=0", "limit=101", "limit=-1", "offset=-1", "limit=ten", "offset=x", "active=yes", "pricing_mode=barter"]


@pytest.mark.parametrize("query", WRONG)
def test_a_query_that_makes_no_sense_is_400(floor: Floor, query: str) -> None:
    assert floor.wire.send("GET", f"/v1/offers?{query}").code == "validation_error"


@pytest.mark.parametrize(
    "query",
    [
        *("limit=10abc", "limit=%31%30%20x", "limit=1&limit=2", "limit=1.5", "limit=1e1", "limit=%EF%BC%95", "limit=%2B5"),
        *("q=a&q=b", "q=%00", "q=%ff", "offset=99999999999999999999"),
    ],
)
def test_what_the_old_relay_takes_or_trips_over_is_400(our_floor: Floor, query: str) -> None:
    answer = our_floor.wire.send("GET", f"/v1/offers?{query}")
    assert (answer.status, answer.code) == (400, "validation_error"), answer


# jobs


def job_ids(floor: Floor, query: str = "", party: Any = None) -> list[str]:
    return [job["job_id"] for job in floor.wire.get(party or floor.buyer, f"/v1/jobs?{query}").ok["jobs"]]


def several(floor: Floor, either: Stand, count: int) -> list[str]:
    offer, made = floor.offer()["offer_id"], []
    for n in range(count):
        either.clock.advance(1000)
        made.append(floor.wire.post(floor.buyer, "/v1/jobs", {"offer_id": offer, "request_payload": {"n": n}}).job["job_id"])
    return made


def test_jobs_come_newest_first_in_pages_of_50_to_both_parties_only(floor: Floor, either: Stand) -> None:
    made = several(floor, either, 53)
    page = floor.wire.get(floor.buyer, "/v1/jobs").ok
    assert list(page) == ["jobs", "limit", "offset", "total"]
    assert (page["limit"], page["offset"], page["total"]) == (50, 0, 53)
    assert [job["job_id"] for job in page["jobs"]] == made[::-1][:50]
    assert job_ids(floor, "offset=50", floor.seller) == made[::-1][50:]
    assert job_ids(floor, "limit=100", floor.seller) == made[::-1]
    assert job_ids(floor, "", floor.stranger) == []
    assert page["jobs"][0] == floor.see(floor.buyer, made[-1])


def test_jobs_are_chosen_by_role_and_by_several_states(floor: Floor, either: Stand) -> None:
    bought = several(floor, either, 3)
    floor.act(floor.buyer, bought[0], "cancel").done()
    floor.act(floor.seller, bought[1], "quote", {"quote_amount_raw": "1", "quote_invoice_address": "a"}).done()
    offer = floor.wire.post(floor.buyer, "/v1/offers", PLAIN_OFFER).offer["offer_id"]
    either.clock.advance(1000)
    sold = floor.wire.post(floor.stranger, "/v1/jobs", {"offer_id": offer, "request_payload": {}}).job["job_id"]
    assert job_ids(floor) == [sold, *bought[::-1]]
    assert job_ids(floor, "role=buyer") == bought[::-1]
    assert job_ids(floor, "role=seller") == [sold]
    assert job_ids(floor, "status=requested") == [sold, bought[2]]
    assert job_ids(floor, "status=canceled,quoted") == [bought[1], bought[0]]
    assert job_ids(floor, "status=requested,canceled&role=buyer") == [bought[2], bought[0]]
    assert job_ids(floor, "status=delivered") == []


def test_updated_after_is_strict_and_then_the_oldest_change_comes_first(our_floor: Floor, ours: Stand) -> None:
    made = several(our_floor, ours, 4)
    ours.clock.advance(1000)
    changed = our_floor.act(our_floor.buyer, made[1], "cancel").job["updated_at"]
    second = our_floor.see(our_floor.buyer, made[2])["updated_at"]
    assert job_ids(our_floor, f"updated_after={iso(our_floor.now_ms() - 60 * MINUTE)}") == [made[0], made[2], made[3], made[1]]
    assert job_ids(our_floor, f"updated_after={second}") == [made[3], made[1]]  # the row itself does not come again
    assert job_ids(our_floor, f"updated_after={changed}") == []
    page = our_floor.wire.get(our_floor.buyer, f"/v1/jobs?limit=1&offset=1&updated_after={second}").ok
    assert ([job["job_id"] for job in page["jobs"]], page["total"]) == ([made[1]], 2)


def test_the_old_relay_repeats_the_last_row(tmp_path_factory: pytest.TempPathFactory) -> None:
    with stand("old", tmp_path_factory.mktemp("old")) as made, made.wire() as wire:
        floor = Floor.at(wire)
        job = several(floor, made, 1)[0]
        assert job_ids(floor, f"updated_after={floor.see(floor.buyer, job)['updated_at']}") == [job]


@pytest.mark.parametrize("query", ["status=done", "role=owner", "limit=0", "limit=101", "offset=-1", "updated_after=yesterday", "limit=x"])
def test_a_list_of_jobs_that_makes_no_sense_is_400(floor: Floor, query: str) -> None:
    assert floor.wire.get(floor.buyer, f"/v1/jobs?{query}").code == "validation_error"


@pytest.mark.parametrize("query", ["limit=10abc", "role=buyer&role=seller", "status=%00", "offset=99999999999999999999", "cursor=nobody-s"])
def test_what_makes_no_sense_to_ours_either_is_400(our_floor: Floor, query: str) -> None:
    assert our_floor.wire.get(our_floor.buyer, f"/v1/jobs?{query}").code == "validation_error"


# the cursor of ours


def drained(floor: Floor, party: Any, cursor: str = "", limit: int = 2) -> tuple[list[tuple[str, str]], str]:
    seen: list[tuple[str, str]] = []
    for _ in range(100):
        page = floor.wire.get(party, f"/v1/jobs?cursor={cursor}&limit={limit}").ok
        assert list(page) == ["jobs", "limit", "cursor", "more"]
        assert page["limit"] == limit
        assert len(page["jobs"]) <= limit
        seen += [(job["job_id"], job["status"]) for job in page["jobs"]]
        cursor = page["cursor"]
        if not page["more"]:
            return seen, cursor
    raise AssertionError("a cursor without an end")


def test_a_cursor_brings_each_job_s_latest_change_once_oldest_first(our_floor: Floor, ours: Stand) -> None:
    made = several(our_floor, ours, 5)
    for party in (our_floor.buyer, our_floor.seller):
        seen, cursor = drained(our_floor, party)
        assert seen == [(job, "requested") for job in made]
        assert drained(our_floor, party, cursor) == ([], cursor)
    our_floor.act(our_floor.buyer, made[3], "cancel").done()
    our_floor.act(our_floor.buyer, made[0], "cancel").done()
    assert drained(our_floor, our_floor.seller, cursor)[0] == [(made[3], "canceled"), (made[0], "canceled")]
    assert drained(our_floor, our_floor.seller)[0] == [(made[n], "requested") for n in (1, 2, 4)] + [(made[3], "canceled"), (made[0], "canceled")]
    assert drained(our_floor, our_floor.stranger)[0] == []


def test_a_cursor_loses_nothing_while_pages_are_read(our_floor: Floor, ours: Stand) -> None:
    made = several(our_floor, ours, 6)
    first = our_floor.wire.get(our_floor.seller, "/v1/jobs?cursor=&limit=3").ok
    our_floor.act(our_floor.buyer, made[0], "cancel").done()
    our_floor.act(our_floor.buyer, made[5], "cancel").done()
    rest, _ = drained(our_floor, our_floor.seller, first["cursor"])
    seen = [(job["job_id"], job["status"]) for job in first["jobs"]] + rest
    assert len(seen) == 7  # the one that was changed after it was read comes again
    assert dict(seen) == {job: "canceled" if n in (0, 5) else "requested" for n, job in enumerate(made)}


def test_a_cursor_brings_expiry_without_anybody_acting(our_floor: Floor, ours: Stand) -> None:
    job = our_floor.quoted()["job_id"]
    _, cursor = drained(our_floor, our_floor.buyer)
    ours.clock.advance(15 * MINUTE)
    assert drained(our_floor, our_floor.buyer, cursor)[0] == [(job, "expired")]


def test_a_cursor_of_another_relay_is_400(our_floor: Floor, tmp_path_factory: pytest.TempPathFactory) -> None:
    with stand("ours", tmp_path_factory.mktemp("other") / "relay.db") as other, other.wire() as wire:
        _, cursor = drained(Floor.at(wire), our_floor.buyer)
    assert our_floor.wire.get(our_floor.buyer, f"/v1/jobs?cursor={cursor}").code == "validation_error"


def test_a_cursor_from_a_later_time_than_this_relay_s_is_400(our_floor: Floor) -> None:
    our_floor.requested()
    market, _, number = drained(our_floor, our_floor.buyer)[1].rpartition("-")
    ahead = f"{market}-{int(number) + 1_000_000}"  # of a database that was since restored from an earlier copy: waiting for it would lose changes
    assert our_floor.wire.get(our_floor.buyer, f"/v1/jobs?cursor={ahead}").code == "validation_error"
    assert our_floor.wire.call(our_floor.buyer, "GET", "/v1/events", headers={"Last-Event-ID": ahead}).code == "validation_error"
