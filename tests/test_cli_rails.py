"""Both rails in one market, by real processes: one seller with a wallet of each, buyers with either or both; a dev ledger and a real mint."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import PASSWORD, PATIENCE, Home, Stage, shout, staged
from tests.mint import Mint
from tradeskill.profile import create_profile
from tradeskill.world import World
from tradeskill_plugins.relay.server.aside import relay_aside
from tradeskill_plugins.relay.server.door import DoorSettings
from tradeskill_plugins.relay.server.serving import RelaySettings

PRICES = ["0.001 XNO", "200 sat"]
LOUD = {**shout("loud"), "price": PRICES}
FAILS = {**shout("fails"), "price": PRICES, "run": [sys.executable, "-I", "-c", "import sys; sys.exit(3)"]}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("rails")) as ready:
        yield ready


class Town:
    """Profiles with wallets of these rails, on one market."""

    def __init__(self, stage: Stage, mint: Mint, market: dict[str, str] | None = None) -> None:
        self.stage, self.market = stage, market or {"plugin": "embedded", "path": str(stage.folder / "market.db")}
        self.wallets = {"nano": {"plugin": "nano", "rpc": [stage.rpc], "ws": stage.ws}, "cashu": {"plugin": "cashu", "mints": [mint.url]}}

    def home(self, name: str, rails: Sequence[str]) -> Home:
        home = self.stage.home(name)
        create_profile(home.path, {"network": "dev", "market": self.market, "wallets": [self.wallets[rail] for rail in rails]}, "dev", PASSWORD, World())
        return home

    def funded(self, name: str, rails: Sequence[str]) -> Home:
        home = self.home(name, rails)
        if "nano" in rails:
            home.run("devnet", "fund", home.json("wallet", "address", "--rail", "nano")["address"], "1 XNO", "--rpc", self.stage.rpc).ok()
            home.json("wallet", "receive")
        if "cashu" in rails:
            home.json("cashu", "mint", "2000")
        return home


@pytest.fixture
def town(stage: Stage, mint: Mint) -> Town:
    return Town(stage, mint)


def hired(home: Home, name: str, *options: str) -> dict[str, Any]:
    return dict(home.run("hire", name, "--input", '{"text": "hello"}', "--yes", *options, "--json").json)


def test_each_buyer_pays_by_the_rail_it_has_or_its_policy_likes_and_the_seller_earns_on_both(town: Town) -> None:
    seller = town.funded("seller", ["nano", "cashu"])
    nano, cashu, both = town.funded("nano", ["nano"]), town.funded("cashu", ["cashu"]), town.funded("both", ["nano", "cashu"])
    with seller.selling(town.stage.config("seller", [LOUD, FAILS])):
        assert "0.001 XNO or 200 sat" in nano.run("offers").ok().out
        (offer,) = [offer for offer in nano.json("offers") if offer["title"] == "Loud"]
        assert [price["unit"] for price in offer["prices"]] == ["raw", "sat"]
        found = {
            "only nano": hired(nano, "loud"),
            "only cashu": hired(cashu, "loud"),
            "the first wallet": hired(both, "loud"),
            "the most in sat": hired(both, "loud", "--label", "sat", "--max", "300 sat"),
            "either": hired(both, "loud", "--label", "either", "--max", "0.0009 XNO or 200 sat"),
        }
        rails = {"only nano": "nano", "only cashu": "cashu", "the first wallet": "nano", "the most in sat": "cashu", "either": "cashu"}
        assert {name: (view["state"], view["rail"]) for name, view in found.items()} == {name: ("received", rail) for name, rail in rails.items()}
        assert "set a cap in" in hired(both, "loud", "--label", "none", "--max", "5 msat")["error"]["message"]
        word, policy = town.stage.password_file("owner", "word"), town.stage.folder / "policy.yaml"
        policy.write_text('{"rails": ["cashu", "nano"]}')
        both.run("policy", "set", str(policy), "--passphrase-file", str(word)).ok()
        assert hired(both, "loud", "--label", "liked")["rail"] == "cashu"
        _come_back(both)
    loud = seller.json("earnings")["by_offer"]["loud"]
    assert (loud["jobs"], loud["raw"], loud["sat"]) == (6, str(2 * 10**27), "800")


def _come_back(home: Home) -> None:
    """A failed job, paid in sat by that policy, is refunded in sat."""
    before = int(home.json("cashu", "balance")["available"].split()[0])
    deadline = time.monotonic() + PATIENCE
    while (view := hired(home, "fails"))["state"] != "refunded":
        assert time.monotonic() < deadline, view
        time.sleep(0.1)
    assert view["rail"] == "cashu"
    assert 0 < before - int(home.json("cashu", "balance")["available"].split()[0]) < 20  # the mint's fees


def test_over_a_relay_too_each_rail_is_quoted_and_a_token_travels_with_its_claim(stage: Stage, mint: Mint) -> None:
    settings = RelaySettings(str(stage.folder / "relay.db"), DoorSettings(port=0), per_ip=None, per_key=None, strict=None)
    with relay_aside(settings, World()) as url:
        town = Town(stage, mint, {"plugin": "relay", "url": url})
        seller, buyer = town.funded("far seller", ["nano", "cashu"]), town.funded("far buyer", ["cashu", "nano"])
        with seller.selling(stage.config("far", [LOUD])):
            by_token, by_block = hired(buyer, "loud"), hired(buyer, "loud", "--label", "xno", "--max", "0.001 XNO")
        for view, rail in ((by_token, "cashu"), (by_block, "nano")):
            assert (view["state"], view["rail"], view["receipt"]) == ("received", rail, "verified")


def test_a_spend_by_hand_leaves_only_by_the_rails_of_the_policy(town: Town) -> None:
    home, other = town.funded("careful", ["nano", "cashu"]), town.home("other", ["nano", "cashu"])
    policy = Path(town.stage.folder / "careful.yaml")
    policy.write_text('{"rails": ["cashu"]}')
    home.run("policy", "set", str(policy), "--passphrase-file", str(town.stage.password_file("owner", "word"))).ok()
    to = other.json("wallet", "address")["address"]
    home.run("wallet", "send", to, "0.1 XNO", "--yes").failed(5, "money may leave by cashu only, not by nano")
    checked = home.run("policy", "check", "--amount", "1 XNO", "--rail", "nano", "--json")
    assert (checked.code, checked.json["verdict"], checked.json["rule"]) == (5, "refused", "rails")
    home.run("cashu", "send", other.json("cashu", "address")["address"], "5 sat", "--yes").ok()
