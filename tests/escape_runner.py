"""Plays escapes as root or as an ordinary user, in a process of its own: sets up what must not be reached, runs the probes, reports one line each.

`python -m tests.escape_runner` reads its order as JSON on stdin. A backend is named as `module:function`; the function takes a folder and
gives a backend that is not opened yet.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.escapes import PROBES, Probe, program
from tests.ordinary_user import become
from tradeskill.contracts import Backend, Limits, Task
from tradeskill.errors import TradeskillError

__all__ = ["Played", "play"]

ROOT = Path(__file__).parent.parent
SECONDS = 400
CANARY = f"canary-{os.urandom(12).hex()}"
VICTIM = "the-sellers-own-process"


@dataclass(frozen=True)
class Played:
    """How one probe ended: "held", "reached", or a failure's code; `said` is its result and its detail."""

    ended: str
    said: str


def play(factory: str, uid: int | None, names: Sequence[str], container: bool = False) -> tuple[dict[str, Played], list[str]]:
    """Each probe by its name, and what was touched outside (nothing, that is)."""
    order = {"factory": factory, "uid": uid, "names": list(names), "container": container}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRADESKILL_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.escape_runner"],
        cwd=ROOT,
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**environment, "ESCAPE_CANARY": CANARY},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answer = json.loads(done.stdout)
    return {name: Played(**found) for name, found in answer["played"].items()}, answer["touched"]


@contextmanager
def outside(folder: Path, shown: list[str], container: bool) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """What a job must not reach. Gives what a probe is told of it, and the list of what it reached."""
    touched: list[str] = []
    profile = folder / "profile"
    (profile / "wallets" / "nano").mkdir(parents=True)
    files = {name: profile / where for name, where in {"seed": "wallets/nano/seed.json", "identity": "identity.json", "journal": "journal.db"}.items()}
    files |= {"config": profile / "config.yaml", "private": folder / "private.txt", "writable": folder / "writable.txt"}
    for path in files.values():
        path.write_text(f"{CANARY} of {path.name}\n")
        path.chmod(0o600)
    files["writable"].chmod(0o666)
    (folder / "program").mkdir()
    (folder / "program" / "job.py").write_text("the program\n")
    libc = ctypes.CDLL(None, use_errno=True)
    key = f"key-{os.getpid()}"
    libc.syscall(248 if os.uname().machine == "x86_64" else 217, b"user", key.encode(), CANARY.encode(), len(CANARY), -4)
    with ExitStack() as stack:
        word = f"import sys, time; seed = open({str(files['seed'])!r}); print('up', flush=True); time.sleep(1000)  # {VICTIM}"
        for name in ("victim", "spare"):
            process = subprocess.Popen([sys.executable, "-I", "-S", "-c", word], stdout=subprocess.PIPE, env={"SECRET": CANARY}, cwd=folder)
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            stack.callback(process.stdout.close)
            files[name] = process  # type: ignore[assignment]  # taken out again below
        victim, spare = files.pop("victim"), files.pop("spare")
        abstract = f"canary-{os.getpid()}"
        doors: dict[str, socket.socket] = {}
        for name, family, kind, where in (
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("tcp6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("unix", socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "door")),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, "\0" + abstract),
        ):
            door = stack.enter_context(socket.socket(family, kind))
            try:
                door.bind(where)
            except OSError:
                continue  # a machine without IPv6
            door.setblocking(False)
            if kind == socket.SOCK_STREAM:
                door.listen()
            doors[name] = door
        (folder / "door").chmod(0o777)
        given: dict[str, Any] = {name: str(path) for name, path in files.items()}
        given |= {"profile": str(profile), "program": str(folder / "program"), "executions": str(folder / "executions"), "canary": CANARY, "key": key}
        given |= {"other": str(folder / "executions" / "other"), "unix": str(folder / "door"), "abstract": abstract, "shout": CANARY}
        given |= {"victim": victim.pid, "spare": spare.pid, "victim_word": VICTIM, "root": os.geteuid() == 0, "shown": shown, "container": container}  # type: ignore[attr-defined]  # processes
        given |= {name: doors[name].getsockname()[1] if name in doors else 0 for name in ("tcp", "tcp6", "udp")}
        before = {path: path.read_bytes() for path in (*files.values(), folder / "program" / "job.py")}
        listed = sorted(str(path) for path in (profile, folder / "program") for path in path.rglob("*"))
        states = [_state(process.pid) for process in (victim, spare)]  # type: ignore[attr-defined]  # as above
        yield given, touched
        touched += [f"{path} changed" for path, data in before.items() if not path.exists() or path.read_bytes() != data]
        if sorted(str(path) for path in (profile, folder / "program") for path in path.rglob("*")) != listed:
            touched.append("files came or went")
        touched += [f"process {process.pid} was touched" for process, state in zip((victim, spare), states, strict=True) if _state(process.pid) != state]  # type: ignore[attr-defined]  # as above
        for name, door in doors.items():
            try:
                door.accept() if door.type == socket.SOCK_STREAM else door.recv(100)
            except BlockingIOError:
                continue
            touched.append(f"{name} was spoken to")


def _state(pid: int) -> str:
    """Whether it is dead or stopped, its niceness, its processors, its open files."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        files = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max open files"))
        return f"{fields[0] in 'ZXTt'} {fields[16]} {sorted(os.sched_getaffinity(pid))} {files}"
    except (OSError, StopIteration):
        return "gone"


async def _one(backend: Backend, number: int, probe: Probe, given: dict[str, Any], program_folder: Path) -> Played:
    limits = Limits(seconds=probe.seconds, memory=256 * 2**20, output=2**20, cpu_seconds=min(probe.seconds, 10.0), files=64)
    task = Task(program(probe), json.dumps(given).encode(), program_folder, trusted=True, details={"owner": "me"})
    await backend.start(f"probe{number}", task, limits)
    status = await backend.wait(f"probe{number}", probe.seconds + 60)
    said = status.detail
    ended = status.code or status.state
    if status.state == "finished":
        data = (await backend.result(f"probe{number}")).data
        said = data.decode("utf-8", "replace")[-1000:]
        words = {line.split()[0] for line in said.splitlines() if line}
        ended = "reached" if "REACHED" in words or CANARY in said else "held" if "HELD" in words else "finished"
    if CANARY in status.detail:
        ended = "reached"
    if probe.name == "leaves daemons that ignore signals" and _carrying(f"/tmp/daemon{0}"):
        ended, said = "reached", "a daemon is still there"
    await backend.stop(f"probe{number}")
    await backend.remove(f"probe{number}")
    return Played(ended, said)


def _carrying(word: str) -> bool:
    """Whether any process that a probe started is left: its program stands in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes() and b"def attempt" in path.read_bytes():
                return True
        except OSError:
            continue
    return False


async def _play(order: dict[str, Any], folder: Path, shown: list[str]) -> dict[str, Any]:
    module, _, function = order["factory"].partition(":")
    backend: Backend = getattr(importlib.import_module(module), function)(folder / "executions")
    await backend.open()
    played: dict[str, Played] = {}
    with outside(folder, shown, order["container"]) as (given, touched):
        leave = "echo $CANARY > $TRADESKILL_OUTPUT/result.txt; echo done; sleep 1000"
        other = Task(("sh", "-c", f"CANARY={CANARY}; {leave}"), CANARY.encode(), trusted=True, details={"owner": "me"})
        await backend.start("other", other, Limits(seconds=SECONDS, memory=256 * 2**20))
        room = asyncio.Semaphore(8)

        async def one(number: int, probe: Probe) -> None:
            async with room:
                try:
                    played[probe.name] = await _one(backend, number, probe, given, folder / "program")
                except TradeskillError as error:
                    played[probe.name] = Played("error", str(error))

        chosen = [probe for probe in PROBES if probe.name in order["names"]]
        await asyncio.gather(*[one(number, probe) for number, probe in enumerate(chosen)])
        others = await backend.status("other")
        await backend.stop("other")
        await backend.remove("other")
    if others.state != "running":
        touched.append(f"another job ended as {others}")
    await backend.close()
    return {"played": {name: found.__dict__ for name, found in played.items()}, "touched": touched}


def main() -> None:
    order = json.load(sys.stdin)
    global CANARY  # the one that started us chose it
    CANARY = os.environ["ESCAPE_CANARY"]
    signal.alarm(SECONDS)
    parts = [Path(path).resolve().parts for path in (sys.prefix, sys.base_prefix)]
    shown = sorted({part[2] for part in parts if part[:2] == ("/", "root")})
    with tempfile.TemporaryDirectory(prefix="escapes-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if order["uid"] is not None:
            os.chown(folder, order["uid"], order["uid"])
            become(order["uid"], folder)
        answer = asyncio.run(_play(order, folder, shown))
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
