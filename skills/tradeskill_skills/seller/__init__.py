"""The skill `seller`: publish offers, quote, verify payment, do the work, deliver."""

from tradeskill.hookspecs import hookimpl

__all__ = ["tradeskill_skill"]


@hookimpl
def tradeskill_skill() -> str:
    return "tradeskill_skills.seller.tools"
