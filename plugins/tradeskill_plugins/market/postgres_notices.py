"""Hears of other processes' commits: a connection that only listens, in a thread of its own, which comes back by itself."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tradeskill.errors import TradeskillError
from tradeskill_plugins.market.postgres_address import Address
from tradeskill_plugins.market.postgres_session import Failure, Session

__all__ = ["Notices"]

PULSE: Final = 15.0  # seconds; a connection that died silently is noticed by then
BACK: Final = (0.05, 0.2, 0.5, 1.0, 2.0)  # seconds until the next try


class Notices:
    """`heard` is called in the thread: once for each commit of somebody else, and once after an outage, in which there may have been some."""

    def __init__(self, address: Address, own: str, patience: float, heard: Callable[[], None]) -> None:
        """Listens when it returns. `own`: the mark of commits to leave out."""
        self._address, self._own, self._patience, self._heard = address, own, patience, heard
        self._woken, self._wake = socket.socketpair()
        self._stopped = False
        try:
            self._session: Session | None = self._connected()
        except BaseException:
            self._woken.close()
            self._wake.close()
            raise
        self._thread = threading.Thread(target=self._listen, name=f"notices of {address.database}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns once the thread has ended; not to be called from it. Safe to call twice."""
        self._stopped = True
        with suppress(OSError):  # closed before
            self._wake.send(b"x")
        self._thread.join()
        self._woken.close()
        self._wake.close()

    def _connected(self) -> Session:
        session = self._address.connect(self._patience)
        try:
            with self._address.translated():
                session.script(f"LISTEN {self._address.channel}")
        except BaseException:
            session.close()
            raise
        return session

    def _listen(self) -> None:
        tries = 0
        while not self._stopped:
            try:
                if self._session is None:
                    self._session = self._connected()
                    self._heard()
                tries = 0
                self._hear(self._session)
            except (Failure, TradeskillError):
                self._drop()
                _readable(BACK[min(tries, len(BACK) - 1)], self._woken.fileno())
                tries += 1
        self._drop()

    def _hear(self, session: Session) -> None:
        while not self._stopped:
            for mark in session.notices():
                if mark != self._own:
                    self._heard()
            if not _readable(PULSE, session.descriptor, self._woken.fileno()):
                session.script("SELECT 1")

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _readable(seconds: float, *descriptors: int) -> bool:
    """Whether one of them is, by then."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
