"""The command `tradeskill cashu` as its owner types it, and whole trades paid in ecash by real processes: at a real mint."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import PASSWORD, PATIENCE, Home, shout
from tests.mint import ENVIRONMENT, Mint
from tests.test_docs import ROOT, Terminal, environment_here
from tradeskill.profile import create_profile
from tradeskill.world import World

NOBODY = "http://127.0.0.1:1"
FAILING = {**shout("fails"), "price": "100 sat", "run": [sys.executable, "-I", "-c", "import sys; sys.exit(3)"]}


class Town:
    """Profiles with cashu wallets that share a market and a mint."""

    def __init__(self, folder: Path, mint: str) -> None:
        self.folder, self.mint = folder, mint
        (folder / "password").touch(mode=0o600)
        (folder / "password").write_text(PASSWORD + "\n")

    def empty(self, name: str) -> Home:
        """A home without a profile yet."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TRADESKILL_")}
        environment |= {"TRADESKILL_HOME": str(self.folder / name), "TRADESKILL_PASSWORD_FILE": str(self.folder / "password")}
        return Home(self.folder / name, environment)

    def home(self, name: str, **wallet: Any) -> Home:
        if not (self.folder / name).exists():
            config = {
                "network": "dev",
                "market": {"plugin": "embedded", "path": str(self.folder / "market.db")},
                "wallets": [{"plugin": "cashu", "mints": [self.mint], **wallet}],
            }
            create_profile(self.folder / name, config, "dev", PASSWORD, World())
        return self.empty(name)

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
    home.run("wallet", "sweep").failed(3, "no nano wallet but cashu", "wallet balance")


def page() -> dict[str, str]:
    """The commands of docs/cashu.md, by the names of their blocks."""
    text = (ROOT / "docs" / "cashu.md").read_text("utf-8")
    found = re.findall(r"^<!-- run: (\w+)(?:, until \"[^\"]+\")? -->\n```shell\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert text.count("```shell") == len(found)
    return dict(found)


def test_the_page_of_the_rail_can_be_typed_as_it_stands_from_the_first_profile_to_the_restored_one(mint: Mint, tmp_path: Path) -> None:
    """The only changes: the tests' mint in the place of terminal 1's, whose command is tried by starting it."""
    blocks = page()
    assert set(blocks) == {"setup", "mint", "seller", "buyer", "again"}
    scripts = {name: text.replace("http://127.0.0.1:3338", mint.url) for name, text in blocks.items()}
    subprocess.run(["bash", "-euc", scripts["setup"]], cwd=tmp_path, env=environment_here(), check=True, timeout=PATIENCE)
    folder = tmp_path / "try-cashu"
    with ExitStack() as stack:

        def terminal(script: str) -> Terminal:
            opened = Terminal(script, folder, environment_here())
            stack.callback(opened.end)
            return opened

        first = terminal(blocks["mint"].replace("../.venv-mint", str(ENVIRONMENT)).replace("3338", "0"))
        terminal(scripts["seller"]).read_until("selling shout (100 sat)")
        buyer = terminal(scripts["buyer"] + scripts["again"])
        said = buyer.read_all()
        assert buyer.code() == 0, said
        assert re.search(rf"^ok   cashu +{mint.url} is .*, a fee of 0.1 sat for each proof spent", said, re.MULTILINE)
        assert "FAIL" not in said
        assert "\nHELLO\n" in said
        (left,) = re.findall(r"^available +(\d+) sat\nincoming +0 sat$", said, re.MULTILINE)
        assert 890 < int(left) < 900
        assert "next: `tradeskill cashu restore`, then `tradeskill doctor`" in said
        assert re.search(rf"^found +0\nunit +sat\navailable +{left} sat$", said, re.MULTILINE)
        first.read_until("running on http://127.0.0.1:")


def test_a_profile_made_for_a_mint_has_its_wallet_alone_and_one_made_for_a_node_too_has_both(town: Town) -> None:
    market = ("--market", str(town.folder / "market.db"))
    new, both = town.empty("new"), town.empty("two")
    made = new.json("init", "--non-interactive", "--mint", town.mint, *market)
    assert made["addresses"] == {"cashu": made["address"]}
    assert new.json("wallet", "address") == {"address": made["address"], "rail": "cashu"}
    (balance,) = new.json("wallet", "balance")["rails"]
    assert (balance["rail"], balance["unit"], balance["available"], balance["available_units"]) == ("cashu", "sat", "0 sat", "0")
    two = both.json("init", "--non-interactive", "--mint", town.mint, "--rpc", NOBODY, "--ws", "", *market)
    assert list(two["addresses"]) == ["nano", "cashu"]
    assert two["address"] == two["addresses"]["nano"]
    town.empty("none").run("init", "--non-interactive", "--mint", "ftp://mint.example", *market).failed(2, "https://mint.example")
    assert not (town.folder / "none").exists()


def test_a_mint_is_added_to_a_profile_of_another_rail_with_a_secret_of_its_own_once(town: Town) -> None:
    home = town.empty("both")
    home.run("init", "--non-interactive", "--rpc", NOBODY, "--ws", "", "--market", str(town.folder / "market.db")).ok()
    home.run("cashu", "balance").failed(3, "tradeskill cashu add URL")
    home.run("cashu", "add", "ftp://mint.example").failed(2, "https://mint.example")
    first = home.json("cashu", "add", town.mint)
    assert (first["mints"], first["wallet_made"], first["trouble"]) == ([town.mint], True, "")
    assert town.mint in first["found"]
    address, secret = home.json("cashu", "address"), home.path / "wallets" / "cashu" / "seed.json"
    kept = secret.read_bytes()
    second = home.json("cashu", "add", town.mint, NOBODY)
    assert (second["mints"], second["wallet_made"]) == ([town.mint, NOBODY], False)
    assert f"{NOBODY} cannot be reached" in second["trouble"]
    assert secret.read_bytes() == kept
    assert home.json("cashu", "address") != address  # it names the mints
    assert home.json("cashu", "mint", "50")["state"] == "paid"
    # each rail is shown, also while the other's node is away
    done = home.run("wallet", "balance", "--json")
    nano, cashu = done.json["rails"]
    assert (done.code, nano["error"]["exit_code"], cashu["available"]) == (6, 6, "50 sat")
    assert "available" not in done.json  # Nano's, which is not known
    text = home.run("wallet", "balance")
    assert text.out == "cashu  50 sat available, 0 sat incoming\n"
    assert NOBODY in text.failed(6, "nano: node")
    assert home.json("wallet", "balance", "--rail", "cashu")["rails"] == [cashu]
    home.run("wallet", "balance", "--rail", "gold").failed(3, "nano, cashu", "--rail")
    assert home.json("wallet", "address")["rail"] == "nano"
    assert home.json("wallet", "address", "--rail", "cashu") == {**home.json("cashu", "address"), "rail": "cashu"}
    assert "--rail" in home.run("wallet", "address").ok().err
    checks = {check["check"]: check for check in home.run("doctor", "--json").json}
    assert (checks["wallets"]["ok"], checks["cashu"]["ok"]) == (False, False)
    assert "cashu: 50 sat available" in checks["wallets"]["detail"]
    for words in (f"{town.mint} is ", f"mint {NOBODY} cannot be reached", "take it out"):
        assert words in checks["cashu"]["detail"]


def test_a_file_written_by_hand_is_left_to_its_owner_and_a_secret_is_never_made_anew(town: Town) -> None:
    home = town.home("hand")
    config, secret = home.path / "config.yaml", home.path / "wallets" / "cashu" / "seed.json"
    text = config.read_text() + "# mine\n"
    config.write_text(text)
    assert "written by hand" in home.run("cashu", "add", "https://mint.example").failed(2, '"https://mint.example"', "wallets")
    assert config.read_text() == text
    assert home.json("cashu", "add", town.mint)["wallet_made"] is False  # nothing to write
    home.json("cashu", "address")
    secret.rename(home.path / "elsewhere")
    home.run("cashu", "add", town.mint).failed(7, "without their secret")
    assert not secret.exists()
    home.run("cashu", "address").failed(7, "seed.json is missing", "cashu restore --from")
    (home.path / "wallets" / "cashu").rename(home.path / "gone")
    assert home.json("cashu", "add", town.mint)["wallet_made"] is True  # the entry stood there, the wallet did not


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
