"""Sets the demo's stage (ledger, market, pages, two profiles), starts the actors as processes, and judges what they did from outside."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tradeskill.demo.rails import rail_named
from tradeskill.errors import NotFoundError, TradeskillError, UnavailableError, UsageError

__all__ = ["Stage", "examples_folder"]

START_SECONDS: Final = 60.0
JOB_SECONDS: Final = 120.0
RUN: Final = ("python", "-I", "extract.py")
MEMORY: Final = 512 * 2**20


def examples_folder() -> Path:
    """Those of the checkout, or those that were installed with the package."""
    here = Path(__file__).resolve()
    for folder in (here.parents[3] / "examples", here.parents[2] / "tradeskill_examples"):
        if (folder / "extract.py").exists():
            return folder
    raise NotFoundError("the demo's examples are not installed: run it from a checkout (make demo), or install tradeskill[examples]")


class Stage:
    """`async with Stage(...)`; leaves no process, port or file behind."""

    def __init__(self, jobs: int, concurrency: int, tamper: str, tell: Callable[[str], None], market: str = "embedded", rail: str = "nano") -> None:
        """`market`: embedded (a file) or relay (a process of its own). `rail`: nano (a dev ledger) or cashu (a mint, where one is installed)."""
        if tamper not in ("", "quote", "receipt", "result"):
            raise UsageError(f"--tamper {tamper!r} is not one of quote, receipt, result")
        if market not in ("embedded", "relay"):
            raise UsageError(f"--market {market!r} is not one of embedded, relay")
        self._jobs, self._concurrency, self._tamper, self._tell, self._market = jobs, concurrency, tamper, tell, market
        self.examples = examples_folder()
        self._rail = rail_named(rail, self)
        self._actors: list[asyncio.subprocess.Process] = []
        self._shut_in: dict[str, Any] = {}  # which backend the seller names, and what goes with it
        self._began = time.monotonic()

    async def __aenter__(self) -> Stage:
        self.home = Path(tempfile.mkdtemp(prefix="tradeskill-demo-"))
        self._pages = _Pages(self.examples / "pages")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for actor in reversed(self._actors):
            await _end(actor)
        self._pages.close()
        shutil.rmtree(self.home, ignore_errors=True)

    async def play(self) -> dict[str, Any]:
        """The whole demo; what it returns is what `--json` prints."""
        await self._rail.open()
        market = await self._open_market()
        made = await asyncio.gather(self._choose_backend(), self._profile("seller", market), self._profile("buyer", market))
        self.say(f"buyer funded: {await self._rail.fund(made[2], self._jobs)}")
        (self.home / "seller.yaml").write_text(json.dumps(self._offers()))
        ready = await self.start("the seller", ["sell", str(self.home / "seller.yaml"), "--json"], self.home / "seller")
        offer_id = next(iter(ready["offers"].values()))
        self.say(f"seller {ready['seller'][:16]}… offers “Web page to Markdown” for {self._rail.price}")
        reports = await self._buy(offer_id)
        verified = await self._verify(ready["seller"], [report for report in reports if report["state"] == "received"])
        jobs = await self._judge(reports, verified)
        received = str(await self._rail.received())
        total_ms = round((time.monotonic() - self._began) * 1000)
        if self._jobs == 1:
            jobs[0]["total_ms"] = total_ms
            self._describe(jobs[0])
            return jobs[0]
        delivered = sum(job["status"] == "delivered" for job in jobs)
        amount = sum(int(job["amount_raw"]) for job in jobs if job["status"] == "delivered")
        self.say(f"{delivered} of {self._jobs} jobs delivered and verified in {total_ms / 1000:.1f} s")
        return {"jobs": jobs, "delivered": delivered, "total_raw": str(amount), "seller_received_raw": received, "total_ms": total_ms}

    def _describe(self, job: dict[str, Any]) -> None:
        for step in job["steps"]:
            self._tell(f"  {step['at_ms']:>6} ms  {step['name']}")
        if job["status"] == "delivered":
            self._tell(f"  paid {job['amount_raw']} {self._rail.unit} in {self._rail.finality} {job['payment_hash']}")
            self._tell(f"  to the fresh address {job['invoice_address']}, executed under fence {job['fence']}")
            self._tell(f"  result {job['result_sha256']}, receipt {'verified' if job['receipt_verified'] else 'NOT VERIFIED'} by a process of its own")
            self._tell("next: see README.md for the three-terminal version, or `tradeskill --help`")
        else:
            self._tell(f"  the job ended as {job['status']}: {job['error']}")

    # actors

    async def _open_market(self) -> list[str]:
        """What `init` is told of the market. A relay's rate limits are made for many strangers; for a load from one buyer they are lifted."""
        if self._market == "embedded":
            return ["--market", str(self.home / "market.db")]
        load = self._jobs > 1
        options = ["--data", str(self.home / "relay.db"), "--port", "0", "--network", "dev", "--quiet", "--json", *(["--no-limits"] if load else [])]
        relay = await self.start("the relay", ["relay", "serve", *options], self.home)
        self.say(f"relay: {relay['url']}" + (" (--no-limits, because one buyer asks for many jobs)" if load else ""))
        return ["--market", "relay", "--market-url", relay["url"]]

    async def _choose_backend(self) -> None:
        """The sandbox, where the job's own program starts in it here; else a plain process, and it is said why."""
        from tradeskill.contracts import Limits, PluginContext, Task
        from tradeskill.plugins import Plugins
        from tradeskill.signing import Identity
        from tradeskill.world import World

        try:
            context = PluginContext("bubblewrap", "dev", self.home / "trial", World(), Identity(bytes(32)), lambda: "")
            backend = Plugins().require("bubblewrap", "backend").open_backend({}, context)
            await backend.open()
            await backend.start("trial", Task(RUN, b"{}", self.examples, network=True), Limits(memory=MEMORY))
            status = await backend.wait("trial", START_SECONDS)
            await backend.stop("trial")
            await backend.remove("trial")
            await backend.close()
            if "the input has no url" not in status.detail:  # what the program says of such an input
                raise UnavailableError(status.detail)
        except TradeskillError as error:
            self._shut_in = {"backend": "process", "trusted": True}
            self.say(f"jobs run as plain processes: {error}")
        else:
            self._shut_in = {"backend": "bubblewrap", "isolation": "sandbox", "network": True}
            self.say("jobs run in bubblewrap: no files, processes or privileges of this machine, but its network, for they fetch pages")

    def _offers(self) -> dict[str, Any]:
        room = max(4, self._concurrency * 2)
        return {
            "offers": [
                {
                    "name": "web-extract",
                    "title": "Web page to Markdown",
                    "description": "Fetches one web page and returns its main content as Markdown.",
                    "tags": ["web", "markdown"],
                    "price": self._rail.price,
                    "input": {"type": "object", "required": ["url"], "properties": {"url": {"type": "string", "format": "uri"}}, "additionalProperties": False},
                    **self._shut_in,
                    "run": [*RUN, "--allow-loopback"],
                    "folder": str(self.examples),
                    "pure": True,
                    "limits": {"seconds": 60, "memory": f"{MEMORY >> 20}M", "output": "4M"},
                    "capacity": {"jobs": room, "per_buyer": room},
                }
            ],
            "seller": {"poll_seconds": 1.0, "workers": max(4, min(self._concurrency, 16))},
        }

    async def _profile(self, name: str, market: Sequence[str]) -> dict[str, Any]:
        made = await self._rail.profile(name, market)
        self.say(f"{name} made: {made['identity'][:16]}…")
        return made

    def password(self, name: str) -> Path:
        """A new one, in a file of its own."""
        password = self.home / f"{name}.password"
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(os.urandom(16).hex())
        return password

    async def _buy(self, offer_id: str) -> list[dict[str, Any]]:
        """One buyer process; it reports each finished job as a line."""
        wish = {
            "offer_id": offer_id,
            "urls": [self._pages.url(number) for number in range(self._jobs)],
            "concurrency": self._concurrency,
            "tamper": self._tamper,
            "output": str(self.home / "received"),
        }
        process = await self._spawn(["-m", "tradeskill.demo.buyer"], self.home / "buyer", json.dumps(wish))
        assert process.stdout is not None
        reports: list[dict[str, Any]] = []
        async for line in process.stdout:
            reports.append(json.loads(line))
            if self._jobs > 1 and len(reports) % max(1, self._jobs // 10) == 0:
                self.say(f"{len(reports)} of {self._jobs} jobs")
        if await process.wait() != 0 or len(reports) != self._jobs:
            raise UnavailableError(f"the buyer ended with code {process.returncode} after {len(reports)} of {self._jobs} jobs (see the messages above)")
        return reports

    async def _verify(self, seller_key: str, reports: Sequence[dict[str, Any]]) -> dict[str, bool]:
        """By a process that knows nothing but the files and the seller's key pinned from the offer."""
        files = [report["chain_file"] for report in reports]
        found: dict[str, bool] = {}
        for start in range(0, len(files), 100):
            part = files[start : start + 100]
            process = await self._spawn(["-m", "tradeskill", "receipt", "verify", *part, "--seller", seller_key, "--json"], self.home / "buyer", None)
            out, _ = await process.communicate()
            try:
                value = json.loads(out)
            except ValueError:
                continue
            entries = value if isinstance(value, list) else [value]
            found.update({entry["job_id"]: entry.get("receipt_verified") is True for entry in entries if "job_id" in entry})
        return found

    async def _judge(self, reports: Sequence[dict[str, Any]], verified: dict[str, bool]) -> list[dict[str, Any]]:
        found = await self._rail.judge(reports)
        return [self._judged(report, verified, *seen) for report, seen in zip(reports, found, strict=True)]

    def _judged(self, report: dict[str, Any], verified: dict[str, bool], final: bool, came: int) -> dict[str, Any]:
        """What the ledger and the seller's journal say of a job, next to what the buyer says."""
        job: dict[str, Any] = {
            "job_id": report["job_id"],
            "status": "delivered" if report["state"] == "received" else report["state"],
            "offer": report["offer"],
            "amount_raw": report["amount_raw"],
            "unit": self._rail.unit,
            "invoice_address": report["invoice_address"],
            "payment_hash": report["payment_hash"],
            "confirmed": final,
            "fence": 0,
            "result_sha256": report["result_sha256"],
            "receipt_verified": verified.get(report["job_id"], False),
            "seller_received_raw": str(came),
            "error": report["error"],
        }
        sold = self._sold(report["job_id"])
        job["fence"] = sold["fence"] if sold else 0
        times = {name: at - report["began_at"] for name, at in report["steps"].items()}
        for name, column in (("settled by the seller", "paid_at"), ("execution started", "started_at"), ("result stored, receipt signed", "finished_at")):
            if sold and sold[column]:
                times[name] = sold[column] - report["began_at"]
        job["steps"] = [{"name": name, "at_ms": at} for name, at in sorted(times.items(), key=lambda item: item[1])]
        job["total_ms"] = report["total_ms"]
        return job

    def _sold(self, job_id: str | None) -> dict[str, Any] | None:
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(f"file:{self.home / 'seller' / 'journal.db'}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            row = connection.execute("SELECT fence, paid_at, started_at, finished_at FROM fulfilments WHERE job_id = ?", (job_id,)).fetchone()
        return None if row is None else dict(row)

    # processes

    def say(self, text: str) -> None:
        self._tell(f"{(time.monotonic() - self._began):6.1f} s  {text}")

    async def _spawn(self, arguments: Sequence[str], home: Path, stdin: str | None) -> asyncio.subprocess.Process:
        name = home.name if home != self.home else "none"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TRADESKILL_") or key == "TRADESKILL_CRASH_AT"},
            "TRADESKILL_HOME": str(home),
            "TRADESKILL_PASSWORD_FILE": str(self.home / f"{name}.password"),
            "PYTHONUNBUFFERED": "1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 22,
        )
        self._actors.append(process)
        if stdin is not None:
            assert process.stdin is not None
            process.stdin.write(stdin.encode())
            process.stdin.close()
        return process

    async def program(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> asyncio.subprocess.Process:
        """Somebody else's program, as an actor; what it prints goes to `log`."""
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *arguments, env={"PATH": os.environ.get("PATH", ""), **environment}, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out
            )
        self._actors.append(process)
        return process

    async def start(self, what: str, arguments: Sequence[str], home: Path) -> dict[str, Any]:
        """A process that goes on; its first line of JSON."""
        process = await self._spawn(["-m", "tradeskill", *arguments], home, None)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise UnavailableError(f"{what} did not start within {START_SECONDS:g} s") from error
        if not line:
            raise UnavailableError(f"{what} did not start (see the message above)")
        value: dict[str, Any] = json.loads(line)
        return value

    async def command(self, what: str, arguments: Sequence[str], home: Path) -> dict[str, Any]:
        process = await self._spawn(["-m", "tradeskill", *arguments], home, None)
        out, _ = await process.communicate()
        if process.returncode != 0:
            raise UnavailableError(f"{what} ended with code {process.returncode} (see the message above)")
        value: dict[str, Any] = json.loads(out)
        return value


class _Pages:
    """The demo's web: the example pages on a loopback port of their own."""

    def __init__(self, folder: Path) -> None:
        self._names = sorted(path.name for path in folder.glob("*.html"))
        handler = functools.partial(_Quiet, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def url(self, number: int) -> str:
        """Pages in turn; the query makes each wish a different one."""
        port = self._server.server_address[1]
        return f"http://127.0.0.1:{port}/{self._names[number % len(self._names)]}?visit={number}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        return


async def _end(process: asyncio.subprocess.Process) -> None:
    """Politely, then not."""
    for send in (process.terminate, process.kill):
        if process.returncode is not None:
            return
        send()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            continue
