"""Results as content-addressed files: temporary file, fsync, rename, folder fsync; the hash is checked on every read."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Protocol

from tradeskill.errors import NotFoundError, StorageError
from tradeskill.signing import digest

__all__ = ["Blobs", "FileBlobs", "MemoryBlobs"]


class Blobs(Protocol):
    """Bytes by their sha256. `put` is durable when it returns and may be repeated."""

    def put(self, data: bytes) -> str: ...

    def get(self, sha256: str) -> bytes:
        """NotFoundError when absent, StorageError when damaged."""

    def drop(self, sha256: str) -> None: ...


class FileBlobs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> str:
        sha256 = digest(data)
        target = self._folder / sha256
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not target.exists():
                temporary = self._folder / f".{sha256}.{os.getpid()}.{threading.get_ident()}"  # two jobs may end with the same bytes at once
                with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(target)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StorageError(f"result {sha256} cannot be stored in {self._folder}: {error}") from error
        return sha256

    def get(self, sha256: str) -> bytes:
        try:
            data = (self._folder / sha256).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"result {sha256} is not stored any more (results are kept for a limited time)") from error
        except OSError as error:
            raise StorageError(f"result {sha256} cannot be read: {error}") from error
        if digest(data) != sha256:
            raise StorageError(f"result {sha256} is damaged on disk")
        return data

    def drop(self, sha256: str) -> None:
        (self._folder / sha256).unlink(missing_ok=True)


class MemoryBlobs:
    """The same promises without a disk, for the simulation."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        sha256 = digest(data)
        self._data[sha256] = data
        return sha256

    def get(self, sha256: str) -> bytes:
        if sha256 not in self._data:
            raise NotFoundError(f"result {sha256} is not stored any more (results are kept for a limited time)")
        return self._data[sha256]

    def drop(self, sha256: str) -> None:
        self._data.pop(sha256, None)
