"""The stream of events: who hears what, in which order, and where a broken stream goes on. Black-box, over real HTTP."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from tests.relay_started import Stand, place_for, stand
from tests.relay_wire import Floor, Party, Wire, plain_quote


@pytest.fixture(scope="module", params=["ours", "postgres"])
def ours(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param, place_for(request.param, request)) as made:
        yield made


@pytest.fixture
def floor(ours: Stand) -> Iterator[Floor]:
    with ours.wire() as wire:
        yield Floor.at(wire)


class Listener:
    """One open stream of events, read line by line."""

    def __init__(self, wire: Wire, party: Party, last: str | None = None) -> None:
        self.socket = socket.create_connection((wire.host, wire.port), 20)
        headers = party.headers("GET", "/v1/events", b"", now_ms=wire.world.now_ms()) | ({} if last is None else {"Last-Event-ID": last})
        self.socket.sendall(wire.request_bytes("GET", "/v1/events", b"", headers))
        self.response = http.client.HTTPResponse(self.socket, method="GET")
        self.response.begin()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self.socket.close()

    def event(self) -> dict[str, str]:
        """The next event; comment lines are passed over."""
        found: dict[str, str] = {}
        while True:
            raw = self.response.readline()
            assert raw, "the stream ended"
            line = raw.decode().rstrip("\r\n")
            if not line and found:
                return found
            if line and not line.startswith(":"):
                name, _, value = line.partition(":")
                found[name] = value.removeprefix(" ")

    def jobs(self, count: int) -> list[tuple[str, str]]:
        events = [self.event() for _ in range(count)]
        assert all(set(event) == {"id", "event", "data"} and event["event"] == "job" for event in events)
        self.last = events[-1]["id"]
        shown = [json.loads(event["data"]) for event in events]
        assert all(list(one) == ["job_id", "status", "revision"] for one in shown)
        return [(one["job_id"], one["status"]) for one in shown]


def test_events_tell_both_parties_of_each_change_and_nobody_else(floor: Floor) -> None:
    with Listener(floor.wire, floor.buyer) as buyer, Listener(floor.wire, floor.seller) as seller, Listener(floor.wire, floor.stranger) as stranger:
        assert buyer.response.status == 200
        assert buyer.response.headers["content-type"].startswith("text/event-stream")
        assert buyer.response.headers["x-tradeskill"] == "1"
        job = floor.requested()["job_id"]
        assert buyer.jobs(1) == seller.jobs(1) == [(job, "requested")]
        floor.act(floor.seller, job, "quote", plain_quote()).done()
        assert buyer.jobs(1) == seller.jobs(1) == [(job, "quoted")]
        floor.act(floor.buyer, job, "cancel").done()
        assert buyer.jobs(1) == seller.jobs(1) == [(job, "canceled")]
        mine = floor.wire.post(floor.stranger, "/v1/jobs", {"offer_id": floor.offer()["offer_id"], "request_payload": {}}).job["job_id"]
        assert stranger.jobs(1) == [(mine, "requested")]  # its first


def test_events_go_on_after_the_last_one_that_was_seen(floor: Floor) -> None:
    with Listener(floor.wire, floor.seller) as listener:
        first = floor.requested()["job_id"]
        assert listener.jobs(1) == [(first, "requested")]
    missed = [floor.requested()["job_id"] for _ in range(2)]
    floor.act(floor.buyer, missed[0], "cancel").done()
    with Listener(floor.wire, floor.seller, listener.last) as again:
        assert again.jobs(2) == [(missed[1], "requested"), (missed[0], "canceled")]  # a hint is of the latest change
        last = again.last
    page = floor.wire.get(floor.seller, f"/v1/jobs?cursor={last}").ok
    assert (page["jobs"], page["more"]) == ([], False)  # ids are cursors
    with Listener(floor.wire, floor.seller) as fresh:  # without one: from now on
        newest = floor.requested()["job_id"]
        assert fresh.jobs(1) == [(newest, "requested")]


def test_events_need_a_signature_and_a_cursor_of_this_relay(floor: Floor) -> None:
    assert floor.wire.send("GET", "/v1/events").code == "auth.invalid_signature"
    assert floor.wire.call(floor.buyer, "GET", "/v1/events", headers={"Last-Event-ID": "nonsense"}).code == "validation_error"


def test_a_change_at_one_relay_is_told_by_another_on_the_same_database(request: pytest.FixtureRequest) -> None:
    dsn = place_for("postgres", request)
    with stand("postgres", dsn) as first, stand("postgres", dsn, clock=first.clock) as second, first.wire() as wire, second.wire() as there:
        floor = Floor.at(wire)
        with Listener(there, floor.seller) as listener:
            job = floor.requested()["job_id"]
            assert listener.jobs(1) == [(job, "requested")]
            floor.act(floor.buyer, job, "cancel").done()
            assert listener.jobs(1) == [(job, "canceled")]
