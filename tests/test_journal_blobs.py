"""Results on disk: durable when `put` returns, found by their hash alone, never believed unchecked."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tradeskill.errors import NotFoundError, StorageError
from tradeskill.journal import Blobs, FileBlobs, MemoryBlobs
from tradeskill.signing import digest


@pytest.fixture(params=["file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return FileBlobs(tmp_path / "results") if request.param == "file" else MemoryBlobs()


@pytest.mark.parametrize("data", [b"", b"text", bytes(range(256)) * 1000])
def test_bytes_come_back_by_their_hash(blobs: Blobs, data: bytes) -> None:
    assert blobs.put(data) == blobs.put(data) == digest(data)
    assert blobs.get(digest(data)) == data


def test_what_is_absent_or_dropped_is_not_found(blobs: Blobs) -> None:
    sha256 = blobs.put(b"x")
    blobs.drop(sha256)
    blobs.drop(sha256)
    for name in (sha256, "0" * 64):
        with pytest.raises(NotFoundError):
            blobs.get(name)


def test_the_same_bytes_from_many_threads_at_once_are_stored_once(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "results")
    with ThreadPoolExecutor(8) as pool:
        hashes = set(pool.map(lambda _: blobs.put(b"same" * 10_000), range(64)))
    assert hashes == {digest(b"same" * 10_000)}
    assert [path.name for path in (tmp_path / "results").iterdir()] == [*hashes]


def test_files_are_private(tmp_path: Path) -> None:
    sha256 = FileBlobs(tmp_path / "results").put(b"x")
    assert (tmp_path / "results").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "results" / sha256).stat().st_mode & 0o777 == 0o600


def test_file_and_folder_are_synced_before_the_hash_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(str(Path(f"/proc/self/fd/{handle}").readlink())) or real(handle))
    blobs = FileBlobs(tmp_path)
    sha256 = blobs.put(b"x")
    assert len(seen) == 2
    assert Path(seen[0]).name.startswith(f".{sha256}")
    assert seen[1] == str(tmp_path)
    blobs.put(b"x")  # a crash may have come before the folder was synced
    assert seen[2:] == [str(tmp_path)]


def test_a_damaged_result_is_not_given_out(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    sha256 = blobs.put(b"x")
    (tmp_path / sha256).write_bytes(b"y")
    with pytest.raises(StorageError, match="damaged"):
        blobs.get(sha256)


def test_a_result_that_cannot_be_stored_or_read_is_a_storage_error(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "results")
    (tmp_path / "results").write_text("a file stands in the way")
    with pytest.raises(StorageError, match="cannot be stored"):
        blobs.put(b"x")
    blobs = FileBlobs(tmp_path)
    (tmp_path / ("0" * 64)).mkdir()
    with pytest.raises(StorageError, match="cannot be read"):
        blobs.get("0" * 64)
