"""The buyer's commands: offers, hire, jobs, job. Thin shells over the skill's tools and flow."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeskill.faces.cli.shell import (
    AsJson,
    PasswordFile,
    Verbose,
    confirm,
    example,
    load_profile,
    logs,
    printable,
    read_input,
    report,
    run,
    say,
    show,
    show_entry,
)
from tradeskill.money import Amount, format_amounts, parse_amounts

if TYPE_CHECKING:
    from tradeskill.buyer import Buyer
    from tradeskill.journal import Purchase
    from tradeskill.model import Json, Offer
    from tradeskill.profile import Profile

__all__ = ["hire", "job", "jobs", "offers"]


@example("tradeskill offers", "tradeskill offers markdown --tag web --json")
def offers(
    query: Annotated[str, typer.Argument(help="Words in title or description.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only offers with this tag; may be repeated.")] = None,
    seller: Annotated[str, typer.Option("--seller", help="Only this seller's public key.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="How many at most.")] = 20,
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
        prices = " or ".join(price["price"] for price in offer["prices"])
        typer.echo(f"{offer['offer_id']}  {prices or 'by quote':>14}  {printable(offer['title'])}  [{printable(', '.join(offer['tags']))}]{mark}")
    if not found:
        say("no offers here yet: a seller publishes them with `tradeskill sell`")


@example("""tradeskill hire markdown --input '{"url": "http://127.0.0.1:8000/"}' --max "0.01 XNO\"""", "tradeskill hire OFFER --input @job.json --dry-run")
def hire(
    offer: Annotated[str, typer.Argument(help="Offer id, its beginning, its title or a tag that only one offer has.")],
    input_text: Annotated[str, typer.Option("--input", metavar="JSON|@FILE", help="The job's input: JSON, @FILE or @- for stdin.")],
    maximum: Annotated[
        str, typer.Option("--max", metavar="AMOUNT", help='The most this may cost: "0.01 XNO", "0.01 XNO or 30 sat". Default: the offer\'s price.')
    ] = "",
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="Buys the same thing anew; without it the same input is the same purchase.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Get and verify a quote, pay nothing, cancel.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write the result into this folder instead of stdout.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
    verbose: Verbose = False,
) -> None:
    """Buy one job and wait for its result. Repeat it safely: it never pays twice.

    Asks the seller for a signed quote, verifies it, pays, waits, and verifies the receipt and the result.
    """
    logs(verbose)

    async def main() -> int:
        async with load_profile(password_file) as profile:
            if dry_run:
                return await _dry_run(profile, offer, input_text, maximum, as_json)
            return await _hire(profile, offer, input_text, maximum, label, yes, output, as_json)

    code = run(main, as_json=as_json)
    if code:
        raise typer.Exit(code)


async def _hire(profile: Profile, name: str, input_text: str, maximum: str, label: str, yes: bool, output: Path | None, as_json: bool) -> int:
    from tradeskill.journal import buying

    chosen, value, caps = await _wish(profile, name, input_text, maximum)
    tools = _buyer_tools()
    buyer = await profile.buyer(lambda purchase: say(f"  {purchase.state}") if not as_json else None)
    label, known = _live_try(profile, buyer, chosen, value, label)
    if known is None or known.state in tools.BEFORE_MONEY:
        _check_caps(profile, chosen, chosen.prices, caps)
        if not as_json or not yes:
            new = "" if profile.journal.read(lambda c: buying.check_pin(c, chosen.seller)) else " (never bought from before)"
            price, cap = format_amounts(chosen.prices) or "by quote", format_amounts(caps) or "none"
            say(f"{printable(chosen.title)}  by seller {chosen.seller[:16]}…{new}  price {price}  cap {cap}")
        if not yes:
            confirm("Pay for this job?", "hire", "the payment")
    elif not as_json:
        say(f"the same job was bought before (purchase {known.purchase_id}, {known.state}); no second payment; --label TEXT buys it anew")
    purchase = await buyer.intend(chosen, value, caps=caps, label=label)
    purchase = await buyer.drive(purchase.purchase_id)
    view = tools.purchase_view(purchase)
    if purchase.state != "received":
        return _not_received(view, as_json)
    if output is not None:
        _save(buyer.result(purchase), purchase.result_type or "", purchase.job_id or purchase.purchase_id, output)
    if as_json:
        show({**view, "result": await tools.result(profile, purchase.purchase_id, wait=False, limit=sys.maxsize)})
    elif output is None:
        _write_result(buyer.result(purchase), purchase)
    return 0


def _live_try(profile: Profile, buyer: Buyer, offer: Offer, value: Json, label: str) -> tuple[str, Purchase | None]:
    """The newest try at this purchase, under its label. One that ended without paying may be followed by another; the label of each follows from the last."""
    from tradeskill.journal import buying

    tried = label
    for number in count(2):
        known = profile.journal.read(partial(buying.find_by_intent, intent=buyer.intent_of(offer, value, tried)))
        if known is None or known.state not in ("abandoned", "canceled", "expired"):
            return tried, known
        tried = f"{label} (try {number})"
    raise AssertionError("count() does not end")


def _check_caps(profile: Profile, offer: Offer, prices: Sequence[Amount], caps: Sequence[Amount], rail: str = "") -> None:
    """Before anybody is asked for anything: PolicyError where the policy refuses this offer at each of these prices."""
    from tradeskill import policy
    from tradeskill.errors import PolicyError

    refused: PolicyError | None = None
    for price in prices:
        wish = policy.Intended("", price, rail=rail, seller=offer.seller, offer=offer.offer_id, tags=offer.tags, markets=profile.market_names)
        guard = profile.guard()
        try:
            profile.journal.read(partial(policy.check, wish=wish, guard=guard, this=caps, now=profile.world.now_ms()))
        except PolicyError as error:
            refused = refused or error
        else:
            return
    if refused is not None:
        raise refused


def _not_received(view: dict[str, Any], as_json: bool) -> int:
    """The code says whether money moved: that of RefusedError when it did not, else 1."""
    from tradeskill.errors import RefusedError, TradeskillError

    reason = (view["error"] or {"message": "the job ended without a result"})["message"]
    unpaid = view["money"] == "not moved"
    way_out = "repeat the command to try again" if unpaid else view["next"]
    kind = RefusedError if unpaid else TradeskillError
    failure = kind(f"{reason} (purchase {view['purchase_id']} is {view['state']}, money {view['money']}): {way_out}")
    if as_json:
        show({**view, "exit_code": failure.exit_code})
    return report(failure, False)


async def _wish(profile: Profile, name: str, input_text: str, maximum: str) -> tuple[Offer, Json, tuple[Amount, ...]]:
    """What is wanted, checked before anything else is done: offer, input, and the most it may cost."""
    from tradeskill.agreement import check_input

    value = read_input(input_text)
    caps = parse_amounts(maximum) if maximum else ()
    offer: Offer = await _buyer_tools().find_offer(profile, name)
    check_input(offer.input_schema, value)
    return offer, value, caps or offer.prices


async def _dry_run(profile: Profile, name: str, input_text: str, maximum: str, as_json: bool) -> int:
    """A real quote for a purchase of its own, which is then canceled, so that the real one may still follow."""
    from tradeskill.errors import RefusedError

    chosen, value, caps = await _wish(profile, name, input_text, maximum)
    _check_caps(profile, chosen, chosen.prices, caps)
    buyer = await profile.buyer()
    purchase = await buyer.intend(chosen, value, caps=caps, label=f"dry run {profile.world.random_bytes(8).hex()}")
    purchase = await buyer.drive(purchase.purchase_id, ("verified",))
    view = _buyer_tools().purchase_view(purchase)
    if purchase.state != "verified":
        raise RefusedError(f"no quote: {(view['error'] or {'message': purchase.state})['message']}; nothing was paid")
    await buyer.cancel(purchase.purchase_id, "dry run")
    _check_caps(profile, chosen, [Amount(int(purchase.amount or "0"), purchase.unit or "raw")], caps, purchase.rail or "")
    if as_json:
        show({**view, "state": "canceled", "dry_run": True, "next": "the same command without --dry-run"})
    else:
        say(f"the seller asks {view['price']}; the quote is signed by its key and within the caps; nothing was paid")
    return 0


@example("tradeskill jobs", "tradeskill jobs --state waiting --json")
def jobs(
    state: Annotated[list[str] | None, typer.Option("--state", help="Only this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many at most of each.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List this profile's jobs, bought and sold."""

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
        typer.echo(f"sold    {row['job_id']:36}  {row['state']:10}  {', '.join(p['amount'] for p in row['payments']):>14}  {row['offer']}")
    if not found["bought"] and not found["sold"]:
        say("no jobs yet: `tradeskill offers`, then `tradeskill hire`")


@example("tradeskill job JOB_ID", "tradeskill job JOB_ID --output DIR")
def job(
    job_id: Annotated[str, typer.Argument(help="Job id or purchase id.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write the result (again) into this folder.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a purchase that was interrupted, or look for its refund.")] = False,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
) -> None:
    """Show one job, and fetch its paid result again.

    A result can be fetched for 30 days (`seller.keep_results_days`), whether the seller is there or not.
    """

    async def main() -> None:
        from tradeskill.errors import NotFoundError
        from tradeskill.journal import Fulfilment, buying, selling
        from tradeskill.lifecycle import PURCHASE

        found: Purchase | Fulfilment
        async with load_profile(password_file) as profile:
            purchase = profile.journal.read(lambda c: buying.find_purchase(c, job_id))
            if purchase is None:
                row = profile.journal.read(lambda c: selling.find_fulfilment(c, job_id))
                if row is None:
                    raise NotFoundError(f"job {job_id} is not in this profile: see `tradeskill jobs`")
                found, view = row, _seller_tools().fulfilment_view(profile, row)
            else:
                if resume:
                    purchase = await (await profile.buyer()).drive(purchase.purchase_id)
                found, view = purchase, _buyer_tools().purchase_view(purchase)
            if output is not None:
                if found.result_sha256 is None:
                    way_out = "go on with `--resume`" if purchase is not None and purchase.state not in PURCHASE.terminal else "there is nothing to fetch"
                    raise NotFoundError(f"job {job_id} is {found.state} and has no result: {way_out}")
                _save(profile.blobs.get(found.result_sha256), found.result_type or "", found.job_id or job_id, output)
            show_entry(view, as_json)

    run(main, as_json=as_json)


def _write_result(data: bytes, purchase: Purchase) -> None:
    """To stdout as it is; on a terminal only text, and without control characters: it comes from a stranger."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif (purchase.result_type or "").startswith(("text/", "application/json")):
        for line in data.decode("utf-8", "replace").splitlines():
            typer.echo(printable(line))
    else:
        say(f"{len(data)} bytes of {printable(purchase.result_type or 'data')}: fetch them with `tradeskill job {purchase.job_id} --output DIR`")


def _save(data: bytes, media_type: str, name: str, folder: Path) -> None:
    """One file, or the members of a tar, written under plain names of our own choosing or checked ones."""
    from tradeskill.faces.results import save_result

    for path in save_result(data, media_type, name, folder):
        say(f"written: {path}")


def _buyer_tools() -> Any:
    """The skill's own module, found as any skill is: the core does not import it by name."""
    return _tools("buyer")


def _seller_tools() -> Any:
    return _tools("seller")


def _tools(name: str) -> Any:
    from importlib import import_module

    from tradeskill.plugins import Plugins

    return import_module(Plugins().require(name, "skill").skill_module())
