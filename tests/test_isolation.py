"""The levels of isolation, and that a seller whose backend gives less than an offer demands does not sell it."""

from __future__ import annotations

import asyncio
import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from tests.test_profile import made, opened
from tradeskill.config import load_config
from tradeskill.contracts import Capability, PluginContext
from tradeskill.errors import ConfigError, UnavailableError
from tradeskill.isolation import LEVELS, demanded_level, level_of, reaches
from tradeskill.signing import Identity
from tradeskill.world import World
from tradeskill_plugins import bubblewrap
from tradeskill_plugins.container.settings import Settings

ORDER = list(LEVELS)
PAGE = (Path(__file__).parent.parent / "docs" / "backends.md").read_text("utf-8")


@pytest.mark.parametrize(("given", "asked"), list(itertools.product(ORDER, ORDER)))
def test_a_level_reaches_itself_and_those_before_it(given: str, asked: str) -> None:
    assert reaches(given, asked) == (ORDER.index(given) >= ORDER.index(asked))


@pytest.mark.parametrize("value", ["none", "full", "Sandbox", "", True, 3])
def test_a_word_that_is_no_level_counts_as_none(value: Any) -> None:
    assert level_of([Capability("network", False, "x"), Capability("isolation", value, "x")]) == "none"


def test_a_backend_that_says_nothing_isolates_nothing() -> None:
    assert level_of([]) == "none"
    assert level_of([Capability("isolation", "container", "x")]) == "container"


def test_what_is_not_the_sellers_own_code_needs_a_sandbox_at_least() -> None:
    assert {(asked, trusted): demanded_level(asked, trusted) for asked in (None, "none", "vm") for trusted in (True, False)} == {
        (None, True): "none",
        (None, False): "sandbox",
        ("none", True): "none",
        ("none", False): "sandbox",
        ("vm", True): "vm",
        ("vm", False): "vm",
    }


def sells(tmp_path: Path, **offer: Any) -> list[str]:
    """Which backends a seller with such an offer opens."""
    program = tmp_path / "program"
    program.mkdir(mode=0o755)
    listed = {"name": "a", "title": "A", "price": "1 XNO", "run": ["true"], "folder": str(program), **offer}
    home = made(tmp_path, offers=[listed])

    async def run() -> list[str]:
        async with opened(home) as profile:
            return list(await profile.backends())

    return asyncio.run(run())


def test_an_offer_that_demands_more_than_its_backend_gives_is_not_sold(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"offer a: backend process gives isolation 'none', the offer demands 'sandbox'; name another backend$"):
        sells(tmp_path, trusted=True, isolation="sandbox")


def test_a_sandbox_is_no_container(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="backend bubblewrap gives isolation 'sandbox', the offer demands 'container'"):
        sells(tmp_path, isolation="container")


def test_a_program_of_the_sellers_own_may_run_without(tmp_path: Path) -> None:
    assert sells(tmp_path, trusted=True) == ["process"]


def test_without_bwrap_a_strangers_program_is_not_sold_and_nothing_less_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeskill_plugins.bubblewrap.backend._PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="apt install bubblewrap"):
        sells(tmp_path)


def test_jobs_that_could_read_the_profile_are_not_sold(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds this profile.*name it as the offer's `folder`"):
        sells(tmp_path, folder=str(tmp_path))


# docs/backends.md


def test_the_page_tells_of_every_level_and_of_no_other() -> None:
    levels = re.search(r"^## Levels\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
    assert levels is not None
    assert re.findall(r"^\| `(\w+)` \|", levels[1], re.MULTILINE) == ORDER


@pytest.mark.parametrize(("plugin", "settings"), [("bubblewrap", set(bubblewrap._SETTINGS) - {"plugin"}), ("container", set(Settings.__dataclass_fields__))])
def test_the_page_tells_of_every_setting(plugin: str, settings: set[str]) -> None:
    own = re.search(rf"^## `{plugin}`\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
    assert own is not None
    assert sorted(re.findall(r"^\| `(\w+)` \|", own[1], re.MULTILINE)) == sorted(settings)


def test_the_offer_on_the_page_is_one(tmp_path: Path) -> None:
    shown = re.search(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert shown is not None
    (tmp_path / "shrink").mkdir()
    (tmp_path / "config.yaml").write_text(f"network: dev\nmarket: {{plugin: embedded, path: market.db}}\n{shown[1]}")
    config = load_config(tmp_path / "config.yaml")
    (offer,) = config.offers
    assert (offer.backend, offer.isolation, offer.trusted, offer.network) == ("bubblewrap", "sandbox", False, False)
    context = PluginContext("bubblewrap", "dev", tmp_path / "home", World(), Identity(bytes(32)), lambda: "")
    bubblewrap.tradeskill_open_backend(config.backends["bubblewrap"], context)
