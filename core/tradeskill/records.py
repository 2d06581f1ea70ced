"""Whether an installed package's files are still those that its RECORD lists, and that list's own digest."""

from __future__ import annotations

import base64
import hashlib

from tradeskill.errors import PluginError

__all__ = ["record_digest"]


def record_digest(package: str) -> str:
    """`sha256:` and 64 hex digits over the RECORD of an installed package.

    Every file that stands there with a hash is compared first: PluginError names one that differs or is gone, and a package without a RECORD.
    """
    from importlib import metadata

    try:
        distribution = metadata.distribution(package)
        record = distribution.read_text("RECORD")
    except (metadata.PackageNotFoundError, OSError, UnicodeDecodeError):
        record = None
    if record is None:
        raise PluginError(f"package {package} has no RECORD of its files: install it from a wheel")
    for file in distribution.files or ():
        if file.hash is None:
            continue
        try:
            found = hashlib.new(file.hash.mode, distribution.locate_file(file).read_bytes()).digest()  # type: ignore[attr-defined]  # a path
        except (OSError, ValueError) as error:
            raise PluginError(f"package {package}: {file} cannot be compared with its RECORD ({type(error).__name__}): install it again") from error
        if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != file.hash.value:
            raise PluginError(f"package {package}: {file} is not what its RECORD says: it was changed after it was installed; install it again")
    return f"sha256:{hashlib.sha256(record.encode()).hexdigest()}"
