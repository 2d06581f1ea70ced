"""The program that stands beside one container: starts it, feeds it, holds it to its limits, takes out what it left, writes down how it ended.

One process for each execution, in its own session and nobody's child, so it outlives the worker. If it dies itself, the container goes on,
held by the engine and the kernel to everything but its time and its output; the next look of any worker starts another watcher, which
takes over: the container is found by its name, what it printed so far is read from the engine's log.

In the execution's folder, beside what `executions/records.py` makes: `lock` (held for life) · `supervisor.json` (who it is; durable before
anything can run) · `starting` (the start may have been asked for) · `fed` (its input went in whole) · `stdout`, `stderr` · `output/`
· `outcome.json` (last, durable).
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tradeskill.errors import NotFoundError, RefusedError, TradeskillError, UnavailableError
from tradeskill_plugins.container.confinement import OUTPUT, OUTPUT_NAME, OUTPUT_VOLUME
from tradeskill_plugins.container.engine import Engine, never_started
from tradeskill_plugins.container.follow import Following
from tradeskill_plugins.container.standing import claim, empty, save, sync_tree, wake_up, who_am_i, write
from tradeskill_plugins.container.takeout import extent, take_out
from tradeskill_plugins.container.verdict import Verdict, judged

__all__ = ["ALREADY", "LAUNCHED", "main"]

LAUNCHED, ALREADY = 0, 3  # exit codes of the launching half

log = logging.getLogger("tradeskill.container")

_START_SECONDS: Final = 5.0  # for a start that was asked for to show
_PAUSES: Final = (0.1, 2.0)  # between tries while the engine does not answer
_LOOKS: Final = (0.3, 1.5)  # between looks at the output folder


def main(path: str) -> int:
    """Take the execution in folder `path` over unless somebody has it or it ended. Returns once that is durable, in the launching process only."""
    folder = Path(path)
    if not claim(folder):
        return ALREADY
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        return LAUNCHED if os.read(told, 1) else 1
    os.close(told)
    with open(os.devnull, "r+b") as null:  # noqa: PTH123  # for its descriptor
        os.dup2(null.fileno(), 1)  # whoever launched us reads that pipe to its end
    wake = wake_up()
    save(folder, "supervisor.json", who_am_i())
    os.write(tell, b"+")
    os.close(tell)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")
    code = 1
    try:
        Watcher(folder, wake).run()
        code = 0
    except BaseException:  # the only place left to say it is the log, which is stderr here
        log.exception("execution %s: its watcher failed; another one takes over", folder.name)
    finally:
        os._exit(code)  # never back into the launching half's code


class Watcher:
    """One container's life, from wherever an earlier watcher left it."""

    def __init__(self, folder: Path, wake: int) -> None:
        self._folder, self._wake = folder, wake
        self._task: dict[str, Any] = json.loads((folder / "task.json").read_bytes())
        self._limits: dict[str, Any] = self._task["limits"]
        self._name: str = self._task["container"]["name"]
        self._engine = Engine(self._task["container"]["socket"])
        self._unwatched = False  # somewhere between its start and its end: who killed it cannot be known then
        self._stopped = self._noted = False
        self._began = time.monotonic()

    def run(self) -> None:
        outcome = self._ended()
        write(self._folder / "stderr", outcome.said)
        save(self._folder, "outcome.json", outcome.as_json(time.monotonic() - self._began, int(self._limits["memory"])))
        try:
            self._engine.remove(self._name)
        except TradeskillError as error:  # whoever removes the execution tries again
            log.warning("%s", error)

    def _ended(self) -> Verdict:
        """The container's whole life, and what is to be said of it."""
        found = self._look()
        if found is not None and never_started(found) and (self._folder / "starting").exists():
            found = self._started_late()
            if found is not None and never_started(found):
                return self._give_up("its watcher died when it was about to start, and it does not show as started")
        if found is None:
            return Verdict("lost", "its container is gone, and what it did is not known")
        following = Following(self._folder, int(self._limits["output"]))
        try:
            if never_started(found):
                if (stillborn := self._begin(following)) is not None:
                    return stillborn
            elif (self._folder / "fed").exists():
                self._unwatched = True
                self._began -= _seconds_since(found["State"]["StartedAt"])
            else:
                return self._give_up("its watcher died while feeding it, so how much of its input it got is not known")
            verdict = self._watch(following)
            following.detach()
            found = self._end(verdict)
            if found is None:
                return Verdict("lost", "its container was taken away while it ran")
            return self._judged(found, verdict, following)
        finally:
            following.close()

    def _begin(self, following: Following) -> Verdict | None:
        """Attach, then start once. A verdict where it did not come to run."""
        self._patiently(lambda: self._engine.put(self._name, OUTPUT_VOLUME, _empty_folder(self._task["container"]["user"])))
        try:
            self._patiently(lambda: following.attach(self._engine, self._name, (self._folder / "stdin").read_bytes()))
        except (RefusedError, NotFoundError) as error:
            return Verdict("failed", f"it cannot be started: {error}", "exit")
        if self._asked_to_stop():
            return Verdict("failed", "stopped before it started", "stopped")
        write(self._folder / "starting", b"")
        try:
            self._engine.start(self._name)
        except (RefusedError, NotFoundError) as error:
            return Verdict("failed", f"it cannot be started: {error}", "exit")
        except UnavailableError as error:
            log.warning("%s", error)
            found = self._started_late()
            if found is None or never_started(found):
                return self._give_up(f"it does not show as started: {error}")
        self._began = time.monotonic()
        return None

    def _started_late(self) -> dict[str, Any] | None:
        """A start was asked for and may still be under way; asking again could run it twice. The container as it is when that has shown."""
        until = time.monotonic() + _START_SECONDS
        while True:
            found = self._look()
            if found is None or not never_started(found) or time.monotonic() > until:
                return found
            time.sleep(0.1)

    def _watch(self, following: Following) -> Verdict | None:
        """Until the container ended by itself (None) or has to be ended (why)."""
        deadline = self._began + float(self._limits["seconds"])
        pause, nap = _LOOKS[0], 0.01
        look_at = time.monotonic() + pause
        while True:
            now = time.monotonic()
            if now >= deadline:
                return Verdict("failed", f"ran longer than {self._limits['seconds']:g} s", "limit.time")
            if self._asked_to_stop():
                return Verdict("failed", "stopped on request", "stopped")
            if following.overrun:
                return Verdict("failed", following.overrun, "limit.output")
            if following.open:
                following.step(min(deadline, look_at) - now, self._wake)
                self._note_fed(following)
            else:
                time.sleep(nap)
                nap = min(nap * 1.5, 0.5)
            due = time.monotonic() >= look_at
            if due or not following.open:
                found = self._look()
                if found is None or not found["State"].get("Running"):
                    return None
            if due:
                if too_much := self._too_much_left(following):
                    return too_much
                pause = min(pause * 1.5, _LOOKS[1])
                look_at = time.monotonic() + pause

    def _note_fed(self, following: Following) -> None:
        if following.fed and not self._noted:
            self._noted = True
            write(self._folder / "fed", b"")

    def _too_much_left(self, following: Following) -> Verdict | None:
        most, files = int(self._limits["output"]), int(self._limits["files"])
        try:
            if not following.open:
                following.read_log(self._engine, self._name)
            with self._engine.archive(self._name, OUTPUT) as chunks:
                entries, size = extent(chunks, most, files + 1)  # the folder itself is an entry
        except TradeskillError as error:  # looked at again; at the end for certain
            log.warning("%s", error)
            return None
        if entries > files + 1 or size > most:
            return Verdict("failed", f"left more than the {files} files of {most} bytes that are allowed", "limit.output")
        return None

    def _end(self, verdict: Verdict | None) -> dict[str, Any] | None:
        """The container as it is when nothing of it runs any more, however long that takes; None where it is gone."""
        if verdict is not None and verdict.code in ("limit.time", "stopped"):
            self._patiently(lambda: self._engine.kill(self._name, "SIGTERM"))
            until = time.monotonic() + float(self._limits["grace"])
            while time.monotonic() < until:
                found = self._look()
                if found is None or not found["State"].get("Running"):
                    return found
                time.sleep(0.05)
        while True:
            found = self._look()
            if found is None or not found["State"].get("Running"):
                return found
            try:
                self._engine.kill(self._name, "SIGKILL")
            except TradeskillError as error:
                log.warning("%s", error)
            time.sleep(0.1)

    def _judged(self, found: dict[str, Any], verdict: Verdict | None, following: Following) -> Verdict:
        if verdict is None:
            self._patiently(lambda: following.catch_up(self._engine, self._name))
        if verdict is None and following.overrun:
            verdict = Verdict("failed", following.overrun, "limit.output")
        result = verdict or judged(found["State"], following.tail, self._limits, doubtful=self._unwatched)
        if result.state == "finished":
            try:
                self._patiently(self._take_out)
            except (RefusedError, NotFoundError) as error:
                return Verdict("failed", str(error), "output", following.tail)
        following.sync()
        return result.saying(following.tail)

    def _take_out(self) -> None:
        output = self._folder / "output"
        empty(output)
        with self._engine.archive(self._name, OUTPUT) as chunks:
            take_out(chunks, output, OUTPUT_NAME, int(self._limits["output"]), int(self._limits["files"]))
        sync_tree(output)

    def _give_up(self, why: str) -> Verdict:
        """Prove it dead: without its container it cannot run any more."""
        self._patiently(lambda: self._engine.remove(self._name))
        return Verdict("lost", why)

    def _look(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = None

        def look() -> None:
            nonlocal found
            found = self._engine.find(self._name)

        self._patiently(look)
        return found

    def _patiently(self, call: Callable[[], object]) -> None:
        """Until the engine answers: nothing that it did not say is taken for known."""
        pause = _PAUSES[0]
        while True:
            try:
                call()
            except UnavailableError as error:
                log.warning("%s", error)
                if not self._folder.exists():
                    raise NotFoundError("the execution was taken away while the engine did not answer: nobody waits for its outcome") from error
                self._unwatched = True
                time.sleep(pause)
                pause = min(pause * 2, _PAUSES[1])
            else:
                return

    def _asked_to_stop(self) -> bool:
        with suppress(BlockingIOError):
            self._stopped |= signal.SIGTERM in os.read(self._wake, 512)
        return self._stopped


def _empty_folder(user: str) -> bytes:
    """A tar with one folder in it that is that user's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo(OUTPUT_NAME)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        folder.uid, folder.gid = (int(number) for number in user.split(":"))
        archive.addfile(folder)
    return buffer.getvalue()


def _seconds_since(time_text: str) -> float:
    """By the wall clock, which is all that an engine tells; not below zero."""
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(time_text)).total_seconds())
