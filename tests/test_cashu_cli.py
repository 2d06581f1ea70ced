"""The command `tradeskill cashu` as its owner types it, and whole trades paid in ecash by real processes: at a real mint."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import PASSWORD, PATIENCE, Home, shout
from tests.mint import Mint
from tradeskill.profile import create_profile
from tradeskill.world import World

FAILING = {**shout("fails"), "price": "100 sat", "run": [sys.executable, "-I", "-c", "import sys; sys.exit(3)"]}


class Town:
    """Profiles with cashu wallets that share a market and a mint."""

    def __init__(self, folder: Path, mint: str) -> None:
        self.folder, self.mint = folder, mint
        (folder / "password").touch(mode=0o600)
        (folder / "password").write_text(PASSWORD + "\n")

    def home(self, name: str, **wallet: Any) -> Home:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TRADESKILL_")}
        environment |= {"TRADESKILL_HOME": str(self.folder / name), "TRADESKILL_PASSWORD_FILE": str(self.folder / "password")}
        if not (self.folder / name).exists():
            config = {
                "network": "dev",
                "market": {"plugin": "embedded", "path": str(self.folder / "market.db")},
                "wallets": [{"plugin": "cashu", "mints": [self.mint], **wallet}],
            }
            create_profile(self.folder / name, config, "dev", PASSWORD, World())
        return Home(self.folder / name, environment)

    def funded(self, name: str, amount: int, **wallet: Any) -> Home:
        home = self.home(name, **wallet)
        assert home.json("cashu", "mint", str(amount))["state"] == "paid"
        return home

    def config(self, *offers: dict[str, Any]) -> str:
        import json

        path = self.folder / "sell.yaml"
        path.write_text(json.dumps({"network": "dev", "offers": list(offers)}))
        return str(path)


@pytest.fixture
def town(tmp_path: Path, mint: Mint) -> Town:
    return Town(tmp_path, mint.url)


def held(home: Home) -> int:
    return int(home.json("cashu", "balance")["available"].split()[0])


def wait(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_from_an_empty_wallet_to_money_sent_and_found_again(town: Town) -> None:
    alice, bob = town.funded("alice", 1000), town.home("bob")
    assert held(alice) == 1000
    to = bob.json("cashu", "address")["address"]
    alice.run("cashu", "send", to, "300 sat").failed(5, "--yes")
    sent = alice.json("cashu", "send", to, "300 sat", "--key", "k", "--yes")
    assert alice.json("cashu", "send", to, "300 sat", "--key", "k", "--yes") == sent
    (told,) = bob.json("cashu", "inspect", sent["token"])
    assert (told["payment"], told["state"], told["unit"]) == (sent["payment"], "UNSPENT", "sat")
    assert bob.json("cashu", "receive") == {"received_payments": 1}
    assert bob.json("cashu", "inspect", sent["token"])[0]["state"] == "SPENT"
    assert held(bob) == 300
    assert bob.json("cashu", "receive", sent["token"]) == {"received": "300", "unit": "sat"}  # it is what came by the mint, and counts once
    assert held(bob) == 300
    assert held(alice) + 300 < 1000
    assert alice.json("cashu", "doubts") == []
    assert alice.json("cashu", "mints")[0]["fee_ppk"] == "100"
    secret = town.folder / "secret"
    alice.run("cashu", "backup").failed(5, "--show-seed")
    alice.run("cashu", "backup", "--show-seed", "--to", str(secret)).ok()
    assert secret.stat().st_mode & 0o077 == 0
    carol = town.home("carol")
    carol.run("cashu", "restore", "--from", str(secret)).failed(7, "--set-aside")
    assert int(carol.json("cashu", "restore", "--from", str(secret), "--set-aside")["found"]) == held(alice)


def test_what_is_typed_wrong_is_named(town: Town) -> None:
    home = town.home("home")
    own = home.json("cashu", "address")["address"]
    other = town.home("other").json("cashu", "address")["address"]
    home.run("cashu", "send", own, "1 sat", "--yes").failed(2, "address of this wallet")
    home.run("cashu", "send", own[:-3], "1 sat", "--yes").failed(2, "cashu address")
    home.run("cashu", "send", other, "1 XNO", "--yes").failed(2, "100 sat")
    home.run("cashu", "send", other, "5 sat", "--yes").failed(5, "holds 0 sat")
    home.run("cashu", "melt", "lnbc1", "--yes").failed(2, "no Lightning invoice")
    home.run("cashu", "mint", "5", "--mint", "https://mint.example").failed(3, "mint.example")
    home.run("cashu", "receive", "cashuBxx").failed(5, "no token")
    home.run("wallet", "balance").failed(3, "no nano wallet")


def test_a_policy_stands_before_what_is_sent_by_hand(town: Town) -> None:
    alice, other = town.funded("alice", 100), town.home("other").json("cashu", "address")["address"]
    word = town.folder / "word"
    word.touch(mode=0o600)
    word.write_text("owner\n")
    policy = town.folder / "policy.yaml"
    policy.write_text('{"caps": {"day": ["10 sat"]}}')
    alice.run("policy", "set", str(policy), "--passphrase-file", str(word)).ok()
    alice.run("cashu", "send", other, "11 sat", "--yes").failed(5, "cap per day is 10 sat")
    assert held(alice) == 100
    alice.run("cashu", "send", other, "5 sat", "--yes").ok()


def test_a_job_is_sold_for_ecash_and_a_failed_one_is_paid_back(town: Town) -> None:
    seller, buyer = town.funded("seller", 100), town.funded("buyer", 1000)
    with seller.selling(town.config({**shout("loud"), "price": "200 sat"}, FAILING)):
        done = buyer.json("hire", "loud", "--input", '{"text": "hello"}', "--yes")
        assert done["state"] == "received"
        assert held(seller) == 300
        wait(lambda: buyer.run("hire", "fails", "--input", '{"text": "hello"}', "--yes", "--json").json.get("state") == "refunded")
    assert 780 < held(buyer) < 800
    assert 290 < held(seller) < 300  # the way back costs the seller the mint's fees
