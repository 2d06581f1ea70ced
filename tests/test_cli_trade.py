"""The three terminals of the README: a ledger, a seller, a buyer, with every command that people use on the way."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import PATIENCE, SHOUT, Home, Stage, Worker, shout
from tradeskill.signing import canonical

PRICE = 10**27
HELLO = ("--input", '{"text": "hello"}')


@dataclass
class Day:
    """A seller at work, and a buyer who has bought one job."""

    stage: Stage
    seller: Home
    buyer: Home
    worker: Worker
    bought: dict[str, Any]

    @property
    def job_id(self) -> str:
        return str(self.bought["job_id"])

    def spent(self) -> int:
        return 10 * 10**30 - int(self.buyer.json("wallet", "balance")["available_raw"])


@pytest.fixture(scope="module")
def day(stage: Stage) -> Iterator[Day]:
    seller, buyer = stage.profile("seller"), stage.funded("buyer")
    with seller.selling(stage.config("seller-offers", [{**SHOUT, "title": "Shouting aloud", "tags": ["aloud"]}])) as worker:
        bought = buyer.process("hire", "shout", *HELLO, "--yes", "--max", "0.01 XNO", "--json").ok().json
        yield Day(stage, seller, buyer, worker, bought)


def test_an_offer_is_found_by_its_name_title_tag_id_and_the_beginning_of_it(day: Day) -> None:
    (offer,) = [offer for offer in day.buyer.json("offers") if offer["seller"] == day.worker.ready["seller"]]
    assert (offer["title"], offer["price"], offer["signature_valid"]) == ("Shouting aloud", "0.001 XNO", True)
    assert offer["offer_id"] == day.worker.ready["offers"]["shout"]
    assert day.buyer.json("offers", "nothing like it") == []
    known = {day.buyer.json("hire", name, *HELLO, "--yes")["purchase_id"] for name in ("Shouting aloud", "aloud", offer["offer_id"], offer["offer_id"][:8])}
    assert known == {day.bought["purchase_id"]}


def test_a_hired_job_comes_back_as_one_json_object(day: Day) -> None:
    assert (day.bought["state"], day.bought["money"], day.bought["amount_raw"]) == ("received", "spent", str(PRICE))
    assert day.bought["result"]["text"] == "HELLO\n"
    assert day.bought["result"]["sha256"] == day.bought["result_sha256"]
    assert day.bought["result"]["untrusted"] is True


def test_the_same_hire_again_is_the_same_purchase_and_no_second_payment(day: Day) -> None:
    before = day.spent()
    again = day.buyer.run("hire", "shout", "--input", '{ "text" : "hello" }', "--yes")
    assert again.ok().out == "HELLO\n"
    assert "no second payment" in again.err
    assert day.spent() == before
    assert day.buyer.json("hire", "shout", *HELLO, "--yes")["payment_id"] == day.bought["payment_id"]


def test_a_label_buys_the_same_thing_anew(day: Day) -> None:
    before = day.spent()
    anew = day.buyer.json("hire", "shout", *HELLO, "--yes", "--label", "second")
    assert anew["purchase_id"] != day.bought["purchase_id"]
    assert anew["payment_id"] != day.bought["payment_id"]
    assert day.spent() == before + PRICE


def test_a_dry_run_shows_the_price_and_pays_nothing_and_the_real_one_may_follow(day: Day, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"text": "later"}')
    before = day.spent()
    for _ in range(2):
        dry = day.buyer.json("hire", "shout", "--input", f"@{tmp_path / 'in.json'}", "--dry-run")
        assert (dry["price"], dry["money"], dry["dry_run"]) == ("0.001 XNO", "not moved", True)
    assert day.spent() == before
    real = day.buyer.run("hire", "shout", "--input", "@-", "--yes", stdin='{"text": "later"}')
    assert real.ok().out == "LATER\n"
    assert day.spent() == before + PRICE


def test_without_a_terminal_and_without_yes_nothing_is_even_requested(day: Day) -> None:
    before = day.buyer.json("jobs")["bought"]
    refused = day.buyer.run("hire", "shout", "--input", '{"text": "unasked"}')
    refused.failed(5, "--yes")
    assert "0.001 XNO" in refused.err
    assert day.seller.json("identity", "show")["key"][:16] in refused.err
    assert day.buyer.json("jobs")["bought"] == before


@pytest.mark.parametrize(("answer", "code"), [("n", 5), ("", 5), ("y", 0)])
def test_at_a_terminal_price_seller_and_cap_are_shown_and_only_a_yes_pays(day: Day, answer: str, code: int) -> None:
    keyboard, terminal = os.openpty()
    wish = [sys.executable, "-m", "tradeskill", "hire", "shout", "--input", '{"text": "asked"}', "--max", "0.5 XNO"]
    process = subprocess.Popen(wish, env=day.buyer.environment, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        os.write(keyboard, f"{answer}\n".encode())
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        os.close(keyboard)
        os.close(terminal)
    assert process.returncode == code, err
    assert [word for word in ("Shouting", day.worker.ready["seller"][:16], "0.001 XNO", "cap 0.5 XNO", "Pay for this job?") if word not in err] == []
    assert out == ("ASKED\n" if code == 0 else "")
    if code:
        assert "no money moved" in err


def test_a_cap_below_the_price_stops_before_anything_and_a_higher_one_buys(day: Day) -> None:
    wish = ("hire", "shout", "--input", '{"text": "capped"}', "--yes")
    day.buyer.run(*wish, "--max", "0.0009 XNO").failed(5, "--max", "0.0009 XNO", "0.0001 XNO", "nothing was paid")
    day.buyer.run(*wish, "--max", "0.0009 XNO", "--dry-run").failed(5, "0.0009 XNO")
    assert day.buyer.json(*wish, "--max", "0.001 XNO")["state"] == "received"


def test_a_declined_job_costs_nothing_and_the_same_command_tries_again(day: Day) -> None:
    with day.stage.profile("narrow").selling(day.stage.config("narrow", [shout("narrow", capacity={"jobs": 1, "per_buyer": 1})])):
        first = day.buyer.json("call", "buyer.request", '{"offer_id": "narrow", "input": {"text": "one"}}')
        assert first["state"] == "verified"
        wish = ("hire", "narrow", "--input", '{"text": "two"}', "--yes")
        for _ in range(2):
            day.buyer.run(*wish).failed(5, "places", "not moved", "repeat the command")
        day.buyer.json("call", "buyer.hire", '{"offer_id": "narrow", "input": {"text": "one"}, "max": "1 XNO"}')
        assert day.buyer.json(*wish)["result"]["text"] == "TWO\n"


def test_a_result_is_fetched_again_after_the_seller_is_gone(day: Day, tmp_path: Path) -> None:
    with day.stage.profile("leaving").selling(day.stage.config("leaving", [shout("leaving")])) as worker:
        bought = day.buyer.json("hire", "leaving", *HELLO, "--yes", "--output", str(tmp_path / "once"))
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended()["jobs_by_status"] == {"delivered": 1}
    for name in (bought["job_id"], bought["purchase_id"]):
        shown = day.buyer.run("job", name, "--output", str(tmp_path / name)).ok()
        assert "received" in shown.out
        (file,) = (tmp_path / name).iterdir()
        assert file.read_text() == "HELLO\n" == (tmp_path / "once" / file.name).read_text()


def test_both_sides_list_and_show_their_jobs(day: Day) -> None:
    assert day.job_id in [job["job_id"] for job in day.buyer.json("jobs", "--state", "received")["bought"]]
    assert day.job_id in day.buyer.run("jobs").ok().out
    sold = next(job for job in day.seller.json("jobs")["sold"] if job["job_id"] == day.job_id)
    assert (sold["state"], sold["offer"], sold["input"]) == ("delivered", "shout", {"text": "hello"})
    assert day.seller.json("job", day.job_id) == sold
    assert [payment["payment_id"] for payment in sold["payments"]] == [day.bought["payment_id"]]
    assert "0.001 XNO" in day.seller.run("jobs").ok().out


def test_a_receipt_stands_by_itself_until_anything_in_it_is_changed(day: Day, tmp_path: Path) -> None:
    key = day.seller.run("identity", "export").ok().out.strip()
    shown = day.buyer.run("receipt", "show", day.job_id).ok()
    chain = shown.json
    file, bytes_file = tmp_path / "receipt.json", tmp_path / "result.txt"
    file.write_text(shown.out)
    bytes_file.write_text("HELLO\n")
    stranger = day.stage.home("stranger")  # no profile is needed
    verified = stranger.process("receipt", "verify", str(file), "--result", str(bytes_file), "--seller", key, "--json").ok().json
    assert (verified["receipt_verified"], verified["result_checked"], verified["job_id"]) == (True, True, day.job_id)
    assert (verified["amount"], verified["fence"]) == (str(PRICE), day.seller.json("job", day.job_id)["fence"])
    whole = tmp_path / "whole.json"
    whole.write_text(day.buyer.run("receipt", "show", day.job_id, "--with-result").ok().out)
    assert [found["result_checked"] for found in stranger.json("receipt", "verify", str(file), str(whole))] == [False, True]

    bytes_file.write_text("hello\n")
    stranger.run("receipt", "verify", str(file), "--result", str(bytes_file)).failed(5, "result.sha256")
    stranger.run("receipt", "verify", str(file), "--seller", "0" * 64).failed(5, "pinned")
    file.write_bytes(canonical({**chain, "receipt": {**chain["receipt"], "body": {**chain["receipt"]["body"], "fence": "99"}}}))
    stranger.run("receipt", "verify", str(file)).failed(5, "signature")
    file.write_bytes(canonical({**chain, "quote": chain["request"]}))
    stranger.run("receipt", "verify", str(file)).failed(5)
    file.write_text("{}")
    stranger.run("receipt", "verify", str(file)).failed(2, "receipt show")


def test_earnings_agree_with_the_jobs_to_the_last_unit(day: Day) -> None:
    found = day.seller.json("earnings")
    jobs = day.seller.json("jobs", "--state", "delivered")["sold"]
    total = sum(int(payment["amount_raw"]) for job in jobs for payment in job["payments"])
    assert found["total"] == found["today"] == {"raw": str(total)}
    assert found["by_offer"] == {"shout": {"jobs": len(jobs), "raw": str(total)}}
    assert found["jobs_by_status"]["delivered"] == len(jobs)
    rows = list(csv.DictReader(io.StringIO(day.seller.run("earnings", "--csv").ok().out)))
    assert sum(int(row["amount"]) for row in rows) == total
    assert {row["job_id"] for row in rows} == {job["job_id"] for job in jobs}
    assert "total" in day.seller.run("earnings").ok().out
    assert day.seller.json("earnings", "--since", "2000-01-01", "--until", "2000-01-02")["range"] == {"raw": "0"}


def test_a_seller_is_pinned_at_the_first_purchase_and_another_key_for_its_offer_stops(day: Day) -> None:
    key = day.seller.json("identity", "export")["key"]
    offer = day.worker.ready["offers"]["shout"]
    pins = day.buyer.json("identity", "show")["pins"]
    assert (key, f"offer:{offer}", "first use") in [(pin["seller"], pin["label"], pin["how"]) for pin in pins]
    careful = day.stage.profile("careful")
    careful.run("identity", "pin", "ab" * 32, "--label", f"offer:{offer}").ok()
    careful.run("hire", "shout", *HELLO, "--yes").failed(5, "ab" * 32, key, "--replace")
    careful.run("identity", "pin", key, "--label", f"offer:{offer}").failed(5, "--replace")
    assert careful.json("identity", "pin", key, "--label", f"offer:{offer}", "--replace") == {"seller": key, "label": f"offer:{offer}"}
    assert careful.json("hire", "shout", *HELLO, "--dry-run")["price"] == "0.001 XNO"


def test_doctor_finds_a_working_profile_well_and_a_deaf_node_ill(day: Day) -> None:
    checks = day.buyer.json("doctor")
    assert [check for check in checks if not check["ok"]] == []
    assert {"profile", "rights", "journal", "identity", "market", "wallets", "spending"} <= {check["check"] for check in checks}
    assert {check["check"]: "isolation" in check["detail"] or "not to be had here" in check["detail"] for check in checks}["bubblewrap"]
    assert next(check["detail"] for check in checks if check["check"] == "process").startswith("not used; isolation none")
    lonely = day.stage.home("lonely")
    lonely.run("init", "--non-interactive", "--rpc", "http://127.0.0.1:1", "--ws", "").ok()
    ill = lonely.run("doctor", "--json")
    assert ill.code == 1
    assert [check["check"] for check in ill.json if not check["ok"]] == ["wallets"]
    assert "http://127.0.0.1:1" in next(check["detail"] for check in ill.json if not check["ok"])


def test_plugins_and_skills_are_listed_with_what_they_are(day: Day) -> None:
    listed = {plugin["name"]: plugin for plugin in day.buyer.json("plugins")}
    assert {name: listed[name]["kinds"] for name in ("nano", "embedded", "process", "buyer")} == {
        "nano": ["wallet"],
        "embedded": ["market"],
        "process": ["backend"],
        "buyer": ["skill"],
    }
    assert all(plugin["error"] is None and plugin["package"] and plugin["version"] and plugin["origin"] for plugin in listed.values())
    skills = {skill["name"]: [tool["name"] for tool in skill["tools"]] for skill in day.buyer.json("skills")}
    assert "buyer.hire" in skills["buyer"]
    assert "seller.deliver" in skills["seller"]


def test_an_agent_calls_the_same_tools_and_meets_the_same_purchase(day: Day) -> None:
    (offer,) = day.buyer.run("call", "buyer.search", json.dumps({"seller": day.worker.ready["seller"]})).ok().json
    hired = day.buyer.run("call", "buyer.hire", json.dumps({"offer_id": offer["offer_id"], "input": {"text": "hello"}, "max": "1 XNO"})).ok().json
    assert hired["purchase_id"] == day.bought["purchase_id"]
    status = day.buyer.json("call", "buyer.status", json.dumps({"purchase_id": day.job_id}))
    assert status["state"] == "received"
    assert day.buyer.json("call", "buyer.result", json.dumps({"purchase_id": day.job_id}))["text"] == "HELLO\n"


def test_a_worker_stops_by_itself_when_idle_and_drains_what_was_paid_while_nobody_worked(day: Day) -> None:
    seller = day.stage.profile("resting")
    config = day.stage.config("resting", [shout("resting")])
    idle = seller.run("sell", config, "--exit-when-idle", "0.5", "--json").ok()
    ready, stopped = [json.loads(line) for line in idle.out.splitlines()]
    assert (ready["event"], stopped["event"], stopped["jobs_by_status"]) == ("ready", "stopped", {})
    assert ready["seller"] == seller.json("identity", "export")["key"]
    with seller.selling(config) as worker:
        asked = day.buyer.json("call", "buyer.request", '{"offer_id": "resting", "input": {"text": "paid"}}')
        worker.process.send_signal(signal.SIGTERM)
        worker.ended()
    purchase = json.dumps({"purchase_id": asked["purchase_id"]})
    day.buyer.json("call", "buyer.accept", purchase)
    paid = day.buyer.json("call", "buyer.pay", purchase)
    assert (paid["state"], paid["money"]) == ("waiting", "spent")
    drained = json.loads(seller.process("sell", config, "--drain", "--json").ok().out.splitlines()[-1])
    assert drained["jobs_by_status"] == {"delivered": 1}
    assert day.buyer.json("call", "buyer.result", purchase)["text"] == "PAID\n"


def test_what_is_sent_once_under_a_key_is_sent_once(day: Day) -> None:
    friend = day.stage.profile("friend")
    address = friend.json("wallet", "address")["address"]
    send = ("wallet", "send", address, "0.5 XNO", "--yes", "--key", "rent")
    first = day.buyer.json(*send)
    states = (day.buyer.json(*send) for _ in range(1000))
    assert next(again for again in states if again["state"] == "final")["hash"] == first["hash"]
    day.buyer.run("wallet", "send", address, "0.5 XNO").failed(5, "--yes")
    assert friend.json("wallet", "balance")["incoming"] == "0.5 XNO"
    assert friend.json("wallet", "receive")["received"] == 1


def test_what_invoices_were_paid_is_swept_into_one_place(day: Day) -> None:
    before = day.seller.json("wallet", "balance")
    swept = day.seller.json("wallet", "sweep")
    after = day.seller.json("wallet", "balance")
    assert int(after["available_raw"]) == int(before["available_raw"]) + int(before["incoming_raw"]) > 0
    assert (after["available"], after["incoming"]) == (swept["available"], "0 XNO")
    assert day.seller.json("wallet", "sweep")["blocks"] == 0
    accounts = day.seller.json("wallet", "scan")["accounts"]
    assert len(accounts) > len(day.seller.json("jobs", "--state", "delivered")["sold"])


def test_a_quiet_address_is_one_line_and_a_qr_code_is_only_for_a_terminal(day: Day) -> None:
    done = day.buyer.run("wallet", "address").ok()
    assert done.out.startswith("nano_")
    assert done.out.count("\n") == 1
