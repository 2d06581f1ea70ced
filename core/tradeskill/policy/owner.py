"""What the owner does to the policy: confirm and loosen with the passphrase; tighten, freeze, grant and revoke without it. Each one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradeskill.configvalues import Place
from tradeskill.errors import PolicyError, SecretError, StateError
from tradeskill.journal import spending
from tradeskill.policy.gate import accepted, frozen_since, lineage
from tradeskill.policy.rules import loosened
from tradeskill.policy.sealed import PolicyFile, fits, parse_policy, policy_yaml, read_policy_file, seal
from tradeskill.secretfile import LIGHT, STRONG
from tradeskill.strictyaml import write_private

if TYPE_CHECKING:
    from tradeskill.journal import Database, Transaction
    from tradeskill.model import Network

__all__ = ["Changed", "Owner", "freeze", "make_grant", "revoke"]


@dataclass(frozen=True)
class Changed:
    """`looser`: the keys that needed the passphrase; empty when the change only tightened, or changed nothing."""

    file: PolicyFile
    looser: tuple[str, ...]


@dataclass(frozen=True)
class Owner:
    """The owner at one profile. `passphrase(looser, new)` is asked only when a change needs it: for these keys; `new`: it is being chosen."""

    journal: Database
    path: Path
    network: Network
    key: str  # the profile's public key: a seal of another profile does not fit here
    passphrase: Callable[[tuple[str, ...], bool], str]
    random_bytes: Callable[[int], bytes]

    def set(self, content: Mapping[str, Any]) -> Changed:
        """Make `content` the policy. ConfigError, SecretError, and nothing changed, when it is wrong or needs a passphrase that is not given.

        The file is written while the journal is held, so that no spend sees one without the other.
        """
        new = parse_policy({**content}, Place(self.path))
        last = self.journal.read(accepted)
        looser = ("policy",) if last is None else loosened(last.policy, new.policy)
        sealed = self._sealed(new, last, looser) if looser else PolicyFile(new.content, new.policy, None if last is None else last.seal)
        self._store(last, sealed, confirmed=bool(looser))
        return Changed(sealed, looser)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> Changed:
        """`set` to what `change` makes of the policy last accepted (or of an empty one).

        StateError while the file says something else: the passphrase must not confirm what somebody wrote there unseen.
        """
        last = self._unedited()
        content: dict[str, Any] = {} if last is None else json.loads(last.text)
        change(content)
        return self.set(content)

    def change_passphrase(self) -> PolicyFile:
        """Seal the policy as it is with another passphrase: asked for the old one, then for the new. StateError where there is no policy."""
        last = self._unedited()
        if last is None:
            raise StateError("there is no policy yet: the first `tradeskill policy set` chooses the passphrase")
        self._prove(self.passphrase(("passphrase",), False))
        sealed = self._seal(last, last, self.passphrase(("passphrase",), True))
        self._store(last, sealed, confirmed=True)
        return sealed

    def take_back(self) -> PolicyFile:
        """Write the policy last accepted into the file again. StateError when there is none."""
        last = self.journal.read(accepted)
        if last is None:
            raise StateError("no policy was ever confirmed here: write one with `tradeskill policy set`")
        write_private(self.path, policy_yaml(last).encode())
        return last

    def unfreeze(self, unlock: Callable[[], object]) -> Changed | None:
        """Spend again. `unlock` proves the owner where there is no policy, and so no passphrase of one (SecretError when it fails)."""
        last = self.journal.read(accepted)
        changed = None
        if last is None:
            unlock()
        elif last.policy.frozen:
            changed = self.edit(lambda content: content.update(frozen=False))
        else:
            self._prove(self.passphrase(("frozen",), False))
        self.journal.write_now(lambda tx: spending.forget_meta(tx, "spending.frozen"))
        return changed

    def _unedited(self) -> PolicyFile | None:
        """The policy last accepted, once the file says the same (or is gone)."""
        last, file = self.journal.read(accepted), read_policy_file(self.path)
        if file is not None and (last is None or last.text != file.text):
            raise StateError("policy.yaml was changed by hand: first confirm it with `tradeskill policy set`, or take it back with `policy set --last`")
        return last

    def _sealed(self, new: PolicyFile, last: PolicyFile | None, looser: tuple[str, ...]) -> PolicyFile:
        word = self.passphrase(looser, last is None)
        if last is not None:
            self._prove(word)
        return self._seal(new, last, word)

    def _seal(self, new: PolicyFile, last: PolicyFile | None, word: str) -> PolicyFile:
        serial = 1 if last is None or last.seal is None else last.seal.serial + 1
        return seal(new, serial, word, self._bound, LIGHT if self.network == "dev" else STRONG, self.random_bytes)

    def _store(self, last: PolicyFile | None, new: PolicyFile, *, confirmed: bool) -> None:
        """Into the file and the journal. StateError when what is accepted is no longer `last`."""

        def store(tx: Transaction) -> None:
            now = accepted(tx)
            if (now and (now.text, now.seal)) != (last and (last.text, last.seal)):
                raise StateError("the policy was changed by somebody else meanwhile: look at it and try again")
            write_private(self.path, policy_yaml(new).encode())
            for name in ("policy.accepted", "policy.confirmed") if confirmed else ("policy.accepted",):
                spending.set_meta(tx, name, json.dumps({**new.content, "seal": vars(new.seal)}))

        self.journal.write_now(store)

    def _prove(self, word: str) -> None:
        """SecretError unless `word` is the passphrase that the last confirmation was sealed with, and what is accepted since is no looser."""
        text, last = self.journal.read(lambda c: (spending.meta(c, "policy.confirmed"), accepted(c)))
        confirmed = None if text is None else parse_policy(json.loads(text), Place(self.path))
        honest = confirmed is not None and last is not None and loosened(confirmed.policy, last.policy) == ()
        if confirmed is None or not honest or not fits(confirmed, word, self._bound):
            raise SecretError("wrong passphrase, or the confirmed policy in the journal was changed; nothing was changed now")

    @property
    def _bound(self) -> str:
        return f"{self.network}/{self.key}"


def freeze(tx: Transaction, now: int) -> int:
    """From this commit on nothing is spent, nor paid that was reserved. Repeatable; returns since when."""
    since = frozen_since(tx)
    if since is None:
        spending.set_meta(tx, "spending.frozen", str(now))
    return since if since is not None else now


def make_grant(tx: Transaction, grant_id: str, parent: str, most: Mapping[str, int], expires_at: int | None, note: str, now: int) -> spending.Grant:
    """A child budget, at most what each of its ancestors was given. PolicyError naming what exceeds; NotFoundError for an unknown parent."""
    clock = spending.clock(tx, now)
    for above in lineage(tx, parent):
        if above.revoked_at is not None or (above.expires_at is not None and clock >= above.expires_at):
            raise PolicyError(f"grant {above.grant_id} is revoked or has expired: nothing can be granted under it")
        for unit, value in most.items():
            given = above.budgets.get(unit, (0, 0))[0]
            if value > given:
                raise PolicyError(f"grant {above.grant_id} was given {given} {unit}: {value} {unit} cannot be granted under it")
        if above.expires_at is not None and (expires_at is None or expires_at > above.expires_at):
            expires_at = above.expires_at
    made = spending.Grant(grant_id, parent, note, clock, expires_at, None, {unit: (value, 0) for unit, value in most.items()})
    spending.add_grant(tx, made)
    return made


def revoke(tx: Transaction, grant_id: str, now: int) -> spending.Grant:
    """What it holds stays counted at its ancestors. NotFoundError for an unknown one; repeatable."""
    spending.grant(tx, grant_id)
    spending.revoke(tx, grant_id, now)
    return spending.grant(tx, grant_id)
