"""The commands `tradeskill receipt`: print, export and verify signed receipts. Only `verify` works without a profile."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, example, group, load_profile, printable, run, say, show, show_entry

if TYPE_CHECKING:
    from tradeskill.profile import Profile

__all__ = ["receipt"]

receipt = group(
    "Signed receipts: print, export and verify them.",
    "tradeskill receipt export --all --to receipts",
    "tradeskill receipt verify receipts/JOB_ID.json",
)

WithResult = Annotated[bool, typer.Option("--with-result", help="Put the result's bytes in as well.")]


@receipt.command("show")
@example("tradeskill receipt show JOB_ID > receipt.json")
def receipt_show(
    job_id: Annotated[str, typer.Argument(help="Job id or purchase id, of a job bought or sold.")],
    with_result: WithResult = False,
    as_json: AsJson = False,
) -> None:
    """Print a delivered job's signed documents, as JSON.

    They are the offer, the request, the quote, the receipt and, for the buyer, its countersignature. Redirected into a file they are what `receipt verify`
    reads, byte for byte; on a terminal they are printed for reading.
    """

    async def main() -> bytes:
        async with load_profile() as profile:
            return _chain(profile, job_id, with_result)[0]

    data = run(main, as_json=True)
    if sys.stdout.isatty():
        show(json.loads(data))
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@receipt.command("export")
@example("tradeskill receipt export --all --to receipts", "tradeskill receipt export JOB_ID --to receipts --with-result")
def receipt_export(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder for the files; made if need be.")],
    job_ids: Annotated[list[str] | None, typer.Argument(help="Job ids or purchase ids.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every job bought or sold that was delivered.")] = False,
    with_result: WithResult = False,
    as_json: AsJson = False,
) -> None:
    """Write receipts into a folder, one file a job.

    Each is verified first and written whole, so that the command may be repeated. What is not written is listed with the reason.
    """

    async def main() -> dict[str, list[dict[str, str]]]:
        from tradeskill.errors import UsageError
        from tradeskill.journal import buying, selling

        if bool(job_ids) == everything:
            raise UsageError("say which receipts: JOB_IDs, or --all")
        async with load_profile() as profile:
            names = job_ids or profile.journal.read(lambda c: [*buying.finished_purchases(c), *selling.delivered_jobs(c)])
            return _export(profile, dict.fromkeys(names), to, with_result)

    found = run(main, as_json=as_json)
    if as_json:
        show(found)
    else:
        for entry in found["written"]:
            typer.echo(entry["file"])
        for entry in found["skipped"]:
            say(f"skipped {printable(entry['job_id'])}: {printable(entry['reason'])}")
        say(f"{len(found['written'])} written, {len(found['skipped'])} skipped; check them with `tradeskill receipt verify FILE`")
    if job_ids and found["skipped"]:
        raise typer.Exit(3)


def _export(profile: Profile, names: dict[str, None], folder: Path, with_result: bool) -> dict[str, list[dict[str, str]]]:
    from tradeskill.errors import NotFoundError, RefusedError, StateError, UsageError
    from tradeskill.faces.receipts import file_name, verify_bytes
    from tradeskill.strictyaml import write_private

    written: dict[str, dict[str, str]] = {}  # by file: a job that this profile both bought and sold is one
    skipped = []
    for name in names:
        try:
            data, state = _chain(profile, name, with_result)
            if state not in ("received", "delivered"):
                raise StateError(f"the purchase is {state}: `tradeskill receipt show` prints what there is of it")
            job_id = str(verify_bytes(data)["job_id"])
        except (NotFoundError, StateError, RefusedError, UsageError) as error:
            skipped.append({"job_id": name, "reason": str(error)})
            continue
        path = folder / file_name(job_id)
        if str(path) not in written:
            write_private(path, data)
            written[str(path)] = {"job_id": job_id, "file": str(path)}
    return {"written": [*written.values()], "skipped": skipped}


def _chain(profile: Profile, name: str, with_result: bool) -> tuple[bytes, str]:
    """The file's bytes, and the state of the purchase or of the job sold."""
    from tradeskill.faces.receipts import chain_bytes, documents_of

    documents, row = profile.journal.read(lambda c: documents_of(c, name))
    result = profile.blobs.get(row.result_sha256) if with_result and row.result_sha256 is not None else None
    return chain_bytes(documents, result), row.state


@receipt.command("verify")
@example("tradeskill receipt verify receipt.json --result result.md --seller KEY", "tradeskill receipt verify receipts/*.json --json")
def receipt_verify(
    files: Annotated[list[Path], typer.Argument(help="What `receipt show` or `receipt export` wrote; several at once give a list.")],
    result: Annotated[Path | None, typer.Option("--result", help="The delivered bytes, to compare with the receipt.", show_default=False)] = None,
    seller: Annotated[str, typer.Option("--seller", help="The seller's public key as you know it; without it the offer's own key is used.")] = "",
    as_json: AsJson = False,
) -> None:
    """Verify receipts offline; needs no profile and no network.

    A receipt that stands proves that the holder of the seller's key signed that it was paid this amount by these payments and delivered these bytes for
    this buyer's signed request. It does not prove that the payments are on the ledger: look their ids up there. Whose key it is says --seller.
    """

    async def main() -> list[dict[str, Any]]:
        from tradeskill.errors import UsageError
        from tradeskill.faces.receipts import verify_chain

        if result is not None and len(files) > 1:
            raise UsageError("--result goes with one receipt")
        return [verify_chain(file, result, seller) for file in files]

    found = run(main, as_json=as_json)
    if as_json:
        show(found if len(found) > 1 else found[0])
        return
    for entry in found:
        show_entry(entry, False)
    say("not looked up: the payments themselves; a node of the network named above knows their ids")
