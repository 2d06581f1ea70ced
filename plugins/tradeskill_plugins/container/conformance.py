"""How the conformance kit tries the backend `container`: through its hook, on the engine that the plugin finds or `--with socket=` names.

The image is made of this machine's own programs and taken away afterwards with every container, unless `--with image=` names one, pinned as in a profile.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tradeskill.contracts import Backend, PluginContext, Task
from tradeskill.errors import NotFoundError, RefusedError, TradeskillError, UnavailableError
from tradeskill.model import Json
from tradeskill.signing import Identity
from tradeskill.testing.backend_contract import STDIN, BackendContract, Work
from tradeskill.testing.given import Given
from tradeskill.testing.shell_works import SHELL_WORKS
from tradeskill.world import World
from tradeskill_plugins.container import tradeskill_open_backend
from tradeskill_plugins.container.engine import Engine
from tradeskill_plugins.container.own_image import own_image
from tradeskill_plugins.container.settings import read_settings

__all__ = ["ContainerKit", "Place", "TestContainer"]

PROGRAMS: Final = ("sh", "cat", "env", "head", "ln", "sleep", "tail", "yes")
tradeskill_takes: Final = {
    "socket": "the engine's, unix:///PATH; without it DOCKER_HOST, else Docker's own place",
    "image": f"NAME@sha256:DIGEST or an id, with {', '.join(PROGRAMS)} in it; without it one is made of this machine's programs",
}
WORKS: Final = {**SHELL_WORKS, "hungry": "head -c 1073741824 /dev/zero | tail"}  # keeps a line that has no end; an image need not have Python
_NAMED: Final = "0" * 64  # of no image: settings are read before there is one
_AT_ONCE: Final = 4  # containers removed at the same time
_FOLLOW: Final = 0.1  # seconds: an engine that is asked for events until now leaves the last ones out


@dataclass
class Place:
    """An engine with an image, and the homes that backends had there. `api` is for what the plugin itself never asks an engine; one thread uses it."""

    settings: dict[str, Json]
    socket: str
    api: Any = None
    homes: list[Path] = field(default_factory=list)

    def starts(self, home: Path) -> int:
        """How often containers of that home were started, as the engine has written down."""
        if not (home / "instance").exists():
            return 0
        asked = {"event": ["start"], "type": ["container"], "label": [f"tradeskill.instance={(home / 'instance').read_text()}"]}
        return sum(1 for _ in self.api.events(since="1", until=f"{time.time() + _FOLLOW:.9f}", filters=asked, decode=True))

    def clear(self) -> None:
        """No container of those homes is left."""
        engine = Engine(self.socket)
        instances = [(home / "instance").read_text() for home in self.homes if (home / "instance").exists()]
        named = [
            f"tradeskill-{instance}-{labels['tradeskill.execution']}" for instance in instances for labels in engine.names({"tradeskill.instance": instance})
        ]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(engine.remove, named))


@contextmanager
def _client(socket: str) -> Iterator[Any]:
    import docker

    api = docker.APIClient(socket, version="auto", timeout=60)
    try:
        yield api
    finally:
        api.close()


@contextmanager
def _own_image(api: Any) -> Iterator[str]:
    """The id of an image that is there meanwhile."""
    from docker.errors import DockerException

    try:
        archive = own_image(PROGRAMS)
    except NotFoundError as error:
        raise NotFoundError(f"no image can be made of this machine's programs ({error}); name one: --with image=NAME@sha256:DIGEST") from error
    try:
        answer = str(api.import_image_from_data(archive))
    except DockerException as error:
        raise RefusedError(f"the engine takes no image made here ({error}); name one: --with image=NAME@sha256:DIGEST") from error
    made = str(json.loads(answer.strip().splitlines()[-1])["status"])
    try:
        yield made
    finally:
        api.remove_image(made, force=True)


class ContainerKit:
    isolates = True

    def __init__(self, home: Path, place: Place) -> None:
        self.home, self.place = home, place
        place.homes.append(home)

    def backend(self) -> Backend:
        context = PluginContext("container", "dev", self.home, World(), Identity(bytes(31) + b"\x01"), lambda: "")
        return tradeskill_open_backend(self.place.settings, context)

    def task(self, work: Work, owner: str) -> Task:
        return Task(("sh", "-c", WORKS[work]), STDIN, trusted=True, details={"owner": owner})

    def runs(self) -> int:
        return self.place.starts(self.home)


@pytest.fixture(scope="module")
def place(tradeskill_given: Given, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Skips, with the way out, where there is no engine that can do what is asked of it, or not that image."""
    given: dict[str, Json] = {name: value for name in ("socket", "image") if (value := tradeskill_given.get(name)) is not None}
    try:
        socket = read_settings({"image": f"sha256:{_NAMED}", **given}, "container").socket
        ContainerKit(tmp_path_factory.mktemp("trial"), Place({"image": f"sha256:{_NAMED}", **given}, socket)).backend()  # says if a package is missing
        Engine(socket).about()
        with _client(socket) as api, _own_image(api) if "image" not in given else nullcontext(given["image"]) as image:
            made = Place({**given, "image": image}, socket, api)
            asyncio.run(ContainerKit(tmp_path_factory.mktemp("trial"), made).backend().open())
            yield made
            made.clear()
    except UnavailableError as error:
        pytest.skip(f"{error}. Start one, or name its socket: tradeskill plugins check container --with socket=unix:///run/podman/podman.sock")
    except TradeskillError as error:
        pytest.skip(str(error))


class TestContainer(BackendContract):
    @pytest.fixture
    def kit(self, tmp_path: Path, place: Place) -> ContainerKit:
        return ContainerKit(tmp_path / "home", place)
