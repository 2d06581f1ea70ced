"""A whole profile in one file, taken while it works: consistent copies of every database, the encrypted secrets, configuration and results."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from tradeskill.config import CONFIG_FILE
from tradeskill.errors import ConfigError, InputError, NotFoundError, StorageError

__all__ = ["back_up", "restore"]

LEFT_OUT = ("-wal", "-shm", "-journal")
FOLDERS_LEFT_OUT = ("backends",)  # running executions belong to the machine, not to the profile


def back_up(home: Path, target: Path) -> int:
    """Write `target` (new, mode 0600, durable). Returns the number of files. Secrets in it stay encrypted under the profile's password."""
    if not (home / CONFIG_FILE).exists():
        raise NotFoundError(f"no profile in {home}: nothing to back up")
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{target} exists already: name a new file") from error
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}") from error
    count = 0
    try:
        with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for path in sorted(home.rglob("*")):
                name = path.relative_to(home)
                if not path.is_file() or path.is_symlink() or path.name.endswith(LEFT_OUT) or name.parts[0] in FOLDERS_LEFT_OUT or path == target:
                    continue
                data = _copy_of(path) if path.suffix == ".db" else path.read_bytes()
                member = tarfile.TarInfo(str(name))
                member.size, member.mode = len(data), 0o600
                archive.addfile(member, io.BytesIO(data))
                count += 1
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        raise StorageError(f"backup {target} could not be finished: {error.strerror or error}; nothing was kept of it") from error
    return count


def restore(source: Path, home: Path) -> int:
    """Unpack a backup into an empty `home`. The wallet notices the copy and hands out addresses from a new range (none is reused)."""
    if home.exists() and any(home.iterdir()):
        raise ConfigError(f"{home} is not empty: restore into a new folder (TRADESKILL_HOME)")
    try:
        with tarfile.open(source) as archive:
            members = archive.getmembers()
            if CONFIG_FILE not in [member.name for member in members]:
                raise InputError(f"{source} is not a profile's backup: it holds no {CONFIG_FILE}")
            for member in members:
                _unpack(archive, member, home)
        return len(members)
    except FileNotFoundError as error:
        raise NotFoundError(f"backup {source} is not there") from error
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{source} is not a readable backup: {error}") from error
    except OSError as error:
        raise StorageError(f"{home} cannot be written: {error.strerror or error}") from error


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, home: Path) -> None:
    name = PurePosixPath(member.name)
    stream = archive.extractfile(member) if member.isfile() else None
    if stream is None or name.is_absolute() or ".." in name.parts:
        raise InputError(f"backup holds {member.name!r}, which no backup of ours does: not restored")
    target = home / name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(stream.read())
        out.flush()
        os.fsync(out.fileno())


def _copy_of(path: Path) -> bytes:
    """A consistent copy of a database that may be in use."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        try:
            with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        except sqlite3.Error as error:
            raise StorageError(f"{path} cannot be copied: {error}") from error
        return copy.read_bytes()
