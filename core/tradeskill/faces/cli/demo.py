"""`tradeskill demo`: one agent hires another, offline, on an embedded network, every part a process of its own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, Verbose, example, logs, run, say, show

__all__ = ["demo"]


@example(
    "tradeskill demo",
    "tradeskill demo --market relay",
    "tradeskill demo --rail cashu",
    "tradeskill demo --jobs 20 --concurrency 5 --json",
    "tradeskill demo --tamper quote   # the buyer refuses; ends non-zero",
)
def demo(
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=10_000, help="How many jobs to buy.")] = 1,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=200, help="How many at once.")] = 1,
    tamper: Annotated[str, typer.Option("--tamper", help="Let the market lie about the quote, the receipt or the result: quote, receipt, result.")] = "",
    market: Annotated[str, typer.Option("--market", help="Where they meet: embedded (a file) or relay (a process; needs tradeskill[relay]).")] = "embedded",
    rail: Annotated[str, typer.Option("--rail", help="What is paid with: nano (a dev ledger) or cashu (a mint, where one is installed).")] = "nano",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Watch one agent hire another, offline, in a temporary folder.

    A dev ledger, a seller and a buyer, each a process of its own with its own keys; real blocks, and real work: messy web pages,
    served on this machine, become Markdown. With `--market relay` a relay too. Nothing is left behind.
    """
    logs(verbose)

    async def main() -> dict[str, Any]:
        from tradeskill.demo.stage import Stage

        async with Stage(jobs, concurrency, tamper, say if not as_json else lambda text: None, market, rail) as stage:
            return await stage.play()

    found = run(main, as_json=as_json)
    if as_json:
        show(found)
    if not all(job["status"] == "delivered" and job["receipt_verified"] for job in found.get("jobs", [found])):
        raise typer.Exit(1)
