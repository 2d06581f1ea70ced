"""What a failed call is told, by every face alike: the code, the words, whether money moved, and what to do next. Pure."""

from __future__ import annotations

from typing import Final, Literal, TypedDict

from tradeskill.errors import (
    ConfigError,
    InputError,
    NetworkMismatchError,
    NotFoundError,
    PluginError,
    PolicyError,
    RefusedError,
    SecretError,
    StateError,
    StorageError,
    TradeskillError,
    UnavailableError,
    UntrustedError,
    UsageError,
)

__all__ = ["Failure", "failure_of"]

Money = Literal["not moved", "reserved", "spent", "returned", "unknown"]


class Failure(TypedDict):
    """`money` is about the purchase the call was for; `unknown` is to be taken as spent until `buyer.status` says otherwise."""

    code: str
    message: str
    exit_code: int
    money: Money
    next: str


# By class, the nearest first; a subclass that is not here goes by its base.
_NEXT: Final[dict[type[TradeskillError], str]] = {
    InputError: "correct the argument that the message names and call again",
    ConfigError: "ask the owner to correct the configuration; calling again changes nothing",
    UsageError: "correct what the message names and call again",
    NotFoundError: "look for the right name or id first; the message says where",
    StateError: "ask how it stands (buyer.status, seller.list_jobs) and do what its answer says next",
    PolicyError: "report it to the owner; no argument and no other tool gets around a cap",
    UntrustedError: "do not use this seller or document; report it to the owner",
    RefusedError: "read the reason; choose another offer or ask the owner",
    UnavailableError: "make the same call again later, with the same arguments: it never pays twice",
    SecretError: "ask the owner for the profile's password file (TRADESKILL_PASSWORD_FILE)",
    NetworkMismatchError: "ask the owner: this profile belongs to another network",
    PluginError: "ask the owner to install or mend what the message names",
    StorageError: "stop and tell the owner: nothing can be written",
    TradeskillError: "ask the owner",
}
MAX_WORDS: Final = 1_000
_BEFORE_ANYTHING: Final = (UsageError, NotFoundError, PluginError, SecretError, NetworkMismatchError, PolicyError)


def _short(words: str) -> str:
    """Another's words may be in it, and be of any length."""
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}… ({len(words)} characters)"


def failure_of(error: TradeskillError) -> Failure:
    """Whoever knows the tool or the purchase has written what it knows into the error's details `money` and `next`; else it goes by the class."""
    told = error.details.get("money")
    money: Money = "not moved" if isinstance(error, _BEFORE_ANYTHING) else "unknown"
    for known in ("not moved", "reserved", "spent", "returned"):
        if told == known:
            money = known
    kind = next(each for each in type(error).__mro__ if each in _NEXT)
    way_out = error.details.get("next")
    return {
        "code": error.code,
        "message": _short(str(error)),
        "exit_code": error.exit_code,
        "money": money,
        "next": way_out if isinstance(way_out, str) else _NEXT[kind],
    }
