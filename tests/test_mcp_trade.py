"""Agents hire over MCP, on every transport, from a seller at work; and every tool answers the same over MCP as `tradeskill call`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp.client.client import Client

from tests.cli_stage import PASSWORD, PATIENCE, SHOUT, Home, Stage
from tests.mcp_stage import http_server, in_process, over_http, over_stdio
from tradeskill.profile import IDENTITY_FILE
from tradeskill.secretfile import read_secret
from tradeskill.skills import find_skills

LONG = 60_000
ENDLESS = {
    **SHOUT,
    "name": "endless",
    "title": "At length",
    "tags": [],
    "run": [sys.executable, "-I", "-c", f"import json, sys; print(json.load(sys.stdin)['text'] * {LONG})"],
}
BINARY = {**SHOUT, "name": "binary", "title": "Bytes", "tags": [], "run": [sys.executable, "-I", "-c", "import sys; sys.stdout.buffer.write(b'\\xff\\xfe')"]}


@dataclass
class Fair:
    """A seller at work, a buyer with money, and who the seller is on the tools' side."""

    stage: Stage
    seller: Home
    buyer: Home
    config: str

    def hires(self, text: str, offer: str = "louder", **more: Any) -> dict[str, Any]:
        return {"offer_id": offer, "input": {"text": text}, "max": "0.01 XNO", **more}


@pytest.fixture(scope="module")
def fair(stage: Stage) -> Iterator[Fair]:
    seller, buyer = stage.profile("mcp-seller"), stage.funded("mcp-buyer")
    config = stage.config("mcp-offers", [{**SHOUT, "name": "louder", "title": "Louder", "tags": ["mcp-loud"]}, ENDLESS, BINARY])
    with seller.selling(config):
        yield Fair(stage, seller, buyer, config)


def inside(fair: Fair, main: Callable[[Client], Any], transport: str = "memory", **options: Any) -> None:
    @asynccontextmanager
    async def connected() -> AsyncIterator[Client]:
        if transport == "memory":
            async with in_process(fair.buyer, **options) as client:
                yield client
        elif transport == "stdio":
            async with over_stdio(fair.buyer, **options) as client:
                yield client
        else:
            with http_server(fair.buyer) as ready:
                async with over_http(ready["url"], ready["token"], **options) as client:
                    yield client

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE), connected() as client:
            await main(client)

    asyncio.run(bounded())


def kept(fair: Fair, name: str) -> bytes:
    """A file of the profile that only its owner can read."""
    assert Path(name).is_relative_to(fair.buyer.path)
    assert Path(name).stat().st_mode & 0o777 == 0o600
    return Path(name).read_bytes()


def balance(home: Home) -> int:
    return int(home.json("wallet", "balance")["available_raw"])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("transport", ["memory", "stdio", "http"])
def test_an_agent_hires_and_reads_the_result_with_progress_on_the_way(fair: Fair, transport: str, mode: str) -> None:
    """S31: progress."""
    told: list[str] = []

    async def progress(number: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    async def main(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["buyer_hire"].output_schema is not None
        (offer,) = (await client.call_tool("buyer_search", {"tags": ["mcp-loud"]})).structured_content["result"]
        wish = fair.hires(f"{transport} {mode}", offer["offer_id"])
        hired = await client.call_tool("buyer_hire", wish, progress_callback=progress)
        assert not hired.is_error, hired
        answer = hired.structured_content
        assert (answer["state"], answer["money"], answer["repeated"]) == ("received", "spent", False)
        assert answer["result"]["text"] == f"{transport} {mode}\n".upper()
        assert json.loads(hired.content[0].text) == answer  # type: ignore[union-attr]  # it is text
        again = (await client.call_tool("buyer_hire", wish)).structured_content
        assert again == {**answer, "repeated": True}
        assert (again["again"], again["bought_at"] is not None) == ("label", True)

    inside(fair, main, transport, mode=mode)
    assert [state for state in told if state in ("requested", "verified", "paid", "received")] == ["requested", "verified", "paid", "received"]


def test_a_long_job_is_started_looked_at_and_fetched(fair: Fair) -> None:
    """S39: start, status, result."""
    async def main(client: Client) -> None:
        started = (await client.call_tool("buyer_hire", fair.hires("in the background", wait=False))).structured_content
        assert (started["money"], started["state"] in ("waiting", "received")) == ("spent", True)
        assert started["result"] is None or started["state"] == "received"
        asked = {"purchase_id": started["purchase_id"]}
        state = started["state"]
        while state == "waiting":
            state = (await client.call_tool("buyer_status", asked)).structured_content["state"]
        assert state == "received"
        fetched = (await client.call_tool("buyer_result", {**asked, "wait": False})).structured_content
        assert (fetched["text"], fetched["truncated"], fetched["file"]) == ("IN THE BACKGROUND\n", False, None)

    inside(fair, main)


def test_a_result_that_is_too_long_is_shown_in_part_and_whole_in_a_file_of_the_profile(fair: Fair) -> None:
    """S42: results."""
    async def main(client: Client) -> None:
        found = (await client.call_tool("buyer_hire", fair.hires("ü", "endless"))).structured_content["result"]
        assert (found["size"], found["truncated"], found["untrusted"]) == (2 * LONG + 1, True, True)
        assert found["text"] == "ü" * 25_000
        assert kept(fair, found["file"]).decode() == "ü" * LONG + "\n"

    inside(fair, main)


def test_bytes_that_are_no_text_come_as_base64_or_as_a_file(fair: Fair) -> None:
    async def main(client: Client) -> None:
        hired = (await client.call_tool("buyer_hire", fair.hires("x", "binary"))).structured_content
        assert (hired["result"]["text"], hired["result"]["base64"]) == (None, "//4=")
        cut = (await client.call_tool("buyer_result", {"purchase_id": hired["purchase_id"], "limit": 1})).structured_content
        assert (cut["text"], cut["base64"], cut["truncated"]) == (None, None, True)
        assert kept(fair, cut["file"]) == b"\xff\xfe"

    inside(fair, main)


def test_a_call_above_its_own_cap_moves_no_money_and_says_so(fair: Fair) -> None:
    before = balance(fair.buyer)

    async def main(client: Client) -> None:
        answer = (await client.call_tool("buyer_hire", {**fair.hires("too dear"), "max": "0.0001 XNO"})).structured_content
        assert (answer["state"], answer["money"], answer["error"]["code"]) == ("abandoned", "not moved", "refused.policy")
        assert "label" in answer["next"]

    inside(fair, main)
    assert balance(fair.buyer) == before


def test_many_calls_at_once_share_one_server_and_identical_ones_share_one_payment(fair: Fair) -> None:
    before = balance(fair.buyer)

    async def main(client: Client) -> None:
        answers = await asyncio.gather(*(client.call_tool("buyer_hire", fair.hires("all at once")) for _ in range(10)))
        assert {answer.structured_content["state"] for answer in answers} == {"received"}
        assert len({answer.structured_content["payment_id"] for answer in answers}) == 1

    inside(fair, main)
    assert before - balance(fair.buyer) == 10**27


# Asking the owner


@pytest.fixture(scope="module")
def asked(fair: Fair) -> Home:
    """A buyer whose policy wants its owner to be asked before any payment."""
    home = fair.stage.funded("mcp-asked")
    (fair.stage.folder / "asking.yaml").write_text(json.dumps({"ask_above": ["1 raw"]}))
    word = fair.stage.password_file("the owner's passphrase", "passphrase")
    home.run("policy", "set", str(fair.stage.folder / "asking.yaml"), "--passphrase-file", str(word)).ok()
    return home


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("said", [True, False, None])
def test_a_payment_that_the_policy_wants_approved_is_made_on_the_owner_s_yes_alone(fair: Fair, asked: Home, mode: str, said: bool | None) -> None:
    questions: list[str] = []

    async def owner(context: Any, params: Any) -> types.ElicitResult:
        questions.append(params.message)
        return types.ElicitResult(action="accept", content={"approve": bool(said)})

    before = balance(asked)
    options = {} if said is None else {"elicitation_callback": owner}

    async def main() -> Any:
        async with asyncio.timeout(PATIENCE), in_process(asked, mode=mode, **options) as client:
            return (await client.call_tool("buyer_hire", fair.hires(f"{mode} {said}"))).structured_content

    answer = asyncio.run(main())
    assert (answer["state"], answer["money"]) == (("received", "spent") if said else ("abandoned", "not moved"))
    assert before - balance(asked) == (10**27 if said else 0)
    assert len(questions) == (0 if said is None else 1)
    assert all("0.001 XNO" in question and "'Louder'" in question for question in questions)


# One table over all tools


def table(fair: Fair, bought: dict[str, Any]) -> dict[str, tuple[Home, list[dict[str, Any]]]]:
    """For each tool calls whose answers do not depend on the moment: what ended, what is repeated, what is refused."""
    purchase, job = {"purchase_id": bought["purchase_id"]}, {"job_id": bought["job_id"]}
    nothing = {"purchase_id": "nothing"}
    wish = fair.hires("the same either way")
    asked = {name: wish[name] for name in ("offer_id", "input")}
    buyer, seller = fair.buyer, fair.seller
    return {
        "buyer.search": (buyer, [{"tags": ["mcp-loud"]}, {"limit": "x"}, {"query": "no such offer"}]),
        "buyer.request": (buyer, [asked, {**asked, "offer_id": "nobody's"}, {**asked, "input": {"wrong": 1}, "label": "never"}]),
        "buyer.accept": (buyer, [purchase, nothing]),
        "buyer.pay": (buyer, [purchase, nothing, {}]),
        "buyer.status": (buyer, [purchase, nothing]),
        "buyer.result": (buyer, [purchase, nothing, {**purchase, "limit": 3}]),
        "buyer.hire": (buyer, [wish, {**wish, "max": "much"}, {**wish, "offer_id": "nobody's"}, {"offer_id": "louder"}]),
        "seller.register_offer": (seller, [{"name": "louder"}, {"name": "nothing"}]),
        "seller.list_jobs": (seller, [{"states": ["delivered"], "limit": 3}, {"states": "delivered"}]),
        "seller.quote": (seller, [job, {"job_id": "nothing"}]),
        "seller.verify_payment": (seller, [job, {"job_id": "nothing"}]),
        "seller.lock": (seller, [job, {"job_id": "nothing"}]),
        "seller.deliver": (seller, [{**job, "text": "x"}, job]),
        "seller.sell": (seller, [{}, {"idle_seconds": "x"}]),
    }


def test_every_tool_answers_the_same_over_mcp_and_on_the_command_line(fair: Fair) -> None:
    """S30: two faces."""
    bought = fair.buyer.run("call", "buyer.hire", json.dumps(fair.hires("the same either way"))).ok().json
    calls = table(fair, bought)
    assert set(calls) == {f"{skill.name}.{tool.name}" for skill in find_skills() if skill.name in ("buyer", "seller") for tool in skill.tools}

    async def main() -> dict[str, list[Any]]:
        answers: dict[str, list[Any]] = {}
        async with in_process(fair.buyer) as buying, in_process(fair.seller, fair.config) as selling:
            for name, (home, each) in calls.items():
                client = buying if home is fair.buyer else selling
                for arguments in each:
                    answers.setdefault(name, []).append((await client.call_tool(name.replace(".", "_"), arguments)).structured_content)
        return answers

    over_mcp = asyncio.run(asyncio.wait_for(main(), PATIENCE))
    everything = json.dumps(over_mcp)
    for home in (fair.buyer, fair.seller):
        secret = read_secret(home.path / IDENTITY_FILE, "identity", "dev", PASSWORD)
        assert [word for word in (PASSWORD, secret.hex(), secret.hex().upper()) if word in everything] == []
    refused = 0
    for name, (home, each) in calls.items():
        options = ["--config", fair.config] if home is fair.seller else []
        for arguments, answer in zip(each, over_mcp[name], strict=True):
            done = home.run("call", name, json.dumps(arguments), *options)
            told = done.json if isinstance(done.json, dict) else {"result": done.json}
            if "error" in answer and done.code:
                refused += 1
                assert done.code == told["error"]["exit_code"]
            else:
                assert done.code == 0, done
            assert told == answer, (name, arguments)
    assert refused >= len(calls)
