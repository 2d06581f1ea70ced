"""One secret in one file: argon2id from a password, XChaCha20-Poly1305 over the secret, kind and network bound in, mode 0600, never overwritten."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tradeskill.errors import InputError, SecretError, StorageError
from tradeskill.model import Json, Network
from tradeskill.signing import canonical, parse_json

__all__ = ["LIGHT", "STRONG", "Cost", "read_secret", "stretch", "write_secret"]

FORMAT: Final = "tradeskill-secret/1"
MAX_FILE: Final = 16 * 1024
_HEX = re.compile(r"(?:[0-9a-f]{2})+", re.ASCII)


@dataclass(frozen=True)
class Cost:
    """What one guess at the password costs. Written into the file, so that reading needs no setting."""

    passes: int
    memory_kib: int
    lanes: int


STRONG: Final = Cost(passes=3, memory_kib=64 * 1024, lanes=4)  # RFC 9106, second recommended choice
LIGHT: Final = Cost(passes=1, memory_kib=1024, lanes=1)  # for the dev network, where nothing is worth stealing
_MOST: Final = Cost(passes=16, memory_kib=1024 * 1024, lanes=16)  # a file may not make its reader use more


def write_secret(
    path: Path,
    kind: str,
    network: Network,
    secret: bytes,
    password: str,
    random_bytes: Callable[[int], bytes],
    cost: Cost | None = None,
) -> None:
    """Create `path` (mode 0600, durable when this returns). `cost` is LIGHT on dev and STRONG elsewhere unless given.

    SecretError, and nothing changed, when something is there already or the password is empty; StorageError when the disk refuses.
    """
    if not password:
        raise SecretError(f"{path}: the password is empty: give one with --password-file or at the prompt")
    cost = cost or (LIGHT if network == "dev" else STRONG)
    salt, nonce = random_bytes(16), random_bytes(24)
    head: dict[str, Json] = {
        "format": FORMAT,
        "kind": kind,
        "network": network,
        "kdf": {"name": "argon2id", "passes": cost.passes, "memory_kib": cost.memory_kib, "lanes": cost.lanes, "salt": salt.hex()},
        "cipher": "xchacha20-poly1305",
        "nonce": nonce.hex(),
    }
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

    box = crypto_aead_xchacha20poly1305_ietf_encrypt(secret, canonical(head), nonce, stretch(password, salt, cost))
    _create(path, json.dumps({**head, "box": box.hex()}, indent=2).encode() + b"\n", path.with_name(f".{path.name}.{salt.hex()[:8]}.new"))


def read_secret(path: Path, kind: str, network: Network, password: str) -> bytes:
    """The secret that `write_secret` put there. SecretError naming the file and the reason in every other case; nothing is ever created."""
    value = _parse(path, _load(path))
    head = {key: field for key, field in value.items() if key != "box"}
    if value["kind"] != kind:
        raise SecretError(f"{path} holds a {value['kind']!r}, not a {kind!r}")
    if value["network"] != network:
        raise SecretError(f"{path} belongs to network {value['network']!r}, this profile is on {network!r}: the networks never mix")
    cost, salt, nonce, box = _numbers(path, value)
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
    from nacl.exceptions import CryptoError

    try:
        secret: bytes = crypto_aead_xchacha20poly1305_ietf_decrypt(box, canonical(head), nonce, stretch(password, salt, cost))
    except (CryptoError, ValueError) as error:
        raise SecretError(f"{path}: wrong password, or the file was changed") from error
    return secret


def stretch(password: str, salt: bytes, cost: Cost) -> bytes:
    """32 bytes from a password, by argon2id. SecretError where it is no valid text."""
    from argon2.low_level import Type, hash_secret_raw

    try:
        data = password.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SecretError("the password is not valid UTF-8 text") from error
    return hash_secret_raw(data, salt, cost.passes, cost.memory_kib, cost.lanes, 32, Type.ID)


def _create(path: Path, data: bytes, temporary: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"{path.parent} cannot be made: {error.strerror}") from error
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # unlike a rename, this never replaces what is there
        finally:
            temporary.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise SecretError(f"{path} exists: it is never overwritten; move it away first, and only if you have its backup") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def _load(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise SecretError(f"{path} does not exist: create it with `tradeskill init`, or restore it from your backup") from error
    except OSError as error:
        raise SecretError(f"{path} cannot be read: {error.strerror}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise SecretError(f"{path} is not a regular file")
        if mode & 0o077:
            raise SecretError(f"{path} can be read by others (mode {stat.S_IMODE(mode):o}): run `chmod 600 {path}`")
        data = os.read(descriptor, MAX_FILE + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE:
        raise SecretError(f"{path} is not a secret file of this program: it is larger than {MAX_FILE} bytes")
    return data


def _parse(path: Path, data: bytes) -> dict[str, Json]:
    try:
        value = parse_json(data, str(path))
    except InputError as error:
        raise SecretError(f"{path} is damaged or truncated: restore it from your backup") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise SecretError(f"{path} is not a secret file of this program")
    if set(value) != {"format", "kind", "network", "kdf", "cipher", "nonce", "box"}:
        raise SecretError(f"{path} is damaged or truncated: restore it from your backup")
    return value


def _numbers(path: Path, value: dict[str, Json]) -> tuple[Cost, bytes, bytes, bytes]:
    kdf = value["kdf"]
    if not isinstance(kdf, dict) or (kdf.get("name"), value["cipher"]) != ("argon2id", "xchacha20-poly1305"):
        raise SecretError(f"{path} is damaged: its cipher or key derivation is unknown")
    limits = {"passes": _MOST.passes, "memory_kib": _MOST.memory_kib, "lanes": _MOST.lanes}
    costs = [n for n, most in ((kdf.get(key), most) for key, most in limits.items()) if type(n) is int and 1 <= n <= most]
    texts = [bytes.fromhex(t) for t in (kdf.get("salt"), value["nonce"], value["box"]) if isinstance(t, str) and _HEX.fullmatch(t)]
    if len(costs) != 3 or len(texts) != 3 or len(texts[0]) < 8 or len(texts[1]) != 24 or costs[1] < 8 * costs[2]:
        raise SecretError(f"{path} is damaged: its cost, salt, nonce or content is out of range")
    return Cost(*costs), texts[0], texts[1], texts[2]
