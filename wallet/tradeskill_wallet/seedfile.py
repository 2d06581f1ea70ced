"""The wallet's seed on disk: 32 bytes in an encrypted file that knows its network. Never made silently, never overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tradeskill.errors import SecretError
from tradeskill.model import Network
from tradeskill.secretfile import Cost, read_secret, write_secret

__all__ = ["SEED_KIND", "create_seed", "open_seed", "parse_seed"]

SEED_KIND: Final = "nano-seed"


def create_seed(
    path: Path,
    network: Network,
    password: str,
    random_bytes: Callable[[int], bytes],
    seed: bytes | None = None,
    cost: Cost | None = None,
) -> None:
    """Write a fresh seed (or `seed`, to restore one) to `path`. SecretError, and nothing changed, when a file is there."""
    secret = random_bytes(32) if seed is None else seed
    if len(secret) != 32:
        raise SecretError(f"a seed has 32 bytes, not {len(secret)}")
    write_secret(path, SEED_KIND, network, secret, password, random_bytes, cost)


def open_seed(path: Path, network: Network, password: str) -> bytes:
    """The 32 bytes. SecretError on a missing, readable-by-others, truncated or foreign file, or a wrong password."""
    seed = read_secret(path, SEED_KIND, network, password)
    if len(seed) != 32:
        raise SecretError(f"{path} does not hold a seed of 32 bytes")
    return seed


def parse_seed(text: str) -> bytes:
    """64 hex digits as a person copies them from a backup, to 32 bytes. SecretError otherwise; the text is not repeated in it."""
    cleaned = "".join(text.split())
    try:
        seed = bytes.fromhex(cleaned)
    except ValueError as error:
        raise SecretError("the seed is not 64 hex digits: check the backup") from error
    if len(cleaned) != 64 or not cleaned.isascii():
        raise SecretError("the seed is not 64 hex digits: check the backup")
    return seed
