"""One mutating request, taken once however often it is asked for: stored, sent, and judged by the job where the relay's answer says nothing.

A request is on disk before it is first sent and goes out again unchanged under the same idempotency key. Where that key cannot help any more
(it was refused, an old relay replays its own accident or calls it "in progress" for a day, it is 23 hours old, or the step was done before), the job is
looked at first; only if the step is not taken there does the request go out again, under the next key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from tradeskill.errors import StateError, TradeskillError, UnavailableError, UnknownOutcomeError
from tradeskill.signing import value_hash
from tradeskill.world import World
from tradeskill_plugins.relay.client.outbox import Outbox, Step
from tradeskill_plugins.relay.client.pacing import Lane
from tradeskill_plugins.relay.client.reading import Row, Seen
from tradeskill_plugins.relay.client.transport import Question, Transport

__all__ = ["Intent", "Steps"]

TRUSTED_MS: Final = 23 * 3_600_000  # a relay keeps an idempotency key for 24 hours


@dataclass(frozen=True)
class Intent:
    """What is to happen. `marks` tell this step from others of its kind on the same job; `look` finds it done, or answers None.

    `make` gives the request's bytes, once: they are kept and sent again as they are. With `secret` they hold a bearer token and are not
    kept; `make` is asked each time and must give the same.
    """

    kind: str
    subject: str
    marks: tuple[str, ...]
    target: str
    make: Callable[[], Awaitable[bytes]]
    look: Callable[[], Awaitable[Seen | None]]
    read: Callable[[Row], Awaitable[Seen]]
    lane: Lane = "step"
    secret: bool = False


class Steps:
    def __init__(self, transport: Transport, outbox: Outbox, own: str, world: World) -> None:
        self._transport, self._outbox, self._own, self._world = transport, outbox, own, world
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(self, intent: Intent) -> Seen:
        """The job with the step taken. StateError where the job's state does not allow it, UnknownOutcomeError where nobody can tell yet."""
        name = value_hash([self._transport.url, self._own, intent.kind, intent.subject, *intent.marks])
        lock = self._under_way.setdefault(name, asyncio.Lock())
        async with lock:
            stored = self._outbox.find(name)
            if stored is not None and self._is_worn(stored):
                seen = await intent.look()
                if seen is not None:
                    await self._outbox.end(stored, "done", seen.job.job_id)
                    return seen
            step, body = await self._ready(name, stored, intent)
            return await self._send(step, body, intent)

    def _is_worn(self, step: Step) -> bool:
        """Whether its key says nothing any more, so that the job itself has to be looked at."""
        return step.state in ("done", "doubtful") or (step.state == "open" and self._world.now_ms() - step.first_sent >= TRUSTED_MS)

    async def _ready(self, name: str, stored: Step | None, intent: Intent) -> tuple[Step, bytes]:
        if stored is not None and stored.state == "open" and not self._is_worn(stored):
            body = stored.body if stored.body is not None else await intent.make()
            if hashlib.sha256(body).hexdigest() == stored.body_hash:
                return stored, body
        else:
            body = await intent.make()
        generation = 1 if stored is None else stored.generation + 1
        return await self._outbox.put(name, generation, "POST", intent.target, body, secret=intent.secret), body

    async def _send(self, step: Step, body: bytes, intent: Intent) -> Seen:
        question = Question(step.method, step.target, body, key=step.key, lane=intent.lane)
        try:
            answer = await self._transport.exchange(question)
        except StateError as error:
            return await self._refused(step, intent, error)
        except UnavailableError as error:
            if error.details.get("stuck"):
                await self._outbox.end(step, "doubtful")
            raise
        except TradeskillError:
            await self._outbox.end(step, "refused")
            raise
        if answer.replayed:  # as it was then; what is wanted is the job as it is now
            seen = await intent.look()
            if seen is None:
                await self._outbox.end(step, "doubtful")
                raise UnknownOutcomeError(f"{intent.target}: the relay says that it was done, and does not show it: ask again")
        else:
            seen = await intent.read(answer.value)
        await self._outbox.end(step, "done", seen.job.job_id)
        return seen

    async def _refused(self, step: Step, intent: Intent, error: StateError) -> Seen:
        """The state does not allow it: because this very step is taken, or because it never will be."""
        seen = await intent.look()
        await self._outbox.end(step, "refused" if seen is None else "done", None if seen is None else seen.job.job_id)
        if seen is None:
            raise error
        return seen
