"""Writes a new plugin's package from the templates beside this file: complete, and its tests pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tradeskill.errors import StorageError, UsageError
from tradeskill.plugins import SHIPPED

__all__ = ["TEMPLATES", "new_plugin"]

TEMPLATES: Final = Path(__file__).parent / "templates"
ABOUT: Final[Mapping[str, str]] = {
    "wallet": "A payment rail for tradeskill",
    "market": "A market for tradeskill",
    "backend": "A compute backend for tradeskill",
    "skill": "A skill for tradeskill's agents",
}
_NAMES: Final[Mapping[str, tuple[str, str]]] = {  # what a name is made of, and the same in words
    "wallet": (r"(?=.{2,30}$)[a-z][a-z0-9]*(-[a-z0-9]+)*", "2 to 30 of a-z, 0-9 and single hyphens, beginning with a letter"),
    "skill": (r"[a-z][a-z0-9]{1,29}", "2 to 30 of a-z and 0-9, beginning with a letter"),
}


def new_plugin(kind: str, name: str, to: Path) -> Path:
    """Make the folder `tradeskill-NAME` in `to`. UsageError for a kind or name that is none, or a folder that is there; StorageError. Overwrites nothing."""
    if kind not in ABOUT:
        raise UsageError(f"{kind!r:.80} is no kind of plugin: it takes {', '.join(ABOUT)}")
    pattern, takes = _NAMES.get(kind, _NAMES["wallet"])
    if re.fullmatch(pattern, name, re.ASCII) is None:
        raise UsageError(f"the name {name!r:.80} is not {takes}: a {kind}'s name stands in configurations and imports")
    if name in SHIPPED:
        raise UsageError(f"the name {name} is taken by a plugin that comes with tradeskill: of two that claim a name neither loads")
    folder = to / f"tradeskill-{name}"
    if folder.exists():
        raise UsageError(f"{folder} is there already: choose another name or --to")
    module = name if kind == "skill" else f"tradeskill_{name.replace('-', '_')}"
    words = {
        "name": name,
        "distribution": f"tradeskill-{name}",
        "module": module,
        "Title": "".join(part.capitalize() for part in name.split("-")),
        "about": f"{ABOUT[kind]}: {name}",
    }
    places = {"src/": f"src/{module}/", "tests/test_plugin.py": f"tests/test_{name.replace('-', '_')}.py"}
    try:
        _write(folder / "pyproject.toml", TEMPLATES / "pyproject.toml.txt", words)
        for path in sorted((TEMPLATES / kind).rglob("*.txt")):
            relative = path.relative_to(TEMPLATES / kind).as_posix().removesuffix(".txt")
            for start, place in places.items():
                if relative.startswith(start):
                    relative = place + relative.removeprefix(start)
            _write(folder / relative, path, words)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def _write(path: Path, template: Path, words: Mapping[str, str]) -> None:
    text = template.read_text("utf-8")
    for word, value in words.items():
        text = text.replace(f"@@{word}@@", value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
