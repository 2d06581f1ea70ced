"""One mint over HTTP: bounded in time, size and depth, typed in its failures. It never repeats a call: the wallet repeats the bytes that it stored.

Three kinds of "no", which the wallet must keep apart:
- MintRefusedError: the mint said no with a code of the protocol (see there what that means for a request that was sent before).
- UnavailableError: no answer to a question; ask again. Its child UnknownOutcomeError: no answer, or none that says anything, to something that
  changes the mint: it may have happened.
- UntrustedError (from `answers`): an answer that cannot be true.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from tradeskill.errors import InputError, UnavailableError, UnknownOutcomeError, UntrustedError
from tradeskill.model import Json
from tradeskill.signing import parse_json
from tradeskill_plugins.cashu.nuts import answers, keysets
from tradeskill_plugins.cashu.nuts.errors import MintRefusedError
from tradeskill_plugins.cashu.nuts.mint_url import mint_url
from tradeskill_plugins.cashu.nuts.model import Keyset, KeysetInfo, MeltQuote, MintInfo, MintQuote, Output, Proof, ProofState
from tradeskill_plugins.cashu.nuts.requests import MAX_ITEMS, Request, restore

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["MintClient"]

MAX_ANSWER: Final = 4 * 2**20  # bytes; a thousand signatures are about 0.4 MB
SECONDS: Final = 30.0  # for one whole request; a melt waits for Lightning: see `send`
MELT_SECONDS: Final = 120.0
_KEYS: Final = re.compile(r"[0-9A-Fa-f]{24,}")  # a mint may quote the secret that it refuses: such words are not repeated
Q = TypeVar("Q", MintQuote, MeltQuote)


class MintClient:
    """One mint, named by its URL. Its own connections; close it, or use it with `async with`."""

    def __init__(self, url: str, seconds: float = SECONDS, melt_seconds: float = MELT_SECONDS) -> None:
        """InputError for a URL that is none (see `mint_url`). Makes no connection."""
        import httpx

        self.url = mint_url(url)
        self._seconds, self._melt_seconds = seconds, melt_seconds
        tls = self.url.startswith("https:")
        self._http = httpx.AsyncClient(
            verify=tls,  # loading certificates costs 20 ms, and plain http has none to check
            trust_env=tls,
            timeout=None,  # noqa: S113 - every request is under a timeout of its own, as a whole
            follow_redirects=False,
            headers={"Accept-Encoding": "identity", "Accept": "application/json"},
        )

    async def __aenter__(self) -> MintClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Safe to call twice."""
        await self._http.aclose()

    # --- what only asks: may be repeated at will ---

    async def info(self) -> MintInfo:
        """NUT-06."""
        return answers.info(await self._ask("GET", "/v1/info"))

    async def keysets(self) -> tuple[KeysetInfo, ...]:
        """NUT-02: all keysets of the generations spoken here, active and not.

        One that is missing where it once stood is the mint's fault: what it signed is still owed.
        """
        return answers.keysets(await self._ask("GET", "/v1/keysets"))

    async def keyset(self, info: KeysetInfo) -> Keyset:
        """NUT-01: its keys, which must make its id. UntrustedError where they do not."""
        return keysets.keyset(info, answers.keys(await self._ask("GET", f"/v1/keys/{keysets.check_id(info.id)}"), info.id))

    async def mint_quote(self, quote_id: str) -> MintQuote:
        """NUT-04: the quote as it is now. UntrustedError if the mint shows another."""
        return _same(answers.mint_quote(await self._ask("GET", f"/v1/mint/quote/bolt11/{answers.quote_id(quote_id)}")), quote_id)

    async def melt_quote(self, quote_id: str) -> MeltQuote:
        """NUT-05: the quote as it is now; after a melt whose answer was lost, its state and change."""
        return _same(answers.melt_quote(await self._ask("GET", f"/v1/melt/quote/bolt11/{answers.quote_id(quote_id)}")), quote_id)

    async def states(self, ys: Sequence[str]) -> tuple[ProofState, ...]:
        """NUT-07: what became of proofs, by their Y; any number of them."""
        found: list[ProofState] = []
        for start in range(0, len(ys), MAX_ITEMS):
            part = ys[start : start + MAX_ITEMS]
            found += answers.states(part, await self._ask("POST", "/v1/checkstate", _bytes({"Ys": list(part)})))
        return tuple(found)

    async def restore(self, wanted: Sequence[Output], known: dict[str, Keyset]) -> dict[int, Proof]:
        """NUT-09: those of `wanted` (1 to 1000), by place, that the mint signed at any time; spent or not."""
        request = restore(wanted)
        return answers.restored(wanted, await self._ask("POST", request.path, request.body), known)

    # --- what makes something, but no money moves: a lost answer costs nothing ---

    async def new_mint_quote(self, amount: int, unit: str, pubkey: str = "", description: str = "") -> MintQuote:
        """NUT-04: an invoice that buys `amount`. UntrustedError where the mint quotes something else. `pubkey` (NUT-20) locks the quote to a key."""
        body: dict[str, Json] = {"amount": amount, "unit": unit}
        body |= {"pubkey": pubkey} if pubkey else {}
        body |= {"description": description} if description else {}
        quote = answers.mint_quote(await self._ask("POST", "/v1/mint/quote/bolt11", _bytes(body)))
        if (quote.amount, quote.unit, quote.pubkey) != (amount, unit, pubkey):
            raise UntrustedError(f"mint {self.url} quoted {quote.amount} {quote.unit} for {amount} {unit}, or for another key")
        return quote

    async def new_melt_quote(self, invoice: str, unit: str) -> MeltQuote:
        """NUT-05: what paying a Lightning invoice costs. The caller compares its amount with the invoice's."""
        quote = answers.melt_quote(await self._ask("POST", "/v1/melt/quote/bolt11", _bytes({"request": invoice, "unit": unit})))
        if (quote.request, quote.unit) != (invoice, unit):
            raise UntrustedError(f"mint {self.url} quoted another invoice or unit than was asked for")
        return quote

    # --- what moves money ---

    async def send(self, path: str, body: bytes) -> bytes:
        """Send the stored bytes of a request, once, and return the mint's 200 answer for `answers` to read; store that before using it.

        MintRefusedError or UnknownOutcomeError otherwise. Cancelled or out of time, the outcome is as unknown. Repeat with the same bytes only.
        """
        seconds = self._melt_seconds if path.startswith("/v1/melt/") else self._seconds
        try:
            return await self._exchange("POST", path, body, seconds)
        except UnavailableError as error:
            raise UnknownOutcomeError(str(error)) from error

    async def send_request(self, request: Request) -> bytes:
        """`send`, of a request not stored by its parts."""
        return await self.send(request.path, request.body)

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        return await self._exchange(method, path, body, self._seconds)

    async def _exchange(self, method: str, path: str, body: bytes | None, seconds: float) -> bytes:
        import httpx

        try:
            async with asyncio.timeout(seconds):
                status, data = await self._read(method, path, body)
        except TimeoutError as error:
            raise UnavailableError(f"mint {self.url} did not answer {_named(path)} within {seconds:.0f} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"mint {self.url} cannot be reached for {_named(path)} ({reason})") from error
        if status == 200:
            return data
        raise self._refusal(path, status, data)

    async def _read(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        data = bytearray()
        headers = {} if body is None else {"Content-Type": "application/json"}
        async with self._http.stream(method, self.url + path, content=body, headers=headers) as response:
            async for chunk in response.aiter_raw():  # unpacked by nobody: packed answers were not asked for
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise UnavailableError(f"mint {self.url} sent more than {MAX_ANSWER // 2**20} MiB")
        return response.status_code, bytes(data)

    def _refusal(self, path: str, status: int, data: bytes) -> MintRefusedError | UnavailableError:
        """A code of the protocol is a decision. Anything else (a proxy's page, code 0: "something went wrong in here") decides nothing."""
        try:
            body = parse_json(data, "answer") if status < 500 else None
        except InputError:
            body = None
        code = body.get("code") if isinstance(body, dict) else None
        detail = body.get("detail") if isinstance(body, dict) else ""
        said = "".join(c if c.isprintable() else " " for c in _KEYS.sub("…", str(detail)[:2000])[:200])
        if isinstance(code, int) and 10000 <= code < 100000:
            return MintRefusedError(f"mint {self.url} refused {_named(path)}: {said} (code {code})", code)
        return UnavailableError(f"mint {self.url} answered {_named(path)} with HTTP {status}{f': {said}' if said else ''}, which decides nothing")


def _same(quote: Q, quote_id: str) -> Q:
    if quote.id != quote_id:
        raise UntrustedError("the mint shows another quote than was asked for")
    return quote


def _named(path: str) -> str:
    """A path without a quote's id, which is a secret."""
    return "/".join(path.split("/")[:5]) if "/quote/" in path else path


def _bytes(body: dict[str, Json]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
