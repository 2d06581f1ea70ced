"""Who may come in and how long one may take: the door's limits, and everybody who is connected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tradeskill_plugins.relay.server.peers import Proxies, limit_key
from tradeskill_plugins.relay.server.refusals import Refusal, unavailable
from tradeskill_plugins.relay.wire import MAX_BODY

__all__ = ["Crowd", "DoorObserver", "DoorSettings", "Guest", "Streams"]


@dataclass(frozen=True)
class DoorSettings:
    """Where the door is, and its limits. Seconds are real numbers; None where a limit may be switched off."""

    host: str = "127.0.0.1"
    port: int = 8402  # 0: any free one
    proxies: tuple[str, ...] = ()  # addresses and networks whose X-Forwarded-For is believed
    connections: int | None = 800  # a process has 1,024 descriptors by default, and the database needs some
    connections_per_ip: int | None = 64  # several workers behind one address have their requests and streams; proxies are not counted
    target_bytes: int = 4096  # the longest of ours (tags, q and a cursor) has under 2,000
    head_bytes: int = 16_384  # what the relay that it replaces allows; four signed headers have 400
    headers: int = 64  # a request of ours has 12, a browser's behind two proxies about 30
    body_bytes: int = MAX_BODY  # the protocol's limit
    grace_seconds: float = 1.0  # where all places are taken: a connection that has waited less for its client keeps its own
    head_seconds: float = 10.0  # from a request's first byte, or from the connection, to the end of its head
    body_seconds: float = 30.0  # the largest body at 10 kB/s
    keep_alive_seconds: float = 75.0  # longer than clients keep an idle connection, so that it is they who close
    requests_per_connection: int | None = 100_000  # whatever a connection gathered is let go some time
    pipelined: int = 16  # requests that wait behind one that is being answered
    unread_seconds: float = 20.0  # an answer of which the client reads nothing for so long
    behind_seconds: float = 120.0  # an answer that is not read to its end for so long, however busily
    linger_seconds: float = 2.0  # after a refusal, for the client to read it while it still sends
    drain_seconds: float = 10.0  # for requests in flight, when the server closes
    send_buffer: int | None = 131_072  # bytes in the kernel a connection: what is not read shows early and costs little
    tick: float = 1.0  # how often all of this is looked at; every limit in seconds may be late by as much


class DoorObserver(Protocol):
    """Whoever counts what happens at the door. Both are called synchronously and must not raise."""

    def connections(self, count: int) -> None:
        """So many connections are open now."""

    def refused(self, kind: str) -> None:
        """A request or connection was refused, for this reason (of `refusals.KINDS`)."""


class Guest(Protocol):
    """A connection, as the crowd sees it."""

    peer: str
    proxy: bool  # one of the configured proxies: it brings many clients

    def waiting_since(self) -> float | None:
        """Since when nothing can go on unless the client sends; None while the server owes an answer."""

    def give_way(self) -> None:
        """End now, without a word."""


class Crowd:
    """Everybody who is connected. All times are of `clock`, seconds that never go back."""

    def __init__(self, settings: DoorSettings, clock: Callable[[], float], observer: DoorObserver | None = None) -> None:
        self.settings = settings
        self.clock = clock
        self.proxies = Proxies(settings.proxies)
        self.closing = False
        self._observer = observer
        self._guests: set[Guest] = set()
        self._per_ip: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def admit(self, guest: Guest) -> Refusal | None:
        """Let it in, or say why not. Where all places are taken, the connection that has waited longest for its client gives way."""
        limits = self.settings
        key = limit_key(guest.peer)
        if limits.connections_per_ip is not None and not guest.proxy and self._per_ip.get(key, 0) >= limits.connections_per_ip:
            return self.refuse(unavailable("too many connections from one address", "ip", limits.connections_per_ip))
        if limits.connections is not None and len(self._guests) >= limits.connections and not self._make_room():
            return self.refuse(unavailable("too many connections", "relay", limits.connections))
        self._guests.add(guest)
        self._per_ip[key] = self._per_ip.get(key, 0) + 1
        self._count()
        return None

    def leave(self, guest: Guest) -> None:
        """It is gone. Calling it again, or for one that was never let in, is nothing."""
        if guest not in self._guests:
            return
        self._guests.remove(guest)
        key = limit_key(guest.peer)
        left = self._per_ip[key] - 1
        if left:
            self._per_ip[key] = left
        else:
            del self._per_ip[key]
        self._count()

    def refuse(self, refusal: Refusal) -> Refusal:
        """Count it, and give it back."""
        if self._observer is not None:
            self._observer.refused(refusal.kind)
        return refusal

    def _make_room(self) -> bool:
        latest = self.clock() - self.settings.grace_seconds
        waiting = [(since, guest) for guest in self._guests if (since := guest.waiting_since()) is not None and since <= latest]
        if not waiting:
            return False
        guest = min(waiting, key=lambda pair: pair[0])[1]
        self.leave(guest)
        guest.give_way()
        return True

    def _count(self) -> None:
        if self._observer is not None:
            self._observer.connections(len(self._guests))


class Streams:
    """How many streams are open, in all and for each key. The application asks before it answers with one, and must give each place back."""

    def __init__(self, overall: int | None = 400, per_key: int | None = 8) -> None:
        self._overall, self._per_key = overall, per_key
        self._open: dict[str, int] = {}
        self.count = 0

    def enter(self, key: str) -> bool:
        """Take a place; False, and nothing taken, where there is none."""
        held = self._open.get(key, 0)
        if (self._overall is not None and self.count >= self._overall) or (self._per_key is not None and held >= self._per_key):
            return False
        self._open[key] = held + 1
        self.count += 1
        return True

    def leave(self, key: str) -> None:
        """Give a place back; once for each `enter` that said True. KeyError where this key holds none."""
        held = self._open.pop(key)
        if held > 1:
            self._open[key] = held - 1
        self.count -= 1
