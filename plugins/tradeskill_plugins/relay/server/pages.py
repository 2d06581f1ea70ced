"""What the relay says of itself: OpenAPI and the page for people, both made from the table of calls; capabilities."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any, Final

from tradeskill_plugins.relay import wire
from tradeskill_plugins.relay.server.endpoints import ENDPOINTS, Endpoint

__all__ = ["Pages"]

Schema = dict[str, Any]


def _text(low: int, high: int, **more: Any) -> Schema:
    return {"type": "string", "minLength": low, "maxLength": high, **more}


def _object(properties: Schema, required: tuple[str, ...] = (), **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def _maybe(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


_AMOUNT: Final = {"type": "string", "pattern": "^[0-9]{1,40}$"}
_TIME: Final = {"type": "string", "format": "date-time"}
_DOCUMENT: Final = _object(
    {
        "kind": {"type": "string", "enum": ["offer", "request", "quote", "receipt"]},
        "body": {"type": "object"},
        "key": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "signature": {"type": "string", "pattern": "^[0-9a-f]{128}$"},
    },
    ("kind", "body", "key", "signature"),
    description="A signed document of tradeskill; see docs/protocol.md.",
)
_SIGNED: Final = {"$ref": "#/components/schemas/Document"}
_BODIES: Final[dict[str, Schema]] = {
    "Document": _DOCUMENT,
    "EmptyBody": _object({}),
    "OfferBody": _object(
        {
            "title": _text(1, 120),
            "description": _text(1, 2_000),
            "tags": {"type": "array", "maxItems": 16, "items": _text(1, 32)},
            "pricing_mode": {"type": "string", "enum": ["fixed", "quote"]},
            "fixed_price_raw": _maybe(_AMOUNT),
            "active": {"type": "boolean"},
            "document": _SIGNED,
        },
        description="Without `document`: title, description and pricing_mode are required, and fixed_price_raw for fixed prices.",
    ),
    "JobBody": _object(
        {"offer_id": {"type": "string", "format": "uuid"}, "request_payload": {"type": "object"}, "request": _SIGNED}, ("offer_id", "request_payload")
    ),
    "QuoteBody": _object(
        {
            "quote_amount_raw": _AMOUNT,
            "quote_invoice_address": _text(1, 128),
            "quote_expires_at": _maybe(_TIME),
            "payment_charge_id": _maybe(_text(1, 128)),
            "payment_charge_address": _maybe(_text(1, 128)),
            "payment_provider": _maybe(_text(1, 32)),
            "quote": _SIGNED,
        },
        description="Amount and address are required without `quote`.",
    ),
    "DeclineBody": _object({"code": _text(1, 128), "message": _text(0, wire.MAX_ERROR)}, ("code", "message")),
    "PaymentBody": _object(
        {"payment_tx_hash": _text(1, 128), "payment_rail": _text(1, 32), "payment_proof": _text(0, wire.MAX_PROOF)}, ("payment_tx_hash",)
    ),
    "DeliverBody": _object(
        {
            "result_url": _text(1, wire.MAX_URL, format="uri"),
            "error": _object({"code": _text(1, 128), "message": _text(0, wire.MAX_ERROR), "details": {}}, ("code", "message"), additionalProperties=False),
            "result": _object({"media_type": _text(1, 255), "data": {"type": "string", "contentEncoding": "base64"}}, ("media_type", "data")),
            "receipt": _SIGNED,
            "market_fence": {"type": "integer", "minimum": 0},
        },
        additionalProperties=False,
        description="Exactly one of result_url, result and error.",
    ),
    "CancelBody": _object({"reason": _maybe(_text(0, 200))}),
    "Error": _object(
        {
            "error": _object(
                {"code": {"type": "string", "enum": sorted(wire.CODES)}, "message": {"type": "string"}, "details": {"type": ["object", "null"]}},
                ("code", "message", "details"),
            )
        },
        ("error",),
    ),
}
_QUERIES: Final[dict[str, Schema]] = {
    "list_offers": {
        "q": _text(0, 200),
        "tags": {"type": "string", "description": "comma-separated; all of them"},
        "seller_pubkey": _text(0, 64),
        "pricing_mode": {"type": "string", "enum": ["fixed", "quote"]},
        "active": {"type": "string", "enum": ["true", "false"]},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
        "offset": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
    },
    "list_jobs": {
        "status": {"type": "string", "description": "comma-separated"},
        "role": {"type": "string", "enum": ["seller", "buyer"]},
        "updated_after": _TIME,
        "cursor": {"type": "string", "description": "empty at first; then as the last answer gave it"},
        "request_nonce": _text(1, 128),
        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
        "offset": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
    },
    "events": {"cursor": {"type": "string"}},
}
_KINDS: Final = {"metrics": "text/plain", "docs": "text/html", "get_result": "application/octet-stream", "events": "text/event-stream"}
_HEADERS: Final = (
    ("X-Molt-PubKey", "^[0-9a-f]{64}$"),
    ("X-Molt-Timestamp", "^[0-9]{1,12}$"),
    ("X-Molt-Nonce", "^[0-9a-f]{32,64}$"),
    ("X-Molt-Signature", "^[0-9a-f]{128}$"),
)


class Pages:
    """`limits`: requests in a window, as capabilities shows them; None where a limit is off."""

    def __init__(self, version: str, limits: Mapping[str, int | None]) -> None:
        self._version, self._limits = version, dict(limits)
        self.human = _human().encode()

    def openapi(self, base: str) -> bytes:
        paths: dict[str, dict[str, Any]] = {}
        for endpoint in ENDPOINTS:
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
        return json.dumps(
            {
                "openapi": "3.1.0",
                "info": {"title": "tradeskill relay", "version": self._version, "description": "Signed as docs/relay.md says."},
                "servers": [{"url": base}],
                "paths": paths,
                "components": {"schemas": _BODIES},
            }
        ).encode()

    def capabilities(self, relay_id: str, network: str | None, now_ms: int) -> bytes:
        shown = {
            "tradeskill": 1,
            "relay_id": relay_id,
            "network": network,
            "time_ms": now_ms,
            "capabilities": {
                "market_fence": True,
                "decline": True,
                "payment_proof": wire.MAX_PROOF,
                "invoices": 8,
                "inline_result": wire.INLINE_RESULT,
                "cursor": True,
                "events": True,
                "offers": ["get", "update", "deactivate"],
                "documents": True,
            },
            "limits": {
                "body": wire.MAX_BODY,
                "request_payload": wire.MAX_REQUEST,
                "error": wire.MAX_ERROR,
                **self._limits,
                "window_ms": wire.WINDOW_MS,
            },
        }
        return json.dumps(shown, separators=(",", ":")).encode()


def _operation(endpoint: Endpoint) -> Schema:
    parameters: list[Schema] = []
    if "{id}" in endpoint.path:
        parameters.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string"}})
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in _QUERIES.get(endpoint.name, {}).items()]
    if endpoint.kind != "open":
        parameters += [{"name": name, "in": "header", "required": True, "schema": {"type": "string", "pattern": pattern}} for name, pattern in _HEADERS]
        if endpoint.method != "GET":
            parameters.append({"name": "Idempotency-Key", "in": "header", "schema": _text(1, wire.MAX_KEY)})
    kind = _KINDS.get(endpoint.name, "application/json")
    operation: Schema = {
        "operationId": endpoint.name,
        "summary": endpoint.about,
        "parameters": parameters,
        "responses": {
            str(endpoint.success): {"description": "done", "content": {kind: {"schema": {"type": "object"} if kind == "application/json" else {}}}},
            "default": {"description": "refused", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}},
        },
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{endpoint.body}"}}}}
    return operation


def _human() -> str:
    rows = "".join(
        f"<tr><td><code>{e.method}</code><td><code>{html.escape(e.path)}</code><td>{html.escape(e.about)}<td>{'open' if e.kind == 'open' else 'signed'}</tr>"
        for e in ENDPOINTS
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>tradeskill relay</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}td{padding:.2rem 1rem .2rem 0;vertical-align:top}</style>"
        "<h1>tradeskill relay</h1><p>Buyers and sellers of work meet here. It is never trusted with money or truth: requests, quotes and receipts are signed "
        'end to end. The same list for programs: <a href="/docs/json">OpenAPI</a>; what this relay adds: <a href="/v1/capabilities">capabilities</a>.'
        f"<table><thead><tr><th>method<th>path<th>for<th>who</tr></thead>{rows}</table></html>"
    )
