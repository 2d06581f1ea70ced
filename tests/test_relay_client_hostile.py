"""A relay that sends anything: rows and documents of any shape are passed over or read, never an accident; what does not verify moves nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.test_relay_packing import BUYER, JOB, OFFER, SELLER, a_quote, a_receipt, a_request, an_offer
from tests.test_relay_transport import Patient
from tradeskill.errors import TradeskillError, UntrustedError
from tradeskill.model import Json, Result
from tradeskill.signing import digest, document_to_json
from tradeskill_plugins.relay import packing
from tradeskill_plugins.relay.client.dialect import Dialect, Parts
from tradeskill_plugins.relay.client.ours import Ours
from tradeskill_plugins.relay.client.outbox import Outbox, outbox_file
from tradeskill_plugins.relay.client.plain import Plain
from tradeskill_plugins.relay.client.settings import Settings
from tradeskill_plugins.relay.wire import show_time

NOW = 1_750_000_000_000
SHAPES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
RESULT = Result(b"bytes", "text/plain")
REQUEST, QUOTE, RECEIPT = a_request(), a_quote(a_request()), a_receipt(RESULT)
ROW: dict[str, Json] = {
    "job_id": JOB,
    "offer_id": OFFER.offer_id,
    "seller_pubkey": SELLER.key,
    "buyer_pubkey": BUYER.key,
    "status": "delivered",
    "quote_expires_at": show_time(NOW + 900_000),
    "payment_tx_hash": "P",
    "lock_owner": SELLER.key,
    "lock_expires_at": show_time(NOW),
    "error": None,
    "created_at": show_time(NOW),
    "updated_at": show_time(NOW),
}
OURS: dict[str, Json] = ROW | {
    "revision": 7,
    "accepted_at": show_time(NOW),
    "canceled_by": None,
    "cancel_reason": None,
    "request": document_to_json(REQUEST),
    "quote": document_to_json(QUOTE),
    "payment_rail": "nano",
    "payment_proof": None,
    "market_fence": 3,
    "receipt": document_to_json(RECEIPT),
    "result": {"media_type": "text/plain", "size": 5, "sha256": digest(b"bytes"), "data": "Ynl0ZXM="},
    "result_url": "https://relay/v1/results/x",
}
PLAIN: dict[str, Json] = ROW | {
    **packing.pack_quote(QUOTE),
    "request_payload": packing.pack_request(REQUEST),
    "result_url": f"{packing.data_url(RESULT)}#{packing.pack_receipt(RECEIPT)}",
}


@pytest.fixture(scope="module")
def dialects(tmp_path_factory: pytest.TempPathFactory) -> Any:
    world = Patient()
    outbox = Outbox(outbox_file(Path(tmp_path_factory.mktemp("home")), "u", "k"), world)
    nowhere: Any = SimpleNamespace(url="http://nowhere")
    parts = Parts(nowhere, outbox, BUYER, world, Settings("http://nowhere"), None)
    nothing: Any = None
    yield {"ours": (Ours(parts, nothing, nothing), OURS), "plain": (Plain(parts, nothing, nothing), PLAIN)}
    asyncio.run(outbox.close())


def read(dialect: Dialect, row: Any) -> list[Any]:
    return asyncio.run(dialect.read_jobs([row]))


@pytest.mark.parametrize("name", ["ours", "plain"])
def test_a_whole_job_is_read_with_all_that_was_signed(dialects: Any, name: str) -> None:
    dialect, row = dialects[name]
    (seen,) = read(dialect, row)
    job = seen.job
    assert (job.request, job.quote, job.receipt, job.result) == (REQUEST, QUOTE, RECEIPT, RESULT)
    assert (job.job_id, job.offer_id, job.seller, job.buyer, job.state) == (JOB, OFFER.offer_id, SELLER.key, BUYER.key, "delivered")
    assert (job.payment_id, job.payment_rail, job.quote_expires_at, job.created_at) == ("P", "nano", NOW + 900_000, NOW)


@pytest.mark.parametrize("name", ["ours", "plain"])
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_row_of_any_shape_is_read_or_passed_over(dialects: Any, name: str, data: st.DataObject) -> None:
    dialect, row = dialects[name]
    changed = dict(row)
    for field in data.draw(st.lists(st.sampled_from(sorted(row)), min_size=1, max_size=3)):
        changed[field] = data.draw(SHAPES)
    for seen in read(dialect, changed):
        assert seen.job.buyer == BUYER.key or seen.job.seller == BUYER.key


@pytest.mark.parametrize("name", ["ours", "plain"])
@pytest.mark.parametrize("field", ["job_id", "seller_pubkey", "buyer_pubkey", "status", "created_at", "updated_at"])
def test_a_job_without_a_field_that_names_it_is_none(dialects: Any, name: str, field: str) -> None:
    dialect, row = dialects[name]
    assert read(dialect, {key: value for key, value in row.items() if key != field}) == []
    assert read(dialect, {**row, field: "x"}) == []


def test_a_job_that_belongs_to_others_or_to_another_offer_is_none(dialects: Any) -> None:
    dialect, row = dialects["ours"]
    assert read(dialect, {**row, "offer_id": JOB}) == []
    assert read(dialect, {**row, "buyer_pubkey": SELLER.key}) == []
    assert read(dialect, {**row, "request": None}) == []
    dialect, row = dialects["plain"]
    assert read(dialect, {**row, "seller_pubkey": BUYER.key}) == []
    assert read(dialect, {**row, "request_payload": {"url": "http://a/"}}) == []


def test_inline_bytes_that_are_not_the_ones_named_make_no_job(dialects: Any) -> None:
    dialect, row = dialects["ours"]
    for result in ({"media_type": "x", "sha256": digest(b"other"), "data": "Ynl0ZXM="}, {"media_type": "x", "sha256": digest(b""), "data": "%%"}):
        assert read(dialect, {**row, "result": result}) == []


@pytest.mark.parametrize("name", ["ours", "plain"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_an_offer_of_any_shape_is_refused_as_untrusted(dialects: Any, name: str, data: st.DataObject) -> None:
    dialect, _ = dialects[name]
    document = an_offer()
    whole: dict[str, Json] = {"offer_id": JOB, "seller_pubkey": SELLER.key, "active": True, **packing.pack_offer(document)}
    whole["document"] = document_to_json(document)
    assert dialect.read_offer(whole) == OFFER
    field = data.draw(st.sampled_from(["seller_pubkey", "document"] if name == "ours" else ["seller_pubkey", "title", "description", "tags", "pricing_mode"]))
    with pytest.raises(UntrustedError):
        dialect.read_offer({**whole, field: data.draw(SHAPES)})


def test_a_revision_grows_with_each_visible_change_of_a_job(dialects: Any) -> None:
    dialect, row = dialects["plain"]
    revisions = []
    for changes in ({}, {}, {"status": "failed"}, {"payment_tx_hash": "Q"}, {}, {"updated_at": show_time(NOW + 60_000)}):
        (seen,) = read(dialect, {**row, "job_id": JOB.replace("0b", "0c"), **changes})
        revisions.append(seen.job.revision)
    assert revisions[0] == revisions[1]
    assert sorted(set(revisions[1:])) == revisions[1:]


def test_the_seller_side_refuses_what_cannot_be_kept_there(dialects: Any) -> None:
    dialect, _ = dialects["plain"]
    for call in (
        dialect.publish(an_offer()),
        dialect.lock(JOB),
        dialect.withdraw("x"),
        dialect.submit_payment(JOB, "cashu", "P", ""),
        dialect.submit_payment(JOB, "nano", "P", "token"),
    ):
        with pytest.raises(TradeskillError) as caught:
            asyncio.run(call)
        assert caught.value.code == "refused"
