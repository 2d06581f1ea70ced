"""Single configuration values: what each kind takes, how it is read, and the error that names file, key and value."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from tradeskill.errors import AmountError, ConfigError
from tradeskill.money import Amount, parse_amount

__all__ = [
    "Place",
    "Shape",
    "allowed_plugin",
    "amount",
    "amounts",
    "choice",
    "flag",
    "folder",
    "integer",
    "json_schema",
    "list_of",
    "mapping_of",
    "number",
    "optional",
    "plugin_name",
    "positive_amount",
    "refuse_secrets",
    "section",
    "setting",
    "size",
    "slug",
    "text",
]


S = TypeVar("S")


@dataclass(frozen=True)
class Place:
    """Where a value stands: the file and the path of keys to it, as in `offers[0].price`."""

    file: Path
    path: str = ""

    def key(self, name: str) -> Place:
        return Place(self.file, f"{self.path}.{name}" if self.path else name)

    def item(self, index: int) -> Place:
        return Place(self.file, f"{self.path}[{index}]")

    def error(self, what: str, *value: object) -> ConfigError:
        """One line; `value` (at most one) is shown shortened and escaped."""
        shown = f", not {_shown(value[0])}" if value else ""
        return ConfigError(f"{self.file}: {self.path + ': ' if self.path else ''}{what}{shown}", file=str(self.file), key=self.path)


@dataclass(frozen=True)
class Shape:
    """`takes` is the phrase for documents and errors; `read` turns a YAML value into what the program uses, or raises ConfigError."""

    takes: str
    read: Callable[[Any, Place], Any]


def _shown(value: object) -> str:
    shown = ascii(value) if not isinstance(value, str) else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in repr(value))
    return shown if len(shown) <= 60 else shown[:57] + "..."


def setting(shape: Shape, meaning: str, default: Any = dataclasses.MISSING, factory: Callable[[], Any] | None = None) -> Any:
    """A field that is a configuration key. Without a default the key must be given."""
    metadata = {"shape": shape, "meaning": meaning}
    return dataclasses.field(default=default, metadata=metadata) if factory is None else dataclasses.field(default_factory=factory, metadata=metadata)


def section(kind: type[S], value: Any, place: Place, base: S | None = None) -> S:
    """`value` as the dataclass `kind`; keys that are not given come from `base` or the defaults."""
    if not isinstance(value, dict):
        raise place.error("takes a mapping of keys to values", value)
    keys = {f.name: f for f in dataclasses.fields(cast(Any, kind)) if "shape" in f.metadata}
    for name in value:
        if name not in keys:
            near = difflib.get_close_matches(name, keys, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys here are {', '.join(keys)}"
            raise place.key(name).error(f"unknown key; {hint}")
    for name, key in keys.items():
        required = key.default is dataclasses.MISSING and key.default_factory is dataclasses.MISSING
        if base is None and required and name not in value:
            raise place.error(f"{name} is missing; it takes {key.metadata['shape'].takes}")
    given = {name: keys[name].metadata["shape"].read(item, place.key(name)) for name, item in value.items()}
    return cast(S, dataclasses.replace(cast(Any, base), **given)) if base is not None else kind(**given)


def text(longest: int, shortest: int = 1) -> Shape:
    takes = f"a text of {shortest} to {longest} characters"

    def read(value: Any, place: Place) -> str:
        if not isinstance(value, str) or not shortest <= len(value) <= longest or "\0" in value:
            raise place.error(f"takes {takes}", value)
        return value

    return Shape(takes, read)


def slug() -> Shape:
    takes = "1 to 64 of a-z, 0-9 and single hyphens"

    def read(value: Any, place: Place) -> str:
        if not isinstance(value, str) or len(value) > 64 or re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value, re.ASCII) is None:
            raise place.error(f"takes {takes}", value)
        return value

    return Shape(takes, read)


def allowed_plugin() -> Shape:
    takes = "a plugin's name, name@package, or either with @sha256: and 64 hex digits"

    def read(value: Any, place: Place) -> str:
        name = r"[a-z0-9][a-z0-9-]{0,63}(@[A-Za-z0-9][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?"
        if not isinstance(value, str) or re.fullmatch(name, value, re.ASCII) is None:
            raise place.error(f"takes {takes}; `tradeskill plugins` lists them", value)
        return value

    return Shape(takes, read)


def plugin_name() -> Shape:
    takes = "a plugin's name, or name@package where two packages claim it"

    def read(value: Any, place: Place) -> str:
        if not isinstance(value, str) or re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}(@[A-Za-z0-9][A-Za-z0-9._-]{0,127})?", value, re.ASCII) is None:
            raise place.error(f"takes {takes}; `tradeskill plugins` lists them", value)
        return value

    return Shape(takes, read)


def flag() -> Shape:
    def read(value: Any, place: Place) -> bool:
        if not isinstance(value, bool):
            raise place.error("takes true or false", value)
        return value

    return Shape("true or false", read)


def choice(*options: str) -> Shape:
    takes = " or ".join(options)

    def read(value: Any, place: Place) -> str:
        if not isinstance(value, str) or value not in options:
            raise place.error(f"takes {takes}", value)
        return value

    return Shape(takes, read)


def integer(low: int, high: int) -> Shape:
    takes = f"a whole number from {low} to {high}"

    def read(value: Any, place: Place) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise place.error(f"takes {takes}", value)
        return value

    return Shape(takes, read)


def number(low: float, high: float) -> Shape:
    """A duration in seconds and the like: plain digits, as a number or as a string."""
    takes = f"a number from {low:g} to {high:g}"

    def read(value: Any, place: Place) -> float:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value, re.ASCII):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise place.error(f"takes {takes}", value)
        return float(value)

    return Shape(takes, read)


_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def size(low: int, high: int) -> Shape:
    """Bytes: `4194304`, `4096K`, `4M`, `1G`; K, M and G are powers of 1024."""
    takes = f"a size from {_size_text(low)} to {_size_text(high)}, such as 256M"

    def read(value: Any, place: Place) -> int:
        match = re.fullmatch(r"([1-9][0-9]{0,14})([KMG]?)", str(value), re.ASCII) if isinstance(value, str | int) else None
        count = int(match[1]) * _UNITS[match[2]] if match else 0
        if isinstance(value, bool) or not low <= count <= high:
            raise place.error(f"takes {takes}", value)
        return count

    return Shape(takes, read)


def _size_text(count: int) -> str:
    unit = next((u for u in "GMK" if count % _UNITS[u] == 0), "")
    return f"{count // _UNITS[unit]}{unit}"


def amount() -> Shape:
    takes = 'an amount with its unit, such as "0.001 XNO"'

    def read(value: Any, place: Place) -> Amount:
        try:
            return parse_amount(value)
        except AmountError as error:
            raise place.error(str(error)) from error

    return Shape(takes, read)


def positive_amount() -> Shape:
    takes = 'an amount above zero with its unit, such as "0.001 XNO"'

    def read(value: Any, place: Place) -> Amount:
        result: Amount = amount().read(value, place)
        if result.value == 0:
            raise place.error(f"takes {takes}", value)
        return result

    return Shape(takes, read)


def amounts(each: Shape) -> Shape:
    """A tuple, whether one is written or a list of them."""
    several = list_of(each, 8, 1, unique="unit")

    def read(value: Any, place: Place) -> tuple[Amount, ...]:
        found: tuple[Amount, ...] = several.read(value, place) if isinstance(value, list) else (each.read(value, place),)
        return found

    return Shape(f"{each.takes}; or a list of them in different units", read)


def optional(shape: Shape) -> Shape:
    return Shape(f"{shape.takes}, or null", lambda value, place: None if value is None else shape.read(value, place))


def list_of(shape: Shape, most: int, least: int = 0, unique: str = "") -> Shape:
    """`unique` names the attribute ("" for none, "." for the item itself) that no two items may share."""
    takes = f"a list of {least} to {most}, each {shape.takes}"

    def read(value: Any, place: Place) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise place.error("takes a list", value)
        if not least <= len(value) <= most:
            raise place.error(f"takes {least} to {most} entries, not {len(value)}")
        items = tuple(shape.read(item, place.item(index)) for index, item in enumerate(value))
        seen: list[object] = []
        for index, item in enumerate(items if unique else ()):
            mark = item if unique == "." else getattr(item, unique)
            if mark in seen:
                raise place.item(index).error(f"repeats {_shown(mark)}; each may stand once")
            seen.append(mark)
        return items

    return Shape(takes, read)


def mapping_of(names: Shape, shape: Shape) -> Shape:
    takes = f"a mapping from {names.takes} to {shape.takes}"

    def read(value: Any, place: Place) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise place.error("takes a mapping", value)
        return {names.read(name, place.key(str(name))): shape.read(item, place.key(str(name))) for name, item in value.items()}

    return Shape(takes, read)


def folder() -> Shape:
    takes = "an existing folder, relative to the folder of this file"

    def read(value: Any, place: Place) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise place.error(f"takes {takes}", value)
        path = place.file.absolute().parent / Path(value).expanduser()
        if not path.is_dir():
            raise place.error(f"takes {takes}", value)
        return path

    return Shape(takes, read)


def json_schema() -> Shape:
    """A JSON Schema of Draft 2020-12 that can be checked without fetching anything. Imports jsonschema when a value is read."""
    takes = "a JSON Schema (Draft 2020-12) whose $ref stay within it"

    def read(value: Any, place: Place) -> Mapping[str, Any]:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError

        if not isinstance(value, dict):
            raise place.error("takes a JSON Schema as a mapping", value)
        dialect = value.get("$schema", Draft202012Validator.META_SCHEMA["$schema"])
        if dialect != Draft202012Validator.META_SCHEMA["$schema"]:
            raise place.key("$schema").error("takes the Draft 2020-12 dialect or nothing", dialect)
        try:
            Draft202012Validator.check_schema(value, format_checker=Draft202012Validator.FORMAT_CHECKER)
        except SchemaError as error:
            where = place
            for part in error.absolute_path:
                where = where.item(part) if isinstance(part, int) else where.key(part)
            raise where.error(f"is not a valid JSON Schema: {error.message[:160]}") from error
        _check_references(value, value, place)
        return value

    return Shape(takes, read)


def _check_references(value: Any, root: Mapping[str, Any], place: Place) -> None:
    """A reference that cannot be followed would fail only when a buyer's input meets it."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_references(item, root, place.item(index))
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in ("$ref", "$dynamicRef") and isinstance(item, str) and not _resolves(item, root):
                raise place.key(name).error("takes a reference to something in this schema, such as #/$defs/name", item)
            if name not in ("const", "enum", "default", "examples"):
                _check_references(item, root, place.key(name))


def _resolves(reference: str, root: Mapping[str, Any]) -> bool:
    if reference == "#":
        return True
    if not reference.startswith("#/"):
        return False
    target: Any = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and re.fullmatch(r"0|[1-9][0-9]{0,5}", name, re.ASCII) and int(name) < len(target):
            target = target[int(name)]
        elif isinstance(target, dict) and name in target:
            target = target[name]
        else:
            return False
    return isinstance(target, dict | bool)


_SECRET_PARTS: Final = frozenset({"seed", "password", "passphrase", "passwd", "private", "secret", "mnemonic"})
_SECRET_NAMES: Final = frozenset({"token", "apikey", "api_key", "api_token", "auth_token", "access_token", "bearer"})
_URL_PASSWORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/@\s]*:[^/@\s]+@", re.ASCII)
_WAY_OUT: Final = (
    "the seed lives in the encrypted file that `tradeskill init` makes, the password comes from --password-file or "
    "TRADESKILL_PASSWORD_FILE, anything else from a file of mode 0600"
)


def refuse_secrets(value: Any, place: Place, exempt: str) -> None:
    """ConfigError where a key is named like a secret or a URL holds a password; the value is never shown. Keys that name a file (`…_file`) may stand.

    `exempt`: a pattern of key paths below which anything may stand, because it describes other people's data (schemas).
    """
    if re.fullmatch(exempt, place.path):
        return
    if isinstance(value, str) and _URL_PASSWORD.match(value):
        raise place.error(f"holds a password inside a URL; {_WAY_OUT}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            refuse_secrets(item, place.item(index), exempt)
    elif isinstance(value, dict):
        for name, item in value.items():
            snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("-", "_")
            if not snake.endswith("_file") and (snake in _SECRET_NAMES or _SECRET_PARTS & set(snake.split("_"))):
                raise place.key(name).error(f"secrets do not belong in the configuration; {_WAY_OUT}")
            refuse_secrets(item, place.key(name), exempt)
