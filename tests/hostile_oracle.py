"""The one oracle for hostile trades: what moved on the ledger, what stands in the tools' answers, how it ended, and that the policy is as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mcp_types as types

from tradeskill import policy
from tradeskill.faces.mcp_server import ANSWER_BYTES, UNTRUSTED
from tradeskill.journal import spending

if TYPE_CHECKING:
    from tests.hostile_stage import Case, Scene
    from tradeskill.profile import Profile

__all__ = ["FUNDS", "MARK", "judge", "kept"]

MARK = "Pwn3d"  # stands in every text of a stranger, so that it is found wherever it turns up
FUNDS = 1_000_000  # raw, the buyer's
STRANGERS = frozenset({"title", "description", "tags", "input", "text", "message", "offer_id", "seller"})  # where a stranger's words may stand
OURS = frozenset({"state", "money", "next", "again", "code", "price", "price_raw", "amount_raw", "unit", "media_type", "receipt", "network", "file"})


def judge(case: Case, scene: Scene) -> None:
    judge_money(case, scene)
    for tool, answer in scene.answers:
        judge_answer(tool, answer)
    judge_end(case, scene)


def kept(profile: Profile) -> tuple[bytes, Any, Any]:
    """The policy as the owner left it: the file's bytes, and what the journal remembers."""
    accepted = profile.journal.read(lambda c: [spending.meta(c, name) for name in ("policy.accepted", "policy.confirmed", "spending.frozen")])
    return (profile.home / "policy.yaml").read_bytes(), accepted, sorted(path.name for path in profile.home.iterdir() if path.name != "downloads")


def judge_money(case: Case, scene: Scene) -> None:
    """On the ledger, to the raw: what was expected, at most once, to an address that the seller signed; the journal says the same."""
    assert [amount for _, amount in scene.sent] == ([case.pays] if case.pays else [])
    assert {to for to, _ in scene.sent} <= scene.addresses
    assert len(scene.wallet.store.sends) == len(scene.sent), "something was signed that is not on the ledger"
    assert scene.rig.ledger.spendable(scene.wallet._main) == FUNDS - case.pays
    spent, reserved = scene.rig.journal("buyer").read(lambda c: policy.spent_and_reserved(c, "raw"))
    assert spent + reserved == case.pays
    assert len(scene.questions) == case.asked, scene.questions
    assert [q for q in scene.questions if not q.isprintable() or len(q) > 400] == []


def judge_answer(tool: str, answer: types.CallToolResult) -> None:
    """Marked, bounded, the same twice, no traceback; a stranger's words only where strangers' words stand; a failure has a way out."""
    structured = answer.structured_content
    assert structured is not None
    (content,) = answer.content
    assert isinstance(content, types.TextContent)
    text = content.text
    shown = structured["result"] if tool == "buyer_search" and not answer.is_error else structured
    assert json.loads(text) == shown
    assert len(text.encode()) <= ANSWER_BYTES
    assert [c for c in text if ord(c) < 0x20] == [], "a control character reached the text"
    assert "Traceback" not in text
    assert "failed inside with" not in text, text[:500]
    marked = (answer.meta or {}).get(UNTRUSTED)
    assert marked is True or shown == []
    for path, value in leaves(shown):
        if MARK.casefold() in value.casefold():
            assert not set(path) & OURS, f"a stranger's words in {'.'.join(path)}"
            assert set(path) & STRANGERS, f"a stranger's words in {'.'.join(path)}"
            assert within_marked(shown, path) or (answer.is_error and path == ("error", "message")), path
    if answer.is_error:
        failure = structured["error"]
        assert failure["message"].strip()
        assert failure["next"].strip()
    elif "state" in structured and structured["error"] is not None:
        assert structured["error"]["message"].strip()
        assert structured["next"].strip()
        assert len(structured["error"]["message"]) <= 1000


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Every text with the keys that lead to it, and every key as a text of its own."""
    found: list[tuple[tuple[str, ...], str]] = []
    waiting: list[tuple[tuple[str, ...], Any]] = [(path, value)]
    while waiting:
        where, each = waiting.pop()
        if isinstance(each, dict):
            found += [(where, key) for key in each]
            waiting += [((*where, key), item) for key, item in each.items()]
        elif isinstance(each, list):
            waiting += [(where, item) for item in each]
        elif isinstance(each, str):
            found.append((where, each))
    return found


def within_marked(shown: Any, path: tuple[str, ...]) -> bool:
    views = shown if isinstance(shown, list) else [shown]
    return all(view.get("untrusted") is True for view in views)


def judge_end(case: Case, scene: Scene) -> None:
    """How it ended is what the last word on it says, and whether money moved is told as it was."""
    hired = [answer for tool, answer in scene.answers if tool == "buyer_hire"]
    states = [(answer.structured_content or {}).get("state", "") for answer in hired]
    assert states[-1] == case.ends, (states, [answer.structured_content for answer in hired][-1])
    structured = hired[-1].structured_content or {}
    money = structured["money"] if case.ends else structured["error"]["money"]
    assert (money != "not moved") == bool(case.pays), money
    if case.says:
        words = json.dumps(structured["error"], ensure_ascii=False)
        assert case.says in words, words
