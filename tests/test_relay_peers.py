"""Whose request is it: addresses, what proxies say, and under which key an address is counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeskill.errors import UsageError
from tradeskill_plugins.relay.server.peers import Proxies, limit_key, plain_ip

OURS = Proxies(["10.0.0.0/8", "192.0.2.1", "2001:db8:ff::/48"])


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1\t", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:DB8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:0db8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("", None),
        ("unknown", None),
        ("192.0.2.01", None),
        ("192.0.2.1, 192.0.2.2", None),
        ("１92.0.2.1", None),
        ("[192.0.2.1", None),
    ],
)
def test_an_address_is_written_in_one_way(text: str, plain: str | None) -> None:
    assert plain_ip(text) == plain


@pytest.mark.parametrize(
    ("ip", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_ipv6_is_counted_by_its_64_and_ipv4_by_itself(ip: str, key: str) -> None:
    assert limit_key(ip) == key


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.9", [b"203.0.113.5"], "198.51.100.9"),  # a stranger speaks for itself
        ("10.1.1.1", [], "10.1.1.1"),
        ("10.1.1.1", [b""], "10.1.1.1"),
        ("10.1.1.1", [b"203.0.113.5"], "203.0.113.5"),
        ("10.1.1.1", [b"1.1.1.1, 203.0.113.5"], "203.0.113.5"),  # what stands further left was written by 203.0.113.5
        ("10.1.1.1", [b"203.0.113.5, 10.9.9.9 , 192.0.2.1"], "203.0.113.5"),
        ("10.1.1.1", [b"1.1.1.1", b"203.0.113.5", b"10.2.2.2"], "203.0.113.5"),
        ("10.1.1.1", [b"1.1.1.1, unknown, 10.2.2.2"], "10.2.2.2"),
        ("10.1.1.1", [b"1.1.1.1, \xff\xfe"], "10.1.1.1"),
        ("10.1.1.1", [b"10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("2001:db8:ff::1", [b"[2001:db8:1::2]:80"], "2001:db8:1::2"),
        ("10.1.1.1", [b"::ffff:203.0.113.5"], "203.0.113.5"),
    ],
)
def test_the_right_most_stranger_is_the_client(peer: str, forwarded: list[bytes], client: str) -> None:
    assert OURS.client(peer, forwarded) == client


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_whatever_is_forwarded_the_client_is_an_address(forwarded: list[bytes]) -> None:
    assert plain_ip(OURS.client("10.1.1.1", forwarded)) is not None
    assert OURS.client("198.51.100.9", forwarded) == "198.51.100.9"


def test_a_mapped_network_means_the_ipv4_one_and_nonsense_is_refused() -> None:
    assert Proxies(["::ffff:10.0.0.0/104"]).trusts("10.200.0.1")
    assert not Proxies([]).trusts("127.0.0.1")
    assert not OURS.trusts("unknown")
    for text in ("localhost", "10.0.0.0/33", "", "10.0.0"):
        with pytest.raises(UsageError, match="neither an IP address nor a network"):
            Proxies([text])
