"""Executions whose work runs in a container: on disk as all are, with what the container needs written down before it is made."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tradeskill.contracts import ExecutionStatus, Limits, Task
from tradeskill.errors import RefusedError, StorageError, UnavailableError
from tradeskill_plugins.container.calls import profile
from tradeskill_plugins.container.confinement import config_of, deviations
from tradeskill_plugins.container.engine import About, Engine, never_started
from tradeskill_plugins.container.settings import Settings
from tradeskill_plugins.executions.records import Executions, storage, sync_folder, write

__all__ = ["ContainerExecutions"]

_WATCH: Final = "import sys; from tradeskill_plugins.container import watcher; sys.exit(watcher.main(sys.argv[1]))"
_INSTANCE: Final = re.compile(r"[0-9a-f]{12}", re.ASCII)


class ContainerExecutions(Executions):
    """The home folder of one backend. Its containers carry its instance in their names and labels, as several homes may use one engine."""

    def __init__(self, home: Path, owner: str, settings: Settings, engine: Engine) -> None:
        super().__init__(home / "jobs", owner, settings.processes, settings.scratch)
        self._name_file = home.absolute() / "instance"
        self._settings, self._engine = settings, engine
        self._about: About | None = None

    def ready(self, now_ms: int) -> About:
        """The home folder, and an engine that can do what is asked of it. Each refusal says what is missing; nothing less is used instead."""
        self.prepare(now_ms)
        self._name_home()
        about = self._engine.about()
        lacks = [
            what
            for what, there in (
                ("filter system calls (seccomp)", about.filters_calls),
                ("limit memory", about.memory),
                ("limit processes", about.processes),
                ("share the processor", about.processor),
            )
            if not there
        ]
        if lacks:
            raise RefusedError(f"the engine at {self._engine.socket} ({about.name}) cannot {', nor '.join(lacks)}: jobs do not run with less")
        self._engine.image(self._settings.image)
        self._about = about
        return about

    def _plan(self, execution_id: str, task: Task, limits: Limits) -> Mapping[str, object]:
        owner = str((task.details or {}).get("owner", self._owner))
        return {
            "argv": list(task.argv),  # all of its words mean something in the image, and nothing here
            "container": {
                "name": self.container(execution_id),
                "socket": self._settings.socket,
                "image": self._settings.image,
                "user": self._settings.user,
                "cpus": self._settings.cpus,
                "network": self._settings.network if task.network else "none",
                "log": "k8s-file" if self._about is not None and self._about.podman else "local",
                "calls": self._calls(),
                "labels": {"tradeskill.execution": execution_id, "tradeskill.owner": owner, "tradeskill.instance": self._instance()},
            },
        }

    def container(self, execution_id: str) -> str:
        return f"tradeskill-{self._instance()}-{execution_id}"

    def launch(self, execution_id: str) -> None:
        """The container, made and looked at, then its watcher; neither if a watcher was ever launched here."""
        folder = self._home / execution_id
        if (folder / "supervisor.json").exists():
            return
        task = self._read(execution_id, "task.json")
        assert task is not None
        name = task["container"]["name"]
        image = self._engine.image(task["container"]["image"])
        config = config_of(task, image.id, image.volumes)
        self._engine.create(name, config)
        found = self._engine.find(name)
        if found is None:
            raise UnavailableError(f"container {name} was made and is gone: somebody else removes containers here; nothing has run")
        if never_started(found) and (faults := deviations(config, found)):
            self._engine.remove(name)
            raise RefusedError(f"the engine at {self._engine.socket} made a container less shut in than asked: {'; '.join(faults)}; nothing has run")
        self._launch(execution_id)
        if (folder / "outcome.json").exists():  # another worker's watcher was quicker, and removed the container before we made it again
            self._engine.remove(name)

    def status(self, execution_id: str) -> ExecutionStatus:
        """An execution without an outcome whose watcher died gets another one, which finds out."""
        ended = self._ended(execution_id)
        if ended is not None:
            return ended
        watcher = self.supervisor(execution_id)
        if watcher is None:
            return self._unrecorded(execution_id)
        if watcher.alive():
            return ExecutionStatus("running")
        ended = self._ended(execution_id)  # it may have ended between the two looks
        if ended is not None:
            return ended
        self._launch(execution_id)
        return ExecutionStatus("running", "its watcher died; another one takes over")

    def _unrecorded(self, execution_id: str) -> ExecutionStatus:
        """No watcher was ever launched. With its folder it can be started yet; without, its container is an orphan that only `remove` is for."""
        if (self._home / execution_id).exists():
            return ExecutionStatus("absent")
        found = self._engine.find(self.container(execution_id))
        if found is None:
            return ExecutionStatus("absent")
        return ExecutionStatus("running" if found["State"].get("Running") else "lost", "its container is there, its folder is not")

    def remove(self, execution_id: str) -> None:
        self._engine.remove(self.container(execution_id))
        super().remove(execution_id)

    def end_orphan(self, execution_id: str) -> None:
        """Kill a container that has no folder here. What has one is stopped through its watcher."""
        self._engine.kill(self.container(execution_id), "SIGKILL")

    def owned(self, owner: str) -> list[str]:
        """By folder, and by label, should a folder be gone."""
        labels = self._engine.names({"tradeskill.instance": self._instance(), "tradeskill.owner": owner})
        return sorted({*super().owned(owner), *(found["tradeskill.execution"] for found in labels if "tradeskill.execution" in found)})

    def _supervisor_command(self, folder: Path) -> list[str]:
        return [sys.executable, "-I", "-c", _WATCH, str(folder)]

    def _calls(self) -> str:
        """The system call filter as this engine takes it: Docker the profile itself, Podman a file of this machine."""
        text = json.dumps(profile(), separators=(",", ":"))
        if self._about is None or not self._about.podman:
            return text
        path = self._name_file.with_name(f"calls-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json")
        with storage(path):
            if not path.exists():
                made = self._home / f".new-{os.urandom(6).hex()}"
                write(made, text.encode())
                made.rename(path)
                sync_folder(path.parent)
        return str(path)

    def _instance(self) -> str:
        with storage(self._name_file):
            text = self._name_file.read_text(encoding="ascii")
        if _INSTANCE.fullmatch(text) is None:
            raise StorageError(f"{self._name_file} is damaged: it must be the 12 hexadecimal digits in the names of this profile's containers")
        return text

    def _name_home(self) -> None:
        """Give this home a name, once; of several workers at it at once, one does."""
        with storage(self._name_file):
            if self._name_file.exists():
                return
            made = self._home / f".new-{os.urandom(6).hex()}"
            write(made, os.urandom(6).hex().encode())
            with suppress(FileExistsError):
                self._name_file.hardlink_to(made)
            made.unlink()
            sync_folder(self._name_file.parent)
