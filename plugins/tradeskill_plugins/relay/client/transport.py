"""Requests to a relay: signed, bounded in time and size, sent again where an answer was lost, never faster than the relay allows.

A lost answer is *unknown*: the same bytes go out again under the same idempotency key (with a fresh nonce and time in the headers), within a
budget. After it, UnknownOutcomeError where the relay may have acted, UnavailableError where it cannot have. Redirects are not followed,
compression is not asked for, and no proxy or password is taken from the environment.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from tradeskill.errors import InputError, TradeskillError, UnavailableError, UnknownOutcomeError
from tradeskill.model import Json
from tradeskill.signing import Identity, parse_json
from tradeskill.world import World
from tradeskill_plugins.relay.client.failures import Failure, error_of, is_stuck, is_transient, read_failure, shown
from tradeskill_plugins.relay.client.pacing import Lane, Turns
from tradeskill_plugins.relay.signed_http import HEADERS, canonical_string

__all__ = ["Answer", "Question", "SignedRequests", "Transport"]

CONNECT: Final = 5.0  # seconds
SILENCE: Final = 15.0  # seconds without a byte
ATTEMPT: Final = 30.0  # seconds for one whole try
BUDGET: Final = 20.0  # seconds for all tries of one request; the callers' own loops go on after that
TRIES: Final = 6
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0
ASKED_MOST: Final = 120.0  # seconds that a relay may make all requests wait
ANSWER_MAX: Final = 4 * 2**20  # bytes of one answer, a list's aside
HEARTBEAT: Final = 45.0  # seconds; an event stream says something every 15
_SECONDS = re.compile(r"[0-9]{1,6}", re.ASCII)


@dataclass(frozen=True)
class Question:
    """One request. `body` is sent exactly; with it the request may change something. `most`: bytes of its answer."""

    method: str
    target: str  # with the query
    body: bytes = b""
    key: str = ""
    lane: Lane = "usual"
    signed: bool = True
    most: int = ANSWER_MAX

    @property
    def changes(self) -> bool:
        return self.method != "GET"

    @property
    def bucket(self) -> str:
        if not self.signed:
            return "ip"
        return "strict" if self.changes and self.target.rpartition("/")[2] in ("jobs", "offers") else "key"


@dataclass(frozen=True)
class Answer:
    """A success. `replayed`: it is what an earlier try was told. `headers`: lowercase names."""

    status: int
    headers: Mapping[str, str]
    value: Mapping[str, Json]

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotency-replayed", "").strip().lower() == "true"


class SignedRequests(httpx.Auth):
    """Signs each try as httpx sends it: raw target, body, the time and a nonce of its own."""

    requires_request_body = True

    def __init__(self, identity: Identity, world: World) -> None:
        self._identity, self._world = identity, world

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        timestamp, nonce = str(self._world.now_ms() // 1000), self._world.random_bytes(16).hex()
        message = canonical_string(request.method, request.url.raw_path, timestamp.encode(), nonce.encode(), request.content)
        signature = self._identity.sign_bytes(message)
        request.headers.update(dict(zip(HEADERS, (self._identity.key, timestamp, nonce, signature), strict=True)))
        yield request


class _Again(Exception):  # noqa: N818  # it asks for something
    """This try came to nothing. `acted`: the relay may have done it all the same."""

    def __init__(self, why: str, *, acted: bool, pause: float = 0.0, error: TradeskillError | None = None, stuck: bool = False) -> None:
        super().__init__(why)
        self.acted, self.pause, self.error, self.stuck = acted, pause, error, stuck


class Transport:
    """One relay, for one identity. `turns` keeps the pace; its buckets are `key`, `strict` and `ip`."""

    def __init__(self, url: str, identity: Identity, world: World, turns: Turns) -> None:
        self.url, self._world, self._turns = url, world, turns
        self._auth = SignedRequests(identity, world)
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(SILENCE, connect=CONNECT),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=4.0),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "tradeskill"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none is kept, none is sent
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Safe to call twice. What is under way ends with UnavailableError."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def ask(self, target: str, *, signed: bool = True, most: int = ANSWER_MAX, lane: Lane = "usual") -> Answer:
        """GET. UnavailableError when it cannot be had now."""
        return await self.exchange(Question("GET", target, signed=signed, most=most, lane=lane))

    async def exchange(self, question: Question) -> Answer:
        """The answer to the first try that has one. Refusals are raised as the errors they mean; `details["wire"]` holds their code.

        `details["stuck"]` is true where the relay will never say what became of this idempotency key.
        """
        await self._turns.turn(question.lane, question.bucket)
        began, tries, acted = self._world.monotonic(), 0, False

        def over(state: RetryCallState) -> bool:
            return tries >= TRIES or self._world.monotonic() - began + _pause(state) > BUDGET

        def _pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            return max(error.pause if isinstance(error, _Again) else 0.0, self._backoff(state.attempt_number))

        policy = AsyncRetrying(sleep=self._world.sleep, stop=over, wait=_pause, retry=retry_if_exception_type(_Again), reraise=True)
        try:
            async for attempt in policy:
                with attempt:
                    if tries:
                        await self._turns.turn(question.lane, question.bucket)
                    tries += 1
                    try:
                        return await self._once(question)
                    except _Again as again:
                        acted = acted or again.acted
                        raise
        except _Again as again:
            raise self._given_up(question, again, acted) from again
        raise AssertionError("the policy ends with an answer or an error")

    def _given_up(self, question: Question, again: _Again, acted: bool) -> TradeskillError:
        what = f"{question.method} {_path(question.target)}"
        if question.changes and acted:
            return UnknownOutcomeError(f"{what}: {again}; it may have happened: ask again", stuck=again.stuck)
        return UnavailableError(f"{what}: {again}; try again", stuck=again.stuck)

    def _backoff(self, attempt: int) -> float:
        """Doubling, with half of it drawn, so that many clients do not come back at once."""
        whole = min(LAST_PAUSE, FIRST_PAUSE * float(2 ** min(attempt - 1, 10)))
        return whole / 2 + whole / 2 * int.from_bytes(self._world.random_bytes(2), "big") / 65_535

    async def _once(self, question: Question) -> Answer:
        headers = {"content-type": "application/json"} if question.changes else {}
        if question.key:
            headers["idempotency-key"] = question.key
        client = self._opened()
        try:
            async with asyncio.timeout(ATTEMPT):
                request = client.build_request(question.method, self.url + question.target, content=question.body, headers=headers)
                response = await client.send(request, auth=self._auth if question.signed else None, stream=True)
                try:
                    data = await _bounded(response, question.most)
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _Again(f"the relay cannot be reached ({shown(str(error)) or type(error).__name__})", acted=False) from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise _Again(f"no answer from the relay ({shown(str(error)) or type(error).__name__})", acted=True) from error
        except (httpx.InvalidURL, RuntimeError) as error:
            if self._client is None:
                raise UnavailableError("the relay market was closed meanwhile: open it again") from error
            raise
        known = {name.lower(): value for name, value in response.headers.items()}
        return self._judged(question, response.status_code, known, data)

    def _judged(self, question: Question, status: int, headers: Mapping[str, str], data: bytes) -> Answer:
        encoded = headers.get("content-encoding", "identity").lower() != "identity"
        value: Json = None
        try:
            value = None if encoded else parse_json(data, "the relay's answer")
        except InputError as unreadable:
            if 200 <= status < 300:
                raise _Again(f"the relay's answer cannot be read ({unreadable})", acted=True) from unreadable
        if 200 <= status < 300:
            if not isinstance(value, dict):
                raise _Again("the relay's answer is not a JSON object", acted=True)
            return Answer(status, headers, value)
        failure = read_failure(status, value, headers)
        error = error_of(failure, f"{question.method} {_path(question.target)}", self._world.now_ms())
        if is_transient(failure):
            raise _Again(_reason(failure), acted=status != 429, pause=self._asked_to_wait(failure, headers, question.bucket), stuck=is_stuck(failure))
        if failure.replayed and status >= 500:
            raise UnknownOutcomeError(f"{error}; the relay says so whenever it is asked", stuck=True, wire=failure.code)
        raise error

    def _asked_to_wait(self, failure: Failure, headers: Mapping[str, str], bucket: str) -> float:
        given = headers.get("retry-after", "").strip()
        if failure.status not in (429, 503) or _SECONDS.fullmatch(given) is None:
            return 0.0
        seconds = min(float(given), ASKED_MOST)
        if failure.status == 429:
            self._turns.hold(seconds, "" if failure.details.get("scope") == "ip" else bucket)
        return seconds

    @asynccontextmanager
    async def stream(self, target: str, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """An event stream's bytes as they come, signed once. UnavailableError, or the refusal's own error, when it does not open."""
        await self._turns.turn("usual", "key")
        wait = httpx.Timeout(HEARTBEAT, connect=CONNECT)
        client = self._opened()
        try:
            request = client.build_request("GET", self.url + target, headers={"accept": "text/event-stream", **headers}, timeout=wait)
            response = await client.send(request, auth=self._auth, stream=True)
        except (httpx.HTTPError, RuntimeError) as error:
            raise UnavailableError(f"GET {target}: no events from the relay ({shown(str(error)) or type(error).__name__})") from error
        try:
            known = {name.lower(): value for name, value in response.headers.items()}
            if response.status_code != 200 or not known.get("content-type", "").startswith("text/event-stream"):
                with_text = await _text(response)
                failure = read_failure(response.status_code, with_text, known)
                raise UnavailableError(f"GET {target}: {_reason(failure)}") from error_of(failure, f"GET {target}", self._world.now_ms())
            yield _translated(response)
        finally:
            await response.aclose()

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            raise UnavailableError("the relay market is not open: call open() first")
        return self._client


async def _bounded(response: httpx.Response, most: int) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > most:
            raise httpx.ReadError(f"its answer is more than {most} bytes")
    return bytes(data)


async def _text(response: httpx.Response) -> Json:
    try:
        return parse_json(await _bounded(response, 65_536))
    except (httpx.HTTPError, InputError):
        return None


async def _translated(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    except (httpx.HTTPError, RuntimeError) as error:
        raise UnavailableError(f"the relay's events ended ({shown(str(error)) or type(error).__name__})") from error


def _reason(failure: Failure) -> str:
    said = failure.message or failure.code
    return f"the relay answers {failure.status}{f' ({said})' if said else ''}"


def _path(target: str) -> str:
    return target.partition("?")[0]
