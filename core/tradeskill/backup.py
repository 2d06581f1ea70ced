"""A whole profile in one file, taken while it works: consistent copies of every database, the encrypted secrets, configuration and results."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
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
            for path in _files(home, target):
                try:
                    data = _copy_of(path) if path.suffix == ".db" else path.read_bytes()
                except FileNotFoundError:
                    continue  # it was of a moment, or its time was over
                member = tarfile.TarInfo(str(path.relative_to(home)))
                member.size, member.mode = len(data), 0o600
                archive.addfile(member, io.BytesIO(data))
                count += 1
            archive.close()
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageError(f"backup {target} could not be finished: {error.strerror or error}; nothing was kept of it") from error
        raise
    return count


def _files(home: Path, target: Path) -> list[Path]:
    """In the order of their names: the journal before the results and the wallets, so that what it names is there."""
    found = []
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home)
        passing = path.name.startswith(".") or path.name.endswith(LEFT_OUT) or name.parts[0] in FOLDERS_LEFT_OUT
        if not passing and path != target and path.is_file() and not path.is_symlink():
            found.append(path)
    return found


def restore(source: Path, home: Path) -> int:
    """Unpack a backup into an empty or new `home`, whole or not at all. Returns the number of files.

    The wallet notices the copy and hands out addresses from a new range (none is reused).
    """
    if home.exists() and any(home.iterdir()):
        raise ConfigError(f"{home} is not empty: restore into a new folder (TRADESKILL_HOME)")
    try:
        with tarfile.open(source) as archive:
            members = _checked(archive.getmembers(), source)
            made = [folder for folder in home.parents if not folder.exists()]  # innermost first
            temporary = home.with_name(f".{home.name}.restoring-{os.getpid()}")
            try:
                temporary.mkdir(mode=0o700, parents=True)
                for member in members:
                    _unpack(archive, member, temporary)
                temporary.rename(home)  # takes the place of an empty folder
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                for folder in made:
                    with contextlib.suppress(OSError):
                        folder.rmdir()
                raise
            return len(members)
    except FileNotFoundError as error:
        raise NotFoundError(f"backup {source} is not there: {error.strerror}") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{source} is not a readable backup: {error}") from error
    except OSError as error:
        raise StorageError(f"{home} cannot be written: {error.strerror or error}") from error


def _checked(members: list[tarfile.TarInfo], source: Path) -> list[tarfile.TarInfo]:
    """Plain files only, each once, inside the folder, the configuration among them."""
    names = [member.name for member in members]
    if CONFIG_FILE not in names:
        raise InputError(f"{source} is not a profile's backup: it holds no {CONFIG_FILE}")
    for member in members:
        name = PurePosixPath(member.name)
        if not member.isreg() or member.issparse() or name.is_absolute() or ".." in name.parts or names.count(member.name) > 1:
            raise InputError(f"{source} holds {member.name!r:.80}, which no backup of ours does: not restored")
    return members


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, home: Path) -> None:
    stream = archive.extractfile(member)
    assert stream is not None
    target = home / member.name
    for folder in reversed(target.parents[: len(target.relative_to(home).parts) - 1]):
        folder.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        shutil.copyfileobj(stream, out)
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
