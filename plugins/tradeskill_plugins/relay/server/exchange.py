"""One request and its answer, between the connection that read it whole and the application that answers."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, HTTPResponseBodyEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tradeskill_plugins.relay.server.admission import Crowd
from tradeskill_plugins.relay.server.refusals import internal

__all__ = ["Exchange"]

_LOG = logging.getLogger("tradeskill.relay.door")


class Exchange(RequestResponseCycle):
    """One whole request and its answer. `receive()` gives the body at once; after it, `http.disconnect` as soon as the client left or the door closes."""

    def __init__(self, crowd: Crowd, **given: Any) -> None:
        super().__init__(**given)
        self._crowd = crowd

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Let the application answer. What it raises is logged and answered with 500; an answer it began and cannot end is cut off."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.transport.abort()
            raise
        except Exception as error:  # noqa: BLE001 - one request's failure, whatever it is, ends that request and nothing else
            _LOG.error("application failed", exc_info=error)
        else:
            if self.response_complete or self.disconnected:
                return
            _LOG.error("application gave no answer")
        if self.response_started:
            self.transport.abort()
        elif not self.disconnected:
            await self._fail()

    async def receive(self) -> ASGIReceiveEvent:
        if self.more_body:
            self.more_body = False
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}
        while not (self.disconnected or self.response_complete or self._crowd.closing):
            self.message_event.clear()
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    async def _fail(self) -> None:
        refusal = self._crowd.refuse(internal())
        start: HTTPResponseStartEvent = {"type": "http.response.start", "status": refusal.status, "headers": refusal.headers()}
        body: HTTPResponseBodyEvent = {"type": "http.response.body", "body": refusal.body(), "more_body": False}
        await self.send(start)
        await self.send(body)
