"""A job's output folder out of its container: a tar stream from the engine, all names, kinds and sizes in it taken as hostile."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from tradeskill.errors import RefusedError, UnavailableError
from tradeskill_plugins import outputs

__all__ = ["extent", "take_out"]

_TRAILER: Final = 1024  # zero bytes at a tar's end
_HEADERS: Final = 16 * 1024  # bytes of tar around each entry, long names included


class _TooLongError(RefusedError):
    """The stream itself, whatever is in it."""


class _Bounded:
    """A file over chunks that refuses to give more than so many bytes."""

    def __init__(self, chunks: Iterator[bytes], most: int) -> None:
        self._chunks, self._left, self._kept = chunks, most, b""
        self._last = b""

    def read(self, size: int) -> bytes:
        parts, missing = [self._kept[:size]], size - len(self._kept)
        self._kept = self._kept[size:]
        while missing > 0:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._left -= len(chunk)
            if self._left < 0:
                raise _TooLongError("output is larger than allowed, names and folders included")
            self._last = (self._last + chunk)[-_TRAILER:]
            parts.append(chunk[:missing])
            self._kept = chunk[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def whole(self) -> bool:
        """Whether it ends as a tar does, once all of it was read. One that breaks off looks to `tarfile` as if nothing more had been meant to come."""
        while self.read(65536):
            pass
        return self._last == bytes(_TRAILER)


def extent(chunks: Iterator[bytes], most_bytes: int, most_files: int) -> tuple[int, int]:
    """Entries and apparent bytes, counted no further than one of the two bounds; of a stream that breaks off, what came."""
    entries = size = 0
    try:
        for member in _members(chunks, most_bytes, most_files):
            entries += 1
            size += max(0, member.size) if member.isreg() else 0
            if entries > most_files or size > most_bytes:
                break
    except _TooLongError:
        return entries, max(size, most_bytes + 1)
    except (RefusedError, UnavailableError):  # the container ended meanwhile, or its files changed
        pass
    return entries, size


def take_out(chunks: Iterator[bytes], folder: Path, top: str, most_bytes: int, most_files: int) -> None:
    """Write the plain files of a stream whose entries all lie under `top` into an empty `folder` of ours.

    RefusedError on anything that `outputs.survey` refuses; the names and contents it cannot judge here, it judges there afterwards.
    """
    archive_entries = total = 0
    for member in _members(chunks, most_bytes, most_files):
        path = member.name.removeprefix("./").rstrip("/")
        if path == top and member.isdir():
            continue
        inner = path.removeprefix(f"{top}/")
        if inner == path:
            raise RefusedError(f"output {path!r} lies outside its folder")
        names = [outputs.checked_name(name) for name in inner.split("/")]
        archive_entries += 1
        if archive_entries > most_files:
            raise RefusedError(f"output has more than {most_files} entries")
        if len(names) > outputs.MOST_DEPTH:
            raise RefusedError(f"output {inner!r} is nested deeper than {outputs.MOST_DEPTH} folders")
        place = folder.joinpath(*names)
        if member.isdir():
            with _once(inner):
                place.mkdir(mode=0o700)
            continue
        if not member.isreg() or member.issparse():
            raise RefusedError(f"output {inner!r} is not a regular file ({_kind(member)})")
        total += member.size
        if member.size < 0 or total > most_bytes:
            raise RefusedError(f"output is larger than {most_bytes} bytes (at {inner!r}, {member.size} bytes)")
        _write(member, place, inner)


def _members(chunks: Iterator[bytes], most_bytes: int, most_files: int) -> Iterator[tarfile.TarInfo]:
    """RefusedError where the stream is too long, UnavailableError where it is no tar or breaks off: that is the engine's doing, not the job's."""
    bounded = _Bounded(chunks, most_bytes + (most_files + 2) * _HEADERS)
    try:
        with tarfile.open(fileobj=bounded, mode="r|") as archive:  # type: ignore[call-overload]  # a stream needs no more than `read`
            for member in archive:
                member.tarfile = archive
                archive.members.clear()  # else it remembers every one of a million
                yield member
        if not bounded.whole():
            raise UnavailableError("the output folder did not come to its end")
    except tarfile.TarError as error:
        raise UnavailableError(f"the output folder did not come as it should: {error}") from error


def _write(member: tarfile.TarInfo, place: Path, shown: str) -> None:
    assert member.tarfile is not None
    source = member.tarfile.extractfile(member)
    assert source is not None
    written = 0
    with _once(shown), place.open("xb") as target:
        while part := _read(source, shown):
            written += len(part)
            target.write(part)
    if written != member.size:
        raise UnavailableError(f"output {shown!r} did not come to its end")


def _read(source: IO[bytes], shown: str) -> bytes:
    try:
        return source.read(65536)
    except tarfile.TarError as error:
        raise UnavailableError(f"output {shown!r} did not come to its end: {error}") from error


@contextmanager
def _once(shown: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise RefusedError(f"output {shown!r} comes twice, or before its folder") from error


def _kind(member: tarfile.TarInfo) -> str:
    kinds = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link", tarfile.FIFOTYPE: "FIFO"}
    return kinds.get(member.type, "sparse file" if member.isreg() else "device")
