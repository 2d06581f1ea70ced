"""Skills that lie, each in one way, over an honest one. A class's docstring says what its skill does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from tradeskill.profile import Profile
from tradeskill.skills import Skill, Tool, tool
from tradeskill.testing.skill_contract import SkillContract


@tool
async def greet(profile: Profile, who: str, times: int = 1) -> dict[str, str]:
    """Say hello to somebody, so many times."""
    return {"greeting": " ".join([f"hello {who}"] * times)}


class Lying(SkillContract):
    tools: ClassVar[tuple[Tool, ...]] = (Tool("greet", greet),)
    said: ClassVar[str] = "`greeter.greet` greets."

    @pytest.fixture
    def skill(self, tmp_path: Path) -> Skill:
        folder = tmp_path / "greeter"
        folder.mkdir()
        description = "Greets people. Use it when somebody should be greeted."
        (folder / "SKILL.md").write_text(f"---\nname: greeter\ndescription: {description}\n---\n{self.said}\n")
        return Skill("greeter", description, folder, self.tools)


class TestHonest(Lying):
    """The skill that all the others are made of."""


class TestHidesATool(Lying):
    """One of its tools is not in its description."""

    tools = (*Lying.tools, Tool("bow", greet))


class _Careless(Tool):
    def check(self, arguments: Any) -> dict[str, Any]:
        known = {name: value for name, value in arguments.items() if name in self.parameters}
        return super().check(known)


class TestIgnoresUnknownArguments(Lying):
    """What it does not know it leaves out, though a model meant something by it."""

    tools = (_Careless("greet", greet),)


@tool
async def _mumble(profile: Profile, who: str) -> dict[str, str]:
    """Hm."""
    return {"greeting": who}


class TestSaysNothingOfATool(Lying):
    """Its tool has a description that describes nothing."""

    tools = (Tool("greet", _mumble),)


@tool
async def _untyped(profile: Profile, who: str) -> Any:
    """Say hello to somebody, in some form."""
    return who


del _untyped.__annotations__["return"]


class TestDoesNotSayWhatItAnswers(Lying):
    """Its tool's answer has no type."""

    tools = (Tool("greet", cast(Any, _untyped)),)
