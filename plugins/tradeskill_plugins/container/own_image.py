"""A small image out of this machine's own programs, with the libraries that they need, as a tar: for trying an engine without fetching anything."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tradeskill.errors import NotFoundError

__all__ = ["add_folders", "add_libraries", "add_link", "own_image"]

SECONDS: Final = 60.0


def own_image(programs: Sequence[str]) -> bytes:
    """The programs of these names in /bin. NotFoundError where the machine lacks one of them, or runs programs that no Linux container could."""
    for needed, there in (("Linux", sys.platform == "linux"), ("program ldd", shutil.which("ldd"))):
        if not there:
            raise NotFoundError(f"this machine has no {needed}")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        add_folders(archive)
        found: dict[Path, str] = {}  # a program -> its first name: one program may have several (busybox)
        for name in programs:
            place = shutil.which(name)
            if place is None:
                raise NotFoundError(f"this machine has no program {name}")
            real = Path(place).resolve()
            if real in found:
                add_link(archive, f"bin/{name}", found[real])
            else:
                found[real] = name
                archive.add(real, f"bin/{name}")
        add_libraries(archive, found)
    return buffer.getvalue()


def add_folders(archive: tarfile.TarFile) -> None:
    """Those that every image has."""
    for name in ("tmp", "etc", "bin", "proc", "sys", "dev"):
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
        archive.addfile(folder)


def add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, target
    archive.addfile(link)


def add_libraries(archive: tarfile.TarFile, programs: Iterable[Path]) -> None:
    """What those programs and modules are linked with, where their loader looks for it. A static program needs none."""
    listed = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False, timeout=SECONDS).stdout
    for place in sorted(set(re.findall(r"(/\S+) \(0x", listed))):
        loader = Path(place).name.startswith("ld-")
        archive.add(os.path.realpath(place), place.lstrip("/") if loader else f"usr/lib/{Path(place).name}")
