"""The skill contract on whichever installed skill `--tradeskill-plugin` names: what `tradeskill plugins check` runs where a package brings no tests."""

from __future__ import annotations

import pytest

from tradeskill.plugins import Plugins
from tradeskill.skills import Skill, find_skill
from tradeskill.testing.skill_contract import SkillContract

__all__ = ["TestSkill"]


class TestSkill(SkillContract):
    @pytest.fixture
    def skill(self, request: pytest.FixtureRequest) -> Skill:
        name = request.config.getoption("--tradeskill-plugin")
        return find_skill(name, Plugins())
