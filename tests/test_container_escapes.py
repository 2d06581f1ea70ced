"""The ways out of a sandbox that `escapes.py` knows, tried out of containers: by a worker that is root and by one that is an ordinary user."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from tests.escape_runner import Played, play
from tests.escapes import KERNEL, PROBES, SHARES, Probe
from tests.ordinary_user import UID
from tests.podman import Engine
from tradeskill.contracts import Backend
from tradeskill.world import World
from tradeskill_plugins.container.backend import ContainerBackend
from tradeskill_plugins.container.settings import Settings

HERE = [probe for probe in PROBES if probe.only in ("", "container")]
# who the worker is decides who owns what is outside; the filter of calls and the limits are the engine's, whoever asks
PLAYED = {"root": HERE, "an ordinary user": [probe for probe in HERE if probe not in KERNEL + SHARES]}


def container(home: Path) -> Backend:
    return ContainerBackend(home, World(), "me", Settings(os.environ["ESCAPE_IMAGE"], os.environ["ESCAPE_ENGINE"]))


@functools.cache
def attempted(engine: Engine, user: str) -> tuple[dict[str, Played], list[str]] | Exception:
    """All probes are played together, once, also where that fails."""
    os.environ |= {"ESCAPE_IMAGE": engine.image, "ESCAPE_ENGINE": engine.socket}
    try:
        with engine.open_to_all():
            return play(f"{__name__}:container", None if user == "root" else UID, [probe.name for probe in PLAYED[user]], container=True)
    except Exception as error:  # noqa: BLE001  # raised again for each test that asks
        return error
    finally:
        del os.environ["ESCAPE_IMAGE"], os.environ["ESCAPE_ENGINE"]


def played(engine: Engine, user: str) -> tuple[dict[str, Played], list[str]]:
    found = attempted(engine, user)
    if isinstance(found, Exception):
        raise found
    return found


EACH = [(user, probe) for user, probes in PLAYED.items() for probe in probes]


@pytest.mark.parametrize(("user", "probe"), EACH, ids=lambda value: getattr(value, "name", value))
def test_nothing_gets_out(user: str, probe: Probe, podman: Engine) -> None:
    found = played(podman, user)[0][probe.name]
    ended = "held" if found.ended == "finished" and probe.name.startswith("leaves") else found.ended  # its output is then what it left
    assert ended in probe.ends, found


@pytest.mark.parametrize("user", PLAYED)
def test_all_that_is_outside_is_as_it_was(user: str, podman: Engine) -> None:
    assert played(podman, user)[1] == []


@pytest.mark.parametrize("user", PLAYED)
def test_there_are_more_than_sixty(user: str) -> None:
    assert len(PLAYED[user]) > 60
