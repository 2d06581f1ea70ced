"""The Cashu mint that tests start: nutshell, from the environment that `make test` builds."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradeskill_plugins.cashu import nutshell
from tradeskill_plugins.cashu.nutshell import FEE_PPK, Mint

__all__ = ["ENVIRONMENT", "FEE_PPK", "Mint", "minting", "missing", "rotating"]

ENVIRONMENT = Path(__file__).parent.parent / ".venv-mint"


@contextmanager
def minting(fee_ppk: int = FEE_PPK, pays: bool = True, key: str = "test mint", **settings: str) -> Iterator[Mint]:
    """A fresh mint, gone afterwards with all it held. UnavailableError where the environment is missing: see `missing`."""
    with nutshell.minting(ENVIRONMENT, fee_ppk, pays, key, **settings) as mint:
        yield mint


def rotating() -> dict[str, str]:
    """Settings of a mint whose keysets can be rotated while it runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    enabled = {"MINT_RPC_SERVER_ENABLE": "TRUE", "MINT_RPC_SERVER_MUTUAL_TLS": "FALSE"}
    return {**enabled, "MINT_RPC_SERVER_ADDR": "127.0.0.1", "MINT_RPC_SERVER_PORT": str(port)}


def missing() -> str:
    """Which part the tests lack, empty if none."""
    return "no Cashu mint: .venv-mint is missing or incomplete; `make test` builds it" if nutshell.lacking(ENVIRONMENT) else ""
