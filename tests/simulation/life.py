"""One process from its start to its death: its clock, its tasks, and the end of all its effects when it dies."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from tradeskill.testing.virtual_time import Crashed, VirtualLoop, VirtualWorld

__all__ = ["Endless", "Life", "LifeWorld", "Owner", "SimLoop"]

T = TypeVar("T")
ROUNDS: Final = 300_000  # of the loop; a schedule needs some hundreds
LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


class Owner(Protocol):
    """What a life tells the schedule it lives in."""

    def at_label(self, life: Life, when: str, label: str) -> None: ...


class Endless(RuntimeError):  # noqa: N818  # it names what happened
    """Something goes round and round."""


class SimLoop(VirtualLoop):
    """Knows which life each task belongs to, and when enough is enough."""

    def __init__(self) -> None:
        super().__init__()
        self._rounds = 0

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self._rounds += 1
        if self._rounds == ROUNDS:
            raise Endless(f"{ROUNDS} rounds of the loop")

    def create_task(self, coro: Any, *, name: Any = None, context: contextvars.Context | None = None) -> asyncio.Task[Any]:
        task = super().create_task(coro, name=name, context=context)
        life = LIFE.get() if context is None else context.get(LIFE)
        if life is not None:
            life.tasks.append(task)
        return task


class Life:
    """`name` is unique for ever, like a process's. Everything it holds asks `turn` or `check` before it acts."""

    def __init__(self, name: str, side: str, owner: Owner, seed: int) -> None:
        self.name, self.side = name, side
        self.alive = True
        self.tasks: list[asyncio.Task[Any]] = []
        self.on_death: list[Callable[[], None]] = []
        self.world = LifeWorld(self, owner, seed)
        self._awake: asyncio.Event | None = None

    def start(self, main: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = contextvars.copy_context()
        context.run(LIFE.set, self)
        return asyncio.get_running_loop().create_task(main, context=context)

    def check(self) -> None:
        if not self.alive:
            raise Crashed(self.name)

    async def turn(self) -> None:
        """Before and after every call to the outside: the dead do nothing, the paused wait."""
        while self._awake is not None:
            await self._awake.wait()
        if not self.alive:
            raise Crashed(self.name)

    def die(self) -> None:
        """From now on nothing of this life has any effect. Safe to call twice, and from one of its own tasks."""
        if not self.alive:
            return
        self.alive = False
        for last in self.on_death:
            last()
        self.wake()
        current = asyncio.current_task()
        for task in self.tasks:
            if task is not current and not task.done():
                task.cancel()

    def pause(self) -> None:
        self._awake = self._awake or asyncio.Event()

    def wake(self) -> None:
        if self._awake is not None:
            self._awake.set()
            self._awake = None


class _Step:
    """As `World.step`, cheaper."""

    __slots__ = ("_label", "_world")

    def __init__(self, world: LifeWorld, label: str) -> None:
        self._world, self._label = world, label

    def __enter__(self) -> None:
        self._world.crash("before", self._label)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._world.crash("after", self._label)


class LifeWorld(VirtualWorld):
    """The world as one process sees it: its clock may be wrong, and it may be dead."""

    def __init__(self, life: Life, owner: Owner, seed: int) -> None:
        super().__init__(seed)
        self._life, self._owner = life, owner

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._life.turn()

    async def offload(self, function: Callable[[], T]) -> T:
        await self._life.turn()
        return function()

    def step(self, label: str) -> Any:
        return _Step(self, label)

    def crash(self, when: str, label: str) -> None:
        self._life.check()
        self._owner.at_label(self._life, when, label)
