"""The skill `seller`: publish offers, quote, verify payment, do the work, deliver."""

from tradeskill.hookspecs import hookimpl

__all__ = ["tradeskill_skill"]

tradeskill_api = 1


@hookimpl
def tradeskill_skill() -> str:
    return "tradeskill_skills.seller.tools"
