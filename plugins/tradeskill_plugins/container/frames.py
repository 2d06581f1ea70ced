"""What a container prints, as an engine sends it: frames of 1 byte stream, 3 bytes nothing, 4 bytes length (big-endian), and the bytes. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["STDERR", "STDOUT", "Frames"]

STDOUT: Final = 1
STDERR: Final = 2
_HEADER: Final = struct.Struct(">BxxxL")


class Frames:
    """Fed with what came, however it was cut; gives (stream, bytes), a long frame in parts. Keeps a header's bytes at most."""

    def __init__(self) -> None:
        self._head = b""
        self._stream, self._left = 0, 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        view = memoryview(data)
        while view:
            if self._left:
                part = bytes(view[: self._left])
                view = view[len(part) :]
                self._left -= len(part)
                yield self._stream, part
                continue
            missing = _HEADER.size - len(self._head)
            self._head += bytes(view[:missing])
            view = view[missing:]
            if len(self._head) == _HEADER.size:
                self._stream, self._left = _HEADER.unpack(self._head)
                self._head = b""
