"""The commands `tradeskill spending`: the spend log listed, exported and verified. None of them changes anything."""

from __future__ import annotations

import io
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, example, group, load_profile, printable, run, say, show, show_entry

if TYPE_CHECKING:
    from tradeskill.journal.spendlog import Replay

__all__ = ["spending"]

spending = group(
    "What was reserved, paid and returned: list, export, verify it.",
    "tradeskill spending log --since 2026-01-01",
    "tradeskill spending export --format csv --to spending.csv",
    "tradeskill spending verify",
)


@spending.command("log")
@example("tradeskill spending log", "tradeskill spending log --since 2026-01-01 --until 2026-01-31 --json")
def log(
    since: Annotated[str, typer.Option("--since", metavar="DAY", help="First day, YYYY-MM-DD (UTC).")] = "",
    until: Annotated[str, typer.Option("--until", metavar="DAY", help="Last day, YYYY-MM-DD (UTC).")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="The newest so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what happened to money, the newest last.

    An amount is reserved before anything is signed, paid when the payment is out, committed when what it bought is there, released when it was never
    paid, and returned when it came back.
    """

    async def main() -> int:
        from tradeskill.earnings import day_range
        from tradeskill.faces.spendlogs import amount_of, time_of
        from tradeskill.journal.spendlog import entries

        first, last = day_range(since, until)

        def look(connection: Any) -> int:
            count = 0
            if as_json:
                show([{**entry.content(), "hash": entry.hash} for entry in entries(connection, first, last, limit)])
                return 1
            for count, entry in enumerate(entries(connection, first, last, limit), 1):  # noqa: B007  # how many there were
                to = f"to {entry.seller[:16]}" if entry.seller else ""
                words = f"{time_of(entry.at)}  {entry.event:9}  {' '.join(amount_of(entry)):>16}  {entry.kind:8}  {entry.job:36}  {to}"
                typer.echo(printable(f"{entry.seq:>7}  {words}").rstrip())
            return count

        async with load_profile() as profile:
            return profile.journal.read(look)

    if not run(main, as_json=as_json):
        say("nothing was spent or reserved in this time")


@spending.command("export")
@example("tradeskill spending export --format csv --to spending.csv", "tradeskill spending export --format json > spending.json")
def export(
    form: Annotated[str, typer.Option("--format", metavar="csv|json", help="csv for a spreadsheet; json with the signed head, for `spending verify`.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Write this file, whole or not at all; else stdout.", show_default=False)] = None,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Write the whole spend log as CSV or JSON.

    Amounts are whole numbers of the smallest unit, with a decimal column for people: have a spreadsheet read `amount` as text. In CSV a text that could
    be taken for a formula begins with an apostrophe.
    """

    async def main() -> dict[str, Any] | None:
        from tradeskill.errors import UsageError
        from tradeskill.faces.spendlogs import whole_file, write_csv, write_json
        from tradeskill.journal.spendlog import entries, head

        if form not in ("csv", "json"):
            raise UsageError(f"--format {form!r:.40} is not csv or json")
        if as_json and to is None:
            raise UsageError("--json describes what was written into a file: give --to FILE, or leave --json away")
        async with load_profile(password_file) as profile:
            identity = profile.identity if form == "json" else None
            network, now = profile.config.network, profile.world.now_ms()
            if identity is not None:
                identity.sign_bytes(b"unlocked")  # whoever has no password learns it before anything is written

            def write(connection: Any) -> dict[str, Any]:
                with ExitStack() as stack:
                    out: Any = sys.stdout.buffer if to is None else stack.enter_context(whole_file(to))
                    if identity is not None:
                        write_json(entries(connection), out, identity, network, now)
                    else:
                        text = io.TextIOWrapper(out, "utf-8", newline="", write_through=False)
                        write_csv(entries(connection), text)
                        text.detach()
                    out.flush()
                count, last = head(connection)
                return {"file": None if to is None else str(to), "format": form, "entries": count, "head": last}

            return profile.journal.read(write)

    found = run(main, as_json=as_json)
    if to is not None and found is not None:
        show_entry(found, as_json)


@spending.command("verify")
@example("tradeskill spending verify", "tradeskill spending verify spending.json --key KEY")
def verify(
    file: Annotated[Path | None, typer.Argument(help="What `export --format json` wrote; without it, this profile's journal.", show_default=False)] = None,
    key: Annotated[str, typer.Option("--key", help="The public key that must have signed the file.")] = "",
    as_json: AsJson = False,
) -> None:
    """Verify the spend log: the journal's, or an exported one.

    Names the first entry that does not hold. Of a file: every link, and the head's signature; needs no profile and no network. Of the journal: every
    link, and that replaying the log gives exactly what the journal says is reserved and spent.
    """

    async def main() -> dict[str, Any]:
        from tradeskill.errors import UsageError

        if file is not None:
            from tradeskill.faces.spendlogs import verify_file

            replayed, head = verify_file(file, key)
            return {**_summary(replayed), "network": head.network, "signed_by": head.key, "signed_at": head.at}
        if key:
            raise UsageError("--key goes with a file: a journal is not signed")
        async with load_profile() as profile:
            return {**_summary(profile.journal.read(_of_journal)), "network": profile.config.network, "agrees_with_journal": True}

    show_entry(run(main, as_json=as_json), as_json)


def _of_journal(connection: Any) -> Replay:
    from tradeskill.errors import UntrustedError
    from tradeskill.journal.spendlog import differences, entries, replay

    replayed = replay(entries(connection))
    for text in differences(connection, replayed):
        raise UntrustedError(f"the chain of the spend log holds and does not agree with the journal: {text}")
    return replayed


def _summary(replayed: Replay) -> dict[str, Any]:
    sums: dict[str, dict[str, str]] = {"spent": {}, "reserved": {}}
    for name, value in sorted(replayed.totals.items()):
        kind, _, unit = name.partition(":")
        sums[kind][unit] = str(value)
    return {"spend_log_verified": True, "entries": replayed.count, "head": replayed.head, **sums}
