"""The one truth of a profile: jobs, invoices, payments, purchases, reservations and the fence counter, in one SQLite file."""

from __future__ import annotations

from tradeskill.journal.blobs import Blobs, FileBlobs, MemoryBlobs
from tradeskill.journal.database import Database, Transaction
from tradeskill.journal.records import Effect, Fulfilment, InvoiceRow, PaymentRow, Purchase

__all__ = [
    "Blobs",
    "Database",
    "Effect",
    "FileBlobs",
    "Fulfilment",
    "InvoiceRow",
    "MemoryBlobs",
    "PaymentRow",
    "Purchase",
    "Transaction",
]
