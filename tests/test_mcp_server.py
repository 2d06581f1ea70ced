"""The MCP server without a trade: what it lists, how it refuses, how it asks the owner, what it does with answers that are too long."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mcp_types as types
import pytest
from jsonschema import Draft202012Validator
from mcp.client.client import Client

from tests.cli_stage import PATIENCE, Home
from tests.mcp_stage import in_process
from tradeskill.errors import PolicyError, UnavailableError
from tradeskill.faces.mcp_profile import SharedProfile
from tradeskill.faces.mcp_server import ANSWER_BYTES, make_server
from tradeskill.profile import Profile, create_profile
from tradeskill.skills import Skill, Tool, find_skills, tool
from tradeskill.world import World

MODES = ("auto", "legacy")  # the protocols before and after questions end a call


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()

    asyncio.run(bounded())


@tool(reads=True)
async def shout(profile: Profile, size: int) -> dict[str, Any]:
    """Answer at length."""
    return {"text": "x" * size, "untrusted": True}


@tool
async def approve(profile: Profile, what: str) -> dict[str, bool]:
    """Ask the owner for one thing, then for another."""
    if profile.ask_owner is None:
        raise PolicyError("nobody can be asked")
    return {name: await profile.ask_owner(SimpleNamespace(text=f"Spend {number} on {what}?")) for number, name in enumerate(("one", "two"), 1)}


@tool
async def burst(profile: Profile) -> dict[str, str]:
    """Fail inside."""
    raise ValueError("the seed is 0123")


@tool
async def lose(profile: Profile) -> dict[str, str]:
    """Lose the connection."""
    raise UnavailableError("the node is away")


SKILL = Skill("odd", "Odd.", Path("odd"), tuple(Tool(each.__name__, each) for each in (shout, approve, burst, lose)))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    create_profile(tmp_path / "home", {"network": "dev", "market": {"plugin": "embedded", "path": "market.db"}}, "dev", "a word", World())
    return tmp_path / "home"


def odd(home: Path, **options: Any) -> Client:
    return Client(make_server(SharedProfile(home, lambda: Profile.load(home, lambda: "a word")), lambda: [SKILL]), **options)


def test_without_a_profile_every_tool_is_listed_and_says_what_is_missing(tmp_path: Path) -> None:
    """S29: no profile."""
    home = Home(tmp_path / "nobody", {"TRADESKILL_PASSWORD_FILE": "/dev/null"})

    async def main() -> None:
        async with in_process(home) as client:
            tools = (await client.list_tools()).tools
            shipped = {f"{skill.name}_{tool.name}" for skill in find_skills() for tool in skill.tools}
            assert {tool.name for tool in tools} == shipped
            for tool in tools:
                assert re.fullmatch(r"[a-z0-9_]{1,64}", tool.name)
                assert tool.output_schema is not None
                Draft202012Validator.check_schema(tool.output_schema)
                assert tool.annotations is not None
                assert tool.annotations.destructive_hint is not None
            answer = await client.call_tool("buyer_search", {})
            assert answer.is_error
            assert "tradeskill init" in answer.structured_content["error"]["message"]
        assert not home.path.exists()

    run(main)


def test_a_profile_made_while_the_server_runs_is_found(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "password").write_text("a word")
        home = Home(tmp_path / "late", {"TRADESKILL_PASSWORD_FILE": str(tmp_path / "password")})
        async with in_process(home) as client:
            assert (await client.call_tool("buyer_search", {})).is_error
            create_profile(home.path, {"network": "dev", "market": {"plugin": "embedded", "path": "market.db"}}, "dev", "a word", World())
            answer = await client.call_tool("buyer_search", {})
            assert (answer.is_error, answer.structured_content) == (False, {"result": []})

    run(main)


def test_wrong_calls_are_answered_and_end_nothing(home: Path) -> None:
    async def main() -> None:
        async with odd(home) as client:
            for name, arguments, code in (("nobody", {}, "not_found"), ("odd_shout", {"size": "x"}, "usage.input"), ("odd_shout", {}, "usage.input")):
                answer = await client.call_tool(name, arguments)
                assert answer.is_error
                assert (answer.structured_content["error"]["code"], answer.structured_content["error"]["money"]) == (code, "not moved")
            assert not (await client.call_tool("odd_shout", {"size": 1})).is_error

    run(main)


def test_what_fails_inside_tells_the_model_nothing_of_its_words(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """S38: no secrets."""
    async def main() -> None:
        async with odd(home) as client:
            answer = await client.call_tool("odd_burst", {})
            assert answer.is_error
            assert "0123" not in answer.model_dump_json()
            assert "ValueError" in answer.structured_content["error"]["message"]
            lost = (await client.call_tool("odd_lose", {})).structured_content["error"]
            assert (lost["money"], "same" in lost["next"]) == ("unknown", True)

    run(main)


def test_an_answer_is_marked_where_strangers_wrote_in_it_and_saved_where_it_is_too_long(home: Path) -> None:
    """S43: answers."""
    async def main() -> None:
        async with odd(home) as client:
            short = await client.call_tool("odd_shout", {"size": 10})
            assert short.meta is not None
            assert short.meta["tradeskill/untrusted"] is True
            assert json.loads(short.content[0].text) == short.structured_content  # type: ignore[union-attr]  # it is text
            long = await client.call_tool("odd_shout", {"size": ANSWER_BYTES})
            assert long.is_error
            assert len(long.model_dump_json()) < 5000
            (saved,) = (home / "downloads").iterdir()
            assert str(saved) in long.structured_content["error"]["message"]
            assert len(json.loads(saved.read_text())["text"]) == ANSWER_BYTES
            assert saved.stat().st_mode & 0o777 == 0o600

    run(main)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (types.ElicitResult(action="accept", content={"approve": True}), True),
        (types.ElicitResult(action="accept", content={"approve": False}), False),
        (types.ElicitResult(action="decline"), False),
        (types.ElicitResult(action="cancel"), False),
    ],
)
def test_only_a_yes_of_the_owner_is_a_yes_and_each_question_is_asked_once(home: Path, mode: str, answer: types.ElicitResult, said: bool) -> None:
    """S32: the owner."""
    asked: list[str] = []

    async def owner(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params.message)
        return answer

    async def main() -> None:
        async with odd(home, mode=mode, elicitation_callback=owner) as client:
            told = await client.call_tool("odd_approve", {"what": "tea"})
            assert told.structured_content == {"one": said, "two": said}
        assert asked == ["Spend 1 on tea?", "Spend 2 on tea?"]

    run(main)


@pytest.mark.parametrize("mode", MODES)
def test_where_the_client_cannot_ask_nobody_is_asked(home: Path, mode: str) -> None:
    """S33: no elicitation."""
    async def main() -> None:
        async with odd(home, mode=mode) as client:
            refused = (await client.call_tool("odd_approve", {"what": "tea"})).structured_content["error"]
            assert (refused["code"], refused["money"]) == ("refused.policy", "not moved")

    run(main)


def test_a_changed_configuration_holds_from_the_next_call_on(home: Path) -> None:
    async def main() -> None:
        seen: list[int] = []

        def load() -> Profile:
            seen.append(1)
            return Profile.load(home, lambda: "a word")

        async with Client(make_server(SharedProfile(home, load), lambda: [SKILL])) as client:
            for _ in range(2):
                await client.call_tool("odd_shout", {"size": 1})
            assert len(seen) == 1
            with (home / "config.yaml").open("a") as file:
                file.write("# looked at by the owner\n")
            await client.call_tool("odd_shout", {"size": 1})
            assert len(seen) == 2

    run(main)
