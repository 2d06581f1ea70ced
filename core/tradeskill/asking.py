"""How a call asks the profile's owner, whoever serves it: a seam that each face fills. Without one, the answer is a refusal with words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tradeskill.errors import RefusedError

__all__ = ["AskOwner", "nobody_to_ask"]

# Takes one question, which must be the same text whenever the same thing is asked; true is a yes. RefusedError where nobody can be asked.
AskOwner = Callable[[str], Awaitable[bool]]


async def nobody_to_ask(question: str) -> bool:
    """The face has no way to the owner: never taken for a yes."""
    way_out = "tell the owner what is to be approved"
    raise RefusedError(f"the owner has to approve this, and nobody can be asked here: {question}", money="not moved", next=way_out)
