"""policy.yaml as a file: the policy's keys beside a seal, which is a MAC under a key that only the owner's passphrase gives."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tradeskill import configvalues as v
from tradeskill.configvalues import Place, Shape, section, setting
from tradeskill.errors import SecretError
from tradeskill.policy.rules import Policy, read_policy
from tradeskill.secretfile import Cost, stretch
from tradeskill.signing import canonical

__all__ = ["POLICY_FILE", "PolicyFile", "Seal", "fits", "parse_policy", "policy_yaml", "read_policy_file", "seal"]

POLICY_FILE: Final = "policy.yaml"  # in the profile's folder
FORMAT: Final = "tradeskill-policy/1"


def _hex(length: int) -> Shape:
    takes = f"{2 * length} hex digits"

    def read(value: Any, place: Place) -> str:
        if not isinstance(value, str) or re.fullmatch(rf"[0-9a-f]{{{2 * length}}}", value, re.ASCII) is None:
            raise place.error(f"takes {takes}", value)
        return value

    return Shape(takes, read)


@dataclass(frozen=True, kw_only=True)
class Seal:
    """Written by `tradeskill policy`, never by hand; checked when the passphrase is given. In between the journal remembers what was confirmed."""

    serial: int = setting(v.integer(1, 10**9), "Grows with each confirmation.")
    passes: int = setting(v.integer(1, 16), "What one guess at the passphrase costs (argon2id): passes,")
    memory_kib: int = setting(v.integer(128, 2**20), "memory,")
    lanes: int = setting(v.integer(1, 16), "lanes.")
    salt: str = setting(_hex(16), "Makes equal passphrases differ.")
    mac: str = setting(_hex(32), "HMAC-SHA256 over everything else in the file, the network and the profile's key.")


@dataclass(frozen=True)
class PolicyFile:
    """What policy.yaml says: `content` its keys without the seal, as JSON values; `policy` what they mean."""

    content: Mapping[str, Any]
    policy: Policy
    seal: Seal | None = None

    @property
    def text(self) -> str:
        """The content in its one canonical form."""
        return canonical(dict(self.content)).decode()


def parse_policy(value: Any, place: Place) -> PolicyFile:
    """From a YAML value; ConfigError naming file and key."""
    v.refuse_secrets(value, place, exempt=r"(?!)")
    if not isinstance(value, dict):
        raise place.error("takes a mapping of keys to values", value)
    content = {name: item for name, item in value.items() if name != "seal"}
    return PolicyFile(content, read_policy(content, place), section(Seal, value["seal"], place.key("seal")) if "seal" in value else None)


def read_policy_file(path: Path) -> PolicyFile | None:
    """None where there is no such file; ConfigError where it is wrong."""
    from tradeskill.strictyaml import read_yaml

    if not path.exists():
        return None
    document = read_yaml(path)
    return parse_policy({} if document is None else document, Place(path))


def seal(file: PolicyFile, serial: int, passphrase: str, bound: str, cost: Cost, random_bytes: Callable[[int], bytes]) -> PolicyFile:
    """The same policy with a fresh seal. `bound`: what else the seal is for (network and profile). SecretError on an empty passphrase."""
    if not passphrase:
        raise SecretError("the owner's passphrase is empty: give one at the prompt or with --passphrase-file")
    blank = Seal(serial=serial, passes=cost.passes, memory_kib=cost.memory_kib, lanes=cost.lanes, salt=random_bytes(16).hex(), mac="0" * 64)
    return PolicyFile(file.content, file.policy, _with_mac(blank, _mac(file.content, blank, passphrase, bound)))


def fits(file: PolicyFile, passphrase: str, bound: str) -> bool:
    """Whether the seal is of this passphrase, over exactly this content."""
    return file.seal is not None and hmac.compare_digest(file.seal.mac, _mac(file.content, file.seal, passphrase, bound))


def policy_yaml(file: PolicyFile) -> str:
    """What stands in the file; `parse_policy` reads it back to an equal value."""
    from tradeskill.strictyaml import dump_yaml

    return dump_yaml({**file.content, **({} if file.seal is None else {"seal": vars(file.seal)})})


def _with_mac(blank: Seal, mac: str) -> Seal:
    return Seal(**{**vars(blank), "mac": mac})


def _mac(content: Mapping[str, Any], head: Seal, passphrase: str, bound: str) -> str:
    key = stretch(passphrase, bytes.fromhex(head.salt), Cost(head.passes, head.memory_kib, head.lanes))
    covered = {"format": FORMAT, "bound": bound, "policy": json.loads(json.dumps(content)), **{k: item for k, item in vars(head).items() if k != "mac"}}
    return hmac.new(key, canonical(covered), hashlib.sha256).hexdigest()
