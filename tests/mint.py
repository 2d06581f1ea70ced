"""The Cashu mint that tests start: nutshell, from the environment that `make test` builds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradeskill_plugins.cashu import nutshell
from tradeskill_plugins.cashu.nutshell import FEE_PPK, Mint

__all__ = ["ENVIRONMENT", "FEE_PPK", "Mint", "minting", "missing"]

ENVIRONMENT = Path(__file__).parent.parent / ".venv-mint"


@contextmanager
def minting(fee_ppk: int = FEE_PPK, pays: bool = True, key: str = "test mint", **settings: str) -> Iterator[Mint]:
    """A fresh mint, gone afterwards with all it held. UnavailableError where the environment is missing: see `missing`."""
    with nutshell.minting(ENVIRONMENT, fee_ppk, pays, key, **settings) as mint:
        yield mint


def missing() -> str:
    """Which part the tests lack, empty if none."""
    return "no Cashu mint: .venv-mint is missing or incomplete; `make test` builds it" if nutshell.lacking(ENVIRONMENT) else ""
