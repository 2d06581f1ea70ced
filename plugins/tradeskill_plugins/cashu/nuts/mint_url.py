"""How a mint is named: one spelling for one address, nothing in it that could lead elsewhere. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tradeskill.errors import InputError

__all__ = ["MAX_URL", "mint_url"]

MAX_URL = 300
_HOST = re.compile(r"[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\]", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*", re.ASCII)


def mint_url(text: str) -> str:
    """The canonical form: lowercase scheme and host, default port and trailing slashes gone. InputError for all but http(s)://host[:port][/path]."""
    if len(text) > MAX_URL or not text.isascii() or not text.isprintable():
        raise InputError(f"mint URL {text[:80]!r} is too long or has characters that no URL has")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InputError(f"mint URL {text!r} is malformed: {error}") from error
    host = parts.netloc.lower() if port is None else parts.netloc.lower().rpartition(":")[0]
    path = parts.path.rstrip("/")
    if parts.scheme not in ("http", "https") or _HOST.fullmatch(host) is None or "?" in text or "#" in text:
        raise InputError(f"mint URL {text!r} is not http(s)://host[:port][/path]")
    if _PATH.fullmatch(path) is None or any(step in (".", "..") for step in path.split("/")):
        raise InputError(f"mint URL {text!r} has a path that is not plain")
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}{'' if port in (None, default) else f':{port}'}{path}"
