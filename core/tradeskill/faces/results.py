"""Delivered bytes as files: under plain names, whole or not at all, never outside the folder that was named."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from tradeskill.errors import InputError, StorageError
from tradeskill.signing import digest

__all__ = ["save_result"]

TAR = "application/x-tar"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", re.ASCII)
SUFFIXES = {"application/json": ".json", "text/plain": ".txt", "text/markdown": ".md", "text/html": ".html", "application/pdf": ".pdf"}


def save_result(data: bytes, media_type: str, name: str, folder: Path) -> list[Path]:
    """One file `NAME.EXT`, or a tar's members in the folder NAME; whole or not at all, in place of what an earlier call wrote, never outside `folder`.

    `name` may come from a stranger: what is no plain name is replaced by its hash. InputError for an archive that would write elsewhere.
    """
    plain = name if _PLAIN.fullmatch(name) else digest(name.encode())[:32]
    target = folder / (plain if media_type == TAR else f"{plain}{SUFFIXES.get(media_type.partition(';')[0].strip(), '.bin')}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{plain}.", dir=folder) as temporary:
            written = Path(temporary) / target.name
            if media_type == TAR:
                _unpack(data, written)
                _clear(target)
            else:
                written.write_bytes(data)
            written.replace(target)
        return sorted(path for path in target.rglob("*") if path.is_file()) if media_type == TAR else [target]
    except tarfile.TarError as error:
        raise InputError(f"the result is not a safe archive: {error}") from error
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}; choose another --output") from error


def _unpack(data: bytes, folder: Path) -> None:
    """Plain files and folders only, uncompressed (so that a few bytes cannot become a terabyte)."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive.getmembers():
            if not (member.isreg() or member.isdir()) or member.issparse() or member.name.startswith("/"):
                raise InputError(f"the result is not a safe archive: {member.name!r:.80} is no plain file or folder in it")
        archive.extractall(folder, filter="data")


def _clear(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
