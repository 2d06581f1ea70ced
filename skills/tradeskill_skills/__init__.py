"""One folder a skill: SKILL.md beside its tools."""
