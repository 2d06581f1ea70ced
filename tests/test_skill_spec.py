"""SKILL-SPEC.md, clause by clause: the shipped skills, small ones made to break a clause, and one trade by hand over a real ledger and market.

One file on purpose: its tests, those beside it that carry a clause's number, and the clauses are compared both ways.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tradeskill.errors import InputError, NotFoundError, PluginError, StateError, TradeskillError
from tradeskill.profile import Profile, create_profile
from tradeskill.skills import Skill, Tool, call_tool, find_skills, read_frontmatter
from tradeskill.world import World
from tradeskill_skills.buyer import tools as buying
from tradeskill_skills.seller import tools as selling
from tradeskill_wallet.devnet.node import DevNode

ROOT = Path(__file__).parent.parent
SPEC = (ROOT / "SKILL-SPEC.md").read_text("utf-8")
PASSWORD = "a word for this test"
SHIPPED = ("buyer", "seller")
ALLOWED = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}


def shipped(name: str) -> Skill:
    return next(skill for skill in find_skills() if skill.name == name)


def description_of(name: str) -> tuple[dict[str, Any], str]:
    """SKILL.md's head and text, read here without our own reader."""
    text = (ROOT / "skills" / "tradeskill_skills" / name / "SKILL.md").read_text("utf-8")
    start, head, body = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(head), body


def head(**changes: Any) -> str:
    keys = {"name": "greeter", "description": "Greets. Use it to greet.", **changes}
    return f"---\n{yaml.safe_dump(keys)}---\n`greeter.greet` greets.\n"


# The clauses and the tests


ELSEWHERE = ("skillformat", "skillschema", "skillexport", "answers", "mcp_server", "mcp_http", "mcp_trade", "intent", "seller_files")


def written_in(name: str) -> dict[str, str]:
    """The tests of a module beside this one, with their docstrings; nothing of it is imported."""
    tree = ast.parse((Path(__file__).parent / f"test_{name}.py").read_text("utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {node.name: ast.get_docstring(node) or "" for node in found}


def test_each_clause_names_its_test_and_each_test_names_its_clause() -> None:
    clauses = dict(re.findall(r"^- \*\*(S\d+)\*\* .*?\(`(test_\w+)`\)$", SPEC, re.DOTALL | re.MULTILINE))
    assert list(clauses) == [f"S{number}" for number in range(1, len(clauses) + 1)]
    assert SPEC.count("- **S") == len(clauses)
    here = {name: inspect.getdoc(test) or "" for name, test in globals().items() if name.startswith("test_") and name != this_test()}
    assert [name for name, doc in here.items() if not re.match(r"S\d+: ", doc)] == []
    marked = [(name, doc) for each in ELSEWHERE for name, doc in written_in(each).items() if re.match(r"S\d+: ", doc)]
    assert {each for each in ELSEWHERE if any(re.match(r"S\d+: ", doc) for doc in written_in(each).values())} == set(ELSEWHERE)
    named = [(doc.partition(":")[0], name) for name, doc in [*here.items(), *marked]]
    assert sorted(named) == sorted(clauses.items())


def this_test() -> str:
    return test_each_clause_names_its_test_and_each_test_names_its_clause.__name__


# The folder


@pytest.mark.parametrize("name", SHIPPED)
def test_a_skill_is_a_folder_of_its_name_with_its_description(name: str) -> None:
    """S1: folder, name and SKILL.md belong together."""
    skill = shipped(name)
    assert skill.folder.name == name
    assert (skill.folder / "SKILL.md").is_file()
    assert skill.description == description_of(name)[0]["description"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path where packages can be put; their modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("greeter", "silent", "misnamed"):
            del sys.modules[name]


TOOLS = '''
from tradeskill.profile import Profile
from tradeskill.skills import tool

@tool
async def greet(profile: Profile, who: str) -> dict[str, str]:
    """Say hello to somebody."""
    return {"greeting": f"hello {who}"}
'''


def install(place: Path, name: str, text: str | None = None, tools: str = TOOLS, entry: str = "") -> None:
    folder = place / name
    folder.mkdir()
    hook = f'@hookimpl\ndef tradeskill_skill() -> str:\n    return "{name}.tools"\n'
    (folder / "__init__.py").write_text(f"from tradeskill.hookspecs import hookimpl\n\n{hook}")
    (folder / "tools.py").write_text(tools)
    if text is not None:
        (folder / "SKILL.md").write_text(text)
    info = place / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tradeskill]\n{entry or name} = {name}\n")


def test_the_entry_point_leads_to_the_module_with_the_tools(installed: Path) -> None:
    """S2: from the entry point over the hook to the tools."""
    install(installed, "greeter", head())
    skill = shipped("greeter")
    assert (skill.reason, [tool.name for tool in skill.tools]) == ("", ["greet"])
    assert skill.folder == installed / "greeter"


def test_a_broken_skill_is_listed_with_its_reason_and_the_others_work(installed: Path) -> None:
    """S3: no SKILL.md, tools that do not import, a name that is not the folder's."""
    install(installed, "silent")
    install(installed, "greeter", head(), tools="import a_package_that_nobody_has\n")
    install(installed, "misnamed", head(name="other"))
    found = {skill.name: skill for skill in find_skills()}
    assert "SKILL.md is missing" in found["silent"].reason
    assert "a_package_that_nobody_has" in found["greeter"].reason
    assert "names 'other'" in found["misnamed"].reason
    assert all(not found[name].tools for name in ("silent", "greeter", "misnamed"))
    assert all(found[name].tools and not found[name].reason for name in SHIPPED)


# SKILL.md


def test_the_head_has_only_the_keys_of_the_open_format() -> None:
    """S4: the keys, and the lines around them."""
    for name in SHIPPED:
        assert set(description_of(name)[0]) <= ALLOWED, name
    assert set(read_frontmatter(head(license="MIT", compatibility="any", metadata={}, **{"allowed-tools": "x"}), "greeter")) == ALLOWED
    for text in (head(version="1"), head(author="x"), "name: greeter\n", "# Greeter\n", "---\n- a list\n---\n", "---\nname: [\n---\n"):
        with pytest.raises(PluginError, match=r"skill greeter: SKILL\.md"):
            read_frontmatter(text, "greeter")


def test_a_name_that_the_format_does_not_allow_is_refused() -> None:
    """S5: letters, digits, single hyphens within; the folder's name."""
    for name in SHIPPED:
        found = description_of(name)[0]["name"]
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", found)
        assert found == name
        assert len(found) <= 64
    read_frontmatter(head(name="a" * 64), "a" * 64)
    for wrong in ("Greeter", "gree ter", "-greeter", "greeter-", "gree--ter", "gree_ter", "größer", "", "a" * 65):
        with pytest.raises(PluginError, match="must be the folder's name"):
            read_frontmatter(head(name=wrong), wrong)
    with pytest.raises(PluginError, match="must be the folder's name"):
        read_frontmatter(head(name="other"), "greeter")


def test_a_description_says_what_and_when_within_its_length() -> None:
    """S6: 1 to 1024 characters; ours say when to use them."""
    for name in SHIPPED:
        text = description_of(name)[0]["description"]
        assert 1 <= len(text) <= 1024
        assert "Use it when" in text
    read_frontmatter(head(description="x" * 1024), "greeter")
    for wrong in ("", "x" * 1025, 5, None, ["x"]):
        with pytest.raises(PluginError, match="description of 1 to 1024"):
            read_frontmatter(head(description=wrong), "greeter")


def test_the_other_keys_have_the_format_s_types() -> None:
    """S7: metadata maps text to text; the rest is text, compatibility at most 500 characters."""
    for name in SHIPPED:
        found = description_of(name)[0]
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in found.get("metadata", {}).items())
        assert all(isinstance(found.get(key, ""), str) for key in ("license", "compatibility", "allowed-tools"))
        assert len(found.get("compatibility", "")) <= 500
    for wrong in ({"version": 1}, {"nested": {"a": "b"}}, ["x"], "x", {1: "x"}):
        with pytest.raises(PluginError, match="metadata must map text to text"):
            read_frontmatter(head(metadata=wrong), "greeter")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_text_is_short_and_names_every_tool(name: str) -> None:
    """S8: under 500 lines, every tool by its full name, and no tool that does not exist."""
    body = description_of(name)[1]
    assert len(body.splitlines()) < 500
    named = set(re.findall(rf"\b{name}\.([a-z_]+)\b", body))
    assert named == {tool.name for tool in shipped(name).tools}


# Tools


def tools() -> list[Tool]:
    return [tool for name in SHIPPED for tool in shipped(name).tools]


def test_a_tool_is_an_async_function_with_annotations() -> None:
    """S9: async, the profile first, everything annotated; only what is marked is a tool."""
    for tool in tools():
        assert inspect.iscoroutinefunction(tool.function)
        parameters = list(inspect.signature(tool.function).parameters.values())
        assert parameters[0].name == "profile"
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters)
        assert inspect.signature(tool.function).return_annotation is not inspect.Signature.empty
        assert tool.parameters == tuple(parameter.name for parameter in parameters[1:])
    assert "offer_view" not in {tool.name for tool in tools()}


def test_a_tool_s_docstring_is_its_description() -> None:
    """S10: the whole docstring, its first line as summary."""
    for tool in tools():
        assert tool.description == inspect.getdoc(tool.function)
        assert tool.summary == tool.description.splitlines()[0]
        assert tool.summary.endswith(".")
        lines = tool.description.splitlines()
        assert len(lines) == 1 or lines[1] == "", tool.name


def test_the_arguments_have_a_closed_schema() -> None:
    """S11: valid, closed, and required where there is no default."""
    for tool in tools():
        schema: Any = tool.input_schema()
        Draft202012Validator.check_schema(schema)
        assert schema["additionalProperties"] is False
        assert set(schema["properties"]) == set(tool.parameters)
        signature = inspect.signature(tool.function).parameters
        assert set(schema.get("required", [])) == {name for name in tool.parameters if signature[name].default is inspect.Parameter.empty}


# One trade, by hand, with everything real but the waiting


@dataclass
class Trade:
    home: Path
    said: dict[str, Any] = field(default_factory=dict)  # what tools answered, by moment
    refused: dict[str, TradeskillError] = field(default_factory=dict)

    async def fails(self, moment: str, call: Any) -> None:
        try:
            await call
        except TradeskillError as error:
            self.refused[moment] = error


@pytest.fixture(scope="module")
def trade(tmp_path_factory: pytest.TempPathFactory) -> Trade:
    found = Trade(tmp_path_factory.mktemp("spec"))
    asyncio.run(asyncio.wait_for(_trade(found), 60))
    return found


async def _trade(found: Trade) -> None:
    (found.home / "password").touch(0o600)
    (found.home / "password").write_text(PASSWORD)
    async with DevNode(confirmation_delay_ms=None) as node:
        market, wallet = {"plugin": "embedded", "path": str(found.home / "market.db")}, {"plugin": "nano", "rpc": [node.rpc_url]}
        base = {"network": "dev", "market": market, "wallets": [wallet]}
        offer = {"name": "greet", "title": "A greeting", "tags": ["greet"], "price": "0.001 XNO", "trusted": True, "run": ["cat"]}
        create_profile(found.home / "seller", {**base, "offers": [offer]}, "dev", PASSWORD, World())
        create_profile(found.home / "buyer", {**base, "buyer": {"cap_total": "0.0015 XNO"}}, "dev", PASSWORD, World())
        async with Profile.load(found.home / "seller", lambda: PASSWORD) as seller, Profile.load(found.home / "buyer", lambda: PASSWORD) as buyer:
            await node.fund(await (await buyer.wallet()).address(), 10**30)
            await _by_hand(found, node, seller, buyer)


async def _by_hand(found: Trade, node: DevNode, seller: Profile, buyer: Profile) -> None:
    said, wish = found.said, {"who": "Ada"}
    said["register_offer"] = await selling.register_offer(seller)
    said["search"] = await buying.search(buyer, tags=["greet"])
    offer_id = said["search"][0]["offer_id"]
    flow = await buyer.buyer()
    wanted = await flow.intend(await buying.find_offer(buyer, offer_id), wish)
    job = (await flow.drive(wanted.purchase_id, ("requested",))).job_id or ""
    said["quote"] = await selling.quote(seller, job)
    said["request"] = await buying.request(buyer, offer_id, wish)  # the same intent: it goes on where it was
    purchase = said["request"]["purchase_id"]
    await found.fails("deliver unpaid", selling.deliver(seller, job, text="hello"))
    await found.fails("lock unpaid", selling.lock(seller, job))
    await found.fails("pay unaccepted", buying.pay(buyer, purchase))
    said["accept"] = await buying.accept(buyer, purchase)
    said["pay"] = await buying.pay(buyer, purchase)
    said["pay again"] = await buying.pay(buyer, purchase)
    said["verify unconfirmed"] = await selling.verify_payment(seller, job)
    node.confirm()
    said["verify_payment"] = await selling.verify_payment(seller, job)
    await found.fails("deliver unlocked", selling.deliver(seller, job, text="hello"))
    said["lock"] = await selling.lock(seller, job)
    said["deliver"] = await selling.deliver(seller, job, text="hello Ada")
    said["result"] = await buying.result(buyer, purchase)
    said["hire again"] = await buying.hire(buyer, offer_id, wish, max="0.01 XNO")
    said["status"] = await buying.status(buyer, purchase)
    said["call"] = await call_tool(buyer, "buyer.status", {"purchase_id": purchase})
    said["list_jobs"] = await selling.list_jobs(seller)
    said["balance"] = (await (await buyer.wallet()).balance()).available.value
    more = asyncio.create_task(buying.hire(buyer, offer_id, wish, max="100 XNO", label="once more"))
    other = await flow.drive((await flow.intend(await buying.find_offer(buyer, offer_id), wish, label="once more")).purchase_id, ("requested", "abandoned"))
    said["quote above the cap"] = await selling.quote(seller, other.job_id or "")
    said["hire above the cap"] = await more
    wrong: list[Any] = [{}, {"purchase_id": 5}, {"purchase_id": purchase, "force": True}]
    for number, arguments in enumerate(wrong):
        await found.fails(f"wrong {number}", call_tool(buyer, "buyer.pay", arguments))
    await found.fails("not an object", call_tool(buyer, "buyer.pay", [purchase]))
    await found.fails("no such tool", call_tool(buyer, "buyer.steal", {}))
    await found.fails("no such skill", call_tool(buyer, "thief.steal", {}))
    await found.fails("no such purchase", call_tool(buyer, "buyer.status", {"purchase_id": "x"}))


def command(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRADESKILL_")}
    environment.update(TRADESKILL_HOME=str(home / "buyer"), TRADESKILL_PASSWORD_FILE=str(home / "password"))
    return subprocess.run([sys.executable, "-m", "tradeskill", *words], env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_the_answer_fits_its_schema(trade: Trade) -> None:
    """S12: every answer that the tools gave in the trade is JSON that fits the tool's schema."""
    asked = {tool.name: tool for tool in tools()}
    for moment, answer in trade.said.items():
        name = {"pay again": "pay", "verify unconfirmed": "verify_payment", "hire again": "hire", "call": "status"}.get(moment, moment.partition(" above")[0])
        if name != "balance":
            Draft202012Validator(asked[name].output_schema()).validate(json.loads(json.dumps(answer)))


def test_wrong_arguments_are_refused_by_name_and_nothing_is_done(trade: Trade) -> None:
    """S13: missing, of another type, unknown, no object at all."""
    for number, name in enumerate(("purchase_id", "purchase_id", "force")):
        error = trade.refused[f"wrong {number}"]
        assert isinstance(error, InputError)
        assert str(error).startswith(f"pay: {name}: ")
    assert isinstance(trade.refused["not an object"], InputError)
    assert trade.said["balance"] == 999 * 10**27


def test_python_the_registry_and_the_command_answer_the_same(trade: Trade) -> None:
    """S14: one function, three ways to it."""
    purchase = trade.said["status"]["purchase_id"]
    done = command(trade.home, "call", "buyer.status", "--json", json.dumps({"purchase_id": purchase}))
    assert done.returncode == 0, done.stderr
    assert trade.said["status"] == trade.said["call"] == json.loads(done.stdout)


def test_an_error_has_a_code_and_on_the_command_line_one_line(trade: Trade) -> None:
    """S15: code and exit code, one line on stderr."""
    error = trade.refused["no such purchase"]
    assert (error.code, error.exit_code) == ("not_found", 3)
    done = command(trade.home, "call", "buyer.status", "--json", '{"purchase_id": "x"}')
    assert done.returncode == error.exit_code
    assert done.stderr == f"error: {error}\n"


def test_an_unknown_tool_is_answered_with_the_known_ones(trade: Trade) -> None:
    """S16: which tools the skill has, which skills there are."""
    assert isinstance(trade.refused["no such tool"], NotFoundError)
    assert "buyer.hire" in str(trade.refused["no such tool"])
    error = trade.refused["no such skill"]
    assert isinstance(error, NotFoundError | PluginError)
    assert "thief" in str(error)


def test_the_same_intent_is_one_purchase_and_is_paid_once(trade: Trade) -> None:
    """S17: request, pay and hire, asked again, are the same purchase and the same payment."""
    said = trade.said
    moments = ("request", "accept", "pay", "pay again", "hire again", "status")
    assert len({said[moment]["purchase_id"] for moment in moments}) == 1
    assert said["pay"]["payment_id"] == said["pay again"]["payment_id"] == said["hire again"]["payment_id"]
    assert said["hire again"]["state"] == "received"
    assert [len(row["payments"]) for row in said["list_jobs"] if row["state"] == "delivered"] == [1]
    assert said["balance"] == 999 * 10**27


def test_every_answer_about_a_purchase_says_whether_money_moved_and_what_to_do(trade: Trade) -> None:
    """S18: `money` and `next`, along the way."""
    said = trade.said
    assert [said[moment]["money"] for moment in ("request", "accept", "pay", "hire again")] == ["not moved", "reserved", "spent", "spent"]
    assert [said[moment]["state"] for moment in ("request", "accept", "pay", "hire again")] == ["verified", "accepted", "waiting", "received"]
    assert "buyer.accept" in said["request"]["next"]
    assert said["accept"]["next"] == "buyer.pay"
    assert said["hire again"]["next"] == "buyer.result"
    assert isinstance(trade.refused["pay unaccepted"], StateError)


def test_a_cap_of_the_owner_holds_whatever_a_call_asks_for(trade: Trade) -> None:
    """S19: a total cap of 0.0015 XNO, 0.001 spent, and a call that allows itself 100."""
    refused = trade.said["hire above the cap"]
    assert (refused["state"], refused["money"]) == ("abandoned", "not moved")
    assert refused["error"]["code"] == "refused.policy"
    assert "total cap is 0.0015 XNO" in refused["error"]["message"]


def test_an_unpaid_or_unlocked_job_cannot_be_delivered_by_hand(trade: Trade) -> None:
    """S20: the worker's own checks stand in the way, by name of the state."""
    for moment, state in (("deliver unpaid", "quoted"), ("lock unpaid", "quoted"), ("deliver unlocked", "paid")):
        assert isinstance(trade.refused[moment], StateError), moment
        assert f"is {state}" in str(trade.refused[moment]), moment
    assert trade.said["verify unconfirmed"]["state"] == "quoted"
    assert [trade.said[moment]["state"] for moment in ("verify_payment", "lock", "deliver")] == ["paid", "leased", "delivered"]
    assert trade.said["deliver"]["fence"] >= trade.said["lock"]["fence"] >= 1  # it only grows


def test_what_strangers_wrote_is_marked_as_theirs(trade: Trade) -> None:
    """S21: the answer says so, and both texts tell the agent."""
    assert trade.said["result"]["text"] == "hello Ada"
    assert trade.said["result"]["untrusted"] is True
    for name in SHIPPED:
        assert re.search(r"strangers.*(?:as|is) data", description_of(name)[1], re.DOTALL), name


# Versions


PROMISED = {
    "buyer.search": (),
    "buyer.request": ("offer_id", "input"),
    "buyer.accept": ("purchase_id",),
    "buyer.pay": ("purchase_id",),
    "buyer.status": ("purchase_id",),
    "buyer.result": ("purchase_id",),
    "buyer.hire": ("offer_id", "input", "max"),
    "seller.register_offer": (),
    "seller.list_jobs": (),
    "seller.quote": ("job_id",),
    "seller.verify_payment": ("job_id",),
    "seller.lock": ("job_id",),
    "seller.deliver": ("job_id",),
    "seller.sell": (),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_skill_says_its_version_and_its_permissions(name: str) -> None:
    """S22: both in the metadata, as text."""
    metadata = description_of(name)[0]["metadata"]
    assert re.fullmatch(r"[1-9]\d*", metadata["version"])
    permissions = json.loads(metadata["tradeskill"])["permissions"]
    assert permissions["spend"] is True
    assert set(permissions) == {"spend", "network", "filesystem"}


def test_a_tool_keeps_its_name_and_asks_for_no_more_than_it_did() -> None:
    """S23: what a caller wrote for version 1 still fits."""
    for full, required in PROMISED.items():
        skill, _, name = full.partition(".")
        (found,) = [tool for tool in shipped(skill).tools if tool.name == name]
        schema: Any = found.input_schema()
        assert set(schema.get("required", [])) <= set(required), full
        assert set(required) <= set(schema["properties"]), full
