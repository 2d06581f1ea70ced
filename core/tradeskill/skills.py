"""Finds skills, reads their SKILL.md, and turns typed functions into tools: one definition for Python, the command line and agents."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from tradeskill.errors import InputError, NotFoundError, PluginError, TradeskillError
from tradeskill.plugins import Plugins

if TYPE_CHECKING:
    from tradeskill.model import Json
    from tradeskill.profile import Profile

__all__ = ["Skill", "Tool", "call_tool", "find_skills", "read_frontmatter", "tool"]

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_FRONTMATTER_KEYS = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}


def tool(function: F) -> F:
    """Mark an async function `(profile, ...typed arguments) -> typed JSON` as a tool of its module's skill. Its docstring is what a model reads."""
    function.__tool__ = True  # type: ignore[attr-defined]  # the mark that find_skills looks for
    return function


@dataclass(frozen=True)
class Tool:
    """One function of a skill. Arguments are checked against its annotations before it runs."""

    name: str
    function: Callable[..., Awaitable[Any]]

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
        """JSON Schema of the answer."""
        from pydantic import TypeAdapter

        return cast("dict[str, Json]", TypeAdapter(self._hints["return"]).json_schema())

    async def call(self, profile: Profile, arguments: Mapping[str, Json]) -> Any:
        """InputError naming the argument when one is missing, unknown or of the wrong type; otherwise what the tool returns or raises."""
        from pydantic import ValidationError

        try:
            checked = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "arguments"
            raise InputError(f"{self.name}: {where}: {first['msg']}; its arguments are {', '.join(self.parameters) or 'none'}") from error
        return await self.function(profile, **{name: getattr(checked, name) for name in self.parameters})


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
        }


def find_skills(plugins: Plugins | None = None) -> list[Skill]:
    """All installed skills by name, those that cannot run with their reason."""
    plugins = plugins or Plugins()
    found = []
    for report in plugins.report():
        if report.error or "skill" not in report.kinds:
            continue
        try:
            found.append(_read(report.name, plugins.require(report.name, "skill").skill_module()))
        except TradeskillError as error:
            found.append(Skill(report.name, "", Path(), reason=str(error)))
    return sorted(found, key=lambda skill: skill.name)


async def call_tool(profile: Profile, name: str, arguments: Json) -> Any:
    """Call `skill.tool` with JSON arguments; the answer is JSON too. NotFoundError for an unknown name."""
    skill_name, _, tool_name = name.partition(".")
    if not isinstance(arguments, dict):
        raise InputError(f"{name}: arguments must be a JSON object")
    skill = _read(skill_name, profile.plugins.require(skill_name, "skill").skill_module())
    for candidate in skill.tools:
        if candidate.name == tool_name:
            return await candidate.call(profile, arguments)
    raise NotFoundError(f"{name}: skill {skill_name} has {', '.join(f'{skill_name}.{t.name}' for t in skill.tools)}")


def read_frontmatter(text: str, name: str) -> Mapping[str, Any]:
    """SKILL.md's YAML head, checked against the open Agent Skills format; PluginError names what is wrong."""
    import yaml

    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if match is None:
        raise PluginError(f"skill {name}: SKILL.md does not start with a YAML head between --- lines")
    try:
        head = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
        raise PluginError(f"skill {name}: SKILL.md's head is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(head, dict) or not set(head) <= _FRONTMATTER_KEYS:
        extra = set(head) - _FRONTMATTER_KEYS if isinstance(head, dict) else head
        raise PluginError(f"skill {name}: SKILL.md's head may hold {', '.join(sorted(_FRONTMATTER_KEYS))}; not {extra}")
    if head.get("name") != name or _NAME.fullmatch(name) is None or len(name) > 64:
        raise PluginError(f"skill {name}: SKILL.md names {head.get('name')!r}; it must be the folder's name in lowercase letters, digits and hyphens")
    description = head.get("description")
    if not isinstance(description, str) or not 1 <= len(description) <= 1024:
        raise PluginError(f"skill {name}: SKILL.md needs a description of 1 to 1024 characters: what it does and when to use it")
    metadata = head.get("metadata", {})
    if not isinstance(metadata, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in metadata.items()):
        raise PluginError(f"skill {name}: SKILL.md's metadata must map text to text")
    return head


def _read(name: str, module_name: str) -> Skill:
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a stranger's module raises
        raise PluginError(f"skill {name}: {module_name} did not load: {type(error).__name__}: {' '.join(str(error).split())}") from error
    folder = Path(module.__file__ or "").parent
    try:
        head = read_frontmatter((folder / "SKILL.md").read_text(encoding="utf-8"), name)
    except OSError as error:
        raise PluginError(f"skill {name}: SKILL.md is missing beside {module_name}") from error
    if folder.name != name:
        raise PluginError(f"skill {name}: its folder is called {folder.name}")
    tools = tuple(Tool(key.rstrip("_"), value) for key, value in vars(module).items() if getattr(value, "__tool__", False))
    return Skill(name, head["description"], folder, tools, frontmatter=head)
