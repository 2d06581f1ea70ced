"""The open Agent Skills format: what SKILL.md may say, what a folder must hold, and what it declares to need. Reads, never runs anything."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tradeskill.errors import PluginError

__all__ = ["BODY_LINES", "FORMATS", "Format", "Needs", "check_folder", "missing", "read_frontmatter", "read_needs", "split_skill"]

Format = Literal["agentskills", "openclaw"]
FORMATS: Final[tuple[Format, ...]] = ("agentskills", "openclaw")
BODY_LINES: Final = 500  # the text below the head is shorter
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_KEYS: Final = frozenset({"name", "description", "license", "compatibility", "metadata", "allowed-tools"})
_OPENCLAW_KEYS: Final = frozenset({"homepage", "user-invocable", "disable-model-invocation"})
_OPENCLAW_NAMES: Final = ("openclaw", "moltbot", "clawdbot")
_PLATFORMS: Final = {"darwin": "darwin", "linux": "linux", "win32": "win32"}


@dataclass(frozen=True)
class Needs:
    """What a skill declares: it is offered only where `plugins`, `env`, `bins` and `os` are there. Permissions are said to people, not enforced."""

    plugins: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    bins: tuple[str, ...] = ()
    any_bins: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    permissions: Mapping[str, Any] = field(default_factory=dict)


def split_skill(text: str, name: str, form: Format = "agentskills") -> tuple[Mapping[str, Any], str]:
    """SKILL.md's head, checked against the format's strict rules, and the text below it. PluginError names what is wrong."""
    import yaml

    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if match is None:
        raise PluginError(f"skill {name}: SKILL.md does not start with a YAML head between --- lines")
    try:
        head = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
        raise PluginError(f"skill {name}: SKILL.md's head is not YAML: {str(error).splitlines()[0]}") from error
    allowed = _KEYS if form == "agentskills" else _KEYS | _OPENCLAW_KEYS
    if not isinstance(head, dict) or not set(head) <= allowed:
        extra = sorted(map(str, set(head) - allowed)) if isinstance(head, dict) else head
        raise PluginError(f"skill {name}: SKILL.md's head may hold {', '.join(sorted(allowed))}; not {extra}")
    if head.get("name") != name or _NAME.fullmatch(name) is None or len(name) > 64:
        raise PluginError(f"skill {name}: SKILL.md names {head.get('name')!r}; it must be the folder's name in lowercase letters, digits and hyphens")
    description = head.get("description")
    if not isinstance(description, str) or not description.strip() or len(description) > 1024:
        raise PluginError(f"skill {name}: SKILL.md needs a description of 1 to 1024 characters: what it does and when to use it")
    compatibility = head.get("compatibility", "any")
    if not isinstance(compatibility, str) or not 1 <= len(compatibility) <= 500:
        raise PluginError(f"skill {name}: SKILL.md's compatibility must be text of 1 to 500 characters")
    for key in ("license", "allowed-tools"):
        if not isinstance(head.get(key, ""), str):
            raise PluginError(f"skill {name}: SKILL.md's {key} must be text")
    _check_metadata(head.get("metadata", {}), name, form)
    return head, text[match.end() :]


def read_frontmatter(text: str, name: str) -> Mapping[str, Any]:
    """The head alone, under the rules of the open format."""
    return split_skill(text, name)[0]


def _check_metadata(metadata: Any, name: str, form: Format) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(k, str) for k in metadata):
        raise PluginError(f"skill {name}: SKILL.md's metadata must map text to text")
    for key, value in metadata.items():
        if not isinstance(value, str) and not (form == "openclaw" and key in _OPENCLAW_NAMES and isinstance(value, dict)):
            raise PluginError(f"skill {name}: SKILL.md's metadata must map text to text; {key} holds {type(value).__name__}")
    read_needs(metadata, name)


def read_needs(metadata: Mapping[str, Any], name: str) -> Needs:
    """From `metadata.openclaw` (requires, os) and `metadata.tradeskill` (plugins, permissions), each one line of JSON text. PluginError if neither."""
    gate = next((_block(metadata[key], f"skill {name}: metadata.{key}") for key in _OPENCLAW_NAMES if key in metadata), {})
    ours = _block(metadata["tradeskill"], f"skill {name}: metadata.tradeskill") if "tradeskill" in metadata else {}
    requires = gate.get("requires", {})
    permissions = ours.get("permissions", {})
    if not isinstance(requires, dict) or not isinstance(permissions, dict) or set(ours) - {"plugins", "permissions"}:
        raise PluginError(f"skill {name}: metadata: requires and permissions are objects; metadata.tradeskill holds plugins and permissions only")
    if set(permissions) - {"spend", "network", "filesystem"}:
        raise PluginError(f"skill {name}: metadata.tradeskill: permissions are spend, network and filesystem")

    def names(where: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = where.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise PluginError(f"skill {name}: metadata: {key} must be a list of names")
        return tuple(value)

    return Needs(names(ours, "plugins"), names(requires, "env"), names(requires, "bins"), names(requires, "anyBins"), names(gate, "os"), permissions)


def _block(value: Any, what: str) -> Mapping[str, Any]:
    if isinstance(value, str):
        if "\n" in value.strip():
            raise PluginError(f"{what} must be JSON on a single line")
        try:
            value = json.loads(value)
        except ValueError as error:
            raise PluginError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise PluginError(f"{what} must be a JSON object")
    return value


def missing(needs: Needs, plugins: Iterable[str]) -> str:
    """Why the skill cannot run here, in words, or nothing."""
    installed = set(plugins)
    lacking = [f"plugin {name} is not installed" for name in needs.plugins if name not in installed]
    lacking += [f"environment variable {name} is not set" for name in needs.env if not os.environ.get(name)]
    lacking += [f"program {name} is not on the PATH" for name in needs.bins if shutil.which(name) is None]
    if needs.any_bins and not any(map(shutil.which, needs.any_bins)):
        lacking.append(f"none of the programs {', '.join(needs.any_bins)} is on the PATH")
    if needs.os and sys.platform not in {_PLATFORMS.get(name, name) for name in needs.os}:
        lacking.append(f"it is for {', '.join(needs.os)}, this is {sys.platform}")
    return "; ".join(lacking)


def check_folder(folder: Path, form: Format = "agentskills") -> list[str]:
    """What is wrong with a skill's folder, one sentence each; an empty list when it keeps the format's strict rules."""
    name = folder.absolute().name
    try:
        text = (folder / "SKILL.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [f"skill {name}: SKILL.md cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"]
    try:
        _, body = split_skill(text, name, form)
    except PluginError as error:
        return [str(error)]
    wrong = []
    if len(body.splitlines()) >= BODY_LINES:
        wrong.append(f"skill {name}: SKILL.md's text has {len(body.splitlines())} lines, it must have less than {BODY_LINES}: move details to references/")
    if not body.strip():
        wrong.append(f"skill {name}: SKILL.md says nothing below its head")
    for link in re.findall(r"\]\(([^)#:\s]+)\)", body):
        target = (folder / link).resolve()
        if not target.is_relative_to(folder.resolve()) or not target.exists():
            wrong.append(f"skill {name}: SKILL.md links to {link}, which is not in the folder")
    return wrong
