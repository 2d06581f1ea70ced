"""Subscriptions over a mint's websocket (NUT-17), as hints only: something may have changed, go and ask. Nothing that comes this way is believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Final, Literal

from tradeskill.errors import InputError, UnavailableError
from tradeskill.signing import parse_json
from tradeskill_plugins.cashu.nuts.mint_url import mint_url

__all__ = ["MAX_FILTERS", "Kind", "hints"]

Kind = Literal["bolt11_mint_quote", "bolt11_melt_quote", "proof_state"]
MAX_MESSAGE: Final = 64 * 1024  # bytes
MAX_FILTERS: Final = 1000  # of one subscription
SECONDS: Final = 10.0  # to connect, and for the mint to say yes


async def hints(url: str, kind: Kind, filters: Sequence[str]) -> AsyncGenerator[str, None]:
    """Those of `filters` (quote ids, or Ys) that the mint says something of, each as it comes: first all, then what changes.

    UnavailableError when the mint cannot be reached, refuses, says no, sends garbage or goes away; then poll, and subscribe again later. A mint that
    falls silent is not noticed: poll anyway, seldom. End the iteration (`aclose`) to end the subscription.
    """
    import websockets.asyncio.client
    import websockets.exceptions

    if not 0 < len(filters) <= MAX_FILTERS:
        raise InputError(f"{len(filters)} things to watch: 1 to {MAX_FILTERS} go into one subscription")
    mint = mint_url(url)
    wanted, target = set(filters), "ws" + mint.removeprefix("http") + "/v1/ws"
    request = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"kind": kind, "subId": "1", "filters": list(filters)}}
    try:
        async with websockets.asyncio.client.connect(
            target, open_timeout=SECONDS, close_timeout=SECONDS, max_size=MAX_MESSAGE, compression=None, proxy=True if mint.startswith("https:") else None
        ) as socket:
            await socket.send(json.dumps(request))
            async with asyncio.timeout(SECONDS):
                while not _accepted(await socket.recv(), mint):
                    pass
            while True:
                if (name := _named(await socket.recv(), mint)) in wanted:
                    yield name
    except (OSError, TimeoutError, websockets.exceptions.WebSocketException) as error:
        raise UnavailableError(f"mint {mint} gives no hints: {str(error) or type(error).__name__}") from error


def _message(data: str | bytes, mint: str) -> dict[str, object]:
    try:
        value = parse_json(data, "message")
    except InputError as error:
        raise UnavailableError(f"mint {mint} gives no hints: {error}") from error
    if not isinstance(value, dict):
        raise UnavailableError(f"mint {mint} gives no hints: it sent no object")
    if "error" in value:
        raise UnavailableError(f"mint {mint} gives no hints: it answered {str(value['error'])[:200]!r}")
    return {**value}


def _accepted(data: str | bytes, mint: str) -> bool:
    return "result" in _message(data, mint)


def _named(data: str | bytes, mint: str) -> str:
    """Which quote or Y a message is about, "" for none."""
    params = _message(data, mint).get("params")
    payload = params.get("payload") if isinstance(params, dict) else None
    if not isinstance(payload, dict):
        return ""
    name = payload.get("quote") or payload.get("Y")
    return name if isinstance(name, str) else ""
