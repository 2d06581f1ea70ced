"""Writes the pages under docs/ that are generated from the code: `make_docs.py` writes, `make_docs.py --check` only says which are out of date."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradeskill import config, errors, hookspecs
from tradeskill.configvalues import Shape
from tradeskill.lifecycle import FULFILMENT, JOB, LIFECYCLES, PAYMENT, PURCHASE, diagram
from tradeskill.money import Amount
from tradeskill.policy import rules, sealed

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NOTE = "<!-- Written by tools/make_docs.py from the code; change it there. -->\n"


def configuration() -> str:
    sections = [
        ("The file", config.ProfileConfig),
        ("`offers[]`", config.OfferConfig),
        ("`offers[].limits`", config.LimitsConfig),
        ("`offers[].capacity`", config.Capacity),
        ("`seller`", config.SellerConfig),
        ("`buyer`", config.BuyerConfig),
        ("`plugins`", config.PluginsConfig),
    ]
    parts = [
        "# Configuration\n",
        NOTE,
        f"A profile has one file, `{config.CONFIG_FILE}` in its folder, written by `tradeskill init` with mode 0600. `tradeskill sell FILE` reads\n"
        "a second one of the same form, which may hold any part of it: `seller` is merged key by key, `backends` by name, everything else replaces what the\n"
        "profile says. The network cannot be changed that way.\n",
        "The file is YAML in a strict reading: `true` and `false` are the only flags (`yes` is a word), `1e3`, `1:30` and `0755` are words, a key may\n"
        "stand once, and anchors, aliases and tags are refused. Amounts are text with their unit (`\"0.001 XNO\"`), sizes are `64K`, `256M`, `1G` in\n"
        "powers of 1024. A wrong or unknown key stops with exit code 2 and one line that names file, key and value.\n",
        "Secrets are refused, wherever they stand: keys named seed, password, private or token, and passwords inside URLs. The seed lives in an\n"
        "encrypted file of the profile; its password comes from a prompt, `--password-file` or `TRADESKILL_PASSWORD_FILE`. A key that ends in\n"
        "`_file` may name a file that holds a secret.\n",
        "Where a plugin is named, its own settings stand beside the key `plugin`; the plugin checks them. `name@package` picks one of two packages\n"
        "that claim the same name.\n",
    ]
    for title, kind in sections:
        rows = [_row(f) for f in dataclasses.fields(kind) if "shape" in f.metadata]
        about = inspect.cleandoc(kind.__doc__ or "")
        parts.append("\n".join([f"## {title}\n", f"{about}\n", "| Key | Takes | Default | Meaning |", "|---|---|---|---|", *rows, ""]))
    variables = [f"| `{name}` | {meaning} |" for name, meaning in config.ENVIRONMENT.items()]
    parts.append("\n".join(["## The environment\n", "| Variable | Meaning |", "|---|---|", *variables, ""]))
    return "\n".join(parts)


POLICY_EXAMPLE = """\
caps:
  payment: ["0.01 XNO"]
  seller: ["0.5 XNO"]
  day: [{most: "0.2 XNO", over: [sat]}]      # XNO and sat together, by the rate below
  month: [{most: "2 XNO", over: [sat]}]
  first_use: ["0.001 XNO", "5 sat"]
rates: ["1 XNO = 1500 sat"]
allow: {tags: [markdown, web]}
deny: {sellers: [5f0c7f1e3d0a4b539a540c7a6a2b9a115f0c7f1e3d0a4b539a540c7a6a2b9a11]}
ask_above: ["0.005 XNO"]
rails: [nano, cashu]                         # in this order where a quote leaves the choice, and no others
expires_at: "2027-06-30T00:00:00Z"
"""

POLICY_WORDS = """\
# The spending policy

NOTE-HERE
What a profile may spend is laid down by its owner in `policy.yaml`, in the profile's folder, and judged in the same transaction of the journal
that reserves the money, for all processes of the profile and all rails together. Everything that sends money passes it: purchases by any tool or
command, `wallet send`, `wallet sweep --to` somebody else, `review refund`. Without such a file the caps of `config.yaml` hold alone; with it
both hold. The one exception: what a real network starts with, nothing at all, gives way to a policy that has a cap per hour, day, month or in total.

Not spending: what a seller's worker sends back by itself to the address that the buyer signed (excess, late, or for a failed job). That money is the
buyer's, and no cap may keep it.

```yaml
EXAMPLE-HERE
```

`tradeskill policy set FILE` makes a file the policy, `policy show` shows it with what was spent, `policy check --amount "0.5 XNO"` says what would
become of a spend and by which rule. A refusal names the rule as the tables below do, says how far over, and ends with exit code 5.

## What counts as spent

A spend is reserved before anything is signed, committed when the money is gone, released when it is proved to be here still or came back. Reserved
counts as spent in every cap and window however old it is, since it may have been paid; once the payment is known to be published, it counts in a
window from that moment on. So no stretch of 3,600 seconds, 86,400 seconds or 30 days ever holds more than its cap. Time is the largest ever seen by
the journal: a clock that is set back frees nothing. (One that was set forward is believed until real time has caught up.)

A cap holds for its unit, and with `over` for others too, converted by the `rates` written in the policy, exactly, rounded up once. No rate is ever
fetched. A kind of cap that is written refuses units that none of its caps names.

## Who may change it

Tightening never needs anything: lower a cap, add to a deny list, `policy freeze`. Freezing holds from its commit on, also for what is reserved and
not yet signed; what was signed is still published. Loosening needs the owner's passphrase, which the first `policy set` chooses and which should not
be the profile's password: raising or dropping a cap, adding to an allow list, taking from a deny list, later expiry, unfreezing. The command names
the keys that it would loosen before it asks. No tool can do any of it. `policy passphrase` chooses another one.

The file carries a seal: a MAC over all of it, the network and the profile's key, under a key that argon2id derives from the passphrase. The journal
remembers what was accepted last and a serial that only grows. A file that differs from it is obeyed only where it is as tight or tighter (and is then
the accepted one); else spending stops, and the error says which keys are looser and whether it is an older file put back. So it does when the file is
gone. `policy set` confirms the file as it stands, `policy set --last` writes the accepted one again.

## Grants

`policy grant --max "0.1 XNO" --for 1d` makes a child budget and prints its id. Whoever is started with `TRADESKILL_GRANT` set to it spends from it:
each spend is taken from the grant and from every grant above it in one transaction, none can exceed any of them, and all other rules hold as well. A
grant made by somebody bound to one comes from that one. A grant narrows and is no secret: it binds a sub-agent only if whoever starts it sets the
variable where the sub-agent cannot change it. `policy grants` lists them; `policy revoke` ends one and all below.

## Approval

Above `ask_above` the owner is asked: at the terminal (`--yes` is no answer to it), or by whatever face has somebody to ask. Where nobody can be asked
the payment is refused.

## One journal, one buyer

What was bought and what was spent is known to the journal alone, and a journal is shared by the processes of one machine. Two machines with one identity
key and a journal each are two buyers: each buys the same intent once, and each has all the caps to itself. So give each machine a profile of its own with
its share of the caps. A profile that moves moves whole: `tradeskill backup`, then `restore`, and the old one is not used again.

## What it does not defend against

Whoever knows the passphrase. Programs of the same user that write the journal's database directly: the policy in it is checked against its seal only
when the passphrase is given next. Such programs could as well replace this one, or read the wallet's keys from memory. Run an agent that you do not
trust under another user, over `tradeskill mcp`. Restoring an old backup brings back the sums and the policy of its day.
"""


def policy_page() -> str:
    sections = [("The file", rules.Policy), ("`caps`", rules.CapTable), ("`allow` and `deny`", rules.Lists), ("`seal`", sealed.Seal)]
    parts = [POLICY_WORDS.replace("NOTE-HERE", NOTE).replace("EXAMPLE-HERE\n", POLICY_EXAMPLE)]
    for title, kind in sections:
        rows = [_row(f) for f in dataclasses.fields(kind) if "shape" in f.metadata]
        about = inspect.cleandoc(kind.__doc__ or "")
        parts.append("\n".join([f"## {title}\n", f"{about}\n", "| Key | Takes | Default | Meaning |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _row(field: dataclasses.Field[Any]) -> str:
    shape: Shape = field.metadata["shape"]
    missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    default = "required" if missing else _shown(field.default if field.default_factory is dataclasses.MISSING else field.default_factory(), shape)
    return f"| `{field.name}` | {shape.takes} | {default} | {field.metadata['meaning']} |"


def _shown(value: object, shape: Shape) -> str:
    if value is None and ", see `" in shape.takes:
        return "as there"
    if value is None:
        return "null" if shape.takes.endswith("or null") else "see right"
    if value == "":
        return "see right"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, int) and "a size" in shape.takes:
        return f"`{value // 2**20}M`"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, Amount | str | int):
        return f"`{value}`"
    if isinstance(value, Mapping) and value:
        return f"`{{{', '.join(f'{name}: {item}' for name, item in value.items())}}}`"
    return "as there" if dataclasses.is_dataclass(value) else "none"


LIFECYCLE_WORDS = {
    JOB.name: "Shared by buyer and seller; the market keeps it.",
    FULFILMENT.name: "The seller's journal of one job.",
    PAYMENT.name: "One row a final payment, in the seller's journal. Jobs stay as they ended; money moves here.",
    PURCHASE.name: "The buyer's journal of one job. What is reserved stays reserved while the outcome is unknown.",
}


def lifecycles() -> str:
    parts = [
        "# Lifecycles\n",
        NOTE,
        "Four tables in `tradeskill/lifecycle.py`. A step that is not in its table raises and changes nothing. An effect is stored in the same\n"
        "transaction as the state that asks for it and runs after the commit; it may run again after a crash.\n",
    ]
    for table in LIFECYCLES:
        effects = [f"| `{s}` | `{e}` | `{step.to}` | {', '.join(f'`{x}`' for x in step.effects)} |" for (s, e), step in table.steps.items() if step.effects]
        parts += [f"## {table.name.capitalize()}\n", f"{LIFECYCLE_WORDS[table.name]}\n", f"{diagram(table)}\n"]
        if effects:
            parts.append("\n".join(["| From | Event | To | Effects |", "|---|---|---|---|", *effects, ""]))
    return "\n".join(parts)


def error_page() -> str:
    tree = inspect.cleandoc(errors.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0]
    rows = [f"| `{kind.code}` | {kind.exit_code} | `{name}` |" for name in errors.__all__ if (kind := getattr(errors, name)) is not None]
    return "\n".join(
        [
            "# Errors and exit codes\n",
            NOTE,
            "Every command ends with 0 when it did what it was asked, else with the exit code of the error that it prints as one line on stderr.\n"
            "A class means that the caller should do something else; 6 is the one to try again.\n"
            "With `--json` the same error is also an object on stdout: `{\"error\": {\"code\": …, \"message\": …, \"exit_code\": …}}`.\n",
            "Two codes have no class of their own: 1, where a command did its part and the outcome is bad (`doctor` found something wrong,\n"
            "a job of `demo` was not delivered, a job of `hire` failed after it was paid; what became of the money is said), and 130 after Ctrl-C\n"
            "(nothing is lost: the same command goes on).\n",
            "```",
            inspect.cleandoc(tree),
            "```\n",
            "| Code | Exit code | Class |",
            "|---|---|---|",
            *sorted(rows),
            "",
        ]
    )


def hooks() -> str:
    parts = [
        "# Hooks\n",
        NOTE,
        "A plugin is a module named by an entry point of the group `tradeskill`; it defines any of these functions, each marked with\n"
        "`@tradeskill.hookspecs.hookimpl`. A function that takes fewer of the parameters is fine; one that is misspelled, unmarked or takes other\n"
        "parameters keeps the plugin from loading, and `tradeskill plugins` says why.\n",
    ]
    for name, item in vars(hookspecs).items():
        if hasattr(item, "tradeskill_spec"):
            annotations = inspect.get_annotations(item)
            arguments = ", ".join(f"{part}: {annotations[part]}" for part in inspect.signature(item).parameters)
            parts += ["```python", f"def {name}({arguments}) -> {annotations['return']}", "```\n", f"{item.__doc__}\n"]
    return "\n".join(parts)


def clauses() -> str:
    """The contracts' tests need pytest, as the kit does."""
    from tradeskill.testing.backend_contract import BACKEND_LACKS, BackendContract
    from tradeskill.testing.clauses import clauses_of
    from tradeskill.testing.market_contract import MARKET_LACKS, MarketContract
    from tradeskill.testing.skill_contract import SkillContract
    from tradeskill.testing.wallet_contract import WALLET_LACKS, WalletContract

    contracts: list[tuple[str, type, Mapping[str, str]]] = [
        ("A wallet", WalletContract, WALLET_LACKS),
        ("A market", MarketContract, MARKET_LACKS),
        ("A backend", BackendContract, BACKEND_LACKS),
        ("A skill", SkillContract, {}),
    ]
    parts = [
        "# The clauses\n",
        NOTE,
        "What a plugin must keep, one test each; the tests are their wording. How to run them, and what it means to declare something off, is in\n"
        "[plugins.md](plugins.md).\n",
    ]
    for title, contract, lacks in contracts:
        rows = [f"| {each.number} | {each.sentence} | {f'`{each.unless}`' if each.unless else ''} |" for each in clauses_of(contract).values()]
        parts.append("\n".join([f"## {title}\n", "| Clause | | Off where it lacks |", "|---|---|---|", *rows, ""]))
        if lacks:
            parts.append("\n".join(["What may be lacking:\n", *(f"- `{name}`: {meaning}" for name, meaning in lacks.items()), ""]))
    return "\n".join(parts)


def kit() -> str:
    """The tables are the tests' own, so they are read from there."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from tests.kit_table import LIARS, OURS

    from tradeskill.testing.backend_contract import BackendContract
    from tradeskill.testing.clauses import KINDS, clauses_of
    from tradeskill.testing.market_contract import MarketContract
    from tradeskill.testing.skill_contract import SkillContract
    from tradeskill.testing.wallet_contract import WalletContract

    every = {each.number: each.sentence for c in (WalletContract, MarketContract, BackendContract, SkillContract) for each in clauses_of(c).values()}
    parts = [
        "# What the kit finds\n",
        NOTE,
        "What the conformance kit says of our own plugins, and of plugins that lie. The clauses are in [clauses.md](clauses.md), how to run them in\n"
        "[plugins.md](plugins.md).\n",
        "## The kit on our own plugins\n",
        "`tradeskill plugins check NAME` for each, as `tests/test_kit_ours.py` runs it. `cashu` needs a mint (`--with mint=DIR`), `container` an engine\n"
        "(`--with socket=unix:///PATH`).\n",
    ]
    rows = []
    for name, classes in OURS.items():
        for found in classes.values():
            off = "; ".join(f"{number} ({every[number]}): {reason}" for number, reason in found.off.items())
            rows.append(f"| `{name}` | {found.on} | {found.holds} of {found.holds + len(found.off)} | {off or 'none'} |")
    parts.append("\n".join(["| Plugin | Tried on | Clauses that hold | Declared off, with the reason |", "|---|---|---|---|", *rows, ""]))
    parts += [
        "## Plugins that lie\n",
        f"{len(LIARS)} plugins in `tests/lying_plugins/`, each honest but for one thing. `tests/test_kit_liars.py` holds that each breaks the clause\n"
        "that it was made to break and what that one implies, and keeps all others.\n",
    ]
    for kind in KINDS.values():
        rows = []
        for name, (own, implied) in LIARS.items():
            if name.startswith(f"{kind}s::"):
                words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=A)(?=[A-Z][a-z])", " ", name.partition("::Test")[2]).lower()
                rows.append(f"| {words} | {own} | {every[own]} | {implied.replace(' ', ', ')} |")
        parts.append("\n".join([f"### A {kind} that …\n", "| | breaks | which says | and so also |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


PAGES = {
    "clauses.md": clauses,
    "kit.md": kit,
    "configuration.md": configuration,
    "policy.md": policy_page,
    "lifecycles.md": lifecycles,
    "errors.md": error_page,
    "hooks.md": hooks,
}


def main(arguments: list[str]) -> int:
    stale = [name for name, make in PAGES.items() if not (DOCS / name).exists() or (DOCS / name).read_text("utf-8") != make()]
    for name in stale:
        if arguments != ["--check"]:
            (DOCS / name).write_text(PAGES[name](), "utf-8")
        print(f"docs/{name} {'is out of date: run tools/make_docs.py' if arguments == ['--check'] else 'written'}")
    return 1 if stale and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
