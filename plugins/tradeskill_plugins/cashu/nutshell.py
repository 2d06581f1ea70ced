"""A mint of one's own, for tests: nutshell, from the environment that it is installed in, on loopback, in its own folder, ended by its pid.

Nutshell's packages cannot share an environment with ours, so it is found and never imported. Every call blocks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tradeskill.errors import UnavailableError

__all__ = ["FEE_PPK", "INSTALL", "Mint", "lacking", "minting", "of_checkout"]

INSTALL: Final = "'cashu==0.20.2' 'marshmallow<4' 'limits<5'"  # what an environment of its own has to be given
CHECKOUT: Final = ".venv-mint"  # where `make test` puts one
PATIENCE: Final = 90.0  # seconds; a bound for a machine that is busy, not a duration that anything takes
FEE_PPK: Final = 100  # thousandths of a sat an input, unless a test asks for another fee
SETTINGS: Final[Mapping[str, str]] = {
    "MINT_BACKEND_BOLT11_SAT": "FakeWallet",
    "FAKEWALLET_DELAY_INCOMING_PAYMENT": "0",
    "FAKEWALLET_DELAY_OUTGOING_PAYMENT": "0",
    "MINT_LISTEN_HOST": "127.0.0.1",
    "MINT_RATE_LIMIT": "FALSE",
    "MINT_QUOTE_BACKEND_CHECK_RATE_LIMIT": "0",
    "TOR": "FALSE",
    "LOG_LEVEL": "INFO",
}


class Mint:
    """One mint with its database. With `pays` (FakeWallet's BRR) every invoice counts as paid at once; without, only what is melted against it.

    Restarting keeps URL, keys and database; settings may change: fund with `pays=True`, then `restart(pays=False)`.
    """

    def __init__(self, python: Path, folder: Path, fee_ppk: int = FEE_PPK, pays: bool = True, key: str = "test mint", **settings: str) -> None:
        self.folder, self._python, self._settings = folder, python, settings
        self._fee_ppk, self._pays, self._key = fee_ppk, pays, key
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, pays: bool | None = None, fee_ppk: int | None = None, **settings: str) -> None:
        """Returns once it answers. The first time on a port that the system chooses, afterwards on the same."""
        self._pays = self._pays if pays is None else pays
        self._fee_ppk = self._fee_ppk if fee_ppk is None else fee_ppk
        self._settings |= settings
        seen = self._log().stat().st_size if self._log().exists() else 0
        with self._log().open("ab") as log:
            self._process = subprocess.Popen(
                [self._python, "-m", "cashu.mint", "--port", str(self._port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=self.folder,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers(seen):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise UnavailableError(f"the mint does not start: {self._log().read_text('utf-8', 'replace')[-4000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """In order, as far as it does within a few seconds."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def restart(self, pays: bool | None = None, fee_ppk: int | None = None, **settings: str) -> None:
        """On the same database and URL."""
        self.stop()
        self.start(pays, fee_ppk, **settings)

    def rotate(self, final_expiry: int = 0) -> None:
        """The operator's way: a new active keyset beside the old ones, which are honoured on. 0 is what this mint says for "never".

        Needs the mint's management RPC, on the port that its settings name.
        """
        words = ["--host", "127.0.0.1", "--port", self._settings["MINT_RPC_SERVER_PORT"], "--insecure", "next-keyset", "sat", str(self._fee_ppk), "0"]
        program = "from cashu.mint.management_rpc.cli.cli import cli; cli()"
        command: list[str | Path] = [self._python, "-c", program, *words, str(final_expiry)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, env=self._environment(), timeout=PATIENCE, check=False)
        if "successfully created" not in done.stdout:
            raise UnavailableError(f"the mint's keyset is not rotated: {done.stdout}{done.stderr}")

    def _answers(self, seen: int) -> bool:
        if not self._port:
            with self._log().open("rb") as log:
                log.seek(seen)
                found = re.search(rb"running on http://127\.0\.0\.1:(\d+)", log.read())
            self._port = int(found.group(1)) if found else 0
        try:
            with urllib.request.urlopen(f"{self.url}/v1/info", timeout=5) as answer:  # noqa: S310 - http on loopback, no other scheme
                return answer.status == 200 and self._process is not None and self._process.poll() is None
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def _log(self) -> Path:
        return self.folder / "mint.log"

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),  # where it would look for settings of somebody else
            "CASHU_DIR": str(self.folder),
            "MINT_DATABASE": str(self.folder / "database"),
            "MINT_PRIVATE_KEY": self._key,
            "MINT_INPUT_FEE_PPK": str(self._fee_ppk),
            "FAKEWALLET_BRR": "TRUE" if self._pays else "FALSE",
            **SETTINGS,
            **self._settings,
        }


@contextmanager
def minting(environment: Path, fee_ppk: int = FEE_PPK, pays: bool = True, key: str = "test mint", **settings: str) -> Iterator[Mint]:
    """A fresh mint, gone afterwards with all it held. UnavailableError where there is no nutshell, or it does not start."""
    if why := lacking(environment):
        raise UnavailableError(why)
    folder = Path(tempfile.mkdtemp(prefix="mint-"))
    mint: Mint | None = None
    try:
        mint = Mint(environment / "bin" / "python", folder, fee_ppk, pays, key, **settings)
        yield mint
    finally:
        if mint is not None:
            mint.kill()
        shutil.rmtree(folder)


def lacking(environment: Path) -> str:
    """Why no mint can be started from that folder; "" where it can."""
    if any(environment.glob("lib/python*/site-packages/cashu/mint/main.py")) and (environment / "bin" / "python").exists():
        return ""
    return f"{environment} is no environment that nutshell, a Cashu mint, is installed in"


def of_checkout() -> Path | None:
    """Where the checkout that this module lies in has its mint; None where it is no checkout."""
    root = Path(__file__).parents[3]
    return root / CHECKOUT if (root / "pyproject.toml").is_file() else None
