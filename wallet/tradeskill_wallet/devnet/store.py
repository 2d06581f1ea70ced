"""The persistent form of a dev ledger: one append-only file of what happened, in order. Survives kill -9 and power cuts."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path

from tradeskill.errors import StateError, StorageError, UsageError
from tradeskill.world import World

__all__ = ["Record", "Store"]

Record = dict[str, object]


class Store:
    """`DIR/ledger.jsonl`: a first line that names the ledger, then one record a line.

    `append` hands a record to the system at once (a killed process loses none); `sync` returns when all records so far
    are on the disk, and callers that come together share one fsync. After an I/O error every call raises StorageError.
    """

    def __init__(self, folder: Path, header: Record, world: World) -> None:
        """Open or create. Raises StateError if another process has it open, UsageError if it belongs to another kind of ledger."""
        self._world = world
        self._path = folder / "ledger.jsonl"
        self._broken: str | None = None
        self._written = self._synced = 0
        self._lock = asyncio.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error
        try:
            self.records = self._load(header)
        except BaseException:
            os.close(self._fd)
            raise

    def _load(self, header: Record) -> list[Record]:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateError(f"{self._path} is open in another dev ledger: stop that one or choose another --data") from error
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error
        whole = content.rfind(b"\n") + 1
        lines = content[:whole].splitlines()
        try:
            records: list[Record] = [json.loads(line) for line in lines]
        except ValueError as error:
            raise StorageError(f"{self._path} is damaged: restore it or choose another --data") from error
        if whole != len(content):
            os.ftruncate(self._fd, whole)  # the last record was cut off while it was written: nobody was told of it
        if not records:
            self.append(header)
            self._fsync()
            self._fsync_folder()
            return []
        if records[0] != header:
            raise UsageError(f"{self._path} holds another ledger ({json.dumps(records[0])}): choose another --data or the same options")
        return records[1:]

    def append(self, record: Record) -> None:
        self._check()
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as error:
            raise self._break(error) from error
        self._written += 1

    async def sync(self) -> None:
        """Durable up to the newest record at the time of the call."""
        wanted = self._written
        async with self._lock:
            self._check()
            if self._synced >= wanted:
                return
            reached = self._written
            await self._world.offload(self._fsync)
            self._synced = reached

    def close(self) -> None:
        """Give the file up (and its lock). Twice is safe."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _fsync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._break(error) from error

    def _fsync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _check(self) -> None:
        if self._broken is not None:
            raise StorageError(self._broken)

    def _break(self, error: OSError) -> StorageError:
        self._broken = f"{self._path}: {error.strerror}: the dev ledger stops"
        return StorageError(self._broken)
