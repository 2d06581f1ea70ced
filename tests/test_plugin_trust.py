"""What others' plugins may do to us: nothing at any hook but an error with their name; no money before their owner allowed it; no API that is not spoken."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tradeskill import containment, hookspecs, manifest
from tradeskill.config import load_config
from tradeskill.contracts import PluginContext
from tradeskill.errors import ConfigError, PluginError, UnavailableError
from tradeskill.manifest import Manifest, api_of, checked_manifest
from tradeskill.opening import check_allowed, opened
from tradeskill.plugins import Plugin, Plugins
from tradeskill.profile import Profile
from tradeskill.signing import Identity
from tradeskill.world import World

HERE = Path(__file__).parent
HOOKS: dict[str, Callable[[Plugin, PluginContext], object]] = {
    "create_wallet": lambda plugin, context: plugin.create_wallet({}, context, bytes(32)),
    "open_wallet": lambda plugin, context: plugin.open_wallet({}, context),
    "open_market": lambda plugin, context: plugin.open_market({}, context),
    "open_backend": lambda plugin, context: plugin.open_backend({}, context),
    "skill": lambda plugin, context: plugin.skill_module(),
}
AT_LOADING = ("import", "manifest", "capabilities")
KINDS = ("raises", "exits", "interrupts", "hangs", "lies")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, with the package `troubled` 1.0 in it, installed with a RECORD as pip would."""
    source = (HERE / "lying_plugins" / "troubled.py").read_bytes()
    install(tmp_path, "troubled", {"troubled.py": source}, "[tradeskill]\ntroubled = troubled\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("troubled", None)


def install(folder: Path, name: str, files: dict[str, bytes], points: str, record: bool = True) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    written = {**files, f"{info.name}/METADATA": metadata.encode(), f"{info.name}/entry_points.txt": points.encode()}
    for path, data in written.items():
        (folder / path).write_bytes(data)
    if record:
        lines = [f"{path},sha256={_urlsafe(data)},{len(data)}" for path, data in written.items()]
        (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,"]) + "\n")


def _urlsafe(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@pytest.fixture
def context(tmp_path: Path) -> PluginContext:
    return PluginContext("troubled", "dev", tmp_path / "home", World(), Identity(bytes(32)), lambda: "")


# At every hook, whatever it does


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hook", [*AT_LOADING, *HOOKS])
def test_trouble_at_any_hook_is_one_error_with_the_plugins_name(
    place: Path, context: PluginContext, monkeypatch: pytest.MonkeyPatch, hook: str, kind: str
) -> None:
    monkeypatch.setattr(containment, "HOOK_SECONDS", 0.5)
    monkeypatch.setenv("TROUBLE", f"{hook} {kind}")
    found = Plugins()
    if (hook, kind) in (("import", "lies"), ("create_wallet", "lies")):  # there is nothing to lie about
        HOOKS["create_wallet"](found.require("troubled", "wallet"), context)
        return
    began = time.monotonic()
    with pytest.raises(PluginError, match=r"^plugin troubled \(troubled\)") as caught:
        HOOKS.get(hook, HOOKS["skill"])(found.require("troubled", "wallet"), context)
    assert time.monotonic() - began < 30
    assert "\n" not in str(caught.value)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    reports = {report.name: report for report in found.report()}
    assert [name for name in ("nano", "embedded", "relay", "process") if reports[name].error] == []
    assert (reports["troubled"].error is None) == (hook in HOOKS)


def test_there_is_no_hook_at_which_trouble_is_not_tried() -> None:
    named = {name for name, item in vars(hookspecs).items() if hasattr(item, "tradeskill_spec")}
    assert named == {f"tradeskill_{name}" for name in (*AT_LOADING, *HOOKS) if name != "import"}


def test_without_trouble_every_hook_works(place: Path, context: PluginContext) -> None:
    plugin = Plugins().require("troubled", "wallet")
    for call in HOOKS.values():
        call(plugin, context)
    assert plugin.manifest == Manifest(spends=("everything",))


def test_an_open_that_hangs_or_breaks_is_an_error_with_the_plugins_name(place: Path) -> None:
    plugin = Plugins().require("troubled", "wallet")

    async def hang() -> None:
        await asyncio.Event().wait()

    async def broken() -> None:
        raise ZeroDivisionError("over\nzero")

    async def away() -> None:
        raise UnavailableError("the node is down")

    with pytest.raises(PluginError, match=r"plugin troubled \(troubled\): open\(\) did not return within 0\.05 s"):
        asyncio.run(opened(plugin, hang(), 0.05))
    with pytest.raises(PluginError, match=r"open\(\): ZeroDivisionError: over zero"):
        asyncio.run(opened(plugin, broken()))
    with pytest.raises(UnavailableError, match="the node is down"):
        asyncio.run(opened(plugin, away()))


# Which API


def test_the_api_that_is_spoken_here_needs_no_words() -> None:
    assert api_of(manifest.API) == (manifest.API, ())


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (manifest.API + 1, "was written for the plugin API 2, and this tradeskill has 1: update tradeskill"),
        (0, "it takes the number of the API"),
        (True, "it takes the number of the API"),
        ("1", "it takes the number of the API"),
        (1.0, "it takes the number of the API"),
    ],
)
def test_another_api_keeps_a_plugin_from_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: object, said: str) -> None:
    source = f"tradeskill_api = {declared!r}\nfrom tradeskill.hookspecs import hookimpl\n@hookimpl\ndef tradeskill_skill(): return 'a'\n"
    install(tmp_path, "made-api", {"made_api.py": source.encode()}, "[tradeskill]\nmade-api = made_api\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        (report,) = [report for report in Plugins().report() if report.name == "made-api"]
    finally:
        sys.modules.pop("made_api", None)
    assert report.error is not None
    assert said in report.error


def test_an_older_api_is_loaded_with_a_note_and_a_too_old_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "API", 3)
    monkeypatch.setattr(manifest, "OLDEST_API", 2)
    assert api_of(3) == (3, ())
    api, notes = api_of(2)
    assert api == 2
    assert "the newest is 3" in notes[0]
    with pytest.raises(PluginError, match="takes 2 to 3: update the plugin's package"):
        api_of(1)


def test_what_works_now_and_will_not_for_ever_is_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from tradeskill.hookspecs import hookimpl\n@hookimpl\ndef tradeskill_open_backend(): return None\n"
    install(tmp_path, "made-old", {"made_old.py": source.encode()}, "[tradeskill]\nmade-old = made_old\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        (report,) = [report for report in Plugins().report() if report.name == "made-old"]
    finally:
        sys.modules.pop("made_old", None)
    assert report.error is None
    assert [word for word in ("tradeskill_api = 1", "tradeskill_manifest") if not any(word in note for note in report.notes)] == []


def test_ours_name_their_api_and_have_a_manifest() -> None:
    ours = {report.name: report for report in Plugins().report() if report.package == "tradeskill" and not report.error}
    assert {"nano", "embedded", "relay", "process", "buyer", "seller"} <= set(ours)
    for name in ("nano", "embedded", "relay", "process", "buyer", "seller"):
        assert (ours[name].api, ours[name].notes) == (1, ())
        assert (ours[name].manifest is None) == (ours[name].kinds == ("skill",))
    assert [name for name in ours if "wallet" in ours[name].kinds and not (ours[name].manifest and ours[name].manifest.spends)] == []


@pytest.mark.parametrize("bad", [{"hosts": ()}, Manifest(hosts="all"), Manifest(spends=("",)), Manifest(files=(1,)), Manifest(secrets=("a\x1b[2J",)), None])  # type: ignore[arg-type]  # what the test is about
def test_a_manifest_that_is_none_is_refused_naming_the_field(bad: Any) -> None:
    with pytest.raises(PluginError, match=r"Manifest|hosts|spends|files|secrets"):
        checked_manifest(bad)


# Who may touch money

HASH = "0" * 64


def test_a_payment_plugin_of_another_package_needs_its_owners_leave_and_the_error_has_the_line(place: Path) -> None:
    plugin = Plugins().require("troubled", "wallet")
    digest = hashlib.sha256((place / "troubled-1.0.dist-info" / "RECORD").read_bytes()).hexdigest()
    assert plugin.record == f"sha256:{digest}"
    with pytest.raises(ConfigError) as caught:
        check_allowed(plugin, (), Path("config.yaml"))
    said = str(caught.value)
    assert "config.yaml: plugin troubled (troubled 1.0), which says that it spends everything, would touch money" in said
    assert f'plugins: {{allow: ["troubled"]}} (or ["troubled@sha256:{digest}"]' in said
    for allow in (("troubled",), ("troubled@troubled",), (f"troubled@sha256:{digest}",), (f"troubled@troubled@sha256:{digest}",), ("other", "troubled")):
        check_allowed(plugin, allow, None)
    for allow in (("other",), ("troubled@other",), (f"other@sha256:{digest}",)):
        with pytest.raises(ConfigError, match="would touch money"):
            check_allowed(plugin, allow, None)
    with pytest.raises(ConfigError, match=f"another than the one that was allowed: it is now sha256:{digest}"):
        check_allowed(plugin, (f"troubled@sha256:{HASH}",), None)


def test_ours_need_no_leave() -> None:
    check_allowed(Plugins().require("nano", "wallet"), (), None)


def test_a_file_changed_after_it_was_installed_is_found(place: Path) -> None:
    plugin = Plugins().require("troubled", "wallet")
    with (place / "troubled.py").open("a") as file:
        file.write("# and one line more\n")
    with pytest.raises(PluginError, match=r"package troubled: troubled\.py is not what its RECORD says"):
        check_allowed(plugin, (f"troubled@sha256:{HASH}",), None)
    (place / "troubled.py").unlink()
    with pytest.raises(PluginError, match=r"troubled\.py cannot be compared"):
        check_allowed(plugin, (f"troubled@sha256:{HASH}",), None)


def test_a_package_without_a_record_can_be_allowed_by_name_only(place: Path) -> None:
    (place / "troubled-1.0.dist-info" / "RECORD").unlink()
    plugin = Plugins().require("troubled", "wallet")
    check_allowed(plugin, ("troubled",), None)
    with pytest.raises(PluginError, match="has no RECORD"):
        check_allowed(plugin, (f"troubled@sha256:{HASH}",), None)
    with pytest.raises(ConfigError, match=r'add the line: plugins: \{allow: \["troubled"\]\}$'):
        check_allowed(plugin, (), None)


def test_a_profile_opens_no_wallet_and_makes_none_before_it_is_allowed(place: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    lines = "network: dev\nmarket: {plugin: embedded, path: market.db}\nwallets: [{plugin: troubled}]\n"
    config.write_text(lines)

    def profile() -> Profile:
        return Profile(tmp_path / "profile", load_config(config), lambda: "", World())

    async def wallets() -> object:
        (tmp_path / "profile").mkdir(exist_ok=True)
        (tmp_path / "profile" / "identity.pub").write_text(Identity(bytes(32)).key + "\n")
        async with profile() as opened_one:
            return list(await opened_one.wallets())

    with pytest.raises(ConfigError, match="would touch money"):
        asyncio.run(wallets())
    with pytest.raises(ConfigError, match="would touch money"):
        profile().create_wallet(profile().config.wallets[0], bytes(32))
    config.write_text(lines + 'plugins: {allow: ["troubled"]}\n')
    assert asyncio.run(wallets()) == ["fake"]


@pytest.mark.parametrize("entry", ["", "Troubled", "a b", "troubled@sha256:00", "troubled@sha256:" + "G" * 64, 5])
def test_what_cannot_name_a_plugin_is_refused_in_the_configuration(tmp_path: Path, entry: object) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"network: dev\nmarket: {{plugin: embedded}}\nplugins: {{allow: [{entry!r}]}}\n")
    with pytest.raises(ConfigError, match=r"plugins\.allow\[0\]"):
        load_config(config)
