"""Over a hundred ways out of a sandbox, tried as root and as an ordinary user: none of them leads anywhere, and all that is outside stays as it was."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest

from tests.escape_runner import Played, play
from tests.escapes import PROBES, Probe
from tests.ordinary_user import UID
from tradeskill.contracts import Backend
from tradeskill.world import World
from tradeskill_plugins.bubblewrap.backend import BubblewrapBackend
from tradeskill_plugins.process.backend import ProcessBackend

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed: apt install bubblewrap")

USERS = ["root", "an ordinary user"]


def bubblewrap(home: Path) -> Backend:
    return BubblewrapBackend(home, World(), "me")


def process(home: Path) -> Backend:
    return ProcessBackend(home, World(), "me")


@functools.cache
def attempted(backend: str, user: str, names: tuple[str, ...]) -> tuple[dict[str, Played], list[str]] | Exception:
    """All probes of one kind are played together, once, also where that fails."""
    try:
        return play(f"{__name__}:{backend}", UID if os.geteuid() == 0 and user != "root" else None, names)
    except Exception as error:  # noqa: BLE001  # raised again for each test that asks
        return error


def played(backend: str, user: str, names: tuple[str, ...]) -> tuple[dict[str, Played], list[str]]:
    if os.geteuid() != 0 and user == "root":
        pytest.skip("needs to be run by root")
    found = attempted(backend, user, names)
    if isinstance(found, Exception):
        raise found
    return found


EVERYTHING = tuple(probe.name for probe in PROBES)
CONTROL = tuple(probe.name for probe in PROBES if probe.control)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_nothing_gets_out(probe: Probe, user: str) -> None:
    found = played("bubblewrap", user, EVERYTHING)[0][probe.name]
    ended = "held" if found.ended == "finished" and probe.name.startswith("leaves") else found.ended  # its output is then what it left
    assert ended in probe.ends, found


@pytest.mark.parametrize("user", USERS)
def test_all_that_is_outside_is_as_it_was(user: str) -> None:
    assert played("bubblewrap", user, EVERYTHING)[1] == []


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", CONTROL)
def test_without_a_sandbox_the_same_probe_reaches(name: str, user: str) -> None:
    found = played("process", user, CONTROL)[0][name]
    assert found.ended == "reached", found


@pytest.mark.parametrize("user", USERS)
def test_without_a_sandbox_it_shows_outside(user: str) -> None:
    touched = played("process", user, CONTROL)[1]
    assert "files came or went" in touched
    assert "unix was spoken to" in touched


def test_there_are_more_than_sixty() -> None:
    assert len({probe.name for probe in PROBES}) == len(PROBES) > 60
