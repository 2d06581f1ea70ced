"""The settings of the plugin `container`: what each may be, and what to write instead of what it may not. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tradeskill.errors import ConfigError
from tradeskill.model import Json

__all__ = ["Settings", "read_settings"]

_IMAGE: Final = re.compile(r"(?:[a-z0-9][a-zA-Z0-9._:/-]{0,254}@)?sha256:[0-9a-f]{64}", re.ASCII)
_USER: Final = re.compile(r"([1-9][0-9]{0,8}):([1-9][0-9]{0,8})", re.ASCII)
_NETWORK: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}", re.ASCII)
_SIZE: Final = re.compile(r"([1-9][0-9]{0,8})([KMG])", re.ASCII)
_UNITS: Final = {"K": 2**10, "M": 2**20, "G": 2**30}
_DEFAULT_SOCKET: Final = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Settings:
    """image: by digest or id, the only one that jobs run from · socket: the engine's, `unix://PATH` · user: UID:GID, never root
    · processes, cpus: for each job · scratch: bytes of memory-backed space for /scratch, and the same for /tmp · network: which of the
    engine's networks a job gets whose offer says `network: true`; all others get none."""

    image: str
    socket: str = _DEFAULT_SOCKET
    user: str = "65534:65534"
    processes: int = 64
    cpus: float = 1.0
    scratch: int = 64 * 2**20
    network: str = "bridge"


def read_settings(given: Mapping[str, Json], name: str) -> Settings:
    """ConfigError names the key, its value and the way out."""

    def wrong(key: str, what: str) -> ConfigError:
        return ConfigError(f"backend {name}: {key} {given.get(key)!r} {what}")

    known = tuple(Settings.__dataclass_fields__)
    for key in given:
        if key not in (*known, "plugin"):
            raise ConfigError(f"backend {name}: unknown key {key!r}; known: {', '.join(known)}")
    image = given.get("image")
    if not isinstance(image, str) or not image:
        raise ConfigError(f"backend {name}: image is missing: write NAME@sha256:DIGEST, or the id of an image (sha256:...)")
    if _IMAGE.fullmatch(image) is None:
        ask = f"docker image inspect --format '{{{{index .RepoDigests 0}}}} {{{{.Id}}}}' {image.partition('@')[0]}"
        raise wrong("image", f"is not pinned: a tag may come to mean another program. Write its digest or its id, as `{ask}` prints them")
    user = given.get("user", Settings.user)
    if not isinstance(user, str) or _USER.fullmatch(user) is None:
        raise wrong("user", "is not UID:GID with two numbers above 0, such as 65534:65534: jobs never run as root")
    processes = given.get("processes", Settings.processes)
    if type(processes) is not int or not 1 <= processes <= 10_000:
        raise wrong("processes", "is not a number from 1 to 10000")
    cpus = given.get("cpus", Settings.cpus)
    if isinstance(cpus, bool) or not isinstance(cpus, int | float) or not 0.01 <= cpus <= 1024:
        raise wrong("cpus", "is not a number from 0.01 to 1024")
    network = given.get("network", Settings.network)
    if not isinstance(network, str) or _NETWORK.fullmatch(network) is None or network in ("host", "none", "default"):
        raise wrong("network", "is not the name of one of the engine's networks, such as bridge; the machine's own (host) is never given")
    scratch = _size(given.get("scratch", "64M"))
    if scratch is None:
        raise wrong("scratch", "is not a size such as 64M")
    return Settings(image, _socket(given, name), user, processes, float(cpus), scratch, network)


def _size(value: Json) -> int | None:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else int(match[1]) * _UNITS[match[2]]


def _socket(given: Mapping[str, Json], name: str) -> str:
    """`socket`, else DOCKER_HOST, else Docker's own place. A path is taken as it is."""
    value, key = given.get("socket"), "socket"
    if value is None:
        value, key = os.environ.get("DOCKER_HOST") or _DEFAULT_SOCKET, "DOCKER_HOST"
    if isinstance(value, str) and value.startswith("/"):
        value = f"unix://{value}"
    if not isinstance(value, str) or not value.startswith("unix:///") or "\0" in value:
        raise ConfigError(f"backend {name}: {key} {value!r} is not a path or unix:///PATH: an engine that listens on a network lets everybody there be root")
    return value
