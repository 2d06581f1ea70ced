"""settings: each key of the rail's configuration, and each way to get it wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tradeskill.errors import ConfigError
from tradeskill_wallet.primitives import decode_address
from tradeskill_wallet.settings import NanoSettings, parse_settings

NODE = "http://127.0.0.1:7076"
REP = "nano_3e3j5tkog48pnny9dmfzj1r16pg8t1e76dz5tmac6iq689wyjfpiij4txtdo"


def test_one_url_is_enough() -> None:
    assert parse_settings({"rpc": NODE}) == NanoSettings((NODE,))
    assert parse_settings({"plugin": "nano", "rpc": [NODE]}) == NanoSettings((NODE,))


def test_every_key_is_understood() -> None:
    full: dict[str, Any] = {
        "rpc": [NODE, "https://node.example/rpc"],
        "ws": "wss://node.example",
        "work": "node",
        "representative": REP,
        "accounts": 4,
        "confirmations_from": 2,
        "two_node_threshold": "100 XNO",
    }
    assert parse_settings(full) == NanoSettings(
        (NODE, "https://node.example/rpc"), "wss://node.example", "node", decode_address(REP), 4, 2, 100 * 10**30
    )


WRONG = [
    ("rpc", None), ("rpc", []), ("rpc", ""), ("rpc", "127.0.0.1:7076"), ("rpc", "ftp://x"), ("rpc", "http://"), ("rpc", [5]), ("rpc", {"a": 1}),
    ("rpc", "http://x:99999999"), ("rpc", "http://[::1"), ("rpc", [NODE, NODE]),
    ("ws", "http://x"), ("ws", 5), ("ws", ["ws://x"]), ("work", "cpu"), ("work", True), ("representative", "nano_x"), ("representative", 5),
    ("accounts", 0), ("accounts", 65), ("accounts", "1"), ("accounts", True), ("confirmations_from", 0), ("confirmations_from", 2),
    ("two_node_threshold", 5), ("two_node_threshold", "5"), ("two_node_threshold", "1e3 XNO"), ("two_node_threshold", "5 sat"),
    ("nodes", NODE), ("RPC", NODE),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_or_unknown_key_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"[\"']{key}[\"']"):
        parse_settings({"rpc": NODE, key: value})


def test_several_confirmations_need_to_know_from_which_amount() -> None:
    with pytest.raises(ConfigError, match="two_node_threshold"):
        parse_settings({"rpc": [NODE, "http://other:1"], "confirmations_from": 2})


def test_a_missing_rpc_says_how_to_write_it() -> None:
    with pytest.raises(ConfigError, match="http://127"):
        parse_settings({})
