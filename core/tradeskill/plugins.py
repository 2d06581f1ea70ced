"""Finds plugins by their entry points, loads each by itself, and says of each what it is or why it did not load.

A plugin runs in this process with all its rights. Whatever it *raises* is caught and kept as the reason, and one that hangs is ended where Python
can (not inside C code, not outside the main thread); `os._exit` cannot be caught. Only plugins that are asked for are imported; `Plugins.report`
imports them all.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from tradeskill.containment import contained, described, one_line
from tradeskill.errors import NotFoundError, PluginError, TradeskillError

if TYPE_CHECKING:
    import types
    from importlib.metadata import Distribution, EntryPoint

    import pluggy

    from tradeskill.contracts import Backend, Capability, Market, PluginContext, Wallet
    from tradeskill.manifest import Manifest
    from tradeskill.model import Json

__all__ = ["GROUP", "SHIPPED", "Kind", "Plugin", "PluginReport", "Plugins"]

GROUP: Final = "tradeskill"
Kind = Literal["wallet", "market", "backend", "skill"]
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_UNNAMED: Final = "(unnamed)"
# by this package itself; a test compares with pyproject.toml
SHIPPED: Final = frozenset({"nano", "embedded", "relay", "process", "bubblewrap", "container", "cashu", "buyer", "seller"})


@dataclass(frozen=True)
class PluginReport:
    """One entry point as found. `error` is None for a plugin that loaded; `origin` is its file, or the module's name where it did not load.

    `notes` are what its author should know: what works now and will not for ever.
    """

    name: str
    kinds: tuple[str, ...]
    package: str
    version: str
    origin: str
    capabilities: tuple[Capability, ...]
    error: str | None
    api: int | None = None
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """An entry point with its owner. `fault` says what is wrong with it before anything is imported."""

    name: str
    value: str
    package: str
    version: str
    fault: str = ""


@dataclass(frozen=True)
class Plugin:
    """A plugin that loaded. Its `open_*` make what it offers; ConfigError and the like pass through, anything else it raises is a PluginError."""

    name: str
    package: str
    version: str
    origin: str
    kinds: tuple[str, ...]
    capabilities: tuple[Capability, ...]
    _manager: pluggy.PluginManager = field(repr=False, compare=False)
    api: int = 1
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()

    @property
    def shipped(self) -> bool:
        """Whether it comes with tradeskill itself."""
        return _normal(self.package) == "tradeskill"

    @cached_property
    def record(self) -> str:
        """`sha256:` and the digest of its package's RECORD, after every file listed there was compared with it. PluginError naming the first that differs."""
        from tradeskill.records import record_digest

        return record_digest(self.package)

    def open_wallet(self, settings: Mapping[str, Json], context: PluginContext) -> Wallet:
        from tradeskill.contracts import Wallet

        return cast(Wallet, self._open("wallet", Wallet, settings, context))

    def create_wallet(self, settings: Mapping[str, Json], context: PluginContext, secret: bytes) -> None:
        """Make the secret of a new wallet, where the plugin needs one. Refuses where one is."""
        with contained(f"plugin {self.name} ({self.package}): tradeskill_create_wallet", passes=TradeskillError):
            self._manager.hook.tradeskill_create_wallet(settings=settings, context=context, secret=secret)

    def open_market(self, settings: Mapping[str, Json], context: PluginContext) -> Market:
        from tradeskill.contracts import Market

        return cast(Market, self._open("market", Market, settings, context))

    def open_backend(self, settings: Mapping[str, Json], context: PluginContext) -> Backend:
        from tradeskill.contracts import Backend

        return cast(Backend, self._open("backend", Backend, settings, context))

    def skill_module(self) -> str:
        """The import path of the module with the skill's tools, not imported yet."""
        path = self._call("skill")
        if not isinstance(path, str) or _MODULE.fullmatch(path) is None:
            raise PluginError(f"plugin {self.name} ({self.package}): tradeskill_skill returned {path!r:.80}, not the import path of a module")
        return path

    def _open(self, kind: Kind, protocol: type, settings: Mapping[str, Json], context: PluginContext) -> object:
        from tradeskill.hookcheck import missing_members

        opened = self._call(kind, settings=settings, context=context)
        with contained(f"plugin {self.name} ({self.package})"):
            missing = missing_members(opened, protocol)
        if missing:
            promise = f"tradeskill.contracts.{protocol.__name__}"
            raise PluginError(f"plugin {self.name} ({self.package}): its {kind}, a {type(opened).__name__}, lacks {', '.join(missing)} of {promise}")
        return opened

    def _call(self, kind: Kind, **arguments: object) -> object:
        from tradeskill.hookcheck import KINDS

        if kind not in self.kinds:
            raise _wrong_kind(self, kind)
        with contained(f"plugin {self.name} ({self.package}): {KINDS[kind]}", passes=TradeskillError):
            results = getattr(self._manager.hook, KINDS[kind])(**arguments)
        return results[0] if results else None  # pluggy drops None


class Plugins:
    """The plugins of this Python, or those of `entry_points`. Nothing is looked up before the first question, nothing imported unasked."""

    def __init__(self, entry_points: Iterable[EntryPoint] | None = None) -> None:
        self._given = None if entry_points is None else list(entry_points)
        self._loaded: dict[_Entry, Plugin | PluginError] = {}

    def require(self, name: str, kind: Kind) -> Plugin:
        """The plugin `name`, or `name@package`, which must be a `kind`; loaded once, so calling again is cheap.

        NotFoundError when no such plugin is installed, with the nearest names; PluginError when two packages claim the name, and when
        it did not load, with its own error as the cause.
        """
        loaded = self._load(self._find(name, kind))
        if isinstance(loaded, PluginError):
            raise PluginError(str(loaded), plugin=name) from loaded.__cause__ or loaded
        if kind not in loaded.kinds:
            raise _wrong_kind(loaded, kind)
        return loaded

    def report(self) -> list[PluginReport]:
        """All of them, sorted by name, then package. Imports every plugin that may be loaded; never raises for one of them."""
        result = []
        for entry in self._entries:
            fault = entry.fault or self._clash(entry)
            loaded = PluginError(fault) if fault else self._load(entry)
            if isinstance(loaded, PluginError):
                result.append(PluginReport(entry.name, (), entry.package, entry.version, entry.value, (), str(loaded)))
            else:
                about = (loaded.name, loaded.kinds, loaded.package, loaded.version, loaded.origin, loaded.capabilities)
                result.append(PluginReport(*about, None, loaded.api, loaded.manifest, loaded.notes))
        return result

    @cached_property
    def _entries(self) -> list[_Entry]:
        entries = _installed() if self._given is None else [_entry(point, point.dist) for point in self._given]
        return sorted(dict.fromkeys(entries), key=lambda entry: (entry.name, entry.package, entry.value))

    def _clash(self, entry: _Entry) -> str:
        same = [other for other in self._entries if other.name == entry.name and not other.fault]
        if len(same) < 2:
            return ""
        owners = [f"{other.package} {other.version}".strip() for other in same]
        packages = dict.fromkeys(other.package for other in same)
        way_out = f"write {' or '.join(f'{entry.name}@{p}' for p in packages)}" if len(packages) == len(same) else "uninstall one"
        return f"plugin {entry.name} is claimed by {' and by '.join(owners)}, so neither is loaded: {way_out}"

    def _find(self, name: str, kind: Kind) -> _Entry:
        bare, _, package = name.partition("@")
        same = [entry for entry in self._entries if entry.name == bare and not entry.fault]
        chosen = [entry for entry in same if not package or _normal(entry.package) == _normal(package)]
        if len(chosen) > 1:
            raise PluginError(self._clash(chosen[0]), plugin=name)
        if chosen:
            return chosen[0]
        faulty = next((entry for entry in self._entries if entry.name == bare and entry.fault), None)
        if faulty is not None:
            raise PluginError(f"plugin {bare} ({faulty.package}) cannot be loaded: {faulty.fault}", plugin=name)
        raise NotFoundError(f"no {kind} plugin named {name!r:.80}; {self._way_out(bare, same)}", plugin=name)

    def _way_out(self, name: str, same: list[_Entry]) -> str:
        if same:
            return f"write {' or '.join(f'{entry.name}@{entry.package}' for entry in same)}"
        near = difflib.get_close_matches(name, {entry.name for entry in self._entries if not entry.fault}, 3)
        if near:
            return f"did you mean {' or '.join(near)}?"
        if name in SHIPPED:
            return "the package tradeskill itself provides it: install that again, its entry points are out of date"
        return f"install the package that provides it (entry point {GROUP!r}, name {name!r:.80}) for {sys.executable}; `tradeskill plugins` lists what is here"

    def _load(self, entry: _Entry) -> Plugin | PluginError:
        if entry not in self._loaded:
            try:
                self._loaded[entry] = _load(entry)
            except PluginError as error:
                self._loaded[entry] = error
        return self._loaded[entry]


def _load(entry: _Entry) -> Plugin:
    """Import, agree on the API, check every hook, ask for manifest and capabilities. PluginError with the cause of whatever goes wrong."""
    import importlib
    import warnings

    who = f"plugin {entry.name} ({entry.package}) did not load"
    with contained(who):
        module = importlib.import_module(entry.value)
    with contained(who):  # late: what these need is only needed where a plugin is used
        import pluggy

        from tradeskill import hookspecs
        from tradeskill.hookcheck import KINDS, hooks_of
        from tradeskill.manifest import api_of, checked_manifest

        api, notes = api_of(getattr(module, "tradeskill_api", None))
        hooks = hooks_of(module)
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(hookspecs)
        with warnings.catch_warnings(record=True) as deprecated:  # a hook that will go says so here
            warnings.simplefilter("always")
            manager.register(module, entry.name)
        manager.check_pending()
        notes = (*notes, *(described(each.message) for each in deprecated if isinstance(each.message, Warning)))
    kinds = tuple(kind for kind, hook in KINDS.items() if hook in hooks)
    if not kinds:
        raise PluginError(f"{who}: it is neither {' nor '.join(KINDS)}: define one of {', '.join(KINDS.values())}")
    with contained(f"{who}: tradeskill_capabilities"):
        results = manager.hook.tradeskill_capabilities()
        capabilities = _capabilities(results[0] if results else ())
    manifest: Manifest | None = None
    if "tradeskill_manifest" in hooks:
        with contained(f"{who}: tradeskill_manifest"):
            manifest = checked_manifest(next(iter(manager.hook.tradeskill_manifest()), None))
    elif kinds != ("skill",):
        notes = (*notes, "has no manifest: define tradeskill_manifest, so that its users can see whom it talks to and what it may spend")
    return Plugin(entry.name, entry.package, entry.version, _origin(module), kinds, capabilities, manager, api, manifest, notes)


def _capabilities(value: Any) -> tuple[Capability, ...]:
    from tradeskill.contracts import Capability

    capabilities = tuple(value)
    for item in capabilities:
        if not isinstance(item, Capability) or not isinstance(item.name, str) or not isinstance(item.reason, str):
            raise PluginError(f"returned {item!r:.80}, not a Capability")
        if not isinstance(item.value, bool | int | str) or not item.reason.strip():
            raise PluginError(f"{item.name!r:.80} needs a value (true, false, a number, a word) and a reason")
    names = [item.name for item in capabilities]
    if len(set(names)) != len(names):
        raise PluginError(f"names one capability twice: {', '.join(names)}")
    return capabilities


def _origin(module: types.ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__  # a module made of folders alone has no file


def _wrong_kind(plugin: Plugin, kind: Kind) -> NotFoundError:
    return NotFoundError(f"no {kind} plugin named {plugin.name!r}: {plugin.name}@{plugin.package} is a {' and a '.join(plugin.kinds)}")


def _installed() -> list[_Entry]:
    """The group's entry points in every package on the path, each package by itself: broken metadata of one hides no other."""
    from importlib import metadata

    entries: list[_Entry] = []
    seen: set[str] = set()
    for distribution in metadata.distributions():
        try:
            # the text is looked at first because reading all of every package's metadata would take longer than everything else here
            if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            points = list(distribution.entry_points.select(group=GROUP))
            found = [_entry(point, distribution) for point in points]
        except Exception as error:  # noqa: BLE001 - a stranger's package; whatever it is, it is reported and the others go on
            found = [_Entry("?", "", *_owner(distribution), f"its package's entry points cannot be read: {described(error)}")]
        fresh = [entry for entry in found if _normal(entry.package) not in seen]  # the first on the path is the one that would be imported
        entries += fresh
        seen |= {_normal(entry.package) for entry in fresh if entry.package not in ("", _UNNAMED)}
    return entries


def _entry(point: EntryPoint, distribution: Distribution | None) -> _Entry:
    package, version = _owner(distribution)
    fault = ""
    if not package:
        package, fault = _UNNAMED, "its package has no name in its metadata: install it again"
    elif _NAME.fullmatch(point.name) is None:
        fault = f"the name {point.name!r:.80} is not made of a-z, 0-9 and hyphens: its package must rename it"
    elif _MODULE.fullmatch(point.value) is None:
        fault = f"{point.value!r:.80} is not the import path of a module: its package must name a module"
    return _Entry(one_line(point.name), one_line(point.value), package, version, fault)


def _owner(distribution: Distribution | None) -> tuple[str, str]:
    try:
        fields: Any = distribution.metadata if distribution is not None else {}
        name, version = (one_line(fields[key]) if key in fields else "" for key in ("Name", "Version"))
    except Exception:  # noqa: BLE001 - unreadable metadata has no owner to name; the caller says so
        return "", ""
    return name, version


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
