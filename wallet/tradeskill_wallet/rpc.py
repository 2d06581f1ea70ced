"""The client side of the node's JSON-RPC: bounded, typed, network-checked, with retries and fail-over. It believes nothing; callers verify."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tradeskill.errors import InputError, NetworkMismatchError, UnavailableError
from tradeskill.model import Json, Network
from tradeskill.signing import parse_json
from tradeskill.world import World
from tradeskill_wallet.primitives import GENESIS_HASH

if TYPE_CHECKING:
    import httpx

__all__ = ["Node", "Nodes", "RpcError"]

MAX_ANSWER: Final = 16 * 2**20  # bytes; 500 blocks with their contents are about 0.6 MB
SECONDS: Final = 15.0  # for one whole request
ATTEMPTS: Final = 3


class RpcError(UnavailableError):
    """The node understood and said no: `error` is its own string. Where nobody handles it, it reads as "cannot be done now"."""

    code = "unavailable.rpc"

    def __init__(self, action: str, error: str, url: str) -> None:
        self.action, self.error = action, error
        super().__init__(f"node {url} refused {action}: {error}")


class Node:
    """One node. Each new connection's first use checks that it is on our network; a failure makes the next use check again."""

    def __init__(self, url: str, network: Network, client: httpx.AsyncClient) -> None:
        self.url = url
        self._network: Network = network
        self._client = client
        self._checked = False

    async def call(self, action: str, **params: Json) -> dict[str, Json]:
        """One request, no retry. RpcError, UnavailableError (no answer, garbage, too slow, too large) or NetworkMismatchError."""
        if not self._checked:
            await self.check()
        return await self._post({"action": action, **params})

    async def check(self) -> None:
        """Ask who it is. NetworkMismatchError unless it names our network and our genesis block."""
        answer = await self._post({"action": "version"})
        name, genesis = answer.get("network"), answer.get("network_identifier")
        if name != self._network:
            raise NetworkMismatchError(f"node {self.url} is on network {name!r}, this wallet is on {self._network!r}: use another node")
        wanted = GENESIS_HASH.get(self._network)
        if wanted is not None and (not isinstance(genesis, str) or genesis.upper() != wanted):
            raise NetworkMismatchError(f"node {self.url} says {name!r} but has genesis {genesis!r}, not {wanted}: use another node")
        self._checked = True

    async def _post(self, body: Mapping[str, Json]) -> dict[str, Json]:
        import httpx

        action = body["action"]
        try:
            async with asyncio.timeout(SECONDS):
                data = await self._read(json.dumps(body).encode())
        except TimeoutError as error:
            self._checked = False
            raise UnavailableError(f"node {self.url} did not answer {action} within {SECONDS:.0f} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            self._checked = False
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"node {self.url} cannot be reached for {action} ({reason}): is it running, and is that its address?") from error
        try:
            answer = parse_json(data, f"answer of node {self.url} to {action}")
        except InputError as error:
            raise UnavailableError(str(error)) from error
        if not isinstance(answer, dict):
            raise UnavailableError(f"node {self.url} answered {action} with {type(answer).__name__}, not an object")
        if "error" in answer:
            raise RpcError(str(action), str(answer["error"])[:200], self.url)
        return answer

    async def _read(self, content: bytes) -> bytes:
        data = bytearray()
        async with self._client.stream("POST", self.url, content=content) as response:
            if response.status_code != 200:
                raise UnavailableError(f"node {self.url} answered HTTP {response.status_code}")
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise UnavailableError(f"node {self.url} sent more than {MAX_ANSWER // 2**20} MiB")
        return bytes(data)


class Nodes:
    """Several nodes of one network, in order of preference. All calls here may be repeated: `process` repeats the same bytes."""

    def __init__(self, urls: Sequence[str], network: Network, world: World) -> None:
        import httpx

        tls = any(url.startswith("https:") for url in urls)
        self._client = httpx.AsyncClient(
            verify=tls,  # loading certificates costs 20 ms, and plain http has none to check
            trust_env=tls,
            timeout=SECONDS,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=0),  # the node closes every connection
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        )
        self.all = [Node(url, network, self._client) for url in urls]
        self._world = world
        self._preferred = 0

    async def close(self) -> None:
        await self._client.aclose()

    async def call(self, action: str, **params: Json) -> dict[str, Json]:
        """Ask the preferred node; on no answer the next one, three rounds with growing pauses. RpcError is an answer and is not retried."""
        import tenacity

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, UnavailableError) and not isinstance(e, RpcError)),
            sleep=self._world.sleep,
            reraise=True,
        )
        answer: dict[str, Json] = await retrying(self._round, action, params)
        return answer

    async def _round(self, action: str, params: Mapping[str, Json]) -> dict[str, Json]:
        last: UnavailableError | None = None
        for offset in range(len(self.all)):
            number = (self._preferred + offset) % len(self.all)
            try:
                answer = await self.all[number].call(action, **params)
            except RpcError:
                self._preferred = number
                raise
            except UnavailableError as error:
                last = error
                continue
            self._preferred = number
            return answer
        raise last or UnavailableError("no node is configured: set `rpc` in the wallet's settings")

    async def check(self) -> None:
        """Each node that answers must be on our network. UnavailableError when none answers."""
        results = await asyncio.gather(*(node.check() for node in self.all), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, UnavailableError):
                raise result
        if all(isinstance(result, UnavailableError) for result in results) and results:
            raise next(result for result in results if isinstance(result, UnavailableError))
