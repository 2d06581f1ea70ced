"""A Docker or Podman engine on this machine, through the docker SDK: the calls that are needed, its errors as ours. Every call blocks.

What an engine answers decides: 404 is NotFoundError, another "no" RefusedError, trouble of its own UnavailableError; an answer that did
not come is UnknownOutcomeError, and whoever asked looks the thing up by its name before anything else.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tradeskill.errors import NotFoundError, RefusedError, UnavailableError, UnknownOutcomeError

__all__ = ["About", "Engine", "Image", "never_started"]

_SECONDS: Final = 30  # for one answer
_SHOWING_SECONDS: Final = 10.0  # for a container whose name is taken to be there
_REMOVAL_SECONDS: Final = 5.0
_ASKING: Final = "1.41"  # never sent: the question for the version has none in its address
_VERSION: Final = re.compile(r"1\.[0-9]{1,3}", re.ASCII)
_NEVER: Final = "0001-01-01"  # how an engine writes a time that has not come


@dataclass(frozen=True)
class About:
    """What an engine says of itself."""

    name: str  # Docker 27.1, Podman 4.3.1
    podman: bool
    memory: bool
    processes: bool
    filters_calls: bool
    cgroups: str
    processor: bool
    swap: bool  # limited too; without that, a job may have as much of it again as there is


@dataclass(frozen=True)
class Image:
    """`volumes`: where the image wants storage of its own."""

    id: str
    volumes: tuple[str, ...]


class Engine:
    """One engine, by its socket. Holds no connection between calls; may be used from several threads."""

    def __init__(self, socket_url: str) -> None:
        self.socket = socket_url
        self._version: str | None = None

    def about(self) -> About:
        with self._api("asked about itself") as api:
            info = api.info()
            headers = api.get(f"{api.base_url}/_ping").headers
        podman = "Libpod-Api-Version" in headers
        version = headers["Libpod-Api-Version"] if podman else info.get("ServerVersion", "?")
        return About(
            f"{'Podman' if podman else 'Docker'} {version}",
            podman,
            bool(info.get("MemoryLimit")),
            bool(info.get("PidsLimit")),
            any("seccomp" in str(word) for word in info.get("SecurityOptions") or ()),  # whatever its default profile is: ours is given with each job
            str(info.get("CgroupVersion") or "?"),
            bool(info.get("CpuCfsQuota", True)),
            bool(info.get("SwapLimit", True)),
        )

    def image(self, pinned: str) -> Image:
        """NotFoundError where the engine does not have it: nothing is ever fetched here."""
        try:
            with self._api(f"asked for image {pinned}") as api:
                found = api.inspect_image(pinned)
        except NotFoundError as error:
            fetch = f"fetch it with `docker pull {pinned}`" if "@" in pinned else "an id names an image that was made here: build or import it again"
            raise NotFoundError(f"the engine at {self.socket} has no image {pinned}; {fetch}") from error
        digest = pinned.rpartition("@")[2]
        known = {found["Id"].removeprefix("sha256:"), *(str(word).rpartition("@sha256:")[2] for word in found.get("RepoDigests") or ())}
        if digest.removeprefix("sha256:") not in known:
            raise RefusedError(f"the engine at {self.socket} answered image {found['Id']} when asked for {pinned}")
        return Image(found["Id"], tuple(sorted((found.get("Config") or {}).get("Volumes") or ())))

    def create(self, name: str, config: Mapping[str, Any]) -> None:
        """Create a container unless one of that name is there. An answer that was lost, or was no, is checked by looking.

        What the engine left out of it, with a warning or without, is for the caller to find (`confinement.deviations`).
        """
        try:
            with self._api(f"asked to create container {name}") as api:
                api.create_container_from_config(dict(config), name)
        except (UnavailableError, RefusedError) as error:
            under_way = isinstance(error, UnknownOutcomeError) or "in use" in str(error)  # somebody else may be making it, or we ourselves still
            until = time.monotonic() + (_SHOWING_SECONDS if under_way else 0)
            while self.find(name) is None:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.05)

    def find(self, name: str) -> dict[str, Any] | None:
        """The container as the engine shows it, None where there is none."""
        try:
            with self._api(f"asked for container {name}") as api:
                found: dict[str, Any] = api.inspect_container(name)
                return found
        except NotFoundError:
            return None

    def names(self, labels: Mapping[str, str]) -> list[dict[str, str]]:
        """The labels of every container that carries all of these."""
        with self._api("asked for its containers") as api:
            found = api.containers(all=True, filters={"label": [f"{key}={value}" for key, value in labels.items()]})
        return [dict(container.get("Labels") or {}) for container in found]

    def attach(self, name: str) -> socket.socket:
        """Its stdin, and its stdout and stderr from now on in frames (see `frames.py`). The caller closes it."""
        with self._api(f"asked to attach to container {name}") as api:
            opened = api.attach_socket(name, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            return _own_socket(opened)

    @contextmanager
    def logs(self, name: str) -> Iterator[Iterator[bytes]]:
        """What it printed from its start until now, in the same frames. Leaving early is allowed."""
        with self._api(f"asked for the output of container {name}") as api:
            # the SDK's own `logs` takes the frames apart and does not say which of the two streams a part is of
            answer = api._get(api._url("/containers/{0}/logs", name), params={"stdout": 1, "stderr": 1, "tail": "all"}, stream=True)  # noqa: SLF001  # as above
            api._raise_for_status(answer)  # noqa: SLF001  # as above
            with answer:
                yield answer.iter_content(65536)

    def start(self, name: str) -> None:
        with self._api(f"asked to start container {name}") as api:
            api.start(name)

    def kill(self, name: str, signal: str) -> None:
        """No error where it ended already or is gone."""
        try:
            with self._api(f"asked to kill container {name}") as api:
                api.kill(name, signal)
        except NotFoundError:
            return
        except RefusedError:
            found = self.find(name)
            if found is not None and found["State"].get("Running"):
                raise

    def put(self, name: str, path: str, archive: bytes) -> None:
        with self._api(f"asked to put a folder into container {name}") as api:
            api.put_archive(name, path, archive)

    @contextmanager
    def archive(self, name: str, path: str) -> Iterator[Iterator[bytes]]:
        """A folder of the container as a tar stream. NotFoundError where it is gone. Leaving early is allowed."""
        with self._api(f"asked for files of container {name}") as api:
            stream, _ = api.get_archive(name, path)
            try:
                yield stream
            finally:
                stream.close()

    def remove(self, name: str) -> None:
        """The container and its volume, running or not. Safe to repeat, also at the same time."""
        try:
            with self._api(f"asked to remove container {name}") as api:
                api.remove_container(name, v=True, force=True)
        except NotFoundError:
            return
        except (UnavailableError, RefusedError):
            until = time.monotonic() + _REMOVAL_SECONDS
            while self.find(name) is not None:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)  # somebody else is at it

    @contextmanager
    def _api(self, what: str) -> Iterator[Any]:
        """A client of its own for each call, as one must not be shared by threads; making it costs no question once the version is known."""
        import docker
        import requests
        import urllib3
        from docker import errors

        asked = f"the engine at {self.socket}, {what},"
        self._reach()
        try:
            if self._version is None:
                self._version = self._spoken()
            api = docker.APIClient(self.socket, version=self._version, timeout=_SECONDS)
        except (errors.DockerException, requests.RequestException, OSError) as error:
            raise UnavailableError(f"the engine at {self.socket} does not say which API it speaks: {_first(error)}") from error
        try:
            yield api
        except errors.NotFound as error:
            raise NotFoundError(f"{asked} has none: {_said(error)}") from error
        except errors.APIError as error:
            kind = UnavailableError if error.is_server_error() else RefusedError
            raise kind(f"{asked} answered: {_said(error)}") from error
        except requests.ConnectTimeout as error:
            raise UnavailableError(f"{asked} did not take the call") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, errors.DockerException, OSError) as error:
            raise UnknownOutcomeError(f"{asked} did not answer to the end ({_first(error)}): whether it was done is not known") from error
        finally:
            api.close()

    def _reach(self) -> None:
        """UnavailableError where nobody listens: then nothing was asked, and the SDK would leave its socket open besides."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as knock:
            knock.settimeout(_SECONDS)
            try:
                knock.connect(self.socket.removeprefix("unix://"))
            except OSError as error:
                raise UnavailableError(
                    f"the engine at {self.socket} cannot be reached: is Docker or Podman's service running there? ({error.strerror or error})"
                ) from error

    def _spoken(self) -> str:
        """The newest version of the API that the engine speaks. The SDK's own way asks for all that there is to know, which takes Podman a second."""
        import docker

        api = docker.APIClient(self.socket, version=_ASKING, timeout=_SECONDS)
        try:
            answer = api.get(f"{api.base_url}/_ping")
            spoken = answer.headers.get("Api-Version", "")
            if answer.status_code != 200 or _VERSION.fullmatch(spoken) is None:
                raise OSError(f"something else answers there: status {answer.status_code}")
            return str(spoken)
        finally:
            api.close()


def never_started(found: Mapping[str, Any]) -> bool:
    state = found["State"]
    return str(state.get("StartedAt") or _NEVER).startswith(_NEVER) and not state.get("Running")


def _own_socket(opened: Any) -> socket.socket:
    """A second descriptor of the connection behind an attach, for a client that is about to be closed."""
    inner = getattr(opened, "_sock", opened)
    mine: socket.socket = inner.dup()
    opened.close()
    return mine


def _said(error: Any) -> str:
    return _first(error.explanation or error)


def _first(error: object) -> str:
    text = " ".join(str(error).split())
    return "".join(character if character.isprintable() else "?" for character in text[:300])
