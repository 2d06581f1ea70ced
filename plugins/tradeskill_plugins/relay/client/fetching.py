"""Getting a result from the URL that a seller names. The URL is a stranger's, and so is what lies there (fault 89).

The name is looked up once, every address it has must be a public one, and the connection goes to the address that was looked at. No redirects,
no proxy, no password, no cookies, no compression, 4 MiB and a minute at most. `local`: private addresses too, for a market on this machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import httpx

from tradeskill.errors import RefusedError, UnavailableError
from tradeskill.model import Result
from tradeskill_plugins.relay.client.failures import shown

__all__ = ["RESULT_MAX", "fetch_result", "is_public"]

RESULT_MAX: Final = 4 * 2**20
CONNECT, SILENCE, WHOLE = 5.0, 15.0, 60.0  # seconds
_TRANSLATED: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/23", "fec0::/10", "5f00::/16"),
        *("192.88.99.0/24", "192.0.0.0/24"),
    )
)
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet: none of this machine's, of a private net, or that a gateway translates into one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if any(found in network for network in _TRANSLATED if network.version == found.version):
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved and not found.is_unspecified


async def fetch_result(url: str, *, local: bool, resolve: Resolve | None = None) -> Result:
    """What lies at `url`, with the media type its server gives it.

    RefusedError where the URL or its answer is one that will not be had by asking again, UnavailableError where it may.
    """
    host, port, request_url = _parsed(url)
    addresses = await _looked_up(host, port, resolve or _resolve)
    if not local and not all(is_public(address) for address in addresses):
        raise RefusedError(f"result_url names {shown(host)}, which is not on the open internet: not fetched")
    target = request_url.copy_with(host=addresses[0])
    headers = {"host": request_url.netloc.decode("ascii"), "accept": "*/*", "accept-encoding": "identity", "user-agent": "tradeskill"}
    try:
        async with (
            asyncio.timeout(WHOLE),
            httpx.AsyncClient(timeout=httpx.Timeout(SILENCE, connect=CONNECT), trust_env=False, follow_redirects=False) as client,
            client.stream("GET", target, headers=headers, extensions={"sni_hostname": host}) as response,
        ):
            return await _read(response)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise RefusedError("result_url is not one that can be fetched") from error
    except (httpx.HTTPError, TimeoutError) as error:
        raise UnavailableError(f"result_url: {shown(str(error)) or type(error).__name__}") from error


async def _read(response: httpx.Response) -> Result:
    status = response.status_code
    if status >= 500 or status in (408, 425, 429):
        raise UnavailableError(f"result_url answers {status}")
    if status != 200:
        raise RefusedError(f"result_url answers {status}: redirects are not followed, and nothing else is a result")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError("result_url answers in a compression that was not asked for")
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > RESULT_MAX:
            raise RefusedError(f"result_url holds more than {RESULT_MAX} bytes")
    return Result(bytes(data), response.headers.get("content-type", "application/octet-stream")[:255])


def _parsed(url: str) -> tuple[str, int, httpx.URL]:
    if any(not "!" <= c <= "~" for c in url):
        raise RefusedError("result_url is not written in plain ASCII")
    try:
        parts, found = urllib.parse.urlsplit(url), httpx.URL(url)
        host, port = parts.hostname, parts.port
    except (ValueError, httpx.InvalidURL) as error:
        raise RefusedError("result_url is no URL") from error
    if parts.scheme not in ("http", "https") or not host or "%" in host or host != found.host:
        raise RefusedError("result_url must be http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None or found.userinfo:
        raise RefusedError("result_url holds a name or a password")
    return host, port or (443 if parts.scheme == "https" else 80), found.copy_with(fragment=None)


async def _looked_up(host: str, port: int, resolve: Resolve) -> Sequence[str]:
    try:
        async with asyncio.timeout(CONNECT):
            found = await resolve(host, port)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise UnavailableError(f"result_url: {shown(host)} cannot be looked up") from error
    if not found:
        raise UnavailableError(f"result_url: {shown(host)} has no address")
    return found


async def _resolve(host: str, port: int) -> Sequence[str]:
    import socket

    rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in rows))
