"""The command `tradeskill policy`: what may be spent, who may loosen it, child budgets. Loosening asks for the owner's passphrase; nothing else does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, example, group, load_profile, passphrase_from, run, say, show, show_entry

if TYPE_CHECKING:
    from tradeskill.journal.spending import Grant
    from tradeskill.money import Amount
    from tradeskill.policy.owner import Changed, Owner
    from tradeskill.profile import Profile

__all__ = ["policy"]

SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400}

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File with the owner's passphrase in its first line; else it is asked for.", show_default=False)
]
Kind = Annotated[str, typer.Argument(help="seller, offer, tag or market.")]
Values = Annotated[list[str], typer.Argument(help="Keys in hex (or addresses), offer ids, tags, or markets.")]

policy = group(
    "What this profile may spend, and who may change that.",
    "tradeskill policy set policy.yaml",
    'tradeskill policy check --amount "0.5 XNO"',
    "tradeskill policy freeze",
)


@policy.command("show")
@example("tradeskill policy show", "tradeskill policy show --json")
def show_policy(as_json: AsJson = False) -> None:
    """Show the policy, whether it is obeyed, and what was spent."""

    async def main() -> dict[str, Any]:
        from tradeskill.errors import PolicyError
        from tradeskill.journal import spending
        from tradeskill.policy.gate import accepted, frozen_since, standing
        from tradeskill.policy.rules import WINDOWS

        async with load_profile() as profile:
            wrong, guard = None, None
            try:
                guard = profile.guard()
                profile.journal.read(lambda c: standing(c, guard.file if guard else None))
            except PolicyError as error:
                wrong = str(error)

            def look(connection: Any) -> dict[str, Any]:
                last = accepted(connection)
                clock = spending.clock(connection, profile.world.now_ms())
                windows = {name: spending.within(connection, clock - span) for name, span in WINDOWS.items()}
                return {
                    "frozen": frozen_since(connection) is not None,
                    "obeyed": wrong is None,
                    "wrong": wrong,
                    "serial": last.seal.serial if last and last.seal else None,
                    "policy": None if last is None else dict(last.content),
                    "configured": {"cap_total": _text(profile.caps.in_total), "cap_per_payment": _text(profile.caps.per_payment)},
                    "spent": {name: {unit: str(value) for unit, value in sums.items()} for name, sums in windows.items()},
                }

            return profile.journal.read(look)

    show_entry(run(main, as_json=as_json), as_json)


@policy.command("set")
@example("tradeskill policy set new-policy.yaml", "tradeskill policy set", "tradeskill policy set --last")
def set_policy(
    file: Annotated[Path | None, typer.Argument(help="The new policy; without it, policy.yaml of the profile as it stands.", show_default=False)] = None,
    last: Annotated[bool, typer.Option("--last", help="Take back what was changed in policy.yaml: write the policy last accepted.")] = False,
    as_json: AsJson = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a file the policy, or confirm what was edited.

    The first policy chooses the owner's passphrase. Which keys are loosened is shown before it is asked for.
    """

    def act(owner: Owner) -> dict[str, Any]:
        from tradeskill.errors import NotFoundError, UsageError
        from tradeskill.policy.sealed import read_policy_file

        if last:
            if file is not None:
                raise UsageError("--last takes no file: it writes the policy last accepted")
            return {"policy": dict(owner.take_back().content)}
        found = read_policy_file(file or owner.path)
        if found is None:
            raise NotFoundError(f"{file or owner.path}: no such file; docs/policy.md shows what may stand in one")
        return _changed(owner.set(found.content))

    _by_owner(act, passphrase_file, as_json)


@policy.command("allow")
@example("tradeskill policy allow seller 5f0c…", "tradeskill policy allow tag markdown web")
def allow(kind: Kind, values: Values, as_json: AsJson = False, passphrase_file: PassphraseFile = None) -> None:
    """Add to an allow list.

    The first entry of a list makes everything else refused; later ones need the passphrase.
    """
    _by_owner(lambda owner: _changed(owner.edit(_adding("allow", kind, values))), passphrase_file, as_json)


@policy.command("deny")
@example("tradeskill policy deny seller 5f0c…", "tradeskill policy deny offer OFFER_ID")
def deny(kind: Kind, values: Values, as_json: AsJson = False, passphrase_file: PassphraseFile = None) -> None:
    """Add to a deny list, which wins over any allow list.

    Needs no passphrase once there is a policy.
    """
    _by_owner(lambda owner: _changed(owner.edit(_adding("deny", kind, values))), passphrase_file, as_json)


@policy.command("freeze")
@example("tradeskill policy freeze")
def freeze_all(as_json: AsJson = False) -> None:
    """Stop all spending of this profile at once.

    Needs no passphrase; what is reserved is not paid either.
    """

    async def main() -> dict[str, Any]:
        from tradeskill.policy.owner import freeze

        async with load_profile() as profile:
            return {"frozen": True, "since_ms": profile.journal.write_now(lambda tx: freeze(tx, profile.world.now_ms()))}

    show_entry(run(main, as_json=as_json), as_json)


@policy.command("unfreeze")
@example("tradeskill policy unfreeze")
def unfreeze(as_json: AsJson = False, passphrase_file: PassphraseFile = None, password_file: PasswordFile = None) -> None:
    """Let this profile spend again.

    Needs the owner's passphrase; where there is no policy, the profile's password.
    """

    async def main() -> dict[str, Any]:
        async with load_profile(password_file) as profile:
            _owner(profile, passphrase_file).unfreeze(lambda: profile.identity.sign("countersign", {"check": "unfreeze"}))
            return {"frozen": False}

    show_entry(run(main, as_json=as_json), as_json)


@policy.command("passphrase")
@example("tradeskill policy passphrase", "tradeskill policy passphrase --passphrase-file old --new-passphrase-file new")
def change_passphrase(
    as_json: AsJson = False,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: Annotated[
        Path | None, typer.Option("--new-passphrase-file", help="File with the new one in its first line; else it is asked for.", show_default=False)
    ] = None,
) -> None:
    """Choose another passphrase; the policy stays as it is.

    Asks for the old one first, then twice for the new one.
    """

    async def main() -> dict[str, Any]:
        from dataclasses import replace

        def ask(looser: tuple[str, ...], new: bool) -> str:
            say("the new passphrase" if new else "the old passphrase")
            return passphrase_from(new_passphrase_file if new else passphrase_file, confirm=new)

        async with load_profile() as profile:
            sealed = replace(_owner(profile, None), passphrase=ask).change_passphrase()
            return {"changed": "passphrase", "serial": None if sealed.seal is None else sealed.seal.serial}

    show_entry(run(main, as_json=as_json), as_json)


@policy.command("grant")
@example('tradeskill policy grant --max "0.1 XNO" --for 1d --note "research agent"', 'tradeskill policy grant --max "0.01 XNO" --under GRANT')
def grant(
    maximum: Annotated[list[str], typer.Option("--max", metavar="AMOUNT", help='All it may spend, such as "0.1 XNO"; once for each unit.')],
    lasting: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, such as 30m, 12h or 7d. Default: as long as what it comes from.")] = "",
    under: Annotated[str, typer.Option("--under", metavar="GRANT", help="A grant it comes from. Default: TRADESKILL_GRANT.")] = "",
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What it is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a child budget, for a sub-agent say.

    Who is started with TRADESKILL_GRANT set to it spends from it. What it
    spends is taken from every budget above it too. It only narrows: all other rules hold as well.
    """

    async def main() -> dict[str, Any]:
        from tradeskill.errors import UsageError
        from tradeskill.money import parse_amount
        from tradeskill.policy.gate import lineage
        from tradeskill.policy.owner import make_grant

        amounts = [parse_amount(text) for text in maximum]
        most = {amount.unit: amount.value for amount in amounts}
        if len(most) != len(amounts):
            raise UsageError("--max stands twice for one unit: give each unit once")
        async with load_profile() as profile:
            now, parent = profile.world.now_ms(), under or profile.grant
            if profile.grant and profile.grant not in {above.grant_id for above in profile.journal.read(lambda c: lineage(c, parent))}:
                raise UsageError(f"--under {under!r:.80} does not come from this process's own grant (TRADESKILL_GRANT)")
            ends = now + _seconds(lasting) * 1000 if lasting else None
            name = profile.world.random_bytes(8).hex()
            return _grant(profile.journal.write_now(lambda tx: make_grant(tx, name, parent, most, ends, note[:200], now)))

    show_entry(run(main, as_json=as_json), as_json)


@policy.command("grants")
@example("tradeskill policy grants --json")
def grants(as_json: AsJson = False) -> None:
    """List all grants, with what each has spent and reserved."""

    async def main() -> list[dict[str, Any]]:
        from tradeskill.journal import spending

        async with load_profile() as profile:
            return [_grant(found) for found in profile.journal.read(spending.grants)]

    found = run(main, as_json=as_json)
    if as_json:
        show(found)
        return
    for entry in found:
        show_entry(entry, False)
    if not found:
        say("no grants: `tradeskill policy grant` makes one")


@policy.command("revoke")
@example("tradeskill policy revoke GRANT")
def revoke_grant(name: Annotated[str, typer.Argument(metavar="GRANT", help="As `policy grants` shows it.")], as_json: AsJson = False) -> None:
    """End a grant, and all that come from it."""

    async def main() -> dict[str, Any]:
        from tradeskill.policy.owner import revoke

        async with load_profile() as profile:
            return _grant(profile.journal.write_now(lambda tx: revoke(tx, name, profile.world.now_ms())))

    show_entry(run(main, as_json=as_json), as_json)


@policy.command("check")
@example('tradeskill policy check --amount "0.5 XNO"', 'tradeskill policy check --amount "21 sat" --seller 5f0c… --tag web --json')
def check(
    amount: Annotated[str, typer.Option("--amount", metavar="AMOUNT", help='Such as "0.5 XNO".')],
    seller: Annotated[str, typer.Option("--seller", help="Its key; with --send, an address.")] = "",
    offer: Annotated[str, typer.Option("--offer", help="Offer id.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A tag of the offer; may be repeated.")] = None,
    rail: Annotated[str, typer.Option("--rail", help="The rail it would leave by.")] = "",
    send: Annotated[bool, typer.Option("--send", help="As for `wallet send`, not for a purchase.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what would become of a spend, and by which rule.

    Spends and reserves nothing. Ends with 5 where it would be refused.
    """

    async def main() -> tuple[dict[str, Any], Any]:
        from tradeskill.money import parse_amount
        from tradeskill.policy import Allowed, Intended, Refused, verdict
        from tradeskill.policy.gate import refusal

        value = parse_amount(amount)
        async with load_profile() as profile:
            markets = () if send else profile.market_names
            wish = Intended("", value, rail=rail, seller=seller, offer=offer, tags=tuple(tag or ()), markets=markets, kind="send" if send else "purchase")
            guard = profile.guard()
            found = profile.journal.read(lambda c: verdict(c, wish, guard, (), profile.world.now_ms()))
        if isinstance(found, Allowed):
            return {"verdict": "allowed", "rule": None, "why": None, "over_by": None, "unit": None}, None
        over = str(found.over_by) if isinstance(found, Refused) and found.over_by is not None else None
        entry = {"verdict": "refused" if isinstance(found, Refused) else "ask", "rule": found.rule, "why": found.why, "over_by": over}
        return {**entry, "unit": found.unit or None if isinstance(found, Refused) else None}, refusal(found) if isinstance(found, Refused) else None

    entry, refused = run(main, as_json=as_json)
    show_entry(entry, as_json)
    if refused is not None:
        raise typer.Exit(refused.exit_code)


def _by_owner(act: Callable[[Owner], dict[str, Any]], passphrase_file: Path | None, as_json: bool) -> None:
    async def main() -> dict[str, Any]:
        async with load_profile() as profile:
            return act(_owner(profile, passphrase_file))

    show_entry(run(main, as_json=as_json), as_json)


def _owner(profile: Profile, passphrase_file: Path | None) -> Owner:
    from tradeskill.policy.owner import Owner
    from tradeskill.policy.sealed import POLICY_FILE

    return Owner(
        journal=profile.journal,
        path=profile.home / POLICY_FILE,
        network=profile.config.network,
        key=profile.identity.key,
        passphrase=lambda looser, new: _ask(passphrase_file, looser, new),
        random_bytes=profile.world.random_bytes,
    )


def _ask(file: Path | None, looser: tuple[str, ...], new: bool) -> str:
    say("the first policy: choose the owner's passphrase" if new else f"this loosens {', '.join(looser)}")
    return passphrase_from(file, confirm=new)


def _adding(where: str, kind: str, values: list[str]) -> Callable[[dict[str, Any]], None]:
    from tradeskill.errors import UsageError

    if kind not in ("seller", "offer", "tag", "market"):
        raise UsageError(f"{kind!r:.80} is not seller, offer, tag or market")

    def add(content: dict[str, Any]) -> None:
        lists = content.setdefault(where, {})
        lists[f"{kind}s"] = list(dict.fromkeys([*(lists.get(f"{kind}s") or []), *values]))

    return add


def _changed(changed: Changed) -> dict[str, Any]:
    serial = None if changed.file.seal is None else changed.file.seal.serial
    return {"policy": dict(changed.file.content), "loosened": list(changed.looser), "serial": serial}


def _grant(found: Grant) -> dict[str, Any]:
    from tradeskill.money import Amount

    budgets = {
        unit: {"most": str(most), "held": str(held), "left": str(Amount(max(0, most - held), unit))} for unit, (most, held) in found.budgets.items()
    }
    return {
        "grant": found.grant_id,
        "under": found.parent or None,
        "note": found.note,
        "budgets": budgets,
        "expires_at_ms": found.expires_at,
        "revoked": found.revoked_at is not None,
    }


def _seconds(text: str) -> int:
    from tradeskill.errors import UsageError

    match = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text, re.ASCII)
    if match is None:
        raise UsageError(f"--for takes a time such as 30m, 12h or 7d, not {text!r:.80}")
    return int(match[1]) * SECONDS[match[2]]


def _text(caps: Sequence[Amount]) -> str | None:
    from tradeskill.money import format_amounts

    return format_amounts(caps) or None
