"""From the book's rows to the JSON that goes out: field order, times, defaults, and exactly the bytes that came in. Pure."""

from __future__ import annotations

import base64
import json
from typing import Any

from tradeskill_plugins.market.book import JobRow, Row
from tradeskill_plugins.relay.wire import show_time

__all__ = ["job_json", "offer_json"]

_text = json.encoder.encode_basestring  # what json.dumps(ensure_ascii=False) does to one string


def offer_json(row: Row) -> str:
    return (
        f'{{"offer_id":"{row["offer_id"]}","seller_pubkey":"{row["seller"]}","title":{_text(row["title"])},"description":{_text(row["description"])},'
        f'"tags":{row["tags"]},"pricing_mode":"{row["pricing_mode"]}","fixed_price_raw":{_or_null(row["fixed_price"])},'
        f'"active":{"true" if row["active"] else "false"},"created_at":"{show_time(row["put_up_at"])}",'
        f'"updated_at":"{show_time(row["updated_at"])}","document":{row["document"] or "null"}}}'
    )


def job_json(row: JobRow, *, data: bytes | None = None, listed: bool = False) -> str:
    """`data`: an inline result's bytes. `listed`: without them."""
    papers = row["papers"]
    terms = json.loads(papers.get("terms", "{}"))
    canceled = row["state"] == "canceled"
    by_buyer = canceled and row["canceled_by"] == "buyer"
    quote = papers.get("quote")
    locked = row["lock_expires_at"] is not None
    return (
        f'{{"job_id":"{row["job_id"]}","offer_id":"{row["offer_id"]}","seller_pubkey":"{row["seller"]}","buyer_pubkey":"{row["buyer"]}",'
        f'"status":"{row["state"]}","request_payload":{papers["payload"]},'
        f'"quote_amount_raw":{_or_null(terms.get("quote_amount_raw"))},"quote_invoice_address":{_or_null(terms.get("quote_invoice_address"))},'
        f'"quote_expires_at":{_time(row["quote_expires_at"])},"payment_tx_hash":{_or_null(row["payment_id"])},'
        f'"lock_owner":{_or_null(row["seller"] if locked else None)},"lock_expires_at":{_time(row["lock_expires_at"])},"result_payload":null,'
        f'"error":{papers.get("error", "null")},"created_at":"{show_time(row["created_at"])}","updated_at":"{show_time(row["updated_at"])}",'
        f'"payment_charge_id":{_or_null(terms.get("payment_charge_id"))},"payment_charge_address":{_or_null(terms.get("payment_charge_address"))},'
        f'"payment_provider":{_text(terms.get("payment_provider", "berrypay"))},"payment_sweep_tx_hash":null,"result_url":{_or_null(papers.get("url"))},'
        # ours, after the protocol's own
        f'"revision":{row["revision"]},"accepted_at":{_time(row["accepted_at"])},"canceled_by":{_or_null(row["canceled_by"] if canceled else None)},'
        f'"cancel_reason":{_or_null(row["error_message"] if by_buyer else None)},"request":{papers.get("request", "null")},"quote":{quote or "null"},'
        f'"invoices":{"null" if quote is None else _invoices(quote)},"payment_rail":{_or_null(row["payment_rail"])},'
        f'"payment_proof":{_or_null(papers.get("token"))},"market_fence":{"null" if row["market_fence"] is None else row["market_fence"]},'
        f'"receipt":{papers.get("receipt", "null")},"result":{_result(row, data, listed)}}}'
    )


def _result(row: JobRow, data: bytes | None, listed: bool) -> str:
    if row["result_size"] is None:
        return "null"
    shown = {"media_type": row["result_type"], "size": row["result_size"], "sha256": row["result_sha256"]}
    if not listed:
        shown["data"] = base64.b64encode(data or b"").decode()
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _invoices(quote: str) -> str:
    return json.dumps(json.loads(quote)["body"].get("invoices"), ensure_ascii=False, separators=(",", ":"))


def _or_null(value: Any) -> str:
    return "null" if value is None else _text(value)


def _time(ms: int | None) -> str:
    return "null" if ms is None else f'"{show_time(ms)}"'
