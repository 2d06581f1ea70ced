"""The skill `buyer`: find an offer, check its quote, pay once, verify what comes back."""

from tradeskill.hookspecs import hookimpl

__all__ = ["tradeskill_skill"]

tradeskill_api = 1


@hookimpl
def tradeskill_skill() -> str:
    return "tradeskill_skills.buyer.tools"
