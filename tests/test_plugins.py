"""plugins.py and hookcheck.py: real packages' metadata and modules in a folder, found and loaded as installed ones are.

Past 400 lines because it is one table of broken plugins with the words that answer them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tradeskill import hookspecs, plugins
from tradeskill.contracts import Backend, Capability, PluginContext
from tradeskill.errors import ConfigError, NotFoundError, PluginError
from tradeskill.hookcheck import KINDS, hooks_of
from tradeskill.plugins import Kind, PluginReport, Plugins
from tradeskill.signing import Identity
from tradeskill.world import World

HERE = Path(__file__).parent
ROOT = HERE.parent

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install("package", name="module", ...)` puts a package's metadata on the path; `sources` become modules there."""
    monkeypatch.syspath_prepend(str(HERE / "plugins_for_tests"))
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def run(package: str, sources: dict[str, str] | None = None, metadata: str | None = None, points: str | None = None, **names: str) -> None:
        folder = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n" if metadata is None else metadata)
        lines = [f"{name} = {module}" for name, module in names.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[tradeskill]", *lines]) + "\n" if points is None else points)
        for module, source in (sources or {}).items():
            (tmp_path / f"{module}.py").write_text(source)

    yield run
    for name in set(sys.modules) - before:
        if name.startswith(("tp_", "made_")):
            del sys.modules[name]


@pytest.fixture
def context(tmp_path: Path) -> PluginContext:
    return PluginContext("tidy", "dev", tmp_path / "home", World(), Identity(bytes(32)), lambda: "")


def reported(name: str) -> PluginReport:
    (report,) = [report for report in Plugins().report() if report.name == name]
    return report


def refusal(source: str) -> str:
    """What is said of a plugin module with this source."""
    import types

    module = types.ModuleType("made_up")
    exec(HEAD + source, module.__dict__)
    with pytest.raises(PluginError) as caught:
        hooks_of(module)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def accepted(source: str) -> frozenset[str]:
    import types

    module = types.ModuleType("made_up")
    exec(HEAD + source, module.__dict__)
    return hooks_of(module)


HEAD = """
from __future__ import annotations
import typing
from typing import Any, Mapping, Sequence
from tradeskill.contracts import *
from tradeskill.hookspecs import hookimpl
from tradeskill.model import Json
from tradeskill.testing.fake_backend import FakeBackend
"""


# Finding and loading


def test_a_tidy_plugin_says_what_it_is_and_where_it_comes_from(install: Install) -> None:
    install("tidy-package", tidy="tp_tidy")
    report = reported("tidy")
    assert report.error is None
    assert (report.kinds, report.package, report.version) == (("backend",), "tidy-package", "1.0")
    assert report.origin == str(HERE / "plugins_for_tests" / "tp_tidy.py")
    assert report.capabilities == (Capability("isolation", "none", "it runs nothing"),)


def test_what_a_plugin_prints_goes_to_stderr(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("tidy-package", tidy="tp_tidy")
    Plugins().require("tidy", "backend")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "tp_tidy is imported" in printed.err


@pytest.mark.parametrize(
    ("module", "said", "cause"),
    [
        ("tp_exits", "SystemExit: nothing to see here", SystemExit),
        ("tp_interrupts", "KeyboardInterrupt", KeyboardInterrupt),
        ("tp_lacks", "ModuleNotFoundError: No module named 'a_package_that_nobody_has'", ModuleNotFoundError),
        ("tp_unspeakable", "UnspeakableError: (its message cannot be shown)", Exception),
        ("tp_colourful", "ValueError: \\x1b[2Jall is well", ValueError),
        ("made_syntax", "SyntaxError: expected ':'", SyntaxError),
        ("made_nowhere", "ModuleNotFoundError: No module named 'made_nowhere'", ModuleNotFoundError),
        ("made_stop", "StopIteration: early", StopIteration),
    ],
)
def test_a_plugin_that_fails_on_import_stops_no_other_and_is_the_cause(
    install: Install, module: str, said: str, cause: type[BaseException]
) -> None:
    install("broken", {"made_syntax": "def f()\n", "made_stop": "raise StopIteration('early')\n"}, broken=module)
    install("tidy-package", tidy="tp_tidy")
    assert said in str(reported("broken").error)
    assert reported("tidy").error is None
    for _ in range(2):  # the second answer comes from memory
        with pytest.raises(PluginError, match=r"^plugin broken \(broken\) did not load: ") as caught:
            Plugins().require("broken", "backend")
        assert isinstance(caught.value.__cause__, cause)
        assert "\n" not in str(caught.value)


def test_a_failed_plugin_is_not_imported_again(install: Install, tmp_path: Path) -> None:
    source = f"with open({str(tmp_path / 'count')!r}, 'a') as file:\n    file.write('x')\nraise OSError('disk')\n"
    install("counting", {"made_counting": source}, counting="made_counting")
    found = Plugins()
    for _ in range(3):
        with pytest.raises(PluginError, match="OSError: disk"):
            found.require("counting", "backend")
    assert (tmp_path / "count").read_text() == "x"


def test_a_real_interrupt_comes_through(install: Install) -> None:
    install("pressed", pressed="tp_pressed")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background may have it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            Plugins().require("pressed", "backend")
    finally:
        signal.signal(signal.SIGINT, before)


def test_only_the_plugin_that_is_asked_for_is_imported(install: Install) -> None:
    install("two", tidy="tp_tidy", other="tp_incomplete")
    found = Plugins()
    assert "tp_tidy" not in sys.modules
    found.require("tidy", "backend")
    assert "tp_incomplete" not in sys.modules
    found.report()
    assert "tp_incomplete" in sys.modules


def test_the_loader_itself_brings_in_nothing_heavy() -> None:
    heavy = ["pluggy", "inspect", "importlib.metadata", "asyncio", "yaml", "pydantic", "jsonschema"]
    code = f"import sys, tradeskill.plugins, tradeskill.config; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    assert answer == "['inspect']"  # inspect comes with dataclasses


# Names, owners, clashes


def test_a_name_claimed_by_two_packages_loads_neither_and_lists_both(install: Install) -> None:
    install("one", tidy="tp_tidy")
    install("Other_One", tidy="tp_incomplete")
    found = Plugins()
    with pytest.raises(PluginError, match=r"tidy is claimed by Other_One 1\.0 and by one 1\.0, .*tidy@Other_One or tidy@one"):
        found.require("tidy", "backend")
    both = [report for report in found.report() if report.name == "tidy"]
    assert [report.package for report in both] == ["Other_One", "one"]
    assert all("claimed by" in str(report.error) for report in both)
    assert not {"tp_tidy", "tp_incomplete"} & set(sys.modules)


def test_the_package_after_the_at_sign_resolves_a_clash(install: Install) -> None:
    install("one", tidy="tp_tidy")
    install("Other_One", tidy="tp_incomplete")
    found = Plugins()
    assert found.require("tidy@one", "backend").package == "one"
    assert found.require("tidy@other-one", "wallet").package == "Other_One"
    with pytest.raises(NotFoundError, match="write tidy@Other_One or tidy@one"):
        found.require("tidy@third", "backend")


def test_one_package_claiming_a_name_twice_is_a_clash_that_no_suffix_resolves(install: Install) -> None:
    install("greedy", points="[tradeskill]\ntidy = tp_tidy\ntidy = tp_incomplete\n")
    for name in ("tidy", "tidy@greedy"):
        with pytest.raises(PluginError, match=r"claimed by greedy 1\.0 and by greedy 1\.0.*uninstall one"):
            Plugins().require(name, "backend")


def test_the_same_line_twice_is_one_plugin(install: Install) -> None:
    install("stutter", points="[tradeskill]\ntidy = tp_tidy\ntidy = tp_tidy\n")
    assert Plugins().require("tidy", "backend").package == "stutter"


def test_of_two_installs_of_one_package_the_first_on_the_path_counts(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("tidy-package", tidy="tp_tidy")
    old = tmp_path / "old" / "Tidy.Package-0.9.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: Tidy.Package\nVersion: 0.9\n")
    (old / "entry_points.txt").write_text("[tradeskill]\ntidy = tp_incomplete\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "old")])
    assert reported("tidy").version == "1.0"


def test_an_unknown_name_is_answered_with_the_nearest_one(install: Install) -> None:
    install("tidy-package", tidy="tp_tidy")
    with pytest.raises(NotFoundError, match=r"no backend plugin named 'tydy'; did you mean tidy\?"):
        Plugins().require("tydy", "backend")


def test_a_name_like_no_other_is_answered_with_what_to_install() -> None:
    with pytest.raises(NotFoundError, match="install the package that provides it") as caught:
        Plugins([]).require("lightning", "wallet")
    assert sys.executable in str(caught.value)
    with pytest.raises(NotFoundError, match="the package tradeskill itself provides it"):
        Plugins([]).require("nano", "wallet")


def test_the_list_of_our_own_plugins_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["entry-points"]["tradeskill"]) == plugins.SHIPPED


def test_a_plugin_of_another_kind_is_not_found(install: Install) -> None:
    install("tidy-package", tidy="tp_tidy")
    with pytest.raises(NotFoundError, match="no wallet plugin named 'tidy': tidy@tidy-package is a backend"):
        Plugins().require("tidy", "wallet")


def test_the_report_is_sorted_by_name(install: Install) -> None:
    install("zebra", zebra="tp_tidy", apple="tp_skill")
    names = [report.name for report in Plugins().report()]
    assert names == sorted(names)
    assert {"apple", "zebra"} <= set(names)


# Bad metadata


def test_metadata_without_a_name_is_a_named_fault(install: Install) -> None:
    install("nameless", metadata="Metadata-Version: 2.1\nVersion: 1.0\n", lost="tp_tidy")
    install("tidy-package", tidy="tp_tidy")
    assert "has no name in its metadata" in str(reported("lost").error)
    assert reported("tidy").error is None
    with pytest.raises(PluginError, match="cannot be loaded: its package has no name"):
        Plugins().require("lost", "backend")


def test_an_unreadable_list_of_entry_points_stops_no_other(install: Install) -> None:
    install("garbled", points="[tradeskill]\nthis line has no equals sign\n")
    install("tidy-package", tidy="tp_tidy")
    (fault,) = [report for report in Plugins().report() if report.package == "garbled"]
    assert "entry points cannot be read" in str(fault.error)
    assert reported("tidy").error is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Nano = tp_tidy", "'Nano' is not made of a-z, 0-9 and hyphens"),
        ("n\u0430no = tp_tidy", "is not made of a-z, 0-9 and hyphens"),  # the second letter is Cyrillic
        ("tidy = tp_tidy:tradeskill_capabilities", "is not the import path of a module"),
        ("tidy = not a module!", "is not the import path of a module"),
    ],
)
def test_a_bad_entry_point_is_refused_without_an_import(install: Install, line: str, said: str) -> None:
    install("odd", points=f"[tradeskill]\n{line}\n")
    (report,) = [report for report in Plugins().report() if report.package == "odd"]
    assert said in str(report.error)
    assert "tp_tidy" not in sys.modules


# Hooks


def test_a_module_without_hooks_is_refused(install: Install) -> None:
    install("empty", {"made_empty": "VERSION = 1\n"}, empty="made_empty")
    assert "neither wallet nor market nor backend nor skill" in str(reported("empty").error)


def test_a_misspelled_hook_is_refused_with_the_nearest_right_name() -> None:
    assert refusal("@hookimpl\ndef tradeskill_open_walet(settings, context): ...").startswith(
        "there is no hook tradeskill_open_walet: did you mean tradeskill_open_wallet?"
    )
    assert "did you mean tradeskill_skill?" in refusal("@hookimpl(optionalhook=True)\ndef tradeskill_skil(): ...")
    assert "there is no hook wallet" in refusal("@hookimpl\ndef wallet(settings, context): ...")
    assert "there is no hook tradeskill_opens" in refusal("@hookimpl(specname='tradeskill_opens')\ndef anything(): ...")


def test_an_unmarked_function_that_looks_like_a_hook_is_refused() -> None:
    assert "mark tradeskill_open_wallet with @tradeskill.hookspecs.hookimpl" in refusal("def tradeskill_open_wallet(settings, context): ...")
    assert "mark tradeskill_open_market with" in refusal("def tradeskill_open_markt(settings, context): ...")
    assert "not marked" in refusal("tradeskill_skill = lambda: 'a.b'")


def test_a_constant_that_looks_like_a_hook_is_none() -> None:
    assert accepted("tradeskill_version = 3\n@hookimpl\ndef tradeskill_skill(): return 'a'") == {"tradeskill_skill"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("@hookimpl\ndef tradeskill_open_wallet(config, context): ...", "parameter config, which is not passed to it: its parameters are settings, context"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings, context, extra): ...", "parameter extra"),
        ("@hookimpl\ndef tradeskill_skill(settings): ...", "its parameters are none"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings, context=None): ...", "context would never be passed"),
        ("@hookimpl\ndef tradeskill_open_wallet(*, settings, context): ...", "settings would never be passed"),
        ("@hookimpl\ndef tradeskill_open_wallet(**settings): ...", "settings would never be passed"),
        ("@hookimpl\nasync def tradeskill_open_wallet(settings, context): ...", "must be a plain function"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings, context): yield", "must be a plain function"),
        ("@hookimpl(wrapper=True)\ndef tradeskill_skill(): return (yield)", "marked as a wrapper"),
        ("@hookimpl\ndef tradeskill_skill(): ...\n@hookimpl(specname='tradeskill_skill')\ndef also(): ...", "implemented twice"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings: str, context): ...", "settings is annotated str, but it is Mapping[str, Json]"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings: dict[str, Json], context): ...", "settings is annotated dict[str, Json]"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings: Mapping[str, int], context): ...", "settings is annotated Mapping[str, int]"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings, context: Missing): ...", "context is annotated Missing, but it is PluginContext"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings, context) -> None: ...", "its result is annotated None, but it is Wallet"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings, context) -> Wallet | None: ...", "its result is annotated Wallet | None"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings, context) -> Market: ...", "its result is annotated Market, but it is Wallet"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings, context) -> FakeBackend: ...", "its result is annotated FakeBackend, but it is Wallet"),
        ("@hookimpl\ndef tradeskill_open_wallet(settings, context) -> object: ...", "its result is annotated object"),
        ("@hookimpl\ndef tradeskill_skill() -> bytes: ...", "its result is annotated bytes, but it is str"),
        ("@hookimpl\ndef tradeskill_skill() -> typing.Literal['a']: ...", "but it is str"),
        ("@hookimpl\ndef tradeskill_capabilities() -> list[str]: ...", "but it is Sequence[Capability]"),
        ("@hookimpl\ndef tradeskill_capabilities() -> set[Capability]: ...", "but it is Sequence[Capability]"),
        ("@hookimpl\ndef tradeskill_capabilities() -> typing.Literal['a']: ...", "but it is Sequence[Capability]"),
    ],
)
def test_a_wrongly_typed_hook_is_refused_by_name(source: str, said: str) -> None:
    message = refusal(source)
    assert said in message
    assert "tradeskill_" in message


@pytest.mark.parametrize(
    "source",
    [
        "@hookimpl\ndef tradeskill_open_backend(settings, context): ...",
        "@hookimpl\ndef tradeskill_open_backend(context): ...",
        "@hookimpl\ndef tradeskill_open_backend(settings: Mapping[str, Any], context: PluginContext) -> FakeBackend: ...",
        "@hookimpl\ndef tradeskill_open_backend(settings: object, context: Any) -> Any: ...",
        "@hookimpl\ndef tradeskill_open_backend(settings: m.Mapping[str, Json], context: c.PluginContext) -> OnlyForTheChecker: ...",
        "@hookimpl(specname='tradeskill_open_backend')\ndef make(settings, context) -> Backend: ...",
        "@hookimpl\ndef tradeskill_capabilities() -> tuple[Capability, ...]: ...",
        "@hookimpl\ndef tradeskill_capabilities() -> list[Any]: ...",
        "@hookimpl\ndef tradeskill_skill() -> str: ...",
    ],
)
def test_a_hook_that_is_right_or_says_less_is_taken(source: str) -> None:
    assert len(accepted(source)) == 1


def test_every_hook_is_a_kind_or_what_a_plugin_says_of_itself_or_what_init_asks_a_wallet() -> None:
    hooks = {name for name, item in vars(hookspecs).items() if hasattr(item, "tradeskill_spec")}
    assert hooks == {"tradeskill_capabilities", "tradeskill_manifest", "tradeskill_create_wallet", *KINDS.values()}


def test_every_hook_is_described_in_one_sentence() -> None:
    for name, item in vars(hookspecs).items():
        if hasattr(item, "tradeskill_spec"):
            assert item.__doc__, name
            assert item.__doc__.endswith(".")
            assert ". " not in item.__doc__, name


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("['isolation']", "'isolation', not a Capability"),
        ("[Capability('a', 1, '')]", "'a' needs a value"),
        ("[Capability('a', 1.5, 'why')]", "'a' needs a value"),
        ("[Capability('a', 1, 'why'), Capability('a', 2, 'why')]", "names one capability twice"),
        ("5", "TypeError"),
    ],
)
def test_wrong_capabilities_keep_a_plugin_from_loading(install: Install, returned: str, said: str) -> None:
    source = f"{HEAD}@hookimpl\ndef tradeskill_capabilities(): return {returned}\n@hookimpl\ndef tradeskill_skill(): return 'a'\n"
    install("wrong", {"made_wrong": source}, wrong="made_wrong")
    assert said in str(reported("wrong").error)


# Opening


def test_a_backend_is_opened_with_its_settings_and_context(install: Install, context: PluginContext) -> None:
    install("tidy-package", tidy="tp_tidy")
    assert isinstance(Plugins().require("tidy", "backend").open_backend({}, context), Backend)


@pytest.mark.parametrize(
    ("fail", "error", "said"),
    [
        ("config", ConfigError, "^backends.tidy.fail: takes nothing$"),
        ("exit", PluginError, r"^plugin tidy \(tidy-package\): tradeskill_open_backend: SystemExit: 3$"),
        ("nothing", PluginError, r"its backend, a NoneType, lacks close, list, open"),
    ],
)
def test_what_goes_wrong_in_opening_is_one_typed_error(
    install: Install, context: PluginContext, fail: str, error: type[Exception], said: str
) -> None:
    install("tidy-package", tidy="tp_tidy")
    plugin = Plugins().require("tidy", "backend")
    with pytest.raises(error, match=said):
        plugin.open_backend({"fail": fail}, context)


def test_a_wallet_that_breaks_its_promise_is_refused_by_the_missing_methods(install: Install, context: PluginContext) -> None:
    install("half", half="tp_incomplete")
    with pytest.raises(PluginError, match=r"its wallet, a HalfWallet, lacks pay, refund, unit of tradeskill\.contracts\.Wallet"):
        Plugins().require("half", "wallet").open_wallet({}, context)


def test_a_skill_says_where_its_tools_are_without_importing_them(install: Install) -> None:
    install("able", able="tp_skill")
    assert Plugins().require("able", "skill").skill_module() == "tp_skill_tools.which_is_not_imported"


def test_a_skill_that_is_no_module_path_is_refused(install: Install) -> None:
    install("lost", {"made_lost": f"{HEAD}@hookimpl\ndef tradeskill_skill(): return '../tools.py'\n"}, lost="made_lost")
    with pytest.raises(PluginError, match="not the import path of a module"):
        Plugins().require("lost", "skill").skill_module()


@pytest.mark.parametrize("kind", ["wallet", "market"])
def test_what_a_plugin_is_not_cannot_be_opened(install: Install, context: PluginContext, kind: Kind) -> None:
    install("tidy-package", tidy="tp_tidy")
    plugin = Plugins().require("tidy", "backend")
    with pytest.raises(NotFoundError, match=f"no {kind} plugin named 'tidy'"):
        {"wallet": plugin.open_wallet, "market": plugin.open_market}[kind]({}, context)
