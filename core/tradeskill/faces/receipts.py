"""Receipts and results outside a profile: verify a whole chain offline, write delivered bytes safely."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path
from typing import Any

from tradeskill.agreement import read_offer, read_quote, read_receipt, read_request
from tradeskill.errors import InputError, NotFoundError, StorageError, UntrustedError
from tradeskill.signing import digest, document_from_json, document_hash, parse_json

__all__ = ["save_result", "verify_chain"]

SUFFIXES = {"application/json": ".json", "text/plain": ".txt", "text/markdown": ".md", "text/html": ".html", "application/pdf": ".pdf"}


def verify_chain(file: Path, result: Path | None, seller: str) -> dict[str, Any]:
    """Every link of offer -> request -> quote -> receipt (-> bytes). UntrustedError names the first that does not hold."""
    try:
        value = parse_json(file.read_bytes(), str(file))
        data = None if result is None else result.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{error.filename} cannot be read: {error.strerror}") from error
    if not isinstance(value, dict) or not {"offer", "request", "quote", "receipt"} <= set(value):
        raise InputError(f"{file} is not a receipt chain: make one with `tradeskill receipt show JOB_ID`")
    if data is None and isinstance(value.get("result_base64"), str):
        data = _decoded(str(value["result_base64"]), file)
    documents = {name: document_from_json(value[name]) for name in ("offer", "request", "quote", "receipt")}
    offer = read_offer(documents["offer"])
    if seller and offer.seller != seller:
        raise UntrustedError(f"the offer is signed by {offer.seller}, not by the pinned seller {seller}")
    request = read_request(documents["request"], documents["request"].key)
    quote = read_quote(documents["quote"], offer.seller)
    receipt = read_receipt(documents["receipt"], offer.seller)
    links = {
        "request.seller": (request.seller, offer.seller),
        "request.offer_hash": (request.offer_hash, offer.offer_hash),
        "quote.input_hash": (quote.input_hash, request.input_hash),
        "quote.offer_hash": (quote.offer_hash, offer.offer_hash),
        "quote.buyer": (quote.buyer, request.buyer),
        "receipt.job_id": (receipt.job_id, quote.job_id),
        "receipt.request_hash": (receipt.request_hash, document_hash(request.document)),
        "receipt.quote_hash": (receipt.quote_hash, document_hash(quote.document)),
        "receipt.buyer": (receipt.buyer, request.buyer),
        "receipt.network": (receipt.network, request.network),
        "receipt.amount": (receipt.amount in [i.amount for i in quote.invoices if i.rail == receipt.rail], True),
    }
    if data is not None:
        links["result sha256"] = (digest(data), receipt.result_sha256)
        links["result size"] = (len(data), receipt.result_size)
    for name, (found, wanted) in links.items():
        if found != wanted:
            raise UntrustedError(f"{name} is {found}, expected {wanted}: this receipt does not stand")
    return {
        "receipt_verified": True,
        "result_checked": data is not None,
        "job_id": receipt.job_id,
        "seller": receipt.seller,
        "buyer": receipt.buyer,
        "amount": str(receipt.amount.value),
        "unit": receipt.amount.unit,
        "payment_ids": list(receipt.payment_ids),
        "result_sha256": receipt.result_sha256,
        "delivered_at": receipt.delivered_at,
        "fence": receipt.fence,
    }


def _decoded(text: str, file: Path) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"{file}: result_base64 is not base64") from error


def save_result(data: bytes, media_type: str, name: str, folder: Path) -> list[Path]:
    """One file `result.EXT`, or a tar's members; new files only, never outside `folder`. InputError for a member that would leave it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if media_type != "application/x-tar":
            target = folder / f"{name}{SUFFIXES.get(media_type.partition(';')[0], '.bin')}"
            target.write_bytes(data)
            return [target]
        written = []
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive.getmembers():
                archive.extract(member, folder / name, filter="data")
                written.append(folder / name / member.name)
        return written
    except tarfile.TarError as error:
        raise InputError(f"the result is not a safe archive: {error}") from error
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}; choose another --output") from error
