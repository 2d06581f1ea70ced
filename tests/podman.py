"""A real container engine for the tests: Podman's service on a unix socket in a temporary folder, with storage of its own, ended by its pid.

Its one image is made of this machine's own files: busybox and the Python that runs the tests. Nothing is fetched.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradeskill_plugins.container.own_image import add_folders, add_libraries, add_link

PATIENCE = 60.0  # seconds; a bound for a machine that is busy, not a duration that anything takes
PROGRAMS = {"podman": "podman", "runc": "runc", "busybox": "busybox-static"}  # program -> its package
APPLETS = "sh cat echo sleep yes head dd ls id env ln mkfifo mkdir rm nc ps seq true false touch wc printf kill mknod chmod truncate".split()  # noqa: SIM905  # as it is typed
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=10000:10000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_LEFT_OUT = {"__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "distutils", "unittest", "pydoc_data"} | {
    "site-packages",
    "dist-packages",
}


def missing() -> str:
    """Why there can be no engine here; "" where there can."""
    lacking = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if lacking:
        return f"no container engine: apt install {' '.join(lacking)}"
    return "" if os.geteuid() == 0 else "a container engine for the tests needs root"


class Engine:
    """One service and what it stores. `socket` is what a profile's settings name it by; `image` the id of the one image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = f"unix://{folder}/engine.sock"
        (folder / "containers.conf").write_text(CONFIGURATION)
        self._service: subprocess.Popen[bytes] | None = None
        self.image = self.imported(_image())

    def imported(self, archive: bytes, *changes: str) -> str:
        """The id of an image made of a tar; `changes` as in a Dockerfile."""
        done = subprocess.run(
            [*self._podman(), "import", "-q", *(f"--change={change}" for change in changes), "-"],
            input=archive,
            env=self._environment(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return "sha256:" + done.stdout.decode().strip().removeprefix("sha256:")

    def start(self) -> None:
        """Returns once it answers."""
        path = self.folder / "engine.sock"
        path.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._service = subprocess.Popen(
                [*self._podman(), "system", "service", "-t", "0", self.socket],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not _answers(path):
            assert self._service.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the engine does not answer"
            time.sleep(0.01)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the service; containers go on without it, as Podman's do."""
        assert self._service is not None
        self._service.send_signal(number)
        self._service.wait(PATIENCE)

    def containers(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.command("ps", "-a", "--format", "json") or "[]")
        return found

    def starts(self, prefix: str) -> int:
        """How many times containers whose name begins so were started."""
        lines = self.command("events", "--stream=false", "--filter", "event=start", "--filter", "type=container", "--format", "{{.Name}}").splitlines()
        return sum(line.startswith(prefix) for line in lines)

    def command(self, *words: str) -> str:
        return subprocess.run([*self._podman(), *words], env=self._environment(), capture_output=True, timeout=PATIENCE, check=True).stdout.decode()

    @contextmanager
    def open_to_all(self) -> Iterator[None]:
        """Let any user of this machine talk to it meanwhile, as members of Docker's group may."""
        self.folder.chmod(0o711)
        (self.folder / "engine.sock").chmod(0o666)
        yield
        (self.folder / "engine.sock").chmod(0o600)
        self.folder.chmod(0o700)

    def end(self) -> None:
        """No container is left, then no service."""
        try:
            self.command("rm", "--all", "--force", "--time=0", "--volumes")
        finally:
            self.stop()

    def _podman(self) -> list[str]:
        return ["podman", "--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run", "--tmpdir", f"{self.folder}/tmp"]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "https_proxy": "http://user:canary-of-the-engine@127.0.0.1:9",  # Podman would hand it to every container
        }


@contextmanager
def engine() -> Iterator[Engine]:
    """A running engine in a folder with a short name: a socket's path has 107 characters at most."""
    folder = Path(tempfile.mkdtemp(prefix="eng", dir="/tmp"))
    made = Engine(folder)
    try:
        made.start()
        try:
            yield made
        finally:
            made.end()
    finally:
        for mount in sorted((line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if f" {folder}/" in line), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, timeout=PATIENCE, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
            client.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            return b" 200 " in client.recv(100)
        except OSError:
            return False


def _image() -> bytes:
    """busybox under its applets' names, and Python with its standard library and the shared libraries that these need."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        add_folders(archive)
        archive.add(os.path.realpath(shutil.which("busybox") or ""), "bin/busybox")
        for applet in APPLETS:
            add_link(archive, f"bin/{applet}", "busybox")
        program = Path(sys._base_executable).resolve()  # a virtual environment's own is a link to it
        archive.add(program, "usr/bin/python3")
        add_link(archive, "usr/bin/python", "python3")
        library, needed = Path(sysconfig.get_path("stdlib")), [program]
        for folder_name, folders, files in os.walk(library):
            folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("config-"))
            for path in (Path(folder_name, name) for name in sorted(files)):
                if path.suffix == ".py" or (path.suffix == ".so" and not path.name.startswith(("_test", "_codecs_", "_ctypes_test", "_sqlite"))):
                    archive.add(path.resolve(), f"usr/lib/{library.name}/{path.relative_to(library)}")
                    needed += [path] if path.suffix == ".so" else []
        add_libraries(archive, needed)
    return buffer.getvalue()
