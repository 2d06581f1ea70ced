"""What was too long to show to a model: kept as a file in the profile, under a name that its content gives it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tradeskill.errors import StorageError
from tradeskill.signing import digest

__all__ = ["FOLDER", "save_download"]

FOLDER: Final = "downloads"


def save_download(home: Path, data: bytes, name: str, suffix: str) -> Path:
    """The file, mode 0600, in `downloads` of the profile; the same content again is the same file. StorageError when it cannot be written."""
    path = home / FOLDER / f"{name}-{digest(data)[:16]}{suffix}"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(data)
        part.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    return path
