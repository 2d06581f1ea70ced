"""Receipts and results outside a profile: verify a whole chain offline, write delivered bytes safely."""

from __future__ import annotations

import base64
import io
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tradeskill.agreement import read_offer, read_quote, read_receipt, read_request
from tradeskill.errors import InputError, NotFoundError, StorageError, UntrustedError
from tradeskill.signing import digest, document_from_json, document_hash, parse_json

__all__ = ["save_result", "verify_chain"]

TAR = "application/x-tar"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", re.ASCII)
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
    """One file `NAME.EXT`, or a tar's members in the folder NAME; whole or not at all, in place of what an earlier call wrote, never outside `folder`.

    `name` may come from a stranger: what is no plain name is replaced by its hash. InputError for an archive that would write elsewhere.
    """
    plain = name if _PLAIN.fullmatch(name) else digest(name.encode())[:32]
    target = folder / (plain if media_type == TAR else f"{plain}{SUFFIXES.get(media_type.partition(';')[0].strip(), '.bin')}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{plain}.", dir=folder) as temporary:
            written = Path(temporary) / target.name
            if media_type == TAR:
                _unpack(data, written)
                _clear(target)
            else:
                written.write_bytes(data)
            written.replace(target)
        return sorted(path for path in target.rglob("*") if path.is_file()) if media_type == TAR else [target]
    except tarfile.TarError as error:
        raise InputError(f"the result is not a safe archive: {error}") from error
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}; choose another --output") from error


def _unpack(data: bytes, folder: Path) -> None:
    """Plain files and folders only, uncompressed (so that a few bytes cannot become a terabyte)."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive.getmembers():
            if not (member.isreg() or member.isdir()) or member.issparse() or member.name.startswith("/"):
                raise InputError(f"the result is not a safe archive: {member.name!r:.80} is no plain file or folder in it")
        archive.extractall(folder, filter="data")


def _clear(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
