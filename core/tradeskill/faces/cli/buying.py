"""The buyer's commands: offers, hire, jobs, job, receipt. Thin shells over the skill's tools and flow."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, Verbose, example, load_profile, logs, printable, read_input, report, run, say, show

if TYPE_CHECKING:
    from tradeskill.journal import Purchase
    from tradeskill.model import Offer
    from tradeskill.profile import Profile

__all__ = ["hire", "job", "jobs", "offers", "receipt"]


@example("tradeskill offers", "tradeskill offers markdown --tag web --json")
def offers(
    query: Annotated[str, typer.Argument(help="Words in title or description.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only offers with this tag; may be repeated.")] = None,
    seller: Annotated[str, typer.Option("--seller", help="Only this seller's public key.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what can be bought on the market."""

    async def main() -> list[Any]:
        async with load_profile() as profile:
            return list(await _buyer_tools().search(profile, query, list(tag or []), seller, limit))

    found = run(main, as_json=as_json)
    if as_json:
        show(found)
        return
    for offer in found:
        mark = "" if offer["signature_valid"] else "  (SIGNATURE INVALID)"
        typer.echo(f"{offer['offer_id']}  {offer['price'] or 'by quote':>14}  {printable(offer['title'])}  [{printable(', '.join(offer['tags']))}]{mark}")
    if not found:
        say("no offers here yet: a seller publishes them with `tradeskill sell`")


@example("""tradeskill hire web-extract --input '{"url": "http://127.0.0.1:8000/"}' --max "0.01 XNO\"""", "tradeskill hire OFFER --input @job.json --dry-run")
def hire(
    offer: Annotated[str, typer.Argument(help="Offer id, its beginning, its title or a tag that only one offer has.")],
    input_text: Annotated[str, typer.Option("--input", help="The job's input: JSON, @FILE or @- for stdin.")],
    maximum: Annotated[str, typer.Option("--max", help='The most this may cost, such as "0.01 XNO". Default: the offer\'s price.')] = "",
    label: Annotated[str, typer.Option("--label", help="Buys the same thing anew; without it the same input is the same purchase.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Get and verify a quote, pay nothing, cancel.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the result into this folder instead of stdout.", show_default=False)] = None,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
    verbose: Verbose = False,
) -> None:
    """Buy one job: request, verify the seller's signed quote, pay, wait, verify the receipt. Safe to repeat: it never pays twice."""
    logs(verbose)

    async def main() -> int:
        async with load_profile(password_file) as profile:
            return await _hire(profile, offer, input_text, maximum, label, yes, dry_run, output, as_json)

    code = run(main, as_json=as_json)
    if code:
        raise typer.Exit(code)


async def _hire(
    profile: Profile, name: str, input_text: str, maximum: str, label: str, yes: bool, dry_run: bool, output: Path | None, as_json: bool
) -> int:
    from tradeskill.errors import RefusedError
    from tradeskill.money import parse_amount
    from tradeskill.skills import call_tool

    value = read_input(input_text)
    cap = parse_amount(maximum) if maximum else None
    tools = _buyer_tools()
    chosen: Offer = await tools.find_offer(profile, name)
    cap = cap or chosen.price
    buyer = await profile.buyer(lambda purchase: say(f"  {purchase.state}") if not as_json else None)
    intent = buyer.intent_of(chosen, value, label)
    known = profile.journal.read(lambda c: _by_intent(c, intent))
    if known is None or known.state in tools.BEFORE_MONEY:
        if not as_json:
            say(f"{printable(chosen.title)}  by seller {chosen.seller[:16]}…  price {chosen.price or 'by quote'}  cap {cap or 'none'}")
        if not yes and not dry_run:
            if not sys.stdin.isatty():
                raise RefusedError("nobody is there to confirm the payment: repeat with --yes (and --max to cap it)")
            if not typer.confirm("Pay for this job?", err=True):
                raise RefusedError("not confirmed; no money moved")
    purchase = await buyer.intend(chosen, value, cap=cap, label=label)
    if dry_run:
        return await _dry_run(profile, purchase, as_json)
    purchase = await buyer.drive(purchase.purchase_id)
    view = tools.purchase_view(purchase)
    if purchase.state != "received":
        error = view["error"] or {"code": purchase.state, "message": purchase.state}
        failure = RefusedError(f"{error['message']} (purchase {purchase.purchase_id} is {purchase.state}; money: {view['money']}; {view['next']})")
        if as_json:
            show({**view, "exit_code": 5})
            say(f"error: {printable(str(failure))}")
            return 5
        return report(failure, False)
    if as_json:
        found = await call_tool(profile, "buyer.result", {"purchase_id": purchase.purchase_id, "wait": False})
        show({**view, "result": found})
    _write_result(buyer.result(purchase), purchase, output, as_json)
    return 0


async def _dry_run(profile: Profile, purchase: Purchase, as_json: bool) -> int:
    """The verified quote, then the job is canceled; a repeat needs another label."""
    from tradeskill import policy
    from tradeskill.money import Amount, parse_amount

    buyer = await profile.buyer()
    tools = _buyer_tools()
    if purchase.state not in tools.BEFORE_MONEY:
        show(tools.purchase_view(purchase)) if as_json else say(f"this purchase is already {purchase.state}; nothing done")
        return 0
    purchase = await buyer.drive(purchase.purchase_id, ("verified",))
    if purchase.state == "verified":
        amount = Amount(int(purchase.amount or "0"), purchase.unit or "raw")
        cap = None if purchase.cap is None else parse_amount(purchase.cap)
        profile.journal.read(lambda c: policy.check(c, amount, profile.caps, cap))
        purchase = await buyer.cancel(purchase.purchase_id, "dry run")
    view = tools.purchase_view(purchase)
    if as_json:
        show({**view, "dry_run": True})
    else:
        say(f"the seller asks {view['price']}; quote verified; nothing was paid" if view["price"] else f"no quote: {view['error']}")
    return 0 if view["price"] else 5


@example("tradeskill jobs", "tradeskill jobs --state waiting --json")
def jobs(
    state: Annotated[list[str] | None, typer.Option("--state", help="Only this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List this profile's jobs, bought and sold, newest change first."""

    async def main() -> dict[str, list[Any]]:
        from tradeskill.journal import buying, selling

        async with load_profile() as profile:
            bought = profile.journal.read(lambda c: buying.purchases(c, tuple(state or ()), limit))
            sold = profile.journal.read(lambda c: selling.fulfilments(c, tuple(state or ()), limit))
            view = _seller_tools().fulfilment_view
            return {"bought": [_buyer_tools().purchase_view(p) for p in bought], "sold": [view(profile, row) for row in sold]}

    found = run(main, as_json=as_json)
    if as_json:
        show(found)
        return
    for purchase in found["bought"]:
        name = purchase["job_id"] or purchase["purchase_id"]
        typer.echo(f"bought  {name:36}  {purchase['state']:10}  {purchase['price'] or '':>14}  {printable(purchase['title'])}")
    for row in found["sold"]:
        paid = sum(int(p["amount_raw"]) for p in row["payments"])
        typer.echo(f"sold    {row['job_id']:36}  {row['state']:10}  {paid or '':>14}  {row['offer']}")
    if not found["bought"] and not found["sold"]:
        say("no jobs yet: `tradeskill offers`, then `tradeskill hire`")


@example("tradeskill job JOB_ID", "tradeskill job JOB_ID --output DIR")
def job(
    job_id: Annotated[str, typer.Argument(help="Job id or purchase id.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the result (again) into this folder.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a purchase that was interrupted, or look for its refund.")] = False,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Show one job; fetch a paid result again (kept 30 days by default)."""

    async def main() -> None:
        from tradeskill.errors import NotFoundError
        from tradeskill.journal import buying, selling

        async with load_profile(password_file) as profile:
            purchase = profile.journal.read(lambda c: buying.find_purchase(c, job_id))
            if purchase is None:
                row = profile.journal.read(lambda c: selling.find_fulfilment(c, job_id))
                if row is None:
                    raise NotFoundError(f"job {job_id} is not in this profile: see `tradeskill jobs`")
                view = _seller_tools().fulfilment_view(profile, row)
                _print(view, as_json)
                if output is not None and row.result_sha256 is not None:
                    _save(profile.blobs.get(row.result_sha256), row.result_type or "", row.job_id, output)
                return
            if resume:
                purchase = await (await profile.buyer()).drive(purchase.purchase_id)
            _print(_buyer_tools().purchase_view(purchase), as_json)
            if output is not None:
                if purchase.result_sha256 is None:
                    raise NotFoundError(f"job {job_id} is {purchase.state}: it has no result yet (try --resume)")
                _save(profile.blobs.get(purchase.result_sha256), purchase.result_type or "", purchase.job_id or job_id, output)

    run(main, as_json=as_json)


receipt = typer.Typer(no_args_is_help=True, help="Signed receipts: show, export, verify.")


@receipt.command("show")
@example("tradeskill receipt show JOB_ID > receipt.json")
def receipt_show(
    job_id: Annotated[str, typer.Argument(help="Job id or purchase id.")],
    with_result: Annotated[bool, typer.Option("--with-result", help="Put the result's bytes in as well.")] = False,
) -> None:
    """Print the whole chain of a received job: offer, request, quote, receipt, as one JSON object that `receipt verify` reads."""

    async def main() -> dict[str, Any]:
        from tradeskill.errors import NotFoundError
        from tradeskill.journal import buying
        from tradeskill.journal.records import read_document
        from tradeskill.signing import document_to_json

        async with load_profile() as profile:
            purchase = profile.journal.read(lambda c: buying.find_purchase(c, job_id))
            if purchase is None or purchase.receipt is None or purchase.quote is None:
                raise NotFoundError(f"job {job_id} has no receipt here")
            names = {"offer": purchase.offer, "request": purchase.request, "quote": purchase.quote, "receipt": purchase.receipt}
            chain: dict[str, Any] = {name: document_to_json(read_document(text)) for name, text in names.items()}
            if with_result and purchase.result_sha256 is not None:
                chain["result_base64"] = base64.b64encode(profile.blobs.get(purchase.result_sha256)).decode()
            return {**chain, "job_id": purchase.job_id, "payment_id": purchase.payment_id}

    show(run(main, as_json=True))


@receipt.command("verify")
@example("tradeskill receipt verify receipt.json --result result.md --seller KEY", "tradeskill receipt verify receipts/*.json --json")
def receipt_verify(
    files: Annotated[list[Path], typer.Argument(help="What `receipt show` printed; several at once give a list.")],
    result: Annotated[Path | None, typer.Option("--result", help="The delivered bytes, to compare with the receipt.", show_default=False)] = None,
    seller: Annotated[str, typer.Option("--seller", help="The seller's public key as you know it; without it the offer's own key is used.")] = "",
    as_json: AsJson = False,
) -> None:
    """Verify receipts offline: signatures, hashes, the links from request to delivery, and the result's bytes. Needs no profile."""

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
        _print(entry, False)


def _print(view: Any, as_json: bool) -> None:
    if as_json:
        show(view)
        return
    for name, value in view.items():
        if value not in (None, [], ""):
            typer.echo(f"{name:14} {printable(str(value))}")


def _write_result(data: bytes, purchase: Purchase, output: Path | None, as_json: bool) -> None:
    if output is not None:
        _save(data, purchase.result_type or "", purchase.job_id or purchase.purchase_id, output)
    elif not as_json:
        if sys.stdout.isatty() and not (purchase.result_type or "").startswith(("text/", "application/json")):
            say(f"{len(data)} bytes of {purchase.result_type}: fetch them with `tradeskill job {purchase.job_id} --output DIR`")
            return
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _save(data: bytes, media_type: str, name: str, folder: Path) -> None:
    """One file, or the members of a tar, written under plain names of our own choosing or checked ones."""
    from tradeskill.faces.receipts import save_result

    for path in save_result(data, media_type, name, folder):
        say(f"written: {path}")


def _by_intent(connection: Any, intent: str) -> Any:
    from tradeskill.journal import buying

    return buying.find_by_intent(connection, intent)


def _buyer_tools() -> Any:
    """The skill's own module, found as any skill is: the core does not import it by name."""
    return _tools("buyer")


def _seller_tools() -> Any:
    return _tools("seller")


def _tools(name: str) -> Any:
    from importlib import import_module

    from tradeskill.plugins import Plugins

    return import_module(Plugins().require(name, "skill").skill_module())
