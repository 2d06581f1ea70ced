"""Whose request is it: the client's address behind configured proxies, and the key under which an address is counted. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from tradeskill.errors import UsageError

__all__ = ["Proxies", "limit_key", "plain_ip"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PORT_V4 = re.compile(r"([0-9.]{7,15}):[0-9]{1,5}")
_BRACKETS = re.compile(r"\[([^\[\]]{2,45})\](?::[0-9]{1,5})?")


@lru_cache(maxsize=4096)
def plain_ip(text: str) -> str | None:
    """One way to write an address: IPv6 compressed, without zone or port, IPv4 even where it came mapped into IPv6. None if it is no address."""
    text = text.strip(" \t")
    if match := _PORT_V4.fullmatch(text) or _BRACKETS.fullmatch(text):
        text = match.group(1)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@lru_cache(maxsize=4096)
def limit_key(ip: str) -> str:
    """Under which key the requests of an address are counted: an IPv4 address by itself, IPv6 by its /64 (one customer has at least that many).

    Anything that is no address is its own key.
    """
    plain = plain_ip(ip)
    if plain is None or ":" not in plain:
        return plain or ip
    return str(ipaddress.IPv6Network((plain, 64), strict=False))


class Proxies:
    """The proxies whose `X-Forwarded-For` is believed: addresses and networks in CIDR notation. UsageError on any other text."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [_network(text) for text in networks]

    def trusts(self, ip: str) -> bool:
        """Is this one of the proxies? False for anything that is no address."""
        plain = plain_ip(ip) if self._networks else None
        if plain is None:
            return False
        address = ipaddress.ip_address(plain)
        return any(address in network for network in self._networks)

    def client(self, peer: str, forwarded: Iterable[bytes]) -> str:
        """Whom `peer` speaks for: the right-most hop of `X-Forwarded-For` that is none of ours.

        `forwarded`: the header's values in the order of their lines. A peer that is no proxy speaks for itself, whatever it forwards; what
        stands left of the first stranger, or of a word that is no address, was written by a stranger and is never read.
        """
        speaker = peer
        hops = b",".join(forwarded).decode("latin-1").split(",")
        while self.trusts(speaker) and hops:
            hop = plain_ip(hops.pop())
            if hop is None:
                break
            speaker = hop
        return speaker


def _network(text: str) -> _Network:
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise UsageError(f"proxy {text!r} is neither an IP address nor a network such as 10.0.0.0/8") from error
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}", strict=False) if mapped and network.prefixlen >= 96 else network
