"""docs/devnet.md tells what is served and what was not compared, from the code and the table of captures."""

import json
import os
import re
from pathlib import Path

from tradeskill_wallet.devnet.faults import Faults
from tradeskill_wallet.devnet.rpc import ACTIONS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "devnet.md"
CAPTURES = ROOT / "tests" / "captures"

# What the page promises to serve (besides what steers the dev ledger): the list the wallet and the verifier build on.
PROMISED = re.findall(
    r"\w+",
    "version block_count block_info blocks_info block_account block_hash block_confirm process account_info account_balance "
    "accounts_balances accounts_frontiers account_history account_representative account_key account_get validate_account_number "
    "receivable accounts_receivable receivable_exists active_difficulty work_generate work_validate work_cancel chain successors "
    "confirmation_quorum telemetry uptime available_supply deterministic_key key_expand nano_to_raw raw_to_nano unchecked",
)


def generated() -> dict[str, str]:
    left_out: dict[str, str] = json.loads((CAPTURES / "LEFT_OUT.json").read_text())
    recordings = [path for path in CAPTURES.glob("*.json") if path.name not in ("LEFT_OUT.json", "accounts.json")]
    return {
        "actions": ", ".join(f"`{name}`" for name in sorted(ACTIONS)) + ".",
        "total": str(len(recordings)),
        "left out": "\n".join(["| Recording | Why not |", "|---|---|", *(f"| {name.removesuffix('.json')} | {left_out[name]} |" for name in sorted(left_out))]),
    }


def filled(page: str) -> str:
    for name, text in generated().items():
        wide = "\n" if name != "total" else ""
        page = re.sub(rf"<!-- {name} -->(?:.*?<!-- /{name} -->)?", lambda _, n=name, t=text, w=wide: f"<!-- {n} -->{w}{t}{w}<!-- /{n} -->", page, flags=re.S)
    return page


def test_the_page_lists_exactly_what_is_served_and_left_out() -> None:
    page = PAGE.read_text()
    if os.environ.get("TRADESKILL_WRITE_DOCS"):
        page = filled(page)
        PAGE.write_text(page)
    assert filled(page) == page, "run this test once with TRADESKILL_WRITE_DOCS=1"


def test_every_promised_action_is_served() -> None:
    assert set(PROMISED) <= ACTIONS


def test_every_fault_is_explained() -> None:
    page = PAGE.read_text()
    assert all(f"| `{name}` |" in page for name in Faults().describe())
