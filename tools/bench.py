"""Measures what we claim and prints one JSON object: `make bench SIZE=small|full`. Everything runs on this machine, in a temporary folder, over loopback.

A number alone says more about the machine than about us, so each claim is a ratio of two things measured in one run, beside the figures it came from.
Times are milliseconds, rates are per second, ratios are plain numbers. One section after the other; nothing else of ours runs meanwhile.
It runs past 400 lines because each claim's measurement stands whole in its section.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backend_bench import backends as backend_figures
from mcp_bench import mcp as mcp_figures
from mint_bench import cashu as cashu_figures
from relay_bench import RelaySize
from relay_bench import relay as relay_figures

PASSWORD = "for this measurement only"
WRITERS, CLIENTS, TURNS = 16, 8, 5
LIMIT_SECONDS = 900
SEND_DEV = 0xFFC0000000000000
TYPER_PROGRAM = """
import typer
app = typer.Typer(add_completion=False)
@app.command()
def offers(as_json: bool = typer.Option(False, "--json")) -> None:
    typer.echo("[]")
app()
"""
WORK_PROGRAM = """
import os, sys
from nanopy import ext
for line in sys.stdin:
    root, threshold = line.split()
    ext.work_generate(bytes.fromhex(root), int(threshold, 16), os.urandom(128))
    print(flush=True)
"""


@dataclass(frozen=True)
class Size:
    starts: int  # of each command
    jobs: int  # sold to each of the two sellers
    at_once: int  # of those
    poll_seconds: float  # of both sellers; 5 is the default of the configuration
    commits: int  # one after the other, and by each of WRITERS
    roots: int  # to find work for
    hashes: int  # expected for each
    demo_jobs: int
    requests: int  # of each kind, to the ledger
    blocks: int  # published
    relay: RelaySize


SIZES = {
    "full": Size(
        starts=30, jobs=40, at_once=4, poll_seconds=5.0, commits=300, roots=150, hashes=2**19, demo_jobs=100, requests=2000, blocks=1000,
        relay=RelaySize(turns=9, lifecycles=128, few=1_000, many=100_000, gets=20),
    ),
    "small": Size(
        starts=7, jobs=20, at_once=10, poll_seconds=5.0, commits=60, roots=50, hashes=2**17, demo_jobs=8, requests=400, blocks=200,
        relay=RelaySize(turns=3, lifecycles=64, few=1_000, many=10_000, gets=10),
    ),
    # the same ways in seconds; its figures mean nothing
    "shape": Size(
        starts=1, jobs=2, at_once=2, poll_seconds=0.5, commits=5, roots=2, hashes=2**15, demo_jobs=2, requests=40, blocks=40,
        relay=RelaySize(turns=1, lifecycles=16, few=60, many=120, gets=2),
    ),
}


def ratio(a: float, b: float) -> float:
    return round(a / b, 3)


def spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(map(float, values))
    return {"median": round(statistics.median(ordered), 2), "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 2), "n": len(ordered)}


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRADESKILL_")}
    password = home.parent / "password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD)
    return {**kept, "TRADESKILL_HOME": str(home), "TRADESKILL_PASSWORD_FILE": str(password), "PYTHONUNBUFFERED": "1"}


@contextmanager
def running(arguments: Sequence[str], env: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The JSON line that a `tradeskill` command begins with; the command goes on until the block ends."""
    process = subprocess.Popen([sys.executable, "-m", "tradeskill", *arguments], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"bench: tradeskill {arguments[0]} did not start")
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def devnet(folder: Path) -> Any:
    """A ledger in a process of its own, in memory; its endpoints."""
    return running(["devnet", "--rpc-port", "0", "--ws-port", "0", "--json"], environment(folder / "nobody"))


# (a) how long a command takes to start


def cli(size: Size, folder: Path) -> dict[str, Any]:
    """Cold starts by turns, so that whatever else the machine does hits all alike. `tradeskill` is the installed script."""
    from tradeskill.profile import create_profile
    from tradeskill.world import World

    (folder / "one_command.py").write_text(TYPER_PROGRAM)
    base = {"network": "dev", "market": {"plugin": "embedded", "path": str(folder / "market.db")}}
    create_profile(folder / "home", base, "dev", PASSWORD, World())
    script = str(Path(sys.executable).parent / "tradeskill")
    commands = {
        "python_pass": [sys.executable, "-c", "pass"],
        "version": [script, "--version"],
        "typer_program": [sys.executable, str(folder / "one_command.py"), "--json"],
        "offers": [script, "offers", "--json"],
    }
    env = environment(folder / "home")
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(size.starts + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
            if turn:  # the first of each fills the caches
                times[name].append((time.perf_counter() - began) * 1000)
    medians = {name: spread(values) for name, values in times.items()}
    return {
        **{f"{name}_ms": found for name, found in medians.items()},
        "version_to_python_pass": ratio(medians["version"]["median"], medians["python_pass"]["median"]),
        "offers_to_typer_program": ratio(medians["offers"]["median"], medians["typer_program"]["median"]),
    }


# (b) from the confirmation on the ledger to the start of the work


def seller(size: Size, folder: Path) -> dict[str, Any]:
    """The same jobs sold by a worker that hears of confirmations over the websocket, then by one that only polls. The job is `date`."""
    from tradeskill.profile import create_profile
    from tradeskill.world import World

    with devnet(folder) as ledger:
        wallet = {"plugin": "nano", "rpc": [ledger["rpc"]], "ws": ledger["ws"]}
        base = {"network": "dev", "market": {"plugin": "embedded", "path": str(folder / "market.db")}, "wallets": [wallet]}
        for name in ("seller", "buyer"):
            create_profile(folder / name, base, "dev", PASSWORD, World())
        offer = {
            "name": "clock",
            "title": "The time",
            "price": "0.001 XNO",
            "trusted": True,
            "run": ["date", "+%s%N"],
            "capacity": {"jobs": 1000, "per_buyer": 1000},
        }
        found: dict[str, Any] = {}
        for way, entry in (("hints", wallet), ("polling", {key: value for key, value in wallet.items() if key != "ws"})):
            (folder / f"{way}.yaml").write_text(
                json.dumps({"wallets": [entry], "offers": [offer], "seller": {"poll_seconds": size.poll_seconds, "workers": 16}})
            )
            command = ["sell", str(folder / f"{way}.yaml"), "--json"]
            with running(command, environment(folder / "seller")) as ready:
                found[f"{way}_ms"] = asyncio.run(_sold(size, folder, ledger, ready["offers"]["clock"], way))
    return {
        "what": "websocket confirmation -> start recorded in the journal; -> the work's process running (it prints the time)",
        "poll_seconds": size.poll_seconds,
        "at_once": size.at_once,
        **found,
        "polling_to_hints": ratio(found["polling_ms"]["recorded"]["median"], max(found["hints_ms"]["recorded"]["median"], 0.01)),
    }


async def _sold(size: Size, folder: Path, ledger: dict[str, Any], offer_id: str, way: str) -> dict[str, Any]:
    from tradeskill.profile import Profile
    from tradeskill_wallet.devnet import fund as faucet

    confirmed: dict[str, float] = {}
    bought: list[tuple[str, str, int]] = []  # job, payment, when its process ran (ns)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_listening(ledger["ws"], confirmed))
        profile = await stack.enter_async_context(Profile.load(folder / "buyer", lambda: PASSWORD))
        money = await profile.wallet()
        await asyncio.to_thread(
            faucet.fund, faucet.asker(ledger["rpc"]), await money.address(), 10**30, work=_work, random_bytes=os.urandom, sleep=time.sleep
        )
        await money.collect()
        buyer = await profile.buyer()
        offer = await (await profile.market()).offer(offer_id)
        room = asyncio.Semaphore(size.at_once)

        async def one(number: int) -> None:
            async with room:
                purchase = await buyer.intend(offer, {"way": way, "number": number})
                purchase = await buyer.drive(purchase.purchase_id)
                if purchase.state != "received":
                    raise SystemExit(f"bench: a job ended as {purchase.state}: {purchase.error_message}")
                bought.append((purchase.job_id or "", purchase.payment_id or "", int(buyer.result(purchase))))

        await asyncio.gather(*[one(number) for number in range(size.jobs)])
    with closing(sqlite3.connect(f"file:{folder / 'seller' / 'journal.db'}?mode=ro", uri=True)) as journal:
        started = dict(journal.execute("SELECT job_id, at FROM starts").fetchall())
    return {
        "recorded": spread([started[job] - confirmed[payment] for job, payment, _ in bought]),
        "running": spread([ran / 1e6 - confirmed[payment] for _, payment, ran in bought]),
    }


@asynccontextmanager
async def _listening(url: str, confirmed: dict[str, float]) -> Any:
    """Notes when each block's confirmation arrives here, in milliseconds of the clock that the seller and `date` use too."""
    from websockets.asyncio.client import connect

    async with connect(url, proxy=None) as socket:
        await socket.send(json.dumps({"action": "subscribe", "topic": "confirmation", "ack": True}))
        await socket.recv()

        async def listen() -> None:
            async for message in socket:
                confirmed.setdefault(json.loads(message)["message"]["hash"], time.time_ns() / 1e6)

        task = asyncio.create_task(listen())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _work(root: bytes, threshold: int) -> str:
    from tradeskill_wallet.work import compute

    return compute(root, threshold, random.getrandbits(64))


# (c) the journal's durable commits


def journal(size: Size, folder: Path) -> dict[str, Any]:
    """One small row a commit, FULL sync, WAL; against writing 4 KiB and fsync on the same disk. By turns, the median of each."""
    alone, grouped, raw = asyncio.run(_commits(size, folder))
    return {
        "alone_per_s": round(alone, 1),
        "grouped_per_s": round(grouped, 1),
        "writers": WRITERS,
        "fsync_per_s": round(raw, 1),
        "grouped_to_alone": ratio(grouped, alone),
        "alone_to_fsync": ratio(alone, raw),
        "grouped_to_fsync": ratio(grouped, raw),
    }


async def _commits(size: Size, folder: Path) -> list[float]:
    from tradeskill.journal import Database, selling
    from tradeskill.sqlite import connector
    from tradeskill.world import World

    database = Database(connector(folder / "journal.db", "the journal"), World(), "dev")
    each = size.commits // TURNS

    async def write(name: str) -> None:
        for number in range(each):
            await database.write(partial(selling.save_cursor, name=name, value=str(number)))

    await write("warm")
    found: list[list[float]] = [[], [], []]
    with os.fdopen(os.open(folder / "raw", os.O_WRONLY | os.O_CREAT), "wb", buffering=0) as file:
        for _ in range(TURNS):
            found[0].append(each / await _timed(lambda: write("alone")))
            found[1].append(WRITERS * each / await _timed(lambda: asyncio.gather(*[write(f"writer {n}") for n in range(WRITERS)])))
            began = time.perf_counter()
            for _ in range(each):
                file.write(bytes(4096))
                os.fsync(file.fileno())
            found[2].append(each / (time.perf_counter() - began))
    await database.close()
    return [statistics.median(rates) for rates in found]


async def _timed(start: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await start()
    return time.perf_counter() - began


# (d) work


def work(size: Size, folder: Path) -> dict[str, Any]:
    """Expected hashes over the time to find work for so many roots: the wallet's way (a process of its own) against bare nanopy in a process."""
    from tradeskill_wallet.work import cheap, compute

    threshold = 2**64 - 2**64 // size.hashes
    assert not cheap(threshold)
    roots = [os.urandom(32) for _ in range(size.roots)]
    with subprocess.Popen([sys.executable, "-c", WORK_PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bare:
        ours, theirs = asyncio.run(_searched(roots, threshold, bare))
    began = time.perf_counter()
    for root in roots:
        compute(root, SEND_DEV, random.getrandbits(64))
    at_once = (time.perf_counter() - began) * 1000 / len(roots)
    expected = size.roots * size.hashes
    return {
        "hashes_expected": expected,
        "chance_error": round((2 / size.roots) ** 0.5, 3),  # of the ratio, one standard deviation: finding work is luck
        "wallet_hashes_per_s": round(expected / ours),
        "nanopy_hashes_per_s": round(expected / theirs),
        "wallet_to_nanopy": ratio(theirs, ours),
        "dev_send_ms": round(at_once, 2),  # plain Python, in place: what a send on the dev ledger costs
    }


async def _searched(roots: Sequence[bytes], threshold: int, bare: subprocess.Popen[str]) -> tuple[float, float]:
    """Seconds that the wallet's way and the bare process took, root by root in turn; the first of each is not counted."""
    from tradeskill.world import World
    from tradeskill_wallet.work import WorkSource

    assert bare.stdin is not None
    assert bare.stdout is not None
    source = WorkSource(World(), None)  # type: ignore[arg-type]  # it computes here and asks no node
    ours = theirs = 0.0
    for number, root in enumerate([os.urandom(32), *roots]):
        took = await _timed(lambda root=root: source.find(root, threshold))  # type: ignore[misc]  # mypy cannot infer a defaulted lambda
        began = time.perf_counter()
        bare.stdin.write(f"{root.hex()} {threshold:x}\n")
        bare.stdin.flush()
        bare.stdout.readline()
        if number:
            ours, theirs = ours + took, theirs + time.perf_counter() - began
    await source.close()
    bare.stdin.close()
    return ours, theirs


# (e) the demo


def demo(size: Size, folder: Path) -> dict[str, Any]:
    """Whole jobs a second: four processes, ledger and pages included; set-up and the separate verification count too."""
    command = [sys.executable, "-m", "tradeskill", "demo", "--jobs", str(size.demo_jobs), "--concurrency", "10", "--json"]
    done = subprocess.run(command, env=environment(folder / "nobody"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    each = spread([job["total_ms"] for job in found["jobs"]])
    return {
        "jobs": size.demo_jobs,
        "delivered": found["delivered"],
        "concurrency": 10,
        "total_ms": found["total_ms"],
        "job_ms": each,
        "jobs_per_s": round(size.demo_jobs * 1000 / found["total_ms"], 2),
    }


# (f) the ledger


def ledger(size: Size, folder: Path) -> dict[str, Any]:
    """Answers a second from one devnet process, eight clients at once, one connection a request as the node has it; the clients' own time is in it."""
    with devnet(folder) as ready:
        no_op, info, process = asyncio.run(_rates(size, ready))
    return {
        "no_op_per_s": round(no_op, 1),
        "block_info_per_s": round(info, 1),
        "process_per_s": round(process, 1),
        "block_info_to_no_op": ratio(info, no_op),
        "process_to_no_op": ratio(process, no_op),
    }


async def _rates(size: Size, ready: dict[str, Any]) -> list[float]:
    """A GET (refused before anything is looked at), block_info, process: by turns, the median of each."""
    port = int(ready["rpc"].rpartition(":")[2])
    chains = await _chains(ready["rpc"], CLIENTS, size.blocks // CLIENTS)
    send = {"action": "process", "json_block": "true", "subtype": "send"}
    published = [[_post({**send, "block": block.to_json()}) for block in chain] for chain in chains]
    asked = _post({"action": "block_info", "json_block": "true", "hash": ready["genesis"]})
    nothing = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    each, blocks = size.requests // CLIENTS // TURNS, len(published[0]) // TURNS
    await _rate(port, [[nothing, asked]] * CLIENTS, b"{")
    found: list[list[float]] = [[], [], []]
    for turn in range(TURNS):
        found[0].append(await _rate(port, [[nothing] * each] * CLIENTS, b"Can only POST"))
        found[1].append(await _rate(port, [[asked] * each] * CLIENTS, b'"confirmed"'))
        found[2].append(await _rate(port, [chain[turn * blocks : (turn + 1) * blocks] for chain in published], b'"hash"'))
    return [statistics.median(rates) for rates in found]


async def _chains(rpc: str, accounts: int, length: int) -> list[list[Any]]:
    """Signed sends with their work, one chain an account; the accounts are opened here already."""
    from tradeskill_wallet.devnet import fund as faucet
    from tradeskill_wallet.primitives import THRESHOLDS, StateBlock, encode_address, public_key

    ask, chains = faucet.asker(rpc), []
    receive, send = THRESHOLDS["dev"].needed(2, receive=True), THRESHOLDS["dev"].needed(2, receive=False)
    for _ in range(accounts):
        secret = os.urandom(32)
        account = public_key(secret)
        source = await asyncio.to_thread(
            faucet.fund, ask, encode_address(account), length, work=_work, random_bytes=os.urandom, sleep=time.sleep
        )
        opening = StateBlock(account, bytes(32), account, length, bytes.fromhex(source))
        block = opening.with_work(_work(opening.root, receive)).signed(secret, os.urandom)
        ask({"action": "process", "json_block": "true", "subtype": "receive", "block": block.to_json()})
        chain = []
        for left in range(length - 1, -1, -1):
            block = StateBlock(account, block.hash, account, left, account)
            block = block.with_work(_work(block.root, send)).signed(secret, os.urandom)
            chain.append(block)
        chains.append(chain)
    return chains


def _post(body: dict[str, Any]) -> bytes:
    text = json.dumps(body).encode()
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(text) + text


async def _rate(port: int, clients: Sequence[Sequence[bytes]], expected: bytes) -> float:
    async def client(requests: Sequence[bytes]) -> None:
        for request in requests:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.read()
            writer.close()
            if expected not in answer:
                raise SystemExit(f"bench: the ledger answered {answer[-200:]!r}")

    elapsed = await _timed(lambda: asyncio.gather(*[client(requests) for requests in clients]))
    return sum(map(len, clients)) / elapsed


# (g) the relay: relay_bench.py


def relay(size: Size, folder: Path) -> dict[str, Any]:
    return relay_figures(size.relay, folder)


# (h) the MCP server's start: mcp_bench.py


def mcp(size: Size, folder: Path) -> dict[str, Any]:
    return mcp_figures(size.starts, folder)


# (i) what a backend adds to a job: backend_bench.py


def backends(size: Size, folder: Path) -> dict[str, Any]:
    return backend_figures(2 * size.starts, folder, spread)


# (j) ecash at a real mint: mint_bench.py


def cashu(size: Size, folder: Path) -> dict[str, Any]:
    return cashu_figures(2 * size.starts, folder, spread)


SECTIONS: dict[str, Callable[[Size, Path], dict[str, Any]]] = {
    "cli": cli,
    "seller": seller,
    "journal": journal,
    "work": work,
    "demo": demo,
    "ledger": ledger,
    "relay": relay,
    "mcp": mcp,
    "backends": backends,
    "cashu": cashu,
}


def _out_of_time(number: int, frame: object) -> None:
    raise SystemExit(f"bench: not done after {LIMIT_SECONDS} s: the machine is too busy, or something hangs; try SIZE=small or --only SECTION")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--only", choices=list(SECTIONS), action="append", help="a section; may be repeated")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(LIMIT_SECONDS)
    machine = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", "processors": os.cpu_count()}
    found: dict[str, Any] = {"size": chosen.size, "machine": {**machine, "load_before": round(os.getloadavg()[0], 2)}}
    for name in chosen.only or SECTIONS:
        with tempfile.TemporaryDirectory(prefix="tradeskill-bench-") as folder:
            found[name] = SECTIONS[name](SIZES[chosen.size], Path(folder))
    print(json.dumps({**found, "seconds": round(time.monotonic() - began, 1)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
