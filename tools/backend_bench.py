"""The section `backends` of `make bench`: what a backend adds to each job, beside running the same command bare. By turns, in one run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tradeskill.contracts import Backend, Limits, Task
from tradeskill.errors import UnavailableError
from tradeskill.model import Json
from tradeskill.plugins import Plugins
from tradeskill.world import World

ROOT = Path(__file__).parent.parent
COMMAND = ("sh", "-c", "echo done")
BACKENDS = ("process", "bubblewrap")


def backends(rounds: int, folder: Path, spread: Callable[[Sequence[float]], dict[str, float]]) -> dict[str, Any]:
    """From `start` to the end that `wait` sees, with nothing to do in between. A backend that is not to be had here says why instead."""
    return asyncio.run(_backends(rounds, folder, spread))


async def _backends(rounds: int, folder: Path, spread: Callable[[Sequence[float]], dict[str, float]]) -> dict[str, Any]:
    sys.path.append(str(ROOT))
    from tests.podman import engine, missing

    if lacking := missing():
        return {**await _measured(rounds, folder, spread, {}), "container": lacking}
    with engine() as podman:
        return await _measured(rounds, folder, spread, {"container": {"image": podman.image, "socket": podman.socket}})


async def _measured(rounds: int, folder: Path, spread: Callable[[Sequence[float]], dict[str, float]], more: Mapping[str, Mapping[str, Json]]) -> dict[str, Any]:
    opened: dict[str, Backend] = {}
    found: dict[str, Any] = {"what": "start to end of a job that only says so"}
    for name in (*BACKENDS, *more):
        try:
            opened[name] = _opened(name, folder, more.get(name, {}))
            await opened[name].open()
        except UnavailableError as error:
            opened.pop(name, None)
            found[name] = str(error)
    taken: dict[str, list[float]] = {"bare": [], **{name: [] for name in opened}}
    for number in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run(COMMAND, stdout=subprocess.DEVNULL, check=True)  # noqa: ASYNC221  # nothing else is to run meanwhile
        taken["bare"].append(time.perf_counter() - began)
        for name, backend in opened.items():
            began = time.perf_counter()
            await backend.start(f"x{number}", Task(COMMAND, b"", trusted=True), Limits())
            status = await backend.wait(f"x{number}", 60)
            taken[name].append(time.perf_counter() - began)
            assert status.state == "finished", status
            await backend.remove(f"x{number}")
    for name, seconds in taken.items():
        found[f"{name}_ms"] = spread([second * 1000 for second in seconds[1:]])  # the first also fills caches
    for name in opened:
        if name != "process":
            found[f"{name}_to_process"] = round(found[f"{name}_ms"]["median"] / found["process_ms"]["median"], 3)
    return found


def _opened(name: str, folder: Path, settings: Mapping[str, Json]) -> Backend:
    from tradeskill.contracts import PluginContext
    from tradeskill.signing import Identity

    context = PluginContext(name, "dev", folder / name, World(), Identity(bytes(32)), lambda: "")
    return Plugins().require(name, "backend").open_backend(settings, context)
