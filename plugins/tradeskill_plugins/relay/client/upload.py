"""Where results go that are too large for a relay: an upload point puts the bytes somewhere and says under which URL they can be had.

`LocalFolder` writes them into a folder that a web server of the owner's serves, so a seller needs no open port of its own.
Who knows the URL can read the result: names are drawn, never derived. What lies there is the owner's to clear away.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from tradeskill.errors import UnavailableError
from tradeskill.world import World

__all__ = ["LocalFolder", "Upload"]


class Upload(Protocol):
    async def put(self, name: str, data: bytes, media_type: str) -> str:
        """Store `data` durably as `name` (of a-z, 0-9 and hyphens, drawn by the caller) and return its URL, without a fragment."""


class LocalFolder:
    """A folder and the URL under which somebody serves it. A file is there whole or not at all."""

    def __init__(self, folder: Path, url: str, world: World) -> None:
        self._folder, self._url, self._world = folder, url, world

    async def put(self, name: str, data: bytes, media_type: str) -> str:
        # no ending that a web server would take for a page: what a job wrote must not run as one in the owner's name
        file = f"{name}.bin"
        try:
            await self._world.offload(lambda: _write(self._folder, file, data))
        except OSError as error:
            raise UnavailableError(f"market.upload.folder {self._folder}: {error.strerror}; check the path, its rights and the space left") from error
        return f"{self._url}/{file}"


def _write(folder: Path, file: str, data: bytes) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        waiting = f".{file}.part"
        handle = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=descriptor)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(waiting, file, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
