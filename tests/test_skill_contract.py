"""The shipped skills, and one made for the test, keep the skill contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from tradeskill.profile import Profile
from tradeskill.skills import Skill, Tool, find_skills, tool
from tradeskill.testing.skill_contract import SkillContract


def _shipped(name: str) -> Skill:
    return next(skill for skill in find_skills() if skill.name == name)


class TestBuyer(SkillContract):
    @pytest.fixture
    def skill(self) -> Skill:
        return _shipped("buyer")


class TestSeller(SkillContract):
    @pytest.fixture
    def skill(self) -> Skill:
        return _shipped("seller")


@tool
async def greet(profile: Profile, who: str, times: int = 1) -> dict[str, str]:
    """Say hello to somebody, so many times."""
    return {"greeting": " ".join([f"hello {who}"] * times)}


class TestFake(SkillContract):
    @pytest.fixture
    def skill(self, tmp_path: Path) -> Skill:
        folder = tmp_path / "greeter"
        folder.mkdir()
        description = "Greets people. Use it when somebody should be greeted."
        (folder / "SKILL.md").write_text(f"---\nname: greeter\ndescription: {description}\n---\n`greeter.greet` greets.\n")
        return Skill("greeter", description, folder, (Tool("greet", greet),))
