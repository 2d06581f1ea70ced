"""The parts of the container backend that need no engine: settings, frames, verdicts, what is asked for and what was got, archives taken apart."""

from __future__ import annotations

import copy
import io
import json
import os
import socket
import struct
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeskill.errors import ConfigError, RefusedError, UnavailableError
from tradeskill_plugins.bubblewrap.seccomp import REFUSED
from tradeskill_plugins.container.calls import ALLOWED, profile
from tradeskill_plugins.container.confinement import OUTPUT_VOLUME, config_of, deviations
from tradeskill_plugins.container.follow import Following
from tradeskill_plugins.container.frames import Frames
from tradeskill_plugins.container.settings import read_settings
from tradeskill_plugins.container.takeout import extent, take_out
from tradeskill_plugins.container.verdict import judged

DIGEST = "sha256:" + "ab" * 32

# Settings


@pytest.mark.parametrize("image", [DIGEST, f"python@{DIGEST}", f"registry.example:5000/a/b@{DIGEST}", f"python:3.12-slim@{DIGEST}"])
def test_an_image_is_named_by_digest_or_by_id(image: str) -> None:
    assert read_settings({"image": image}, "container").image == image


@pytest.mark.parametrize("image", ["python", "python:3.12", "python:latest", "sha256:abc", f"python@{DIGEST}x", DIGEST.upper(), f"--rm@{DIGEST}", "x\n"])
def test_an_image_by_tag_is_refused_with_the_command_that_prints_its_digest(image: str) -> None:
    with pytest.raises(ConfigError, match=r"is not pinned.*docker image inspect --format '\{\{index .RepoDigests 0\}\} \{\{.Id\}\}'"):
        read_settings({"image": image}, "container")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image", ""),
        ("image", 7),
        ("user", "0:0"),
        ("user", "root"),
        ("user", "1000"),
        ("user", "1000:0"),
        ("user", 65534),
        ("processes", 0),
        ("processes", True),
        ("cpus", 0),
        ("cpus", "2"),
        ("cpus", True),
        ("scratch", 64),
        ("scratch", "64"),
        ("scratch", "0M"),
        ("network", "host"),
        ("network", "container:other"),
        ("network", "none"),
        ("socket", "tcp://127.0.0.1:2375"),
        ("socket", "ssh://somebody@somewhere"),
        ("socket", "docker.sock"),
        ("privileged", True),
        ("volumes", ["/:/host"]),
    ],
)
def test_a_wrong_setting_is_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"backend container: (unknown key '{key}'|{key} )"):
        read_settings({"image": DIGEST, key: value}, "container")


def test_the_socket_is_the_configured_one_else_docker_host_else_dockers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert read_settings({"image": DIGEST}, "container").socket == "unix:///var/run/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/podman/podman.sock")
    assert read_settings({"image": DIGEST}, "container").socket == "unix:///run/user/1000/podman/podman.sock"
    assert read_settings({"image": DIGEST, "socket": "/run/podman.sock"}, "container").socket == "unix:///run/podman.sock"
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    with pytest.raises(ConfigError, match="DOCKER_HOST"):
        read_settings({"image": DIGEST}, "container")


# Frames


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=12), st.integers(1, 9))
def test_frames_are_read_however_they_were_cut(sent: list[tuple[int, bytes]], step: int) -> None:
    wire = b"".join(struct.pack(">BxxxL", stream, len(data)) + data for stream, data in sent)
    frames, got = Frames(), {1: b"", 2: b""}
    for start in range(0, len(wire), step):
        for stream, part in frames.feed(wire[start : start + step]):
            got[stream] += part
    assert got == {stream: b"".join(data for which, data in sent if which == stream) for stream in (1, 2)}


# Verdicts

LIMITS = {"memory": 1000, "cpu_seconds": 2.0, "output": 10}


@pytest.mark.parametrize(
    ("state", "tail", "doubtful", "expected"),
    [
        ({"ExitCode": 0}, b"", False, ("finished", "")),
        ({"ExitCode": 0}, b"MemoryError in a thread, which it survived", False, ("finished", "")),
        ({"ExitCode": 0, "OOMKilled": True}, b"", False, ("failed", "limit.memory")),
        ({"ExitCode": 137, "OOMKilled": True}, b"", True, ("failed", "limit.memory")),
        ({"ExitCode": 137, "OOMKilled": False}, b"", False, ("failed", "limit.memory")),
        ({"ExitCode": 137, "OOMKilled": False}, b"", True, ("lost", "")),
        ({"ExitCode": 143, "OOMKilled": False}, b"", True, ("lost", "")),  # Docker ends its containers so when it ends itself
        ({"ExitCode": 143}, b"", False, ("failed", "exit")),
        ({"ExitCode": 1}, b"Traceback\nMemoryError\n", False, ("failed", "limit.memory")),
        ({"ExitCode": 152}, b"", False, ("failed", "limit.time")),
        ({"ExitCode": 153}, b"", False, ("failed", "limit.output")),
        ({"ExitCode": 3}, b"why\x1b[2J", False, ("failed", "exit")),
    ],
)
def test_the_end_of_a_container_is_read(state: dict[str, Any], tail: bytes, doubtful: bool, expected: tuple[str, str]) -> None:
    verdict = judged(state, tail, LIMITS, doubtful=doubtful)
    assert (verdict.state, verdict.code) == expected
    assert verdict.detail.isprintable()


# What is asked for, what was got


def wanted() -> dict[str, Any]:
    limits = {"memory": 2**26, "output": 2**20, "cpu_seconds": 5.0, "processes": 8, "scratch": 2**20}
    box = {"user": "65534:65534", "network": "none", "cpus": 1.0, "log": "local", "labels": {}, "calls": "{}"}
    return config_of({"argv": ["job", "--now"], "limits": limits, "container": box}, DIGEST, ("/data",))


def made() -> dict[str, Any]:
    ask = wanted()
    return {"HostConfig": {**ask["HostConfig"], "CapAdd": None, "Devices": []}, "Config": {"User": ask["User"]}, "Mounts": [{"Type": "volume"}]}


def test_a_container_as_asked_for_deviates_in_nothing() -> None:
    assert deviations(wanted(), made()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: c["HostConfig"].update(ReadonlyRootfs=False), "read-only"),
        (lambda c: c["HostConfig"].update(Privileged=True), "privileged"),
        (lambda c: c["HostConfig"].update(CapDrop=None), "capabilities"),
        (lambda c: c["HostConfig"].update(NanoCpus=0), "processor"),
        (lambda c: c["HostConfig"].update(NanoCpus=None), "processor"),
        (lambda c: c["HostConfig"].update(CapAdd=["SYS_ADMIN"]), "capabilities"),
        (lambda c: c["HostConfig"].update(SecurityOpt=["seccomp={}"]), "new privileges"),
        (lambda c: c["HostConfig"].update(SecurityOpt=["no-new-privileges:false", "seccomp={}"]), "new privileges"),
        (lambda c: c["HostConfig"].update(SecurityOpt=["no-new-privileges"]), "filtered"),
        (lambda c: c["HostConfig"].update(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]), "filtered"),
        (lambda c: c["HostConfig"].update(Memory=0), "memory"),
        (lambda c: c["HostConfig"].update(PidsLimit=None), "processes"),
        (lambda c: c["HostConfig"].update(NetworkMode="bridge"), "network"),
        (lambda c: c["HostConfig"].update(PidMode="host"), "processes or IPC"),
        (lambda c: c["HostConfig"].update(IpcMode="host"), "processes or IPC"),
        (lambda c: c["HostConfig"].update(Devices=[{"PathOnHost": "/dev/kvm"}]), "devices"),
        (lambda c: c["Config"].update(User="root"), "another user"),
        (lambda c: c.update(Mounts=[{"Type": "bind", "Source": "/"}]), "other mounts"),
    ],
)
def test_a_container_that_is_less_shut_in_than_asked_for_is_noticed(change: Callable[[dict[str, Any]], None], fault: str) -> None:
    found = copy.deepcopy(made())
    change(found)
    assert any(fault in deviation for deviation in deviations(wanted(), found))


def test_a_network_that_is_granted_is_not_the_machines() -> None:
    asked = wanted()
    asked["HostConfig"]["NetworkMode"] = "jobs"
    found = made()
    for mode, fine in (("jobs", True), ("bridge", True), ("host", False), ("container:abc", False), ("", False)):
        found["HostConfig"]["NetworkMode"] = mode
        assert (deviations(asked, found) == []) == fine


def test_nothing_of_the_machine_is_mounted_and_an_images_own_places_are_bounded() -> None:
    config = wanted()
    assert config["HostConfig"]["Mounts"] == [{"Type": "volume", "Target": OUTPUT_VOLUME}]
    assert not {"Binds", "Devices", "VolumesFrom", "CapAdd"} & set(config["HostConfig"])
    assert "size=" in config["HostConfig"]["Tmpfs"]["/data"]
    assert (config["Entrypoint"], config["Cmd"]) == (["job"], ["--now"])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_lets_no_call_through_that_a_sandbox_refuses(machine: str) -> None:
    counted = {name for name in REFUSED if name.startswith(("shm", "msg", "sem", "mq_"))} | {"memfd_create"}  # a container's memory is counted whole
    assert ALLOWED & set(REFUSED) <= counted
    assert not ALLOWED & {"clone", "clone3", "socket", "personality", "io_uring_setup"}
    assert json.loads(json.dumps(profile(machine)))["defaultAction"] == "SCMP_ACT_ERRNO"


def test_a_machine_whose_calls_are_not_known_runs_nothing() -> None:
    with pytest.raises(UnavailableError, match="riscv64"):
        profile("riscv64")


# Archives


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "", size: int | None = None) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def stream(*members: bytes) -> Iterator[bytes]:
    whole = io.BytesIO(member("output/", tarfile.DIRTYPE) + b"".join(members) + bytes(1024))
    return iter(lambda: whole.read(700), b"")


def test_plain_files_and_folders_come_out(tmp_path: Path) -> None:
    take_out(stream(member("output/a", data=b"1"), member("output/b/", tarfile.DIRTYPE), member("output/b/c", data=b"x" * 3000)), tmp_path, "output", 5000, 5)
    assert {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == {"a": b"1", "b/c": b"x" * 3000}


@pytest.mark.parametrize(
    "hostile",
    [
        [member("output/link", tarfile.SYMTYPE, link="/etc/passwd")],
        [member("output/hard", tarfile.LNKTYPE, link="/etc/passwd")],
        [member("output/fifo", tarfile.FIFOTYPE)],
        [member("output/device", tarfile.CHRTYPE)],
        [member("output/block", tarfile.BLKTYPE)],
        [member("output/../../escaped", data=b"x")],
        [member("/etc/escaped", data=b"x")],
        [member("elsewhere", data=b"x")],
        [member("output", data=b"x")],
        [member("output/.hidden", data=b"x")],
        [member("output/line\nbreak", data=b"x")],
        [member("output/" + "n" * 300, data=b"x")],
        [member("output/" + "d/" * 20 + "deep", data=b"x")],
        [member("output/big", data=b"x" * 6000)],
        [member("output/sparse", size=2**40)],
        [member(f"output/{number}") for number in range(9)],
        [member("output/twice", data=b"1"), member("output/twice", data=b"2")],
        [member("output/file", data=b"1"), member("output/file/below", data=b"2")],
        [member("output/a/b", data=b"its folder never came")],
    ],
)
def test_whatever_else_is_in_an_archive_is_refused_and_nothing_is_outside(hostile: list[bytes], tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(RefusedError):
        take_out(stream(*hostile), inside, "output", 5000, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert not any(path.is_symlink() for path in inside.rglob("*"))


@pytest.mark.parametrize("rest", [b"", b"this is no header." * 28 + bytes(8), member("output/b", size=600)])
def test_an_archive_that_breaks_off_is_not_taken_for_whole(rest: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        take_out(iter([member("output/", tarfile.DIRTYPE), member("output/a", data=b"x"), rest]), tmp_path, "output", 5000, 5)


def test_an_archive_that_never_ends_is_left(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield member("output/", tarfile.DIRTYPE)
        while True:
            yield member("output/x")

    with pytest.raises(RefusedError):
        take_out(endless(), tmp_path, "output", 100, 10**9)
    assert extent(endless(), 100, 20)[0] == 21


def test_counting_stops_at_a_bound_and_takes_what_came_of_a_broken_stream() -> None:
    assert extent(stream(member("output/a", data=b"x" * 10), member("output/b", data=b"x" * 20)), 1000, 100) == (3, 30)
    assert extent(stream(member("output/a", size=2**40)), 1000, 100)[1] > 1000
    assert extent(iter([member("output/a", data=b"x" * 10)[:600]]), 1000, 100)[1] <= 1000


# What was printed


class Said:
    """Stands for an engine whose stream gave one thing and whose log has another."""

    def __init__(self, streamed: bytes, logged: bytes) -> None:
        self._streamed, self._logged = streamed, logged

    def attach(self, name: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(_framed(self._streamed))
        return ours

    @contextmanager
    def logs(self, name: str) -> Iterator[Iterator[bytes]]:
        yield iter([struct.pack(">BxxxL", 2, 3) + b"bye", _framed(self._logged)])


def _framed(data: bytes) -> bytes:
    return struct.pack(">BxxxL", 1, len(data)) + data


@pytest.mark.parametrize(
    ("streamed", "logged", "taken"),
    [
        (b"42", b"42", b"42"),
        (b"42", b"42\n", b"42"),  # Docker ended the line
        (b"4", b"42", b"42"),
        (b"4", b"42\n", b"42\n"),
        (b"", b"\n", b"\n"),
        (b"42\n", b"42\n\n", b"42\n\n"),
        (b"42\n", b"42\n", b"42\n"),
        (b"42", b"", b"42"),  # a log that was cut says less, not more
    ],
)
def test_a_stream_that_broke_off_is_made_up_for_from_the_log_and_a_whole_one_is_kept(tmp_path: Path, streamed: bytes, logged: bytes, taken: bytes) -> None:
    engine: Any = Said(streamed, logged)
    following = Following(tmp_path, 100)
    following.attach(engine, "x", b"")
    wake, wake_in = os.pipe()
    while following.open:
        following.step(5, wake)
    following.catch_up(engine, "x")
    following.close()
    os.close(wake)
    os.close(wake_in)
    assert (tmp_path / "stdout").read_bytes() == taken
