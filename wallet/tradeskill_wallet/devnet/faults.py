"""What the dev ledger can be told to do wrong, each switchable while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tradeskill.errors import UsageError
from tradeskill_wallet.devnet.wire import Tree, decode_account, decode_hash
from tradeskill_wallet.primitives import StateBlock

__all__ = ["LIES", "Faults", "Targets"]

# Fields that can be falsified in the answers of the reading actions. Block contents stay true: a hash over them finds the lie.
LIES: Final = ("amount", "balance", "confirmed", "frontier", "receivable")


@dataclass
class Targets:
    """Which blocks a fault hits: all, the next `left` ones, or those whose hash, account or destination is in `names`."""

    everything: bool = False
    left: int = 0
    names: frozenset[bytes] = frozenset()

    def hits(self, block: StateBlock) -> bool:
        """Counts down `left` when that is what made it hit: ask once a block."""
        if self.everything or not self.names.isdisjoint((block.hash, block.account, block.link)):
            return True
        if self.left > 0:
            self.left -= 1
            return True
        return False

    def __bool__(self) -> bool:
        return self.everything or self.left > 0 or bool(self.names)

    @classmethod
    def parse(cls, name: str, value: Tree) -> Targets:
        """`all`, `none`, a number (the next so many), or a list of block hashes and addresses."""
        if value in ("all", "true"):
            return cls(everything=True)
        if value in ("none", "false", "", "0"):
            return cls()
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            return cls(left=int(value))
        if isinstance(value, list):
            names = [decode_account(item) or decode_hash(item) if isinstance(item, str) else None for item in value]
            if None not in names:
                return cls(names=frozenset(item for item in names if item))
        raise UsageError(f"fault {name}={value!r} is not all, none, a number or a list of hashes and addresses")

    def describe(self) -> Tree:
        if self.everything:
            return "all"
        if self.left:
            return str(self.left)
        return [item.hex().upper() for item in sorted(self.names)] if self.names else "none"


@dataclass
class Faults:
    """All off by default. Change them through `DevNode.set_faults`, which also lets go what was held."""

    unconfirmed: Targets = field(default_factory=Targets)  # never confirmed while this is on
    rollback: Targets = field(default_factory=Targets)  # taken out again at the moment it should be confirmed
    drop_process: Targets = field(default_factory=Targets)  # answered with its hash, then forgotten
    lagging: bool = False  # reads are answered from the ledger as it was when this was switched on
    silent_websocket: bool = False  # acknowledges, then says nothing
    lies: dict[str, str] = field(default_factory=dict)  # field -> what to say instead

    def change(self, wanted: dict[str, Tree]) -> None:
        """Set the faults named in `wanted`, leave the others. Raises UsageError on an unknown name or value, changing nothing."""
        new: dict[str, object] = {}
        for name, value in wanted.items():
            if name in ("unconfirmed", "rollback", "drop_process"):
                new[name] = Targets.parse(name, value)
            elif name in ("lagging", "silent_websocket"):
                if value not in ("true", "false"):
                    raise UsageError(f"fault {name}={value!r} is not true or false")
                new[name] = value == "true"
            elif name == "lies":
                new[name] = _lies(value)
            else:
                raise UsageError(f"fault {name!r} is unknown: use unconfirmed, rollback, drop_process, lagging, silent_websocket or lies")
        for name, changed in new.items():
            setattr(self, name, changed)

    def describe(self) -> dict[str, Tree]:
        return {
            "unconfirmed": self.unconfirmed.describe(),
            "rollback": self.rollback.describe(),
            "drop_process": self.drop_process.describe(),
            "lagging": "true" if self.lagging else "false",
            "silent_websocket": "true" if self.silent_websocket else "false",
            "lies": dict(self.lies),
        }

    def falsify(self, answer: Tree) -> Tree:
        """The answer with its lies told, at any depth outside block contents. Returns the same object when there are none."""
        if not self.lies or isinstance(answer, str):
            return answer
        if isinstance(answer, list):
            return [self.falsify(item) for item in answer]
        return {key: self._falsified(key, value) for key, value in answer.items()}

    def _falsified(self, key: str, value: Tree) -> Tree:
        if key == "contents":
            return value
        if not isinstance(value, str):
            return self.falsify(value)
        name = "receivable" if key == "pending" else key
        if len(key) == 64 and value.isdigit():  # receivable with a threshold: hash -> amount
            name = "amount"
        return self.lies.get(name, value)


def _lies(value: Tree) -> dict[str, str]:
    if value == "":
        return {}
    if not isinstance(value, dict) or not set(value) <= set(LIES):
        raise UsageError(f"fault lies={value!r} is not a map from {', '.join(LIES)} to what to say")
    lies = {key: item for key, item in value.items() if isinstance(item, str)}
    if len(lies) != len(value):
        raise UsageError("fault lies: every lie is a string")
    return lies
