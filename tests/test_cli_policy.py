"""`tradeskill policy` and what passes its gate, as its owner types it: in a profile of its own, with real files and a real journal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import Home, Stage, shout

WORD = "owner's words"


@pytest.fixture
def home(stage: Stage, tmp_path: Path) -> Home:
    made = stage.profile(f"policy-{os.urandom(4).hex()}")
    (tmp_path / "word").write_text(WORD + "\n")
    (tmp_path / "word").chmod(0o600)
    return made


def written(tmp_path: Path, content: dict[str, Any]) -> str:
    (tmp_path / "new.yaml").write_text(json.dumps(content))
    return str(tmp_path / "new.yaml")


def test_from_the_first_policy_to_a_refusal_with_its_rule(home: Home, tmp_path: Path) -> None:
    word = ("--passphrase-file", str(tmp_path / "word"))
    assert home.run("policy", "show", "--json").ok().json["policy"] is None
    home.run("policy", "set").failed(3, "policy.yaml", "no such file")
    new = written(tmp_path, {"caps": {"day": ["1 XNO"]}, "ask_above": ["0.5 XNO"]})
    home.run("policy", "set", new).failed(7, "passphrase is needed", "--passphrase-file")
    assert home.run("policy", "set", new, *word, "--json").ok().json["serial"] == 1
    checked = home.run("policy", "check", "--amount", "0.5 XNO", "--json").ok().json
    assert checked["verdict"] == "allowed"
    assert home.run("policy", "check", "--amount", "0.6 XNO", "--json").ok().json["verdict"] == "ask"
    over = home.run("policy", "check", "--amount", "1.5 XNO", "--json")
    assert over.code == 5
    assert (over.json["rule"], over.json["over_by"], over.json["unit"]) == ("caps.day", str(5 * 10**29), "raw")
    shown = home.run("policy", "show", "--json").ok().json
    assert (shown["obeyed"], shown["frozen"], shown["serial"], shown["policy"]["caps"]) == (True, False, 1, {"day": ["1 XNO"]})


def test_loosening_needs_the_passphrase_whichever_command_does_it(home: Home, tmp_path: Path) -> None:
    word = ("--passphrase-file", str(tmp_path / "word"))
    home.run("policy", "set", written(tmp_path, {"caps": {"day": ["1 XNO"]}}), *word).ok()
    home.run("policy", "allow", "seller", "aa").ok()  # the first entry shuts everybody else out
    home.run("policy", "allow", "seller", "bb").failed(7, "passphrase is needed")
    changed = home.run("policy", "allow", "seller", "bb", "--json", *word).ok().json
    assert (changed["loosened"], changed["policy"]["allow"]) == (["allow.sellers"], {"sellers": ["aa", "bb"]})
    home.run("policy", "deny", "seller", "bb").ok()
    denied = home.run("policy", "check", "--amount", "1 raw", "--seller", "bb", "--json")
    assert (denied.code, denied.json["rule"]) == (5, "deny.sellers")
    home.run("policy", "allow", "planet", "x").failed(2, "'planet' is not seller")
    home.run("policy", "set", written(tmp_path, {"caps": {"day": ["2 XNO"]}})).failed(7, "passphrase is needed")


def test_what_was_changed_by_hand_is_shown_confirmed_or_taken_back(home: Home, tmp_path: Path) -> None:
    word = ("--passphrase-file", str(tmp_path / "word"))
    home.run("policy", "set", written(tmp_path, {"caps": {"day": ["1 XNO"]}}), *word).ok()
    path = home.path / "policy.yaml"
    path.write_text(path.read_text().replace("1 XNO", "9 XNO"))
    shown = home.run("policy", "show", "--json").ok().json
    assert (shown["obeyed"], "caps.day" in shown["wrong"]) == (False, True)
    refused = home.run("policy", "check", "--amount", "1 raw", "--json")
    assert (refused.code, refused.json["rule"]) == (5, "policy.yaml")
    home.run("policy", "set", "new.yaml", "--last").failed(2, "takes no file")
    home.run("policy", "set", "--last").ok()
    home.run("policy", "check", "--amount", "1 raw").ok()
    path.write_text(path.read_text().replace("1 XNO", "9 XNO"))
    assert home.run("policy", "set", "--json", *word).ok().json["loosened"] == ["caps.day"]
    home.run("policy", "check", "--amount", "9 XNO").ok()
    path.write_text("caps: {dya: []}\n")
    home.run("policy", "check", "--amount", "1 raw").failed(5, "did you mean 'day'", "nothing is spent")


def test_freezing_is_at_once_and_unfreezing_is_the_owners(home: Home, tmp_path: Path) -> None:
    assert home.run("policy", "freeze", "--json").ok().json["frozen"] is True
    frozen = home.run("policy", "check", "--amount", "1 raw", "--json")
    assert (frozen.code, frozen.json["rule"]) == (5, "frozen")
    (tmp_path / "wrong").write_text("wrong\n")
    (tmp_path / "wrong").chmod(0o600)
    home.run("policy", "unfreeze", "--password-file", str(tmp_path / "wrong")).failed(7, "wrong password")
    home.run("policy", "unfreeze").ok()
    home.run("policy", "check", "--amount", "1 raw").ok()


def test_a_grant_binds_whoever_names_it_and_what_it_grants_on(home: Home) -> None:
    made = home.run("policy", "grant", "--max", "1 XNO", "--for", "2h", "--note", "agent", "--json").ok().json
    bound = {"TRADESKILL_GRANT": made["grant"]}
    over = home.run("policy", "check", "--amount", "1.1 XNO", "--json", environment=bound)
    assert (over.code, over.json["rule"], over.json["over_by"]) == (5, f"grant {made['grant']}", str(10**29))
    home.run("policy", "check", "--amount", "1.1 XNO").ok()
    below = home.run("policy", "grant", "--max", "0.5 XNO", "--json", environment=bound).ok().json
    assert (below["under"], below["expires_at_ms"]) == (made["grant"], made["expires_at_ms"])
    home.run("policy", "grant", "--max", "2 XNO", environment=bound).failed(5, "cannot be granted under it")
    other = home.run("policy", "grant", "--max", "9 XNO", "--json").ok().json
    home.run("policy", "grant", "--max", "1 XNO", "--under", other["grant"], environment=bound).failed(2, "does not come from")
    home.run("policy", "grant", "--max", "1 XNO", "--max", "5 raw").failed(2, "twice for one unit")
    home.run("policy", "grant", "--max", "1 XNO", "--for", "soon").failed(2, "--for takes a time")
    home.run("policy", "revoke", made["grant"]).ok()
    assert [entry["revoked"] for entry in home.run("policy", "grants", "--json").ok().json] == [True, False, False]
    assert "agent" in home.run("policy", "grants").ok().out
    refused = home.run("policy", "check", "--amount", "1 raw", "--json", environment={"TRADESKILL_GRANT": below["grant"]})
    assert (refused.code, refused.json["rule"]) == (5, f"grant {made['grant']}")
    home.run("policy", "revoke", "nobody").failed(3, "not in this profile's journal")


def test_without_a_grant_the_list_says_how_to_make_one(home: Home) -> None:
    assert "tradeskill policy grant" in home.run("policy", "grants").ok().err


def test_sends_pass_the_same_gate(stage: Stage, tmp_path: Path) -> None:
    home, other = stage.funded(f"policy-{os.urandom(4).hex()}"), stage.profile(f"policy-{os.urandom(4).hex()}")
    (tmp_path / "word").write_text(WORD + "\n")
    word = ("--passphrase-file", str(tmp_path / "word"))
    away = other.run("wallet", "address", "--json").ok().json["address"]
    home.run("policy", "set", written(tmp_path, {"caps": {"day": ["0.5 XNO"]}}), *word).ok()
    home.run("wallet", "send", away, "0.6 XNO", "--yes").failed(5, "cap per day is 0.5 XNO", "exceed it by 0.1 XNO")
    for _ in range(2):
        home.run("wallet", "send", away, "0.4 XNO", "--yes", "--key", "one").ok()
    home.run("wallet", "send", away, "0.3 XNO", "--yes", "--key", "one").failed(4, "another key")
    home.run("wallet", "send", away, "0.2 XNO", "--yes").failed(5, "cap per day")
    assert home.run("policy", "show", "--json").ok().json["spent"]["day"] == {"raw": str(4 * 10**29)}
    home.run("policy", "freeze").ok()
    home.run("wallet", "send", away, "0.05 XNO", "--yes").failed(5, "frozen")


def test_a_hire_over_the_policy_pays_nothing_and_a_sweep_to_others_is_spending(stage: Stage, tmp_path: Path) -> None:
    buyer = stage.funded(f"policy-{os.urandom(4).hex()}")
    (tmp_path / "word").write_text(WORD + "\n")
    word = ("--passphrase-file", str(tmp_path / "word"))
    seller = stage.profile(f"policy-{os.urandom(4).hex()}")
    with seller.selling(stage.config(seller.path.name, [shout("capped")])):
        wish = ("hire", "Capped", "--input", json.dumps({"text": "a"}), "--yes", "--json")
        buyer.run("policy", "set", written(tmp_path, {"deny": {"markets": ["embedded"]}}), *word).ok()
        buyer.run(*wish).failed(5, "embedded is denied")
        buyer.run("policy", "set", written(tmp_path, {"ask_above": ["1 raw"]}), *word).ok()
        assert "nobody can be asked here" in buyer.run(*wish).failed(5)
        buyer.run("policy", "set", written(tmp_path, {"caps": {"total": ["0.001 XNO"]}}), *word).ok()
        assert buyer.run(*wish).ok().json["state"] == "received"
        again = ("hire", "Capped", "--input", json.dumps({"text": "b"}), "--yes", "--json")
        buyer.run(*again).failed(5, "total cap is 0.001 XNO", "exceed it by 0.001 XNO")
    away = buyer.run("wallet", "address", "--json").ok().json["address"]
    seller.run("policy", "set", written(tmp_path, {"caps": {"payment": ["1 raw"]}}), *word).ok()
    seller.run("wallet", "sweep", "--to", away, "--yes").failed(5, "cap per payment is")
    seller.run("policy", "set", written(tmp_path, {}), *word).ok()
    assert seller.run("wallet", "sweep", "--to", away, "--yes", "--json").ok().json["blocks"] >= 1
    assert seller.run("policy", "show", "--json").ok().json["spent"]["day"] == {"raw": str(10**27)}


def test_the_owner_chooses_another_passphrase(home: Home, tmp_path: Path) -> None:
    (tmp_path / "next").write_text("other words\n")
    (tmp_path / "next").chmod(0o600)
    old, new = ("--passphrase-file", str(tmp_path / "word")), ("--passphrase-file", str(tmp_path / "next"))
    home.run("policy", "passphrase", *old).failed(4, "no policy yet", "policy set")
    home.run("policy", "set", written(tmp_path, {"caps": {"day": ["1 XNO"]}}), *old).ok()
    home.run("policy", "passphrase", *old).failed(7, "passphrase is needed")
    home.run("policy", "passphrase", *new, "--new-passphrase-file", str(tmp_path / "next")).failed(7, "wrong passphrase")
    assert home.run("policy", "passphrase", *old, "--new-passphrase-file", str(tmp_path / "next"), "--json").ok().json["serial"] == 2
    wider = written(tmp_path, {"caps": {"day": ["2 XNO"]}})
    home.run("policy", "set", wider, *old).failed(7, "wrong passphrase")
    home.run("policy", "set", wider, *new).ok()
