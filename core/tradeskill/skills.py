"""Finds skills, reads their SKILL.md, and turns typed functions into tools: one definition for Python, the command line and agents."""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints, overload

from tradeskill.containment import contained
from tradeskill.errors import BrokenPluginError, InputError, NotFoundError, PluginError, TradeskillError
from tradeskill.fitting import is_json
from tradeskill.plugins import Plugins
from tradeskill.skillformat import missing, read_frontmatter, read_needs

if TYPE_CHECKING:
    from tradeskill.model import Json
    from tradeskill.profile import Profile

__all__ = ["Skill", "SkillFolders", "Tool", "Traits", "call_tool", "find_skill", "find_skills", "read_folder", "read_frontmatter", "tool"]

log = logging.getLogger("tradeskill.skills")

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
_MEND = "ask the owner to mend or remove this skill; calling again may do again what it did"
_MCP_NAME = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Traits:
    """What a host may know of a tool before it calls it. The defaults are the careful ones, for a tool that says nothing."""

    reads: bool = False  # changes nothing that anybody could notice
    spends: bool = True  # may move money, which nothing brings back
    repeatable: bool = False  # the same call again has no further effect
    slow: bool = False  # may wait for others; tells its progress


@overload
def tool(function: F) -> F: ...


@overload
def tool(*, reads: bool = ..., spends: bool | None = ..., repeatable: bool | None = ..., slow: bool = ...) -> Callable[[F], F]: ...


def tool(function: Any = None, *, reads: bool = False, spends: bool | None = None, repeatable: bool | None = None, slow: bool = False) -> Any:
    """Mark an async function `(profile, ...typed arguments) -> typed JSON` as a tool of its module's skill. Its docstring is what a model reads.

    Bare or with traits: one that `reads` neither spends nor does anything twice.
    """
    traits = Traits(reads, not reads if spends is None else spends, reads if repeatable is None else repeatable, slow)

    def mark(marked: F) -> F:
        marked.__tool__ = traits  # type: ignore[attr-defined]  # the mark that find_skills looks for
        return marked

    return mark if function is None else mark(function)


@dataclass(frozen=True)
class Tool:
    """One function of a skill. Arguments are checked against its annotations before it runs."""

    name: str
    function: Callable[..., Awaitable[Any]]

    @property
    def traits(self) -> Traits:
        marked = getattr(self.function, "__tool__", None)
        return marked if isinstance(marked, Traits) else Traits()

    @property
    def description(self) -> str:
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def summary(self) -> str:
        return self.description.partition("\n")[0]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.function).parameters)[1:]

    @cached_property
    def _hints(self) -> dict[str, Any]:
        """The annotations of everything but the profile, whose class most tools import for type checkers only."""
        profile = next(iter(inspect.signature(self.function).parameters))
        annotations = {name: hint for name, hint in self.function.__annotations__.items() if name != profile}
        return get_type_hints(SimpleNamespace(__annotations__=annotations), self.function.__globals__, include_extras=True)

    @cached_property
    def _model(self) -> Any:
        from pydantic import ConfigDict, create_model

        hints = self._hints
        fields: dict[str, Any] = {}
        for parameter in list(inspect.signature(self.function).parameters.values())[1:]:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[parameter.name] = (hints[parameter.name], default)
        return create_model(f"{self.name}_arguments", __config__=ConfigDict(extra="forbid", strict=True), **fields)

    def input_schema(self) -> dict[str, Json]:
        """JSON Schema of the arguments."""
        return cast("dict[str, Json]", self._model.model_json_schema())

    def output_schema(self) -> dict[str, Json]:
        """JSON Schema of the answer; one value for all who ask, not to be changed."""
        return self._output_schema

    @cached_property
    def _output_schema(self) -> dict[str, Json]:
        from pydantic import TypeAdapter

        return cast("dict[str, Json]", TypeAdapter(self._hints["return"]).json_schema())

    async def call(self, profile: Profile, arguments: Mapping[str, Json]) -> Any:
        """InputError naming the argument when one is missing, unknown or of the wrong type; otherwise what the tool returns or raises."""
        checked = self.check(arguments)
        try:
            return await (self.function(profile, **checked) if self._ours else self._contained(profile, checked))
        except TradeskillError as error:
            if not self.traits.spends:
                error.details.setdefault("money", "not moved")
            raise

    @property
    def _ours(self) -> bool:
        return str(self.function.__module__).partition(".")[0] == "tradeskill_skills"

    async def _contained(self, profile: Profile, checked: Mapping[str, Any]) -> Any:
        """A stranger's tool: what it raises, blocks or answers ends this call and no more. BrokenPluginError with its details in the log only."""
        from tradeskill.pluginruns import EndedError, PassingThrough, called

        who = f"the tool {self.name} of {self.function.__module__}"
        try:
            answer = await called(self.function, (profile,), dict(checked))
        except (TradeskillError, PassingThrough):
            raise
        except Exception as error:
            cause = error.__cause__ if isinstance(error, EndedError) and error.__cause__ else error
            log.exception("%s", who)  # its words may hold anything; they go to the owner's log only
            words = f"{who} failed inside with {type(cause).__name__}; the log has the details"
            raise BrokenPluginError(words, plugin=who, kind="Skill", next=_MEND) from cause
        try:
            from pydantic import TypeAdapter

            TypeAdapter(self._hints["return"]).validate_python(answer)
            fine = is_json(answer)
        except Exception:  # noqa: BLE001  # pydantic's own, and whatever a stranger's object raises when it is looked at
            fine = False
        if not fine:
            raise BrokenPluginError(f"{who} answered a {type(answer).__name__} that is not what it says it answers", plugin=who, kind="Skill", next=_MEND)
        return answer

    def check(self, arguments: Mapping[str, Json]) -> dict[str, Any]:
        """The arguments with the defaults filled in; InputError as `call`."""
        from pydantic import ValidationError

        try:
            checked = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "arguments"
            raise InputError(f"{self.name}: {where}: {first['msg']}; its arguments are {', '.join(self.parameters) or 'none'}") from error
        return {name: getattr(checked, name) for name in self.parameters}


@dataclass(frozen=True)
class Skill:
    """A folder with SKILL.md and its tools. `reason` says why it cannot run; then it has no tools."""

    name: str
    description: str
    folder: Path
    tools: tuple[Tool, ...] = ()
    reason: str = ""
    frontmatter: Mapping[str, Any] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": self.description,
            "reason": self.reason or None,
            "tools": [{"name": f"{self.name}.{tool.name}", "description": tool.summary, "parameters": list(tool.parameters)} for tool in self.tools],
            "folder": str(self.folder) if self.folder.name else None,
        }


@dataclass(frozen=True)
class SkillFolders:
    """Where skills lie beside the installed packages: the user's folder, then the workspace's. None is looked at that the owner did not name."""

    user: Path | None = None
    workspace: Path | None = None

    @classmethod
    def of(cls, home: Path, environ: Mapping[str, str] = os.environ) -> SkillFolders:
        """`skills` in the profile's folder, and TRADESKILL_SKILLS. A skill has the profile's rights, so the folder one happens to work in is not searched."""
        workspace = environ.get("TRADESKILL_SKILLS")
        return cls(home / "skills", Path(workspace).expanduser().absolute() if workspace else None)

    def __iter__(self) -> Iterator[Path]:
        for place in (self.user, self.workspace):
            if place is not None and place.is_dir():
                yield from sorted(child for child in place.iterdir() if (child / "SKILL.md").is_file())


def find_skills(plugins: Plugins | None = None, folders: SkillFolders | None = None) -> list[Skill]:
    """All skills by name, those that cannot run with their reason. The first of a name wins: installed, the user's folder, the workspace's."""
    plugins = plugins or Plugins()
    reports = plugins.report()
    names = [report.name for report in reports if not report.error]
    found: list[Skill] = []
    for report in reports:
        if not report.error and "skill" in report.kinds:
            found.append(_listed(report.name, partial(_read_installed, report.name, plugins, names)))
    for folder in folders or ():
        taken = next((skill for skill in found if skill.name == folder.name), None)
        if taken is None:
            found.append(_listed(folder.name, partial(read_folder, folder, names), folder))
        else:
            found.append(Skill(folder.name, "", folder, reason=f"the name {folder.name} is taken by {taken.folder}: rename this one"))
    return sorted(found, key=lambda skill: skill.name)


def find_skill(name: str, plugins: Plugins, folders: SkillFolders | None = None) -> Skill:
    """The one that runs under this name; NotFoundError or PluginError with the reason when there is none. Imports no other."""
    try:
        module = plugins.require(name, "skill").skill_module()
    except NotFoundError:
        for folder in folders or ():
            if folder.name == name:
                return read_folder(folder)
        raise
    return _read(name, module, None)


async def call_tool(profile: Profile, name: str, arguments: Json) -> Any:
    """Call `skill.tool` with JSON arguments; the answer is JSON too. NotFoundError for an unknown name."""
    skill_name, _, tool_name = name.partition(".")
    if not isinstance(arguments, dict):
        raise InputError(f"{name}: arguments must be a JSON object")
    home = getattr(profile, "home", None)
    skill = find_skill(skill_name, profile.plugins, SkillFolders.of(home) if home is not None else None)
    for candidate in skill.tools:
        if candidate.name == tool_name:
            return await candidate.call(profile, arguments)
    raise NotFoundError(f"{name}: skill {skill_name} has {', '.join(f'{skill_name}.{t.name}' for t in skill.tools)}")


def _listed(name: str, read: Callable[[], Skill], folder: Path | None = None) -> Skill:
    try:
        return read()
    except TradeskillError as error:
        return Skill(name, "", folder or Path(), reason=str(error))


def _read_installed(name: str, plugins: Plugins, names: Iterable[str] | None) -> Skill:
    return _read(name, plugins.require(name, "skill").skill_module(), names)


def _read(name: str, module_name: str, plugins: Iterable[str] | None) -> Skill:
    with contained(f"skill {name}: {module_name} did not load"):
        module = import_module(module_name)
    return _made(name, Path(module.__file__ or "").parent, lambda: module, plugins, module_name)


def read_folder(folder: Path, plugins: Iterable[str] | None = None) -> Skill:
    """A skill that is a folder and no package: its tools are in `tools.py` beside SKILL.md. PluginError with the reason when it cannot run."""
    name = folder.name

    def load() -> ModuleType:
        from importlib.util import module_from_spec, spec_from_file_location

        key = f"tradeskill_skill_folder_{name.replace('-', '_')}"
        known = sys.modules.get(key)
        if known is not None and known.__file__ == str(folder / "tools.py"):
            return known
        if not (folder / "tools.py").is_file():
            raise PluginError(f"skill {name}: {folder} has no tools.py: instructions alone are for the agent's host to read")
        spec = spec_from_file_location(key, folder / "tools.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[key] = module
        try:
            with contained(f"skill {name}: tools.py did not load"):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[key]
            raise
        return module

    return _made(name, folder, load, plugins, "tools.py")


def _made(name: str, folder: Path, load: Callable[[], ModuleType], plugins: Iterable[str] | None, module_name: str) -> Skill:
    """SKILL.md is read and what it needs is looked for before anything of a folder runs."""
    try:
        head = read_frontmatter((folder / "SKILL.md").read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(f"skill {name}: SKILL.md is missing beside {module_name}") from error
    if folder.name != name:
        raise PluginError(f"skill {name}: its folder is called {folder.name}")
    needs = read_needs(head.get("metadata", {}), name)
    if needs.plugins and plugins is None:
        plugins = [report.name for report in Plugins().report() if not report.error]
    lacking = missing(needs, plugins or ())
    if lacking:
        raise PluginError(f"skill {name}: {lacking}")
    module = load()
    with contained(f"skill {name}: {module_name}"):  # what stands in a module is a stranger's objects
        tools = tuple(Tool(key.rstrip("_"), value) for key, value in vars(module).items() if isinstance(getattr(value, "__tool__", None), Traits))
    for each in tools:
        if _MCP_NAME.fullmatch(f"{name.replace('-', '_')}_{each.name}") is None:
            raise PluginError(f"skill {name}: the tool {each.name} cannot be offered to agents: SKILL_TOOL must be 1 to 64 of a-z, 0-9 and _")
    return Skill(name, head["description"], folder, tools, frontmatter=head)
