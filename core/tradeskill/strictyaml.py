"""Strict YAML: one document of plain JSON values in, the same out; what people write without meaning it is refused.

Built on the parser's events, so that duplicate keys, tags, aliases and depth are refused before anything is made of them
(a loader that builds as it goes can be made to overflow the C stack). Plain words mean what YAML 1.2 says: only `true`
and `false` are flags, only `null`, `~` and nothing are null, only canonical decimals are numbers; `no`, `1e3`, `1:30` and
`0755` are strings.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tradeskill.errors import ConfigError, StorageError

__all__ = ["dump_yaml", "parse_yaml", "read_yaml", "write_private"]

MAX_BYTES: Final = 2**20
MAX_DEPTH: Final = 64
_INT = re.compile(r"0|-?[1-9][0-9]{0,30}", re.ASCII)
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,30})\.[0-9]{1,40}", re.ASCII)
_WORDS: Final[dict[str, Any]] = {"": None, "~": None, "null": None, "true": True, "false": False}


def read_yaml(path: Path) -> Any:
    """The document in the file `path` (None for an empty one). ConfigError names file, line and what is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file; `tradeskill init` makes one") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: is larger than {MAX_BYTES} bytes; that is not a configuration file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """One YAML document as JSON values: dict with string keys, list, str, bool, int, float, None."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser where PyYAML was built with it
    try:
        return _Builder(yaml.parse(text, Loader=loader), source).document()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{source}: {line}not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error


class _Builder:
    """Turns parser events into values, depth counted on the way."""

    def __init__(self, events: Iterator[Any], source: str) -> None:
        self._events = (event for event in events if type(event).__name__ not in ("StreamStartEvent", "StreamEndEvent", "DocumentEndEvent"))
        self._source = source

    def document(self) -> Any:
        first = next(self._events, None)
        if first is None:
            return None
        value = self._value(next(self._events), 0)
        extra = next(self._events, None)
        if extra is not None:
            raise self._error(extra, "a second document starts here; write one document a file")
        return value

    def _value(self, event: Any, depth: int) -> Any:
        kind = type(event).__name__
        if kind == "AliasEvent" or event.anchor is not None:
            raise self._error(event, "anchors (&) and aliases (*) are not supported; write the value out")
        if event.tag is not None and event.tag != "!":
            raise self._error(event, f"the tag {event.tag!r} is not supported; write a plain value")
        if kind == "ScalarEvent":
            return event.value if event.style in ("'", '"', "|", ">") or event.tag == "!" else _plain(event.value)
        if depth >= MAX_DEPTH:
            raise self._error(event, f"is nested deeper than {MAX_DEPTH} levels")
        return self._list(depth) if kind == "SequenceStartEvent" else self._mapping(depth)

    def _list(self, depth: int) -> list[Any]:
        result = []
        while type(event := next(self._events)).__name__ != "SequenceEndEvent":
            result.append(self._value(event, depth + 1))
        return result

    def _mapping(self, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while type(event := next(self._events)).__name__ != "MappingEndEvent":
            if type(event).__name__ != "ScalarEvent":
                raise self._error(event, "a key must be a plain word")
            key: str = event.value
            if key in result:
                raise self._error(event, f"the key {key!r} stands twice; keep one")
            result[key] = self._value(next(self._events), depth + 1)
        return result

    def _error(self, event: Any, what: str) -> ConfigError:
        return ConfigError(f"{self._source}: line {event.start_mark.line + 1}: {what}")


def _plain(word: str) -> Any:
    if word in _WORDS:
        return _WORDS[word]
    if _INT.fullmatch(word):
        return int(word)
    return float(word) if _FLOAT.fullmatch(word) else word


def dump_yaml(value: Mapping[str, Any]) -> str:
    """`parse_yaml` reads it back to an equal value; keys keep their order. ConfigError on what is not a JSON value."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def represent_str(self, data: str) -> Any:
            # only between double quotes does the writer escape the characters that the reader would take for line ends
            return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')

        def represent_float(self, data: float) -> Any:
            text = repr(data)
            if _FLOAT.fullmatch(text) is None:
                raise ConfigError(f"the number {text} has no plain decimal form; write it as a string")
            return self.represent_scalar("tag:yaml.org,2002:float", text)

    Dumper.add_representer(float, Dumper.represent_float)
    Dumper.add_representer(str, Dumper.represent_str)
    try:
        return yaml.dump(_plain_copy(value), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"configuration has no YAML form: {str(error).splitlines()[0]}") from error


def _plain_copy(value: Any) -> Any:
    """Read-only mappings and tuples as the dicts and lists that the dumper knows; nothing that YAML would need a tag for."""
    if isinstance(value, Mapping):
        return {str(key): _plain_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_copy(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"a {type(value).__name__} has no place in a configuration; write text, numbers, true, false, lists and mappings")


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, mode 0600, whole or not at all, durable on return. Missing folders are made with mode 0700.

    StorageError on a full disk or any other I/O error; the old file is then untouched.
    """
    temporary = ""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with mode 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = ""
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}; free some space or check the folder's owner") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
