"""Collecting what a job left behind. Every name, type, size and link is taken as hostile; any backend that shares a folder uses this."""

from __future__ import annotations

import json
import os
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tradeskill.errors import NotFoundError, RefusedError
from tradeskill.model import Result

__all__ = ["JSON", "MOST_DEPTH", "TEXT", "Found", "checked_name", "collect", "media_type_of", "open_folder", "pack", "read_file", "remove_tree", "survey"]

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"
_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".gif": "image/gif",
    ".gz": "application/gzip",
    ".html": "text/html; charset=utf-8",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": JSON,
    ".md": "text/markdown; charset=utf-8",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tar": "application/x-tar",
    ".txt": TEXT,
    ".wav": "audio/wav",
    ".webp": "image/webp",
    ".xml": "application/xml",
    ".zip": "application/zip",
}

MOST_DEPTH: Final = 16
_MOST_NAME: Final = 200  # bytes of one component
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True)
class Found:
    """One output file: its path in the output folder (`/` between components), its apparent size, and which file it was when looked at."""

    path: str
    size: int
    device: int
    inode: int


def open_folder(path: Path, *inner: str) -> int:
    """A descriptor of `path`/`inner`..., following no symlink in `inner` nor as the last component of `path`. The caller closes it."""
    handle = _step(str(path), None)
    for name in inner:
        try:
            deeper = _step(name, handle)
        finally:
            os.close(handle)
        handle = deeper
    return handle


def survey(folder: int, most_bytes: int, most_files: int) -> list[Found]:
    """What lies under an open output folder, sorted by path. Opens no file.

    RefusedError on anything but plain files and folders: symlinks, hard links, FIFOs, devices, sockets, names with control or
    invisible characters, a leading dot, or over 200 bytes, nesting over 16, more than `most_files` entries or `most_bytes` bytes.
    Sizes are the apparent ones, so that a sparse file counts in full.
    """
    found: list[Found] = []
    waiting: list[tuple[str, ...]] = [()]
    entries = total = 0
    while waiting:
        inner = waiting.pop()
        handle = _walk(folder, inner)
        try:
            with os.scandir(handle) as listing:
                for entry in listing:
                    entries += 1
                    if entries > most_files:
                        raise RefusedError(f"output has more than {most_files} entries")
                    path = "/".join((*inner, checked_name(entry.name)))
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        if len(inner) + 1 >= MOST_DEPTH:
                            raise RefusedError(f"output {path!r} is nested deeper than {MOST_DEPTH} folders")
                        waiting.append((*inner, entry.name))
                        continue
                    _checked_kind(path, info)
                    total += info.st_size
                    if total > most_bytes:
                        raise RefusedError(f"output is larger than {most_bytes} bytes (at {path!r}, {info.st_size} bytes)")
                    found.append(Found(path, info.st_size, info.st_dev, info.st_ino))
        finally:
            os.close(handle)
    return sorted(found, key=lambda file: file.path)


def collect(folder: int, most_bytes: int, most_files: int) -> list[tuple[str, bytes]]:
    """The files that `survey` found, read. RefusedError as there, and where a file changed in between."""
    return [(file.path, _read(folder, file)) for file in survey(folder, most_bytes, most_files)]


def read_file(folder: int, name: str, most_bytes: int) -> bytes:
    """One known file in an open folder under the same suspicion; NotFoundError where there is none."""
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {name}") from error
    _checked_kind(name, info)
    if info.st_size > most_bytes:
        raise RefusedError(f"{name} is larger than {most_bytes} bytes ({info.st_size})")
    return _read(folder, Found(name, info.st_size, info.st_dev, info.st_ino))


def pack(files: list[tuple[str, bytes]]) -> Result:
    """One file as it is, with the media type of its ending; several as one tar whose bytes depend on names and contents only."""
    if len(files) == 1:
        name, data = files[0]
        return Result(data, _MEDIA_TYPES.get(os.path.splitext(name)[1].lower(), _BYTES))  # noqa: PTH122  # a name, not a path of ours
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), 0o644, 0
            archive.addfile(member, io.BytesIO(data))
    return Result(buffer.getvalue(), "application/x-tar")


def media_type_of(data: bytes) -> str:
    """Of what a job printed: JSON if it parses, else text if it is UTF-8 without NUL, else bytes."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _BYTES
    try:
        json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return _BYTES if "\0" in text else TEXT
    return JSON


def remove_tree(parent: int, name: str) -> None:
    """Remove `name` in an open folder, whatever a job made of it: no symlink is followed, no mode or nesting stops it. Safe to repeat.

    Inner folders are first moved up to the top one, so that depth costs neither stack nor descriptors.
    """
    try:
        top = _unlocked(parent, name)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return
    try:
        while folders := _without_files(top):
            for inner in folders:
                handle = _unlocked(top, inner)
                try:
                    for deeper in _without_files(handle):
                        os.close(_unlocked(handle, deeper))
                        os.rename(deeper, os.urandom(12).hex(), src_dir_fd=handle, dst_dir_fd=top)
                finally:
                    os.close(handle)
                os.rmdir(inner, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _step(name: str, parent: int | None) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no folder {name!r}") from error
    except NotADirectoryError as error:
        raise RefusedError(f"{name!r} is not a folder (or is a symbolic link)") from error
    except OSError as error:
        raise RefusedError(f"folder {name!r} cannot be opened: {error.strerror}") from error


def _walk(folder: int, inner: tuple[str, ...]) -> int:
    handle = os.dup(folder)
    for name in inner:
        try:
            deeper = _step(name, handle)
        finally:
            os.close(handle)
        handle = deeper
    return handle


def checked_name(name: str) -> str:
    """One component of an output's path, if it is harmless to write down and to show; else RefusedError."""
    if name.startswith("."):
        raise RefusedError(f"output {name!r} begins with a dot")
    if len(os.fsencode(name)) > _MOST_NAME:
        raise RefusedError(f"output {name[:40]!r}... has a name of more than {_MOST_NAME} bytes")
    if "\\" in name or any(unicodedata.category(character)[0] == "C" or character in "\u2028\u2029" for character in name):
        raise RefusedError(f"output {name!r} has a control character, a backslash or broken text in its name")  # surrogates are of category Cs
    return name


def _checked_kind(path: str, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise RefusedError(f"output {path!r} is not a regular file ({_kind(info.st_mode)})")
    if info.st_nlink != 1:
        raise RefusedError(f"output {path!r} is a hard link: its file has {info.st_nlink} names")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFDIR: "folder"}
    return kinds.get(stat.S_IFMT(mode), "device")


def _read(folder: int, file: Found) -> bytes:
    *inner, name = file.path.split("/")
    parent = _walk(folder, tuple(inner))
    try:
        handle = os.open(name, _FILE, dir_fd=parent)
    except OSError as error:
        raise RefusedError(f"output {file.path!r} cannot be read: {error.strerror}") from error
    finally:
        os.close(parent)
    with open(handle, "rb") as opened:  # noqa: PTH123  # a descriptor: no path is looked up again
        info = os.fstat(handle)
        _checked_kind(file.path, info)
        data = opened.read(file.size + 1) if (info.st_dev, info.st_ino) == (file.device, file.inode) else b""
    if (info.st_dev, info.st_ino) != (file.device, file.inode) or len(data) != file.size:
        raise RefusedError(f"output {file.path!r} changed while it was collected")
    return data


def _unlocked(parent: int, name: str) -> int:
    """Open a folder of ours that may have lost its own mode bits."""
    try:
        handle = os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{pinned}", 0o700)  # noqa: PTH101  # O_PATH descriptors refuse fchmod
            return os.open(name, _FOLDER, dir_fd=parent)
        finally:
            os.close(pinned)
    os.fchmod(handle, 0o700)
    return handle


def _without_files(folder: int) -> list[str]:
    """Unlink all but folders; the names of those."""
    folders = []
    with os.scandir(folder) as listing:
        entries = list(listing)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        else:
            os.unlink(entry.name, dir_fd=folder)
    return folders
