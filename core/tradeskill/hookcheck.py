"""Says whether a plugin module's hooks are the ones in hookspecs.py: names, parameters, annotations. Calls none of them.

pluggy by itself never calls a misspelled or unmarked hook and never says so; and it leaves out an argument whose parameter has a
default. Here each of these is a reason not to load the plugin.
"""

from __future__ import annotations

import difflib
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args, get_origin

from tradeskill import hookspecs
from tradeskill.contracts import Backend, Market, Wallet
from tradeskill.errors import PluginError

__all__ = ["KINDS", "hooks_of", "missing_members"]

KINDS: Final[Mapping[str, str]] = {
    "wallet": "tradeskill_open_wallet",
    "market": "tradeskill_open_market",
    "backend": "tradeskill_open_backend",
    "skill": "tradeskill_skill",
}
_SPECS: Final[Mapping[str, Callable[..., Any]]] = {name: item for name, item in vars(hookspecs).items() if hasattr(item, "tradeskill_spec")}


def hooks_of(module: types.ModuleType) -> frozenset[str]:
    """Names of the hooks that `module` implements, all of them right. PluginError names the first that is not, and the way out."""
    found: dict[str, str] = {}
    for name, item in sorted(vars(module).items()):
        marks = getattr(item, "tradeskill_impl", None) if inspect.isroutine(item) else None
        if isinstance(marks, dict):
            hook = marks.get("specname") or name
            _check(name, hook, item, marks)
            if hook in found:
                raise PluginError(f"hook {hook} is implemented twice, by {found[hook]} and {name}: keep one")
            found[hook] = name
        elif name.startswith("tradeskill_") and callable(item):
            near = name if name in _SPECS else _nearest(name)
            raise PluginError(f"function {name} looks like a hook but is not marked: mark {near} with @tradeskill.hookspecs.hookimpl, or rename it")
    return frozenset(found)


def _nearest(name: str) -> str:
    return difflib.get_close_matches(name, list(_SPECS), 1, 0)[0]


def _check(name: str, hook: str, function: Any, marks: Mapping[str, Any]) -> None:
    if hook not in _SPECS:
        raise PluginError(f"there is no hook {hook}: did you mean {_nearest(hook)}? The hooks are {', '.join(_SPECS)}")
    if marks.get("wrapper") or marks.get("hookwrapper"):
        raise PluginError(f"hook {hook} is marked as a wrapper: plugins are called alone, there is nothing to wrap")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"hook {hook} must be a plain function, not async and not a generator: do slow work in the object's open()")
    wanted = inspect.signature(_SPECS[hook])
    given = inspect.signature(function)
    names = ", ".join(wanted.parameters) or "none"
    for parameter in given.parameters.values():
        if parameter.name not in wanted.parameters:
            raise PluginError(f"hook {hook} has the parameter {parameter.name}, which is not passed to it: its parameters are {names}")
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD or parameter.default is not inspect.Parameter.empty:
            raise PluginError(f"hook {hook}: {parameter.name} would never be passed; write it plainly, without default, * or /")
    for part in (*given.parameters, "return"):
        _check_annotation(hook, part, function)


def _check_annotation(hook: str, part: str, function: Any) -> None:
    """Fewer parameters than the hook has may be taken, so that a hook can grow; what is annotated must be annotated truly."""
    annotations, spec = _annotations(function), _SPECS[hook]
    if part not in annotations:
        return
    text = _annotations(spec)[part]  # as written in hookspecs.py
    given, wanted = _resolved(annotations[part], function), _resolved(text, spec)
    if isinstance(given, str):  # imported for the type checker only: nothing to compare but the words; a result is checked again when it is made
        fits = part == "return" or _words(given) == _words(text)
    else:
        fits = _result_fits(given, wanted) if part == "return" else _argument_fits(given, wanted)
    if not fits:
        shown = annotations[part] if isinstance(annotations[part], str) else inspect.formatannotation(given)
        raise PluginError(f"hook {hook}: {'its result' if part == 'return' else part} is annotated {shown}, but it is {text}")


def _annotations(function: Any) -> Mapping[str, Any]:
    try:
        return inspect.get_annotations(function)
    except NameError:  # Python 3.14 evaluates late; a name of the type checker's only
        return {}


def _resolved(annotation: Any, function: Any) -> Any:
    """The annotation as an object, or the string it is written as where its names are not there at run time."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(function, "__globals__", {}))  # noqa: S307 - the plugin's own source in its own module, which has just run
    except Exception:  # noqa: BLE001 - whatever it is, the words are compared instead
        return annotation


def _words(annotation: str) -> str:
    return "".join(part.rpartition(".")[2] for part in annotation.replace("[", " [ ").replace("]", " ] ").replace(",", " , ").split())


def _argument_fits(given: Any, wanted: Any) -> bool:
    """The same, or wider: `Any`, `object`, and both inside a generic."""
    if given in (Any, object, wanted):
        return True
    if get_origin(given) is None or get_origin(given) is not get_origin(wanted):
        return False
    pairs = list(zip(get_args(given), get_args(wanted), strict=False))
    return len(get_args(given)) == len(get_args(wanted)) and all(one in (Any, object, other) for one, other in pairs)


def _result_fits(given: Any, wanted: Any) -> bool:
    """The same, or narrower: a class with the protocol's methods, a list or tuple for a sequence."""
    if given in (Any, wanted):
        return True
    origin, base = get_origin(given), get_origin(wanted)
    if base is None:
        if not isinstance(given, type) or origin is not None:
            return False
        return not missing_members(given, wanted, methods_only=True) if wanted in (Wallet, Market, Backend) else issubclass(given, wanted)
    inner = tuple(item for item in get_args(given) if item is not Ellipsis)
    return isinstance(origin, type) and issubclass(origin, base) and inner in (get_args(wanted), (Any,))


def missing_members(item: object, protocol: type, methods_only: bool = False) -> list[str]:
    """Members of `protocol` that `item` lacks, methods that cannot be called included; sorted."""
    methods = {name for name, value in vars(protocol).items() if not name.startswith("_") and callable(value)}
    data = set() if methods_only else {name for name in inspect.get_annotations(protocol) if not name.startswith("_")}
    return sorted(
        [name for name in methods if not callable(getattr(item, name, None))] + [name for name in data - methods if not hasattr(item, name)]
    )
