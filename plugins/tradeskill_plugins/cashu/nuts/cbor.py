"""The little of CBOR that tokens and payment requests are made of, read strictly. Pure.

cbor2 writes; it does not read strangers' bytes here, because it follows tags (regular expressions, shared references, decimals), lets trailing bytes
and longer forms of a number pass, and reads floats. Tokens need none of that: what is not the one shortest form of what they need is refused.
"""

from __future__ import annotations

from typing import Final

import cbor2

from tradeskill.errors import InputError

__all__ = ["MAX_DEPTH", "MAX_ITEMS", "Cbor", "dumps", "loads"]

Cbor = int | bytes | str | bool | None | list["Cbor"] | dict[str, "Cbor"]
MAX_DEPTH: Final = 8  # a proof's DLEQ stands at 6
MAX_ITEMS: Final = 50_000  # values altogether
_SIMPLE: Final[dict[int, bool | None]] = {20: False, 21: True, 22: None, 23: None}  # 23 is "undefined", by which some say "none"


def dumps(value: Cbor) -> bytes:
    """The shortest form, maps in the order given."""
    return cbor2.dumps(value)


def loads(data: bytes) -> Cbor:
    """One value and nothing after it: ints, byte strings, text, lists, maps with text keys, true, false, null.

    InputError for tags, floats, indefinite lengths, numbers not in their shortest form, keys that come twice, text that is not UTF-8, more depth
    than `MAX_DEPTH`, more values than `MAX_ITEMS`, and for what ends too early or too late. Takes time and memory in proportion to `data`.
    """
    reader = _Reader(data)
    value = reader.value(1)
    if reader.at != len(data):
        raise InputError(f"{len(data) - reader.at} bytes follow the CBOR value")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self.at, self._left = data, 0, MAX_ITEMS

    def value(self, depth: int) -> Cbor:
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            raise InputError(f"CBOR has more than {MAX_DEPTH} levels or {MAX_ITEMS} values")
        first = self._take(1)[0]
        major, low = first >> 5, first & 31
        if major == 7:
            if low not in _SIMPLE:
                raise InputError(f"CBOR holds a float or a simple value ({first:#x}) that tokens never have")
            return _SIMPLE[low]
        number = self._number(low)
        if major == 0:
            return number
        if major == 1:
            return -1 - number
        if major == 2:
            return self._take(number)
        if major == 3:
            return self._text(number)
        if major == 4:
            return [self.value(depth + 1) for _ in range(self._fitting(number))]
        if major == 5:
            return self._map(number, depth)
        raise InputError(f"CBOR holds a tag ({number}), which tokens never have")

    def _map(self, count: int, depth: int) -> dict[str, Cbor]:
        found: dict[str, Cbor] = {}
        for _ in range(self._fitting(count)):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in found:
                raise InputError("CBOR has a key that is no text, or one key twice")
            found[key] = self.value(depth + 1)
        return found

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise InputError("CBOR holds text that is not UTF-8") from error

    def _number(self, low: int) -> int:
        if low < 24:
            return low
        if low > 27:
            raise InputError("CBOR holds an indefinite or unknown length")
        size = 1 << (low - 24)
        number = int.from_bytes(self._take(size), "big")
        if number < (24 if size == 1 else 1 << (4 * size)):
            raise InputError("CBOR holds a number that is not in its shortest form")
        return number

    def _fitting(self, count: int) -> int:
        """Each entry takes a byte at least: no list is begun that the data cannot end."""
        if count > len(self._data) - self.at:
            raise InputError("CBOR ends too early")
        return count

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise InputError("CBOR ends too early")
        self.at += count
        return self._data[self.at - count : self.at]
