"""The system call filter, run on paper: what it refuses, lets through and ends, on both machines it knows; and which users and control groups jobs get."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from tradeskill.errors import UnavailableError
from tradeskill_plugins.bubblewrap import cgroups
from tradeskill_plugins.bubblewrap.backend import probed_uids
from tradeskill_plugins.bubblewrap.seccomp import MACHINES, REFUSED, seccomp_filter

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
READ = {"x86_64": 0, "aarch64": 63}
CLONE = {"x86_64": 56, "aarch64": 220}
IOCTL = {"x86_64": 16, "aarch64": 29}
PERSONALITY = {"x86_64": 135, "aarch64": 92}
SOCKET = {"x86_64": 41, "aarch64": 198}
ALLOWED, KILLED = "allowed", "killed"


def verdict(program: bytes, number: int, *arguments: int, architecture: int) -> str | int:
    """What the kernel would do: classic BPF, with the six instructions that such filters need. An int: the error it answers with."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *(word & 2**64 - 1 for word in (*arguments, *[0] * 6)[:6]))
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    place = register = 0
    while True:
        code, yes, no, value = steps[place]
        place += 1
        if code == 0x06:
            return {0x7FFF0000: ALLOWED, 0x80000000: KILLED}.get(value) or value & 0xFFFF
        if code == 0x20:
            register = struct.unpack_from("=I", data, value)[0]
        elif code == 0x54:
            register &= value
        else:
            place += yes if {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}[code] else no


class On:
    def __init__(self, machine: str, *, network: bool = False) -> None:
        self._program, self._architecture = seccomp_filter(network, machine), ARCHITECTURES[machine]

    def __call__(self, number: int, *arguments: int) -> str | int:
        return verdict(self._program, number, *arguments, architecture=self._architecture)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_of_the_table_is_refused_and_no_other_below_the_newest(machine: str) -> None:
    on, index = On(machine), MACHINES.index(machine)
    refused = {numbers[index] for numbers in REFUSED.values()} - {None}
    answers = {number: on(number, 0) for number in range(600)}
    assert {number for number, answer in answers.items() if answer == errno.EPERM} == refused
    assert {number for number, answer in answers.items() if answer == errno.ENOSYS} == {435, *range(463, 600)}
    assert answers.pop(SOCKET[machine]) == errno.EAFNOSUPPORT  # family 0 is none
    assert {answer for number, answer in answers.items() if number not in refused and number < 463 and number != 435} == {ALLOWED}


@pytest.mark.parametrize("machine", MACHINES)
def test_another_calling_convention_ends_the_job(machine: str) -> None:
    program = seccomp_filter(False, machine)
    for architecture in (0x40000003, 0x40000028, *(value for name, value in ARCHITECTURES.items() if name != machine)):
        assert verdict(program, 0, architecture=architecture) == KILLED
    assert On(machine)(0x40000000 + READ[machine]) == KILLED
    assert On(machine)(-1) == KILLED


@pytest.mark.parametrize("machine", MACHINES)
def test_processes_and_threads_may_be_cloned_and_namespaces_may_not(machine: str) -> None:
    on, call = On(machine), CLONE[machine]
    assert on(call, 17) == on(call, 0x3D0F00) == on(call, 0x01200011) == ALLOWED
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert on(call, 17 | flag) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_nothing_is_typed_into_a_terminal_whatever_stands_in_the_upper_half(machine: str) -> None:
    on, call = On(machine), IOCTL[machine]
    assert on(call, 0, 0x5401) == on(call, 0x5412, 0x5413) == ALLOWED
    for upper in (0, 1 << 32, 0xFFFFFFFF << 32):
        assert on(call, 0, 0x5412 | upper) == on(call, 0, 0x541C | upper) == errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_the_personality_may_be_asked_for_and_not_changed(machine: str) -> None:
    on, call = On(machine), PERSONALITY[machine]
    assert on(call, 0) == on(call, 0xFFFFFFFF) == ALLOWED
    assert on(call, 0x0040000) == on(call, 8) == errno.EPERM


@pytest.mark.parametrize(("network", "families"), [(False, {1, 2, 10}), (True, {2, 10})])
@pytest.mark.parametrize("machine", MACHINES)
def test_sockets_are_of_few_families_and_with_the_machines_network_of_fewer(machine: str, network: bool, families: set[int]) -> None:
    on = On(machine, network=network)
    assert {family for family in range(64) if on(SOCKET[machine], family, 1, 0) == ALLOWED} == families


@pytest.mark.parametrize("machine", MACHINES)
def test_with_the_machines_network_a_pair_of_sockets_can_be_sent_nowhere_else(machine: str) -> None:
    call, kinds = {"x86_64": 53, "aarch64": 199}[machine], range(1, 8)
    flags = 0o2004000  # SOCK_CLOEXEC, SOCK_NONBLOCK
    assert {kind for kind in kinds if On(machine, network=True)(call, 1, kind | flags) == ALLOWED} == {1, 5}
    assert {kind for kind in kinds if On(machine)(call, 1, kind) == ALLOWED} == set(kinds)


def test_the_jumps_of_a_filter_end_inside_it() -> None:
    for machine in MACHINES:
        program = seccomp_filter(True, machine)
        steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
        assert len(steps) < 4096
        assert all(place + 1 + max(yes, no) < len(steps) for place, (code, yes, no, _) in enumerate(steps) if code & 7 == 5)
        assert steps[-1][0] == 0x06


def test_an_unknown_machine_gets_no_sandbox() -> None:
    with pytest.raises(UnavailableError, match="sparc64"):
        seccomp_filter(False, "sparc64")


# Users for jobs


@pytest.mark.parametrize(
    ("uid_map", "first"),
    [("0 0 4294967295", 1_900_000_000), ("0 100000 65536", 20_000), ("0 0 1000\n1000 200000 64536", 20_000)],
    ids=["a machine", "a container", "a container in pieces"],
)
def test_users_for_jobs_are_nobodys(uid_map: str, first: int) -> None:
    found = probed_uids(uid_map)
    assert found[0] == first
    assert found[1] > 1000


def test_without_users_for_jobs_it_says_which_setting_names_some() -> None:
    with pytest.raises(UnavailableError, match="uids"):
        probed_uids("0 1000 1")


# Control groups: the texts of /proc, over folders that stand in for the kernel's


def v2(folder: Path, *handed_down: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text("cpu memory pids\n")
    (folder / "cgroup.subtree_control").write_text(" ".join(handed_down) + "\n")
    (folder / "cgroup.procs").touch()
    return folder


def test_in_v2_the_nearest_group_that_hands_the_controllers_down_is_taken_and_one_for_all_of_them(tmp_path: Path) -> None:
    """A process is in one group of v2: with a second one for the other controller it would leave the first, and its limit."""
    v2(tmp_path, "memory", "pids")
    middle = v2(tmp_path / "user.slice", "pids")
    v2(middle / "session.scope")
    mounts = f"30 1 0:26 / {tmp_path} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
    assert cgroups.find(mounts, "0::/user.slice/session.scope\n") == {"pids": str(tmp_path), "memory": str(tmp_path)}
    assert cgroups.find(mounts, "0::/\n") == {"pids": str(tmp_path), "memory": str(tmp_path)}
    v2(tmp_path)
    assert cgroups.find(mounts, "0::/user.slice/session.scope\n") == {"pids": str(middle)}
    v2(tmp_path, "memory")
    assert cgroups.find(mounts, "0::/user.slice/session.scope\n") == {"memory": str(tmp_path)}
    (tmp_path / "cgroup.procs").unlink()  # nobody may be moved through here
    assert cgroups.find(mounts, "0::/user.slice/session.scope\n") == {"pids": str(middle)}


def test_in_v2_one_group_has_all_limits(tmp_path: Path) -> None:
    v2(tmp_path, "memory", "pids")
    groups = cgroups.make({"pids": str(tmp_path), "memory": str(tmp_path)}, "job", {"pids": 5, "memory": 2**30})
    assert groups == [str(tmp_path / "job")]
    assert {path.name: path.read_text() for path in (tmp_path / "job").iterdir()} == {"pids.max": "5", "memory.max": str(2**30)}


def test_in_v1_each_controller_has_its_own_hierarchy_and_the_own_group_is_taken(tmp_path: Path) -> None:
    (tmp_path / "pids" / "mine").mkdir(parents=True)
    (tmp_path / "memory").mkdir()
    mounts = f"30 1 0:26 / {tmp_path}/pids rw - cgroup cgroup rw,pids\n31 1 0:27 /docker/1 {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
    own = "8:pids:/mine\n4:memory:/docker/1\n0::/\n"
    assert cgroups.find(mounts, own) == {"pids": f"{tmp_path}/pids/mine", "memory": f"{tmp_path}/memory"}


@pytest.mark.parametrize("own", ["", "0::/gone\n", "8:pids:/gone\n", "nonsense"])
def test_where_no_group_can_be_made_none_is_promised(tmp_path: Path, own: str) -> None:
    mounts = f"30 1 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n31 1 0:27 / {tmp_path}/v1 rw - cgroup cgroup rw,pids\nnot a line\n"
    assert cgroups.find(mounts, own) == {}


def test_a_group_that_cannot_be_made_whole_is_not_left_half(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cgroups.make({"pids": str(tmp_path), "memory": str(tmp_path / "none")}, "job", {"pids": 5, "memory": 2**30})
    assert [path.name for path in tmp_path.iterdir()] in ([], ["job"])  # ours here holds a plain file, which the kernel's never do


def test_what_was_killed_for_want_of_memory_is_counted(tmp_path: Path) -> None:
    for name, text in (("memory.events", "low 0\noom 3\noom_kill 2\n"), ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(text)
    assert cgroups.kills([str(tmp_path / "memory.events"), str(tmp_path / "memory.oom_control"), str(tmp_path / "none")]) == 3


def test_swap_is_no_way_around_the_limit_on_memory() -> None:
    """Where a group can be made here, and the kernel counts swap."""
    folders = cgroups.find(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    groups = cgroups.make(folders, f"tradeskill-test-{os.getpid()}", {"pids": 5, "memory": 2**26})
    try:
        limits = {"memory.memsw.limit_in_bytes": str(2**26), "memory.swap.max": "0", "memory.limit_in_bytes": str(2**26), "memory.max": str(2**26)}
        read = {path.name: path.read_text().strip() for group in groups for path in Path(group).iterdir() if path.name in limits}
        assert read == {name: limit for name, limit in limits.items() if name in read}
    finally:
        cgroups.remove(groups)
    assert [group for group in groups if Path(group).exists()] == []


def test_a_group_that_only_begins_like_what_is_mounted_is_not_below_it(tmp_path: Path) -> None:
    (tmp_path / "lice").mkdir()
    mounts = f"1 2 0:30 /s {tmp_path} rw - cgroup cgroup rw,pids\n"
    assert cgroups.find(mounts, "5:pids:/s/lice\n") == {"pids": f"{tmp_path}/lice"}
    assert cgroups.find(mounts, "5:pids:/slice\n") == {}
