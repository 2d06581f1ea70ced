"""The seller's commands: sell, review, earnings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, Verbose, data, example, group, load_profile, logs, printable, run, say, show, show_entry

if TYPE_CHECKING:
    from tradeskill.profile import Profile
    from tradeskill.seller import Seller

__all__ = ["earnings", "review", "sell"]


@example("tradeskill sell seller.yaml", "tradeskill sell --exit-when-idle 10 --json")
def sell(
    config: Annotated[Path | None, typer.Argument(help="YAML with offers and any other keys, merged over the profile's.", show_default=False)] = None,
    exit_when_idle: Annotated[
        float | None, typer.Option("--exit-when-idle", min=0.1, metavar="SECONDS", help="Stop after so many seconds without work.", show_default=False)
    ] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Quote nothing new; finish what is paid, then stop.")] = False,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
    verbose: Verbose = False,
) -> None:
    """Work as a seller until stopped.

    Publishes the offers, quotes, verifies payments on your own node, executes and delivers. After a restart it goes on where it stopped.
    SIGTERM or Ctrl-C: quote nothing new, finish what is paid, stop. A second one stops at once; nothing is lost.
    With --json, one line when it is ready and one when it has stopped.
    """
    logs(verbose)

    async def main() -> dict[str, Any]:
        async with load_profile(password_file, config) as profile:
            return await _sell(profile, exit_when_idle, drain, as_json)

    ended = run(main, as_json=as_json)
    if as_json:
        show(ended)
    else:
        say(f"stopped; jobs: {', '.join(f'{count} {state}' for state, count in ended['jobs_by_status'].items()) or 'none'}")


async def _sell(profile: Profile, idle: float | None, drain: bool, as_json: bool) -> dict[str, Any]:
    import asyncio

    from tradeskill.earnings import earnings as summed
    from tradeskill.errors import ConfigError

    if not profile.config.offers:
        raise ConfigError(f"{profile.config.source}: offers is empty: nothing to sell; name a file with offers: `tradeskill sell seller.yaml`")
    seller = await profile.seller()
    _on_signals(seller, as_json)
    await seller.publish()
    from tradeskill.money import format_amounts

    names = [f"{listing.name} ({format_amounts(listing.offer.prices) or 'by quote'})" for listing in profile.listings().values()]
    ready = {"event": "ready", "offers": {listing.name: listing.offer.offer_id for listing in profile.listings().values()}, "seller": profile.identity.key}
    if as_json:
        data().write(f"{_compact(ready)}\n")
        data().flush()
    else:
        say(f"selling {', '.join(names)} as {profile.identity.key[:16]}…; Ctrl-C finishes what is paid and stops")
    told = asyncio.create_task(_tell(profile)) if not as_json else None
    await seller.run(idle_seconds=idle, drain=drain)
    if told is not None:
        told.cancel()
    found = summed(profile.journal, profile.world.now_ms())
    return {"event": "stopped", "jobs_by_status": found["jobs_by_status"], "earned": found["total"]}


async def _tell(profile: Profile) -> None:
    """A line for each new state of a job, as the journal has it. Looks once a second: what is quicker is told as the last state it reached."""
    from tradeskill.journal import selling

    known: dict[str, str] = {row.job_id: row.state for row in profile.journal.read(lambda c: selling.fulfilments(c, (), 10_000))}
    while True:
        await profile.world.sleep(1.0)
        for row in reversed(profile.journal.read(lambda c: selling.fulfilments(c, (), 100))):
            if known.get(row.job_id) != row.state:
                known[row.job_id] = row.state
                say(f"  job {row.job_id} of {row.offer_name or 'no offer'}: {row.state}{f' ({printable(row.error_message)})' if row.error_message else ''}")


def _on_signals(seller: Seller, quiet: bool) -> None:
    import asyncio
    import signal

    asked: list[int] = []

    def handle(number: int) -> None:
        asked.append(number)
        if len(asked) == 1:
            seller.drain()
            if not quiet:
                say("finishing what is paid; once more to stop at once")
        else:
            seller.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle, number)


review = group("Payments that wait for your decision.", "tradeskill review list", "tradeskill review refund JOB_ID")

Payment = Annotated[str, typer.Argument(help="Payment id or job id.")]


@review.command("list")
@example("tradeskill review list --json")
def review_list(as_json: AsJson = False) -> None:
    """List the payments that wait for a decision."""

    async def main() -> list[Any]:
        from tradeskill import review as decisions

        async with load_profile() as profile:
            return [decisions.view(profile.journal, row) for row in decisions.listed(profile.journal)]

    found = run(main, as_json=as_json)
    if as_json:
        show(found)
        return
    for row in found:
        typer.echo(f"{row['payment']}  {row['amount']}  job {row['job_id']} is {row['job_state']}: {printable(row['reason'])}")
    if not found:
        say("nothing to review")


@review.command("show")
@example("tradeskill review show JOB_ID")
def review_show(payment: Payment, as_json: AsJson = False) -> None:
    """Show one payment with its job, and the choices."""

    async def main() -> Any:
        from tradeskill import review as decisions
        from tradeskill.journal import selling

        async with load_profile() as profile:
            return decisions.view(profile.journal, profile.journal.read(lambda c: selling.payment_by_key(c, payment)))

    show_entry(run(main, as_json=as_json), as_json)


@review.command("refund")
@example("tradeskill review refund PAYMENT --to nano_3...")
def review_refund(
    payment: Payment,
    to: Annotated[str, typer.Option("--to", help="Where to; default: the address the buyer signed.")] = "",
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Send the money back; its job, if still open, fails."""

    async def main() -> Any:
        from tradeskill import review as decisions

        async with load_profile(password_file) as profile:
            row = await decisions.refund(profile, payment, to)
            seller = await profile.seller()
            await seller.run_effects_of(row.key)
            await seller.run_effects_of(row.job_id)
            return _row(profile, row.key)

    show_entry(run(main, as_json=as_json), as_json)


@review.command("keep")
@example("tradeskill review keep PAYMENT")
def review_keep(payment: Payment, as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """Keep the money, as agreed with the buyer elsewhere."""

    async def main() -> Any:
        from tradeskill import review as decisions

        async with load_profile(password_file) as profile:
            row = await decisions.keep(profile, payment)
            await (await profile.seller()).run_effects_of(row.job_id)
            return _row(profile, row.key)

    show_entry(run(main, as_json=as_json), as_json)


@review.command("run")
@example("tradeskill review run JOB_ID")
def review_run(payment: Payment, as_json: AsJson = False, password_file: PasswordFile = None) -> None:
    """Do the work (again), and deliver it.

    `tradeskill sell` executes it. By this you say that what was interrupted half-way may be repeated. Only for a job that has not ended.
    """

    async def main() -> Any:
        from tradeskill import review as decisions

        async with load_profile(password_file) as profile:
            return _row(profile, (await decisions.rerun(profile, payment)).key)

    show_entry(run(main, as_json=as_json), as_json)


@example("tradeskill earnings", "tradeskill earnings --since 2026-01-01 --csv > earnings.csv")
def earnings(
    since: Annotated[str, typer.Option("--since", metavar="DAY", help="First day, YYYY-MM-DD (UTC).")] = "",
    until: Annotated[str, typer.Option("--until", metavar="DAY", help="Last day, YYYY-MM-DD (UTC).")] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="One line an earning, as CSV on stdout.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what was earned, in total, today and by offer.

    A payment counts when its job is delivered. Also shows a range of days, the open invoices and the jobs by status.
    """

    async def main() -> tuple[dict[str, Any], list[Any]]:
        from tradeskill.earnings import day_range, read_earnings
        from tradeskill.earnings import earnings as summed

        first, last = day_range(since, until)
        async with load_profile() as profile:
            rows = profile.journal.read(lambda c: read_earnings(c, first, last))
            return summed(profile.journal, profile.world.now_ms(), first, last), rows

    found, rows = run(main, as_json=as_json)
    if as_csv:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["at_ms", "job_id", "offer", "source", "amount", "unit", "payment_id"])
        writer.writerows([row.at, row.job_id, row.offer, row.source, str(row.amount), row.unit, row.payment_id] for row in rows)
    elif as_json:
        show(found)
    else:
        for name in ("total", "today", "range"):
            typer.echo(f"{name:10} {_amounts(found[name])}")
        for name, entry in found["by_offer"].items():
            typer.echo(f"  {name}: {entry['jobs']} jobs, {_amounts({k: v for k, v in entry.items() if k != 'jobs'})}")
        typer.echo(f"pending invoices: {found['pending_invoices']}")
        typer.echo(f"jobs: {', '.join(f'{count} {state}' for state, count in found['jobs_by_status'].items()) or 'none'}")


def _amounts(sums: dict[str, str]) -> str:
    from tradeskill.money import Amount, format_amount

    return ", ".join(format_amount(Amount(int(value), unit)) for unit, value in sums.items())


def _row(profile: Profile, key: str) -> dict[str, Any]:
    from tradeskill.journal import selling

    row = profile.journal.read(lambda c: selling.payment_by_key(c, key))
    return {"payment": row.key, "state": row.state, "job_id": row.job_id, "amount_raw": row.amount, "refund_to": row.refund_to, "refund_id": row.refund_id}


def _compact(value: Any) -> str:
    import json

    return json.dumps(value, separators=(",", ":"))
