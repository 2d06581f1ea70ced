"""The container backend on a real engine: jobs get what is promised and nothing else.

Its contract is kept by `tradeskill plugins check container` (tests/test_kit_ours.py).
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.podman import Engine
from tradeskill.contracts import ExecutionStatus, Limits, PluginContext, Task
from tradeskill.errors import ConfigError
from tradeskill.isolation import level_of, shows_folder
from tradeskill.model import Result
from tradeskill.signing import Identity
from tradeskill.world import World
from tradeskill_plugins.container import tradeskill_capabilities, tradeskill_open_backend
from tradeskill_plugins.container.backend import ContainerBackend
from tradeskill_plugins.container.settings import Settings

LIMITS = Limits(seconds=30, memory=128 * 2**20, output=2**20)


def shell(script: str, *, network: bool = False) -> Task:
    return Task(("sh", "-c", script), b"", details={"owner": "me"}, network=network)


def python(code: str) -> Task:
    return Task(("python", "-I", "-S", "-c", textwrap.dedent(code)), b"", details={"owner": "me"})


def ended(home: Path, engine: Engine, *tasks: Task, limits: Limits = LIMITS, **settings: Any) -> list[tuple[ExecutionStatus, Result | None]]:
    """Each task's end and result; they run side by side, as the time it takes is an engine's."""

    async def one(backend: ContainerBackend, number: int, task: Task) -> tuple[ExecutionStatus, Result | None]:
        await backend.start(f"x{number}", task, limits)
        while (status := await backend.wait(f"x{number}", 80)).state == "running":
            pass
        result = await backend.result(f"x{number}") if status.state == "finished" else None
        await backend.remove(f"x{number}")
        return status, result

    async def run() -> list[tuple[ExecutionStatus, Result | None]]:
        backend = ContainerBackend(home, World(), "me", Settings(**{"image": engine.image, "socket": engine.socket, **settings}))
        await backend.open()
        return await asyncio.wait_for(asyncio.gather(*[one(backend, number, task) for number, task in enumerate(tasks)]), 200)

    return asyncio.run(run())


def printed(home: Path, engine: Engine, task: Task, **settings: Any) -> str:
    [(status, result)] = ended(home, engine, task, **settings)
    assert result is not None, status
    return result.data.decode()


# What a job is given


def test_a_job_has_a_scratch_folder_an_output_folder_and_nothing_of_the_sellers(tmp_path: Path, podman: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADESKILL_SECRET", "canary")
    code = """
        import json, os
        def writable(path):
            try: open(path + "/probe", "w").close(); return True
            except OSError: return False
            finally:
                if os.path.exists(path + "/probe"): os.unlink(path + "/probe")
        given = open("/proc/self/status").read()
        print(json.dumps({
            "env": dict(os.environ), "cwd": os.getcwd(), "uid": [os.getuid(), os.getgid(), os.getgroups()],
            "pids": sum(n.isdigit() for n in os.listdir("/proc")),
            "writable": [path for path in ("/", "/etc", "/usr", "/bin", "/scratch", "/tmp", "/tradeskill/output", "/proc/sys", "/sys") if writable(path)],
            "caps": [line.split()[1] for line in given.splitlines() if line.startswith("Cap")], "nets": os.listdir("/sys/class/net"),
            "fds": [n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")],
        }))
        """
    [(status, result)] = ended(tmp_path, podman, python(code))
    assert result is not None, status
    seen = json.loads(result.data)
    environment = {name: value for name, value in seen["env"].items() if value}
    assert {name: environment.pop(name) for name in ("HOME", "TMPDIR", "LANG", "TRADESKILL_OUTPUT")} == {
        "HOME": "/scratch",
        "TMPDIR": "/scratch",
        "LANG": "C.UTF-8",
        "TRADESKILL_OUTPUT": "/tradeskill/output",
    }
    assert set(environment) <= {"PATH", "TERM", "container", "HOSTNAME", "LC_CTYPE"}, "what engines set themselves"
    assert "canary" not in str(seen)
    assert (seen["cwd"], seen["uid"]) == ("/scratch", [65534, 65534, [65534]])
    assert seen["writable"] == ["/scratch", "/tmp", "/tradeskill/output"]
    assert set(seen["caps"]) == {"0" * 16}
    assert seen["nets"] == ["lo"]
    assert seen["pids"] <= 3
    assert sorted(seen["fds"]) == ["0", "1", "2"]


def test_an_image_decides_over_files_only(tmp_path: Path, podman: Engine) -> None:
    """Its user, entry point, volumes, health check and folder are not followed."""
    changes = ["USER root", 'ENTRYPOINT ["/bin/false"]', 'CMD ["nothing"]', "VOLUME /data", "WORKDIR /etc", "STOPSIGNAL SIGUSR1", "ENV FROM_IMAGE=1"]
    with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w") as made:
        for name in ("bin", "tmp", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            made.addfile(folder)
        made.add(os.path.realpath(shutil.which("busybox") or ""), "bin/sh")
    image = podman.imported(archive.getvalue(), *changes)
    [(status, result)] = ended(tmp_path, podman, Task(("/bin/sh", "-c", _IN_THAT_IMAGE), b"", details={"owner": "me"}), image=image)
    assert result is not None, status
    lines = result.data.decode().splitlines()
    assert lines == ["/scratch", "user 65534", "kept in memory, 1 MiB at most"]


_IN_THAT_IMAGE = """
pwd
while read key value rest; do case $key in Uid:) echo "user $value";; esac; done < /proc/self/status
echo x > /data/x || exit 5
while read device place kind options rest; do
  case "$place $kind $options" in "/data tmpfs "*size=1024k*) echo "kept in memory, 1 MiB at most";; esac
done < /proc/mounts
"""


def test_several_output_files_become_one_archive(tmp_path: Path, podman: Engine) -> None:
    task = shell("cd $TRADESKILL_OUTPUT; mkdir -p b/c; echo 1 > a.txt; echo 2 > b/c/d.txt; echo talk")
    [(status, result)] = ended(tmp_path, podman, task)
    assert result is not None, status
    with tarfile.open(fileobj=io.BytesIO(result.data)) as archive:
        assert {member.name: archive.extractfile(member).read() for member in archive} == {"a.txt": b"1\n", "b/c/d.txt": b"2\n"}  # type: ignore[union-attr]  # they are files


def test_a_network_is_there_for_whom_it_is_granted_and_is_not_the_machines(tmp_path: Path, podman: Engine) -> None:
    granted, other = ended(tmp_path, podman, shell("ls /sys/class/net", network=True), shell("ls /sys/class/net"))
    assert granted[1] is not None, granted[0]
    assert set(granted[1].data.split()) == {b"lo", b"eth0"}
    assert other[1] is not None, other[0]
    assert other[1].data == b"lo\n"


def test_what_the_backend_is_and_holds_is_said_in_a_line(tmp_path: Path, podman: Engine) -> None:
    backend = ContainerBackend(tmp_path, World(), "me", Settings(podman.image, podman.socket))
    line = asyncio.run(backend.examine())
    assert line.startswith("isolation container: Podman ")
    assert podman.image in line


def test_an_offers_folder_is_not_shown_so_it_may_hold_the_profile() -> None:
    assert level_of(tradeskill_capabilities()) == "container"
    assert not shows_folder(tradeskill_capabilities())
    assert shows_folder([])


def test_the_plugin_opens_from_its_settings_without_asking_an_engine(tmp_path: Path) -> None:
    context = PluginContext("container", "dev", tmp_path, World(), Identity(bytes(31) + b"\x01"), lambda: "")
    backend = tradeskill_open_backend({"image": "sha256:" + "0" * 64, "socket": str(tmp_path / "nothing.sock")}, context)
    assert isinstance(backend, ContainerBackend)
    with pytest.raises(ConfigError, match="image is missing"):
        tradeskill_open_backend({}, context)


# What a job leaves behind

HOSTILE = {
    "symbolic link": "ln -s /etc/passwd link",
    "link to a folder": "ln -s / link; mkdir real; echo x > real/x",
    "hard link": "echo x > a; ln a b",
    "FIFO": "mkfifo pipe",
    "begins with a dot": "echo x > .hidden",
    "control character": "echo x > \"$(printf 'a\\033[2Jb')\"",
    "broken text": "echo x > \"$(printf 'a\\377b')\"",
    "nested deeper": "d=.; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do d=$d/d; done; mkdir -p $d; echo x > $d/x",
    "too many": "for i in $(seq 1 300); do echo x > f$i; done",
    "empty folders": "for i in $(seq 1 300); do mkdir d$i; done",
    "larger": "head -c 700000 /dev/zero > a; head -c 700000 /dev/zero > b",
    "nothing": "true",
}


def test_hostile_output_is_a_failed_job(tmp_path: Path, podman: Engine) -> None:
    found = ended(tmp_path, podman, *[shell(f"cd $TRADESKILL_OUTPUT; {script}") for script in HOSTILE.values()])
    codes = {name: status.code for name, (status, _) in zip(HOSTILE, found, strict=True)}
    assert {name: code for name, code in codes.items() if code not in ("output", "limit.output")} == {}
    assert all(status.detail.isprintable() for status, _ in found)


def test_neither_a_sparse_terabyte_nor_a_device_can_be_made(tmp_path: Path, podman: Engine) -> None:
    sparse, device = ended(
        tmp_path,
        podman,
        python("import os; os.truncate(os.open(os.environ['TRADESKILL_OUTPUT'] + '/big', os.O_WRONLY | os.O_CREAT), 2**40)"),
        shell("mknod $TRADESKILL_OUTPUT/null c 1 3"),
    )
    assert (sparse[0].state, sparse[0].code in ("limit.output", "exit")) == ("failed", True)
    assert (device[0].state, device[0].code) == ("failed", "exit")


# What a job may take


def test_limits_bite(tmp_path: Path, podman: Engine) -> None:
    """Side by side, so that one hostile job is also seen not to harm another."""
    work = {
        "memory": ("limit.memory", python("x = bytearray(2**29); x[::4096] = bytes(2**17)")),
        "memory of many": ("limit.memory", python("import os, time\nfor _ in range(3): os.fork()\nx = os.urandom(2**20) * 60\ntime.sleep(60)")),
        "files in memory": ("limit.memory exit", shell("for i in $(seq 1 200); do head -c 1000000 /dev/zero > /dev/shm/$i || exit 4; done; sleep 60")),
        "stdout": ("limit.output", shell("exec yes")),
        "stderr": ("limit.output", python("import os\nwhile True: os.write(2, b'x' * 65535 + bytes([10]))")),
        "one file": ("limit.output exit", shell("head -c 3000000 /dev/zero > $TRADESKILL_OUTPUT/a")),
        "many files": ("limit.output", shell("i=0; while true; do i=$((i+1)); head -c 500000 /dev/zero > $TRADESKILL_OUTPUT/$i; done")),
        "processor": ("limit.time", python("while True: pass")),
        "ignored signals": ("limit.time", shell("trap '' TERM INT HUP; while true; do sleep 1; done")),
        "well-behaved": ("", shell("sleep 2; echo fine")),
    }
    limits = Limits(seconds=12, cpu_seconds=3, memory=96 * 2**20, output=2**20, files=64)
    found = dict(zip(work, ended(tmp_path, podman, *[task for _, task in work.values()], limits=limits, cpus=0.5), strict=True))
    assert {name: status for name, (status, _) in found.items() if status.code not in work[name][0].split(" ")} == {}
    assert found["well-behaved"][1] == Result(b"fine\n", "text/plain; charset=utf-8")


def test_processes_are_limited_and_a_fork_bomb_ends_with_its_time(tmp_path: Path, podman: Engine) -> None:
    bomb = python("import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.05)")
    count = python(
        """
        import os, time
        made = 0
        try:
            while made < 100:
                if os.fork() == 0: time.sleep(60)
                made += 1
        except OSError:
            print(made)
        """
    )
    (first, _), (second, result) = ended(tmp_path, podman, bomb, count, limits=Limits(seconds=6, memory=96 * 2**20), processes=20)
    assert (first.state, first.code in ("limit.time", "limit.memory")) == ("failed", True)
    assert result is not None, second
    assert 5 < int(result.data) < 20


def test_scratch_space_is_as_large_as_configured(tmp_path: Path, podman: Engine) -> None:
    script = "for where in /scratch /tmp; do i=0; while head -c 500000 /dev/zero > $where/$i 2> /dev/null; do i=$((i+1)); done; echo $i; done"
    assert printed(tmp_path, podman, shell(script), scratch=4 * 2**20).split() == ["8", "8"]
