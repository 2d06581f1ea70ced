"""The relay's section of `make bench`: paid lifecycles, lists and polling, on SQLite and on PostgreSQL, over loopback and with commits on disk.

The relay is the installed program with its rate limits off; the load comes from a process of its own (relay_load.py). What is compared runs by
turns, so that whatever else the machine does hits both alike. Long lists are filled through the book, in big commits.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CONCURRENCY = (1, 16)
STEPS = 6  # signed requests of one paid lifecycle
COMMIT = 10_000  # entries in one commit, and one step, of a filling
WORDS = ("markdown", "summary", "translation", "archive", "picture", "speech", "table", "invoice", "weather", "route", "ledger", "review")
SEED = bytes(range(32))  # of the one who polls


@dataclass(frozen=True)
class RelaySize:
    turns: int
    lifecycles: int  # in a turn, at each concurrency
    few: int  # offers, and jobs of the one who polls
    many: int
    gets: int  # of each kind in a turn


def relay(size: RelaySize, folder: Path) -> dict[str, Any]:
    """Every figure of both databases; where one is missing, its place says why."""
    found = {"rows": [size.few, size.many], "sqlite": _database(size, lambda name: str(folder / f"{name}.db"), [])}
    with _postgres() as (where, pids):
        found["postgresql"] = _database(size, where, pids) if callable(where) else {"absent": where}
    return found


def _database(size: RelaySize, where: Callable[[str], str], pids: Sequence[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with _loaded(where("lives"), pids) as ask:
        for connections in CONCURRENCY:
            found[f"at_{connections}"] = _lifecycles(size, ask, connections)
    ends = [_fill(where(name), getattr(size, name)) for name in ("few", "many")]
    with _loaded(where("few"), pids) as few, _loaded(where("many"), pids) as many:
        found["lists"] = {kind: _compared(size, (few, many), ends, **asked) for kind, asked in _lists().items()}
    return found


Ask = Callable[..., dict[str, Any]]


def _lifecycles(size: RelaySize, ask: Ask, connections: int) -> dict[str, Any]:
    """By turns: no-ops, lifecycles, lifecycles whose every request has an Idempotency-Key. The first turn is not counted."""
    each = size.lifecycles // (connections if connections > 1 else 4)  # one alone waits for the disk each time
    commands: dict[str, dict[str, Any]] = {
        "no_op": {"do": "no_ops", "each": each * STEPS},
        "lifecycle": {"do": "lifecycles", "each": each, "keyed": False},
        "keyed": {"do": "lifecycles", "each": each, "keyed": True},
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for turn in range(size.turns + 1):
        for name, command in commands.items():
            answer = ask(connections=connections, **command)
            if turn:
                found[name].append(answer)
    rates = {name: statistics.median(one["units"] / one["seconds"] for one in answers) for name, answers in found.items()}
    cpu = {name: statistics.median(one["cpu_ms"] for one in answers) for name, answers in found.items()}
    latencies = sorted(latency for one in found["lifecycle"] for latency in one["latencies_ms"])
    return {
        "lifecycles_per_s": round(rates["lifecycle"], 1),
        "keyed_lifecycles_per_s": round(rates["keyed"], 1),
        "no_ops_per_s": round(rates["no_op"], 1),
        "lifecycles_to_sixth_of_no_ops": round(rates["lifecycle"] / (rates["no_op"] / STEPS), 3),
        "request_ms": {"p50": round(_part(latencies, 0.5), 2), "p99": round(_part(latencies, 0.99), 2), "n": len(latencies)},
        "cpu_ms_a_request": round(cpu["lifecycle"], 3),
        "cpu_ms_a_no_op": round(cpu["no_op"], 3),
    }


def _lists() -> dict[str, dict[str, Any]]:
    """What is asked for, and what its answer must hold. `own`: signed by the one who polls. `change`: each time after a new offer."""
    return {
        "offers_page": {"target": "/v1/offers", "holds": '"limit":20'},
        "offers_two_tags": {"target": "/v1/offers?tags=web,rare", "holds": '"rare"'},
        "offers_q_common": {"target": "/v1/offers?q=markdown", "holds": "arkdown"},
        "offers_q_rare": {"target": "/v1/offers?q=zymurgy", "holds": "zymurgy"},
        "offers_page_after_a_change": {"target": "/v1/offers", "holds": '"limit":20', "change": True},
        "offers_q_common_after_a_change": {"target": "/v1/offers?q=markdown", "holds": "arkdown", "change": True},
        "jobs_page": {"target": "/v1/jobs", "holds": '"job_id"', "own": True},
        "changes_cursor": {"target": "/v1/jobs?limit=20&cursor={cursor}", "holds": '"job_id"', "own": True},
        "changes_updated_after": {"target": "/v1/jobs?limit=20&updated_after={updated_after}", "holds": '"job_id"', "own": True},
    }


def _compared(
    size: RelaySize, asks: Sequence[Ask], ends: Sequence[dict[str, str]], target: str, holds: str, *, own: bool = False, change: bool = False
) -> dict[str, Any]:
    """Milliseconds for one answer where nothing else is asked: each side's median over all turns. `ends`: what is put into the target's braces."""
    latencies: list[list[float]] = [[], []]
    for turn in range(size.turns + 1):
        for side, (ask, end) in enumerate(zip(asks, ends, strict=True)):
            if change:
                answer = ask(do="after_changes", target=target, each=max(1, size.gets // 3))
            else:
                answer = ask(do="gets", target=target.format(**end), each=size.gets, seed=SEED.hex() if own else None, holds=holds)
            if turn:
                latencies[side].extend(answer["latencies_ms"])
    medians = [statistics.median(side) for side in latencies]
    return {"few_ms": round(medians[0], 3), "many_ms": round(medians[1], 3), "many_to_few": round(medians[1] / medians[0], 3)}


def _part(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


# filling


def _fill(where: str, rows: int) -> dict[str, str]:
    """So many offers, and so many jobs of one buyer. Returns the cursor and the time that twenty changes follow."""
    from tradeskill.world import World
    from tradeskill_plugins.market.book import Book
    from tradeskill_plugins.relay.server.serving import RelaySettings, _open
    from tradeskill_plugins.relay.wire import show_time

    now, luck = World().now_ms() - 2 * rows, random.Random(1)
    database, dialect = _open(RelaySettings(where), World())

    def fill(kind: Callable[[Any, int, int, random.Random], None], numbers: range, db: Any) -> None:
        book = Book(db, dialect, strict=True)
        for number in numbers:
            kind(book, number, now + number, luck)

    try:
        for kind in (_offer, _job):
            for first in range(0, rows, COMMIT):
                for outcome in database.run([partial(fill, kind, range(first, min(rows, first + COMMIT)))]):
                    if isinstance(outcome, Exception):
                        raise outcome
        market_id, position = database.read(lambda db: (Book(db, dialect).market_id(), Book(db, dialect).position()))
        return {"cursor": f"{market_id}-{position - 20}", "updated_after": show_time(now + rows - 21)}  # one change a job, a millisecond apart
    finally:
        database.close()


def _offer(book: Any, number: int, now_ms: int, luck: random.Random) -> None:
    """Every third about markdown; forty in all with the rare tag and the rare word, whatever their number."""
    from tradeskill_plugins.market.entries import OfferEntry

    words = " ".join(luck.choices(WORDS[1:], k=6))
    title = f"{luck.choice(WORDS[1:])} number {number}" + (" with zymurgy" if number < 40 else "")
    tags = ("web", *(("rare",) if number < 40 else ()), luck.choice(WORDS))
    about = f"{words} markdown" if number % 3 == 0 else words
    book.publish(OfferEntry(_uuid(1, number), f"{number % 500:064x}", title, about, tuple(dict.fromkeys(tags)), "quote", None, None, None), now_ms)


def _job(book: Any, number: int, now_ms: int, luck: random.Random) -> None:
    from tradeskill_plugins.market.entries import RequestEntry

    entry = RequestEntry(_uuid(1, number % 100), _poller(), {"payload": '{"url":"https://example.org/a/page.html"}'})
    book.request(entry, _uuid(2, number), now_ms)


@lru_cache
def _poller() -> str:
    from tradeskill.signing import Identity

    return Identity(SEED).key


def _uuid(kind: int, number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{kind:012x}"


# processes


@contextmanager
def _loaded(data: str, pids: Sequence[int]) -> Iterator[Ask]:
    """A relay on `data` and its own load generator, which answers commands."""
    serve = [sys.executable, "-m", "tradeskill", "relay", "serve", "--data", data, "--port", "0", "--no-limits", "--quiet", "--json"]
    with ExitStack() as stack:
        server = stack.enter_context(_process(serve, subprocess.DEVNULL))
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise SystemExit("bench: the relay did not start")
        port = int(json.loads(line)["url"].rpartition(":")[2])
        load = stack.enter_context(_process([sys.executable, str(Path(__file__).parent / "relay_load.py")], subprocess.PIPE))

        def ask(**command: Any) -> dict[str, Any]:
            assert load.stdin is not None
            assert load.stdout is not None
            load.stdin.write(json.dumps(command) + "\n")
            load.stdin.flush()
            answer = load.stdout.readline()
            if not answer:
                raise SystemExit(f"bench: the load generator ended at {command}")
            found: dict[str, Any] = json.loads(answer)
            return found

        ask(do="connect", port=port, pids=[server.pid, *pids])
        yield ask


@contextmanager
def _process(command: Sequence[str], stdin: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def _postgres() -> Iterator[tuple[Callable[[str], str] | str, list[int]]]:
    """A server of its own with commits on disk, how to get a DSN to a new database in it, and its process. Or why there is none."""
    sys.path.append(str(ROOT))
    from tests import postgres

    lacking = postgres.missing()
    if lacking:
        yield lacking, []
        return
    with postgres.served(fsync="on", shared_buffers="256MB") as server:

        def where(name: str) -> str:
            if not server.run(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
                server.run(f"CREATE DATABASE {name}")
            return f"postgresql://keeper@/{name}?host={urllib.parse.quote(str(server.folder), safe='')}"

        yield where, [int((server.folder / "data" / "postmaster.pid").read_text().split()[0])]
