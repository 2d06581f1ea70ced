"""Which file or PostgreSQL a relay keeps everything in: said by an option, in a file or in the environment. A password in it is shown nowhere.

On the command line everybody on the machine could read one (`ps`), so there it is refused.
"""

from __future__ import annotations

import stat
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tradeskill.errors import UsageError

__all__ = ["DEFAULT", "VARIABLE", "is_open_to_others", "read_source", "shown"]

VARIABLE: Final = "TRADESKILL_RELAY_DATA"
DEFAULT: Final = "relay.db"
LONGEST: Final = 4_096  # characters
_SCHEMES: Final = ("postgresql://", "postgres://")
_SECRET: Final = ("password", "sslpassword")


def read_source(option: str | None, file: Path | None, environ: Mapping[str, str]) -> str:
    """A path or a DSN: of `--data`, of the first line of `--data-file`, of the environment, or `relay.db`. UsageError, which repeats no value."""
    if option is not None and file is not None:
        raise UsageError("--data and --data-file say the same thing: give one of them")
    if option is not None:
        if _has_password(_checked("--data", option)):
            raise UsageError(f"--data holds a password, which everybody on this machine can read with `ps`: give the DSN by --data-file or {VARIABLE}")
        return option
    if file is not None:
        return _checked(f"--data-file {file}", _first_line(file))
    return _checked(VARIABLE, environ[VARIABLE]) if VARIABLE in environ else DEFAULT


def shown(source: str) -> str:
    """For people and logs: a file's path, or that it is a PostgreSQL."""
    return "postgresql" if source.startswith(_SCHEMES) else source


def is_open_to_others(file: Path) -> bool:
    """Whether everybody may read a file that may hold a password. (Access lists, as systemd makes them, show up as the group's rights.)"""
    mode = file.stat().st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o007)


def _first_line(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.readline(LONGEST + 2).decode().rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"--data-file {file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--data-file {file}: its first line is no text; it takes a path or a DSN") from error


def _checked(where: str, text: str) -> str:
    if not text.strip() or len(text) > LONGEST or not text.isprintable():
        raise UsageError(f"{where} is empty, not printable, or over {LONGEST} characters: give a file's path or a PostgreSQL DSN")
    if "://" in text and not text.startswith(_SCHEMES):
        raise UsageError(f"{where} is a URL of another kind: give a file's path, or postgresql://USER@HOST/DATABASE")
    return text


def _has_password(source: str) -> bool:
    if not source.startswith(_SCHEMES):
        return False
    rest = source.partition("://")[2]
    user, at, _ = rest.partition("@")
    options = urllib.parse.parse_qs(rest.partition("?")[2], keep_blank_values=True)
    return (bool(at) and ":" in user) or any(name.lower() in _SECRET for name in options)
