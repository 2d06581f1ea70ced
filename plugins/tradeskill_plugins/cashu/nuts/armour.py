"""The base64 that tokens and payment requests travel in. Pure."""

from __future__ import annotations

import base64

from tradeskill.errors import InputError

__all__ = ["unwrap", "wrap"]


def wrap(data: bytes) -> str:
    """URL-safe, without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unwrap(text: str, both: bool = False) -> bytes:
    """URL-safe, padded or not; with `both`, the other alphabet too. InputError for any other character, and for bits left over that are not 0."""
    bare = text.translate({ord("+"): "-", ord("/"): "_"}) if both else text
    bare = bare.rstrip("=") if len(text) - len(text.rstrip("=")) < 3 else bare
    try:
        data = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except ValueError as error:  # binascii.Error is one
        raise InputError("it is not base64url") from error
    if wrap(data) != bare:
        raise InputError("it is not base64url as anybody would write it")
    return data
