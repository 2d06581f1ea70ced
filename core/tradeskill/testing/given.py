"""What whoever runs a plugin's tests gives them for what they need outside: `tradeskill plugins check NAME --with mint=DIR`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tradeskill.errors import UsageError

__all__ = ["Given", "read_given"]


@dataclass(frozen=True)
class Given:
    """name -> value, as given. `start` is the folder that a relative path begins in: where the command was called, not where the tests run."""

    values: Mapping[str, str]
    start: Path

    def get(self, name: str) -> str | None:
        """The value, None where none was given."""
        return self.values.get(name)

    def path(self, name: str) -> Path | None:
        """The same as an absolute path, whether there is anything or not."""
        value = self.values.get(name)
        return None if value is None else self.start / Path(value).expanduser()


def read_given(entries: Sequence[str], start: Path) -> Given:
    """From NAME=VALUE entries. UsageError for one that is none, and for a name given twice."""
    values: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if re.fullmatch(r"[a-z][a-z0-9_-]{0,29}", name, re.ASCII) is None or not equals or not value:
            raise UsageError(f"--with {entry!r:.80} is not NAME=VALUE, such as mint=./mint")
        if name in values:
            raise UsageError(f"--with gives {name!r} twice")
        values[name] = value
    return Given(values, start)
