"""The book's rules that no market can be brought to by good manners: wrong types, a page that grows too large, a row changed behind its back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tradeskill.agreement import sign_offer, sign_quote, sign_receipt, sign_request
from tradeskill.errors import NetworkMismatchError, RefusedError, StateError, UsageError
from tradeskill.model import Delivery, Invoice, JobError, Result
from tradeskill.money import Amount
from tradeskill.signing import Identity
from tradeskill.sqlite import SqliteFile, memory
from tradeskill_plugins.market import book as rules
from tradeskill_plugins.market import schema, signed
from tradeskill_plugins.market.book import Book
from tradeskill_plugins.market.entries import DeliveryEntry, OfferEntry, QuoteEntry, RequestEntry
from tradeskill_plugins.relay.server.tables import LAYOUT

SELLER, BUYER = Identity(b"s" * 32), Identity(b"b" * 32)
NOW = 1_700_000_000_000


def prepare(db: Any) -> None:
    db.execute(schema.FACT_ADD, ("market_id", "0" * 16))
    db.execute(schema.FACT_ADD, ("network", "dev"))


@pytest.fixture
def db() -> Any:
    file = SqliteFile(memory(), LAYOUT, where="a book for a test", prepare=prepare)
    yield file._writer
    file.close()


def running(book: Book, job_id: str = "j1") -> int:
    """A plain job, locked: its fence."""
    book.publish(OfferEntry("o", SELLER.key, "t", "d", (), "fixed", "5", None, None), NOW)
    book.request(RequestEntry("o", BUYER.key, {"payload": "{}"}), job_id, NOW)
    book.quote(QuoteEntry(job_id, SELLER.key, {"terms": "{}"}), NOW)
    book.accept(BUYER.key, job_id, NOW)
    book.submit_payment(BUYER.key, job_id, rules.entries.Claim("nano", f"P-{job_id}", ""), NOW)
    fence: int = book.lock(SELLER.key, job_id, NOW)["market_fence"]
    return fence


def delivered(data: bytes) -> DeliveryEntry:
    return DeliveryEntry(data=data, media_type="text/plain", sha256="0" * 64)


@pytest.mark.parametrize("fence", ["1", 1.0, True])
def test_a_fence_is_a_whole_number(db: Any, fence: Any) -> None:
    book = Book(db)
    running(book)
    with pytest.raises(UsageError, match="market_fence"):
        book.deliver(SELLER.key, "j1", delivered(b"x"), fence, NOW)


def test_a_page_of_changes_ends_before_its_results_fill_the_memory(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "PAGE_BYTES", 10)
    book = Book(db)
    for n in range(3):
        book.deliver(SELLER.key, f"j{n}", delivered(b"123456"), running(book, f"j{n}"), NOW)
    seen, cursor = [], ""
    while True:
        page = book.changes(BUYER.key, cursor)
        seen += [row["job_id"] for row in page.rows]
        assert len(page.rows) == 1
        cursor = page.cursor
        if not page.more:
            break
    assert seen == ["j0", "j1", "j2"]


def test_a_step_on_a_row_that_somebody_else_changed_is_refused(db: Any) -> None:
    """One writer at a time makes it impossible; should a database ever allow two, the second one loses."""

    class Meddled:
        def execute(self, sql: str, parameters: Any = ()) -> Any:
            found = db.execute(sql, parameters)
            if sql == schema.PAPERS:
                db.execute("UPDATE jobs SET revision = revision + 1")
            return found

    running(Book(db))
    with pytest.raises(StateError, match="somebody else"):
        Book(Meddled()).lock(SELLER.key, "j1", NOW)


@pytest.mark.parametrize("strict", [False, True])
def test_strict_means_that_a_step_is_taken_once_and_a_stranger_learns_that_a_job_exists(db: Any, strict: bool) -> None:
    book = Book(db, strict=strict)
    fence = running(book)
    steps = [
        lambda: book.accept(BUYER.key, "j1", NOW),
        lambda: book.submit_payment(BUYER.key, "j1", rules.entries.Claim("nano", "P-j1", ""), NOW),
        lambda: book.deliver(SELLER.key, "j1", delivered(b"x"), fence, NOW),
    ]
    steps[2]()
    for step in steps:
        if strict:
            with pytest.raises(StateError, match="already"):
                step()
        else:
            assert step()["state"] == "delivered"
    with pytest.raises(RefusedError if strict else rules.NotFoundError):
        book.get("0" * 64, "j1")


def test_documents_that_say_too_little_or_contradict_their_signer_are_refused() -> None:
    terms: dict[str, Any] = {"title": "t", "description": "d", "tags": [], "prices": [Amount(5, "raw")], "input_schema": {}, "pure": True, "trusted": True}
    offer = sign_offer(SELLER, offer_id="o", network="dev", created_at=NOW, **terms)
    with pytest.raises(UsageError, match="input"):
        signed.offer_entry(SELLER.sign("offer", {**offer.body, "input": []}), SELLER.key)
    row = {"document": signed.offer_entry(offer, SELLER.key).document, "active": 1}
    request = sign_request(BUYER, signed.offer_of(row), input_value=1, refund_to={}, nonce="n", created_at=NOW)
    with pytest.raises(UsageError, match="input is missing"):
        signed.request_entry(BUYER.sign("request", {k: v for k, v in request.body.items() if k != "input"}), BUYER.key)
    from tradeskill.agreement import read_request

    read = read_request(request, BUYER.key)
    invoice = Invoice("nano", "dev", "i", "j", "nano_1", Amount(5, "raw"), 0)
    quote = sign_quote(SELLER, read, job_id="j", invoices=[invoice], expires_at=NOW, nonce="n")
    with pytest.raises(UsageError, match="seller"):
        signed.quote_entry(SELLER.sign("quote", {**quote.body, "seller": BUYER.key}), SELLER.key, "j")
    result = Result(b"x", "text/plain")
    receipt = sign_receipt(
        SELLER, read, quote, job_id="j", rail="nano", payment_ids=["P"], amount=Amount(5, "raw"), result=result, delivered_at=0, fence=1
    )
    with pytest.raises(UsageError, match="receipt cannot come with an error"):
        signed.delivery_entry(Delivery(None, receipt, JobError("x", "y")), SELLER.key, "j")
    with pytest.raises(UsageError, match="must be bytes"):
        signed.delivery_entry(Delivery(replace(result, data="x")), SELLER.key, "j")  # type: ignore[arg-type]  # what is tried


def test_a_result_may_lie_elsewhere_and_a_receipt_may_be_missing(db: Any) -> None:
    book = Book(db)
    fence = running(book)
    assert book.deliver(SELLER.key, "j1", DeliveryEntry(sha256="1" * 64, papers={"url": "https://a/b"}), fence, NOW)["result_size"] is None
    assert book.result("j1") is None
    assert signed.delivery_entry(Delivery(Result(b"x", "text/plain")), SELLER.key, "j1").papers == {}


def test_offers_are_found_by_their_pricing_and_each_change_of_one_is_counted(db: Any) -> None:
    book = Book(db)
    for n, mode in enumerate(("fixed", "quote", "fixed")):
        book.publish(OfferEntry(f"o{n}", SELLER.key, "t", "d", (), mode, "5" if mode == "fixed" else None, None, None), NOW)  # type: ignore[arg-type]  # mode
    assert [row["offer_id"] for row in book.search(rules.Search(pricing_mode="fixed"))] == ["o2", "o0"]
    before = book.offers_version()
    book.withdraw(SELLER.key, "o0", NOW)
    assert book.offers_version() == before + 1
    assert [row["offer_id"] for row in book.rows("SELECT offer_id FROM offers WHERE active = ?", (0,))] == ["o0"]


def test_a_document_for_another_network_does_not_enter(db: Any) -> None:
    with pytest.raises(NetworkMismatchError):
        Book(db).publish(OfferEntry("o", SELLER.key, "t", "d", (), "quote", None, "{}", "test"), NOW)
