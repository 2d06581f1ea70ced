"""Offers of ours: seen, replaced and taken down, and what a signed offer adds to one. Black-box, over real HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.old_relay import OFFER_FIELDS
from tests.relay_started import Stand, place_for, stand
from tests.relay_wire import PLAIN_OFFER, Answer, Floor, as_json, iso, wire_offer_id
from tradeskill.agreement import read_offer


@pytest.fixture(scope="module", params=["ours", "postgres"])
def ours(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param, place_for(request.param, request)) as made:
        yield made


@pytest.fixture
def floor(ours: Stand) -> Iterator[Floor]:
    with ours.wire() as wire:
        yield Floor.at(wire)


def reason(answer: Answer) -> str:
    return str((answer.details or {}).get("reason"))


def test_an_offer_can_be_seen_replaced_and_taken_down(floor: Floor, ours: Stand) -> None:
    made = floor.offer(tags=["a"])
    target = f"/v1/offers/{made['offer_id']}"
    assert floor.wire.send("GET", target).offer == made  # open
    ours.clock.advance(1000)
    body = {"title": "New", "description": "new", "pricing_mode": "fixed", "fixed_price_raw": "7", "tags": ["b"]}
    put = floor.wire.call(floor.seller, "PUT", target, body)
    assert put.status == 200
    expected = made | body | {"updated_at": iso(floor.now_ms())}
    assert put.offer == expected == floor.wire.send("GET", target).offer
    assert list(put.offer) == [*OFFER_FIELDS, "updated_at", "document"]
    assert [row["title"] for row in floor.wire.send("GET", f"/v1/offers?tags=b&q=new&seller_pubkey={floor.seller.key}").ok["offers"]] == ["New"]
    assert floor.wire.send("GET", f"/v1/offers?tags=a&seller_pubkey={floor.seller.key}").ok["total"] == 0
    ours.clock.advance(1000)
    for _ in range(2):
        deleted = floor.wire.call(floor.seller, "DELETE", target)
        assert (deleted.status, deleted.offer["active"]) == (200, False)
    assert floor.wire.send("GET", target).offer == expected | {"active": False, "updated_at": iso(floor.now_ms())}
    assert floor.wire.send("GET", f"/v1/offers?seller_pubkey={floor.seller.key}").ok["offers"] == []
    assert floor.wire.call(floor.seller, "PUT", target, body).offer["active"] is True  # up again


def test_only_its_seller_changes_an_offer(floor: Floor) -> None:
    made = floor.offer()
    target = f"/v1/offers/{made['offer_id']}"
    assert floor.wire.call(floor.stranger, "PUT", target, PLAIN_OFFER).code == "forbidden"
    assert floor.wire.call(floor.stranger, "DELETE", target).code == "forbidden"
    assert floor.wire.call(floor.stranger, "PUT", target, {}).code == "validation_error"
    assert floor.wire.send("PUT", target, b"{}").status == floor.wire.send("DELETE", target).status == 401
    nowhere = f"/v1/offers/{uuid.uuid4()}"
    assert floor.wire.call(floor.seller, "PUT", nowhere, PLAIN_OFFER).code == "not_found"
    assert floor.wire.call(floor.seller, "DELETE", nowhere).code == floor.wire.send("GET", nowhere).code == "not_found"
    assert floor.wire.send("GET", target).offer == made


def test_a_signed_offer_has_an_id_of_its_own_and_replaces_itself(floor: Floor) -> None:
    for offer_id in ("web-extract-" + floor.seller.key[:8], str(uuid.uuid4())):
        document = floor.offer_document(offer_id)
        answer = floor.wire.post(floor.seller, "/v1/offers", floor.offer_body(document))
        assert (answer.status, answer.offer["offer_id"]) == (201, wire_offer_id(offer_id))
        assert (answer.offer["pricing_mode"], answer.offer["fixed_price_raw"]) == ("fixed", "5")
        assert answer.offer["document"] == as_json(document)
        newer = floor.offer_document(offer_id, title="Newer")
        again = floor.wire.post(floor.seller, "/v1/offers", floor.offer_body(newer))
        assert (again.status, again.offer["offer_id"], again.offer["title"]) == (201, wire_offer_id(offer_id), "Newer")
        thief = floor.stranger.identity.sign("offer", document.body)
        assert floor.wire.post(floor.stranger, "/v1/offers", floor.offer_body(thief)).code == "forbidden"
    assert floor.wire.send("GET", f"/v1/offers?seller_pubkey={floor.seller.key}").ok["total"] == 2


def test_a_price_in_raw_is_fixed_and_any_other_is_quoted(floor: Floor) -> None:
    for price, mode, raw in (({"amount": "7", "unit": "raw"}, "fixed", "7"), ({"amount": "7", "unit": "sat"}, "quote", None), (None, "quote", None)):
        document = floor.offer_document(price=price)
        body = floor.offer_body(document, pricing_mode=mode, fixed_price_raw=raw)
        offer = floor.wire.post(floor.seller, "/v1/offers", body).offer
        assert (offer["pricing_mode"], offer["fixed_price_raw"]) == (mode, raw)


@pytest.mark.parametrize(
    "changes",
    [{"title": "Other"}, {"description": "other"}, {"tags": ["other"]}, {"pricing_mode": "quote", "fixed_price_raw": None}, {"fixed_price_raw": "6"}],
    ids=str,
)
def test_the_plain_fields_must_agree_with_the_document(floor: Floor, changes: Any) -> None:
    answer = floor.wire.post(floor.seller, "/v1/offers", floor.offer_body(floor.offer_document(), **changes))
    assert (answer.status, answer.code) == (400, "validation_error"), answer


def test_a_document_that_is_not_the_caller_s_or_not_signed_is_refused(floor: Floor) -> None:
    good = floor.offer_document()
    stranger_s = floor.stranger.identity.sign("offer", good.body)
    forged = as_json(good) | {"signature": stranger_s.signature}
    altered = as_json(good) | {"body": {**good.body, "pure": False}}
    for document in (as_json(stranger_s), forged, altered, as_json(floor.seller.identity.sign("quote", good.body)), {"kind": "offer"}, "text", [], 5):
        answer = floor.wire.post(floor.seller, "/v1/offers", floor.offer_body(good, document=document))
        assert answer.status in (400, 403), answer
        assert answer.code in ("validation_error", "forbidden")
    answer = floor.wire.post(floor.seller, "/v1/offers", floor.offer_body(good, document=forged))
    assert reason(answer) == "refused.untrusted"


def test_read_offer_of_what_is_served_verifies(floor: Floor) -> None:
    offer = floor.signed_offer()
    from tradeskill.signing import document_from_json

    served = floor.wire.send("GET", f"/v1/offers/{wire_offer_id(offer.offer_id)}").offer["document"]
    assert read_offer(document_from_json(served)).offer_hash == offer.offer_hash
