"""What the owner may change: loosening needs the passphrase, tightening and freezing never do, and a file that was changed behind is not obeyed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tradeskill import policy
from tradeskill.configvalues import Place
from tradeskill.errors import ConfigError, PolicyError, SecretError, StateError
from tradeskill.journal import Database, spending
from tradeskill.money import Amount
from tradeskill.policy import Guard, Intended
from tradeskill.policy.gate import accepted
from tradeskill.policy.owner import Owner, freeze
from tradeskill.policy.sealed import POLICY_FILE, fits, parse_policy, policy_yaml, read_policy_file, seal
from tradeskill.secretfile import LIGHT
from tradeskill.sqlite import connector
from tradeskill.world import World

WORD = "owner's words"


class Desk:
    """An owner at a profile, and how often the passphrase was asked for."""

    def __init__(self, home: Path) -> None:
        self.journal = Database(connector(home / "journal.db", "the journal"), World(), "dev")
        self.path, self.word = home / POLICY_FILE, WORD
        self.asked: list[bool] = []
        self.owner = Owner(self.journal, self.path, "dev", "k" * 64, self.ask, os.urandom)

    def ask(self, looser: tuple[str, ...], new: bool) -> str:
        assert looser
        self.asked.append(new)
        return self.word

    def reserve(self, name: str, value: int) -> None:
        guard, wish = Guard(file=read_policy_file(self.path)), Intended(name, Amount(value, "raw"))
        self.journal.write_now(lambda tx: policy.reserve(tx, wish, guard, (), 1))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    asyncio.run(desk.journal.close())


def per_day(value: int) -> dict[str, Any]:
    return {"caps": {"day": [f"{value} raw"]}}


def put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update({name: value})


def test_the_first_policy_chooses_the_passphrase_and_is_obeyed(desk: Desk) -> None:
    changed = desk.owner.set(per_day(10))
    assert (changed.looser, desk.asked) == (("policy",), [True])
    assert desk.path.stat().st_mode & 0o777 == 0o600
    desk.reserve("a", 10)
    with pytest.raises(PolicyError, match="cap per day"):
        desk.reserve("b", 1)


def test_loosening_needs_the_passphrase_and_a_wrong_one_changes_nothing(desk: Desk) -> None:
    desk.owner.set(per_day(10))
    before, desk.word = desk.path.read_bytes(), "wrong"
    with pytest.raises(SecretError, match="wrong passphrase"):
        desk.owner.set(per_day(11))
    assert desk.path.read_bytes() == before
    desk.word = WORD
    changed = desk.owner.set(per_day(11))
    assert changed.looser == ("caps.day",)
    assert changed.file.seal is not None
    assert changed.file.seal.serial == 2
    assert desk.asked == [True, False, False]
    desk.reserve("a", 11)


def test_tightening_asks_for_nothing_and_can_only_be_undone_with_the_passphrase(desk: Desk) -> None:
    desk.owner.set(per_day(10))
    assert desk.owner.edit(put("frozen", True)).looser == ()
    assert desk.owner.set({**per_day(9), "frozen": True}).looser == ()
    assert desk.asked == [True]
    desk.word = "wrong"
    with pytest.raises(SecretError):
        desk.owner.edit(put("frozen", False))
    desk.word = WORD
    assert desk.owner.edit(put("frozen", False)).looser == ("frozen",)


def test_adding_a_seller_to_the_allow_list_needs_the_passphrase(desk: Desk) -> None:
    desk.owner.set({"allow": {"sellers": ["a"]}})
    assert desk.owner.set({"allow": {"sellers": ["a", "b"]}}).looser == ("allow.sellers",)
    assert desk.asked == [True, False]


def test_an_older_signed_policy_put_back_stops_spending(desk: Desk) -> None:
    desk.owner.set(per_day(10))
    older = desk.path.read_bytes()
    desk.owner.set(per_day(5))
    desk.owner.set({"caps": {"day": ["5 raw"], "hour": ["5 raw"]}})
    desk.path.write_bytes(older)
    with pytest.raises(PolicyError, match="looser than what the owner last confirmed"):
        desk.reserve("a", 1)
    assert desk.owner.take_back().content == {"caps": {"day": ["5 raw"], "hour": ["5 raw"]}}
    desk.reserve("a", 1)


def test_a_change_beside_another_change_is_not_lost_silently(desk: Desk) -> None:
    desk.owner.set(per_day(10))

    def meanwhile(looser: tuple[str, ...], new: bool) -> str:
        Owner(desk.journal, desk.path, "dev", "k" * 64, desk.ask, os.urandom).set(per_day(3))
        return WORD

    slow = Owner(desk.journal, desk.path, "dev", "k" * 64, meanwhile, os.urandom)
    with pytest.raises(StateError, match="changed by somebody else meanwhile"):
        slow.set(per_day(20))
    assert desk.journal.read(accepted) is not None
    with pytest.raises(PolicyError):
        desk.reserve("a", 4)


@pytest.mark.parametrize("changed", [("policy.confirmed", "policy.accepted"), ("policy.accepted",)])
def test_a_confirmed_policy_changed_in_the_journal_is_found_with_the_passphrase(desk: Desk, changed: tuple[str, ...]) -> None:
    desk.owner.set(per_day(10))
    for name in changed:
        text = desk.journal.read(lambda c, name=name: spending.meta(c, name))  # type: ignore[misc]  # a default in a lambda
        assert text is not None
        desk.journal.write_now(lambda tx, name=name, text=text: spending.set_meta(tx, name, text.replace("10 raw", "99 raw")))  # type: ignore[misc]  # as above
    with pytest.raises(SecretError, match="was changed"):
        desk.owner.set(per_day(100))


def test_freezing_needs_nothing_and_unfreezing_the_passphrase(desk: Desk) -> None:
    desk.owner.set(per_day(10))
    desk.journal.write_now(lambda tx: freeze(tx, 5))
    desk.word = "wrong"
    with pytest.raises(SecretError):
        desk.owner.unfreeze(lambda: None)
    with pytest.raises(PolicyError, match="frozen"):
        desk.reserve("a", 1)
    desk.word = WORD
    assert desk.owner.unfreeze(lambda: None) is None
    desk.reserve("a", 1)
    desk.owner.edit(put("frozen", True))
    changed = desk.owner.unfreeze(lambda: None)
    assert changed is not None
    assert changed.looser == ("frozen",)
    desk.reserve("b", 1)


def test_without_a_policy_the_profiles_own_secret_unfreezes(desk: Desk) -> None:
    desk.journal.write_now(lambda tx: freeze(tx, 5))

    def locked() -> None:
        raise SecretError("wrong password")

    with pytest.raises(SecretError):
        desk.owner.unfreeze(locked)
    with pytest.raises(PolicyError):
        desk.reserve("a", 1)
    assert desk.owner.unfreeze(lambda: None) is None
    desk.reserve("a", 1)
    with pytest.raises(StateError, match="no policy was ever confirmed"):
        desk.owner.take_back()


def test_the_passphrase_never_confirms_what_stands_unseen_in_the_file(desk: Desk) -> None:
    desk.owner.set(per_day(10))
    desk.path.write_text(desk.path.read_text().replace("10 raw", "99 raw"))
    with pytest.raises(StateError, match="changed by hand"):
        desk.owner.edit(put("frozen", False))
    assert desk.asked == [True]
    desk.owner.take_back()
    assert desk.owner.edit(put("signed_quotes", True)).looser == ()


# the seal


def test_any_change_of_content_cost_or_binding_breaks_the_seal(tmp_path: Path) -> None:
    sealed = seal(parse_policy(per_day(10), Place(tmp_path / POLICY_FILE)), 1, WORD, "dev/k", LIGHT, os.urandom)
    assert fits(sealed, WORD, "dev/k")
    assert not fits(sealed, "other", "dev/k")
    assert not fits(sealed, WORD, "live/k")
    assert sealed.seal is not None
    for name, value in (("serial", 2), ("passes", 2), ("memory_kib", 2048), ("lanes", 2), ("salt", "00" * 16), ("mac", "00" * 32)):
        changed = parse_policy({**per_day(10), "seal": {**vars(sealed.seal), name: value}}, Place(tmp_path / POLICY_FILE))
        assert not fits(changed, WORD, "dev/k"), name
    assert not fits(parse_policy({**per_day(11), "seal": vars(sealed.seal)}, Place(tmp_path / POLICY_FILE)), WORD, "dev/k")
    assert not fits(parse_policy(per_day(10), Place(tmp_path / POLICY_FILE)), WORD, "dev/k")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / POLICY_FILE
    sealed = seal(parse_policy({**per_day(10), "allow": {"tags": ["a: b", "true"]}}, Place(path)), 1, WORD, "dev/k", LIGHT, os.urandom)
    path.write_text(policy_yaml(sealed))
    assert read_policy_file(path) == sealed
    path.write_text(policy_yaml(parse_policy({}, Place(path))))
    path.write_text("")
    found = read_policy_file(path)
    assert found is not None
    assert (found.content, found.seal) == ({}, None)
    path.unlink()
    assert read_policy_file(path) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1\n", "takes a mapping"),
        ("seal: {serial: 0}\n", "seal"),
        ("seal: {serial: 1, passes: 1, memory_kib: 1024, lanes: 1, salt: zz, mac: zz}\n", "seal.salt: takes 32 hex digits"),
        ("password: x\n", "secrets do not belong"),
    ],
)
def test_a_file_that_is_no_policy_is_named_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / POLICY_FILE).write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_policy_file(tmp_path / POLICY_FILE)


def test_an_empty_passphrase_seals_nothing(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="is empty"):
        seal(parse_policy({}, Place(tmp_path / POLICY_FILE)), 1, "", "dev/k", LIGHT, os.urandom)


def test_another_passphrase_is_chosen_with_the_old_one_and_changes_nothing_else(desk: Desk) -> None:
    with pytest.raises(StateError, match="no policy yet"):
        desk.owner.change_passphrase()
    desk.owner.set(per_day(10))
    words = iter(["not it", WORD, "new words"])
    desk.owner = Owner(desk.journal, desk.path, "dev", "k" * 64, lambda looser, new: next(words), os.urandom)
    with pytest.raises(SecretError, match="wrong passphrase"):
        desk.owner.change_passphrase()
    sealed = desk.owner.change_passphrase()
    assert list(words) == []
    assert (dict(sealed.content), read_policy_file(desk.path)) == (per_day(10), sealed)
    desk.reserve("a", 10)
    for word, opens in ((WORD, False), ("new words", True)):
        desk.owner = Owner(desk.journal, desk.path, "dev", "k" * 64, lambda looser, new, word=word: word, os.urandom)  # type: ignore[misc]  # binds the word
        if not opens:
            with pytest.raises(SecretError, match="wrong passphrase"):
                desk.owner.set(per_day(11))
    assert desk.owner.set(per_day(11)).looser == ("caps.day",)


def test_a_passphrase_is_not_changed_over_a_file_that_was_edited_by_hand(desk: Desk) -> None:
    desk.owner.set(per_day(10))
    desk.path.write_text(desk.path.read_text().replace("10 raw", "12 raw"))
    with pytest.raises(StateError, match="changed by hand"):
        desk.owner.change_passphrase()
