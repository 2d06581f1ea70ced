"""secretfile: one encrypted file that refuses everything but the right password, kind and network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tradeskill.errors import SecretError, StorageError
from tradeskill.secretfile import LIGHT, STRONG, Cost, read_secret, write_secret

SECRET = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "seed.json"


def write(path: Path, **changes: Any) -> None:
    write_secret(path, "seed", "dev", SECRET, "pass", os.urandom, **changes)


def test_what_was_written_comes_back_with_mode_0600(path: Path) -> None:
    write(path)
    assert read_secret(path, "seed", "dev", "pass") == SECRET
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["seed.json"]


def test_the_file_does_not_show_the_secret_or_the_password(path: Path) -> None:
    write(path)
    text = path.read_text()
    assert SECRET.hex() not in text
    assert "pass" not in text.replace('"passes"', "")


def test_an_existing_file_is_never_overwritten(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(SecretError, match="never overwritten"):
        write(path)
    assert path.read_text() == "precious"
    assert [p.name for p in path.parent.iterdir()] == ["seed.json"]


def test_a_dangling_symlink_is_not_followed_on_creation(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecretError):
        write(path)
    assert not (tmp_path / "elsewhere").exists()


WRONG = [("seed", "dev", "wrong"), ("identity", "dev", "pass"), ("seed", "live", "pass"), ("seed", "dev", "")]


@pytest.mark.parametrize(("kind", "network", "password"), WRONG)
def test_a_wrong_password_kind_or_network_opens_nothing(path: Path, kind: str, network: Any, password: str) -> None:
    write(path)
    with pytest.raises(SecretError, match=str(path)):
        read_secret(path, kind, network, password)


@pytest.mark.parametrize("key", ["network", "kind"])
def test_kind_and_network_are_bound_into_the_encryption(path: Path, key: str) -> None:
    write(path)
    value = json.loads(path.read_text())
    value[key] = {"network": "live", "kind": "identity"}[key]
    path.write_text(json.dumps(value))
    with pytest.raises(SecretError, match="wrong password, or the file was changed"):
        read_secret(path, value["kind"], value["network"], "pass")


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660, 0o777])
def test_a_file_others_can_read_is_refused_with_the_way_out(path: Path, mode: int) -> None:
    write(path)
    path.chmod(mode)
    with pytest.raises(SecretError, match="chmod 600"):
        read_secret(path, "seed", "dev", "pass")


def test_a_file_truncated_anywhere_is_refused(path: Path) -> None:
    write(path)
    data = path.read_bytes()
    for length in range(0, len(data) - 2, 7):
        path.write_bytes(data[:length])
        with pytest.raises(SecretError):
            read_secret(path, "seed", "dev", "pass")


def test_a_missing_file_is_an_error_and_stays_missing(path: Path) -> None:
    with pytest.raises(SecretError, match="does not exist"):
        read_secret(path, "seed", "dev", "pass")
    assert not path.exists()


@pytest.mark.parametrize("make", [lambda p: p.mkdir(mode=0o700), lambda p: os.mkfifo(p, 0o600)])
def test_what_is_not_a_regular_file_is_refused_without_waiting(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    with pytest.raises(SecretError):
        read_secret(path, "seed", "dev", "pass")


def edit(value: dict[str, Any], dotted: str, new: object) -> None:
    *parents, last = dotted.split(".")
    for name in parents:
        value = value[name]
    value[last] = new


@pytest.mark.parametrize(
    ("key", "new"),
    [
        ("kdf.memory_kib", 2**40), ("kdf.memory_kib", "1024"), ("kdf.memory_kib", True), ("kdf.passes", 0), ("kdf.passes", 10**6), ("kdf.lanes", 999),
        ("kdf.salt", "zz"), ("kdf.salt", ""), ("kdf.salt", None), ("nonce", "00"), ("box", ""), ("box", "00"), ("kdf", []), ("kdf.name", "md5"),
        ("cipher", "none"), ("format", "other/9"), ("extra", 1),
    ],
)  # fmt: skip
def test_a_damaged_or_greedy_header_is_refused(path: Path, key: str, new: object) -> None:
    write(path)
    value = json.loads(path.read_text())
    edit(value, key, new)
    path.write_text(json.dumps(value))
    with pytest.raises(SecretError, match=str(path)):
        read_secret(path, "seed", "dev", "pass")


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"{}", b"null", b"{" * 100_000, b" " * 20_000])
def test_a_file_of_something_else_is_refused(path: Path, data: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(data)
    with pytest.raises(SecretError):
        read_secret(path, "seed", "dev", "pass")


def test_an_empty_password_writes_nothing(path: Path) -> None:
    with pytest.raises(SecretError, match="empty"):
        write_secret(path, "seed", "dev", SECRET, "", os.urandom)
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write(tmp_path / "file" / "seed.json")


def test_real_networks_cost_more_than_dev_and_the_file_says_how_much(tmp_path: Path) -> None:
    write_secret(tmp_path / "dev", "seed", "dev", SECRET, "p", os.urandom)
    write_secret(tmp_path / "live", "seed", "live", SECRET, "p", os.urandom)
    write_secret(tmp_path / "own", "seed", "live", SECRET, "p", os.urandom, Cost(2, 16, 1))
    memory = {p.name: json.loads(p.read_text())["kdf"]["memory_kib"] for p in tmp_path.iterdir()}
    assert memory == {"dev": LIGHT.memory_kib, "live": STRONG.memory_kib, "own": 16}
    assert read_secret(tmp_path / "live", "seed", "live", "p") == SECRET


def test_importing_it_pays_for_no_cipher() -> None:
    code = "import sys, tradeskill.secretfile; print('argon2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
