"""How a container's end is read: exit status, kill or doubt, as a state and a code. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

__all__ = ["Verdict", "judged"]

_OUT_OF_MEMORY: Final = (b"MemoryError", b"bad_alloc", b"Cannot allocate memory", b"out of memory", b"Out of memory")
_KILLED, _TERMINATED, _CPU, _SIZE = 128 + 9, 128 + 15, 128 + 24, 128 + 25


@dataclass(frozen=True)
class Verdict:
    """`said`: the last of its stderr, for the seller's log."""

    state: Literal["finished", "failed", "lost"]
    detail: str = ""
    code: str = ""
    said: bytes = b""

    def saying(self, said: bytes) -> Verdict:
        return replace(self, said=said)

    def as_json(self, seconds: float, memory: int) -> dict[str, object]:
        """As `executions/records.py` reads it. What it used of its memory at most is not known, but that it was no more than this."""
        return {"state": self.state, "code": self.code, "detail": self.detail, "seconds": round(seconds, 3), "peak_memory": memory}


def judged(state: Mapping[str, Any], tail: bytes, limits: Mapping[str, Any], *, doubtful: bool) -> Verdict:
    """Of a container that ended and that we did not end. `doubtful`: nobody watched all of its life.

    Out of memory shows as SIGKILL from nobody we know: not every engine says that it was that. Where nobody watched, the same may have
    been the machine going down, or Docker, whose containers end with it by SIGTERM first; and then nothing is known.
    """
    code = int(state.get("ExitCode") or 0)
    if state.get("OOMKilled"):
        return Verdict("failed", f"ran out of its {limits['memory']} bytes of memory", "limit.memory")
    if code == 0:
        return Verdict("finished")
    if any(sign in tail for sign in _OUT_OF_MEMORY):
        return Verdict("failed", f"ran out of its {limits['memory']} bytes of memory", "limit.memory")
    if code in (_KILLED, _TERMINATED) and doubtful:
        return Verdict("lost", "it was killed while nobody watched")
    if code == _KILLED:
        return Verdict("failed", f"was killed, as happens to what needs more than its {limits['memory']} bytes of memory", "limit.memory")
    if code == _CPU:
        return Verdict("failed", f"used more than {limits['cpu_seconds']:g} s of processor time", "limit.time")
    if code == _SIZE:
        return Verdict("failed", f"wrote a file of more than {limits['output']} bytes", "limit.output")
    last = tail.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
    said = "".join(character if character.isprintable() else "?" for character in last)
    return Verdict("failed", f"exited with status {code}" + (f": {said}" if said else ""), "exit")
