"""How far a backend keeps a job away from the machine that it runs on: the levels, and which one reaches another. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tradeskill.contracts import Capability

__all__ = ["LEVELS", "demanded_level", "level_of", "reaches", "shows_folder"]

# From nothing to most; a level means all that the ones before it mean.
LEVELS: Final = {
    "none": "the job can do what the seller's user can",
    "sandbox": "no file, process, socket or network of the machine's but a read-only system, no privileges, fewer system calls, limits that hold",
    "container": "the system files too are not the machine's but those of a pinned image",
    "vm": "the kernel too is not the machine's",
}


def level_of(capabilities: Iterable[Capability]) -> str:
    """What a backend says it gives; "none" where it says nothing, or a word that is no level."""
    value = next((capability.value for capability in capabilities if capability.name == "isolation"), "none")
    return value if isinstance(value, str) and value in LEVELS else "none"


def shows_folder(capabilities: Iterable[Capability]) -> bool:
    """Whether its jobs can read their offer's folder: unless it says that they cannot."""
    return next((capability.value for capability in capabilities if capability.name == "folder"), True) is not False


def demanded_level(asked: str | None, trusted: bool) -> str:
    """The least that an offer's jobs need: what it asks for, and never less than a sandbox for what is not the seller's own code."""
    least = "none" if trusted else "sandbox"
    return asked if asked is not None and reaches(asked, least) else least


def reaches(level: str, demanded: str) -> bool:
    order = list(LEVELS)
    return order.index(level) >= order.index(demanded)
