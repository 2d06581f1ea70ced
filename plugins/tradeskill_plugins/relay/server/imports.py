"""Which of the packages that only a server needs are missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

__all__ = ["missing"]

_NEEDED: Final = ("uvicorn", "httptools", "uvloop", "prometheus_client")


def missing(*, postgres: bool = False) -> str:
    """Their names, or nothing. `postgres`: of what such a database needs too."""
    return ", ".join(name for name in (*_NEEDED, *(["psycopg"] if postgres else [])) if find_spec(name) is None)
