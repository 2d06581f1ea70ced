"""What a person types around a relay: `relay serve` and what it prints, where its data may be named, `init --market relay`, `doctor` on what it finds."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli_stage import PASSWORD, PATIENCE, Home, Stage
from tests.postgres import PostgresServer
from tests.relay_started import relay_process, stand
from tradeskill.config import load_config
from tradeskill.faces.checkup import examine
from tradeskill.profile import Profile, create_profile
from tradeskill.testing.market_contract import SteppedClock
from tradeskill.world import World

SERVE = [sys.executable, "-m", "tradeskill", "relay", "serve"]
SECRET = "swordfish%40sea"  # of a DSN; a driver would decode it


def environment_here(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRADESKILL_", "PG"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def serving(folder: Path, *options: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A relay for people, and the lines that it printed once it was ready. Its log is `folder/log`."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*SERVE, *options], cwd=folder, env=environment_here(**more), stdout=subprocess.PIPE, stderr=log, text=True)
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.endswith(" offers\n") or line.startswith("{"):
                break
        assert lines, (folder / "log").read_text()
        yield process, lines
    finally:
        timer.cancel()
        process.terminate()
        process.wait(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


def refused(folder: Path, *options: str, **more: str) -> str:
    """The one line with which a relay that cannot start ends, after `error: `."""
    done = subprocess.run(
        [*SERVE, "--port", "0", *options], cwd=folder, env=environment_here(**more), capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode in (2, 6), done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    return done.stderr.removeprefix("error: ")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# what it prints


def test_every_command_that_a_relay_prints_can_be_typed_as_it_is(tmp_path: Path, stage: Stage) -> None:
    environment = environment_here(TRADESKILL_PASSWORD_FILE=str(stage.password_file(PASSWORD)))
    with serving(tmp_path, "--port", "0") as (_, lines):
        url = lines[0].removeprefix("relay ready: ")
        with urllib.request.urlopen(lines[1].removeprefix("its calls: "), timeout=PATIENCE) as page:
            assert b"POST" in page.read()
        commands = [line.strip() for line in lines if line.startswith("  ")]
        assert [line for line in lines if "tradeskill" in line and line.strip() not in commands] == []
        for command in commands:
            done = subprocess.run(["bash", "-euc", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert len(commands) == 3
    for name in ("seller", "buyer"):
        config = load_config(tmp_path / name / "config.yaml")
        assert (config.network, config.market.plugin, config.market.settings) == ("dev", "relay", {"url": url})


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--network", "test"), "init --network test --market relay --market-url http://127.0.0.1:"),
        (("--network", "live", "--public-url", "https://relay.example/"), "init --network live --live --market relay --market-url https://relay.example"),
        (("--public-url", "http://relay.lan:8402"), "init --network dev --market relay --market-url http://relay.lan:8402 --market-insecure"),
    ],
)
def test_the_commands_name_the_network_and_where_clients_reach_it(tmp_path: Path, options: tuple[str, ...], wanted: str) -> None:
    with serving(tmp_path, "--port", "0", *options) as (_, lines):
        (seller,) = [line for line in lines if "./seller" in line]
    assert wanted in seller
    command = shlex.split(seller)[2:]
    home = Home(tmp_path / "home", environment_here(TRADESKILL_HOME=str(tmp_path / "home")))
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o600)
    home.run(*command, "--password-file", str(tmp_path / "password")).ok()


def test_a_machine_gets_one_line_of_json(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0", "--json", "--data", "here.db") as (_, lines):
        said = json.loads(lines[0])
    assert (said["data"], said["network"], len(lines)) == ("here.db", None, 1)
    assert said["url"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("url", ["relay.example", "ftp://relay.example", "https://relay.example/?a=1", "https://me:secret@relay.example"])
def test_a_public_address_that_clients_could_not_use_is_refused(tmp_path: Path, url: str) -> None:
    assert refused(tmp_path, "--public-url", url).startswith("--public-url ")


# where its data is


def test_the_data_is_where_the_option_a_file_or_the_environment_says(tmp_path: Path) -> None:
    (tmp_path / "where").write_text("of-file.db\nwhatever else\n")
    (tmp_path / "where").chmod(0o600)
    for options, variable, wanted in [
        ((), "", "relay.db"),
        ((), "of-variable.db", "of-variable.db"),
        (("--data-file", "where"), "of-variable.db", "of-file.db"),
        (("--data", "of-option.db"), "of-variable.db", "of-option.db"),
    ]:
        assert not (tmp_path / wanted).exists()
        with serving(tmp_path, "--port", "0", *options, **({"TRADESKILL_RELAY_DATA": variable} if variable else {})):
            assert (tmp_path / wanted).exists()
    assert not [path.name for path in tmp_path.glob("*.db") if not path.name.startswith(("relay", "of-"))]


@pytest.mark.parametrize(
    ("options", "variable", "words"),
    [
        (("--data", "a.db", "--data-file", "b"), "", "--data and --data-file say the same thing"),
        (("--data-file", "absent"), "", "--data-file absent cannot be read: No such file"),
        (("--data-file", "empty"), "", "--data-file empty is empty"),
        ((), "", "TRADESKILL_RELAY_DATA is empty"),
        ((), "mysql://relay@host/relay", "TRADESKILL_RELAY_DATA is a URL of another kind"),
        (("--data", "relay.db\n"), "", "--data is empty, not printable"),
    ],
)
def test_a_place_that_is_none_is_refused_with_the_way_out(tmp_path: Path, options: tuple[str, ...], variable: str, words: str) -> None:
    (tmp_path / "empty").touch(0o600)
    assert words in refused(tmp_path, *options, TRADESKILL_RELAY_DATA=variable)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://relay:{SECRET}@127.0.0.1:1/relay",
        f"postgres://relay:{SECRET}@127.0.0.1:1/relay",
        f"postgresql://relay@127.0.0.1:1/relay?password={SECRET}",
        f"postgresql://relay@127.0.0.1:1/relay?sslmode=disable&password={SECRET}",
    ],
)
def test_a_password_on_the_command_line_is_refused_and_in_no_error_shown(tmp_path: Path, dsn: str) -> None:
    said = refused(tmp_path, "--data", dsn)
    assert "--data-file" in said
    (tmp_path / "dsn").write_text(dsn)
    (tmp_path / "dsn").chmod(0o600)
    for told in (said, refused(tmp_path, "--data-file", "dsn"), refused(tmp_path, TRADESKILL_RELAY_DATA=dsn)):
        assert "swordfish" not in told
        assert "sea" not in told


@pytest.mark.parametrize("odd", ["herring/kipper", "herring@kipper", "herring%zzkipper", "herring?kipper", "herring#kipper", "herring kipper"])
def test_a_password_that_is_not_escaped_is_not_repeated_either(tmp_path: Path, odd: str) -> None:
    dsn = f"postgresql://relay:{odd}@127.0.0.1:1/relay"
    for told in (refused(tmp_path, TRADESKILL_RELAY_DATA=dsn), refused(tmp_path, "--data", dsn)):
        assert "herring" not in told
        assert "kipper" not in told


def test_a_file_with_a_password_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://relay:swordfish@127.0.0.1:1/relay")
    (tmp_path / "dsn").chmod(0o644)
    done = subprocess.run(
        [*SERVE, "--data-file", "dsn"], cwd=tmp_path, env=environment_here(), capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert "warning: dsn can be read by others: chmod 600 dsn" in done.stderr
    assert "swordfish" not in done.stderr


def test_a_relay_at_work_shows_its_password_to_nobody(tmp_path: Path, postgres: PostgresServer) -> None:
    postgres.run("CREATE DATABASE relay_shown OWNER guarded")
    dsn = f"postgresql://guarded:{postgres.SECRET}@/relay_shown?host={postgres.folder}"
    (tmp_path / "dsn").write_text(dsn + "\n")
    (tmp_path / "dsn").chmod(0o600)
    with serving(tmp_path, "--port", "0", "--json", "--data-file", "dsn") as (process, lines):
        said = json.loads(lines[0])
        for path in ("/health", "/ready", "/metrics", "/docs", "/v1/capabilities", "/v1/offers"):
            with urllib.request.urlopen(said["url"] + path, timeout=PATIENCE) as answer:
                assert postgres.SECRET.encode() not in answer.read()
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'relay_shown'")  # so that it has something to complain of
        with urllib.request.urlopen(said["url"] + "/v1/offers", timeout=PATIENCE):
            pass
    assert said["data"] == "postgresql"
    assert postgres.SECRET.encode() not in shown
    assert postgres.SECRET not in (tmp_path / "log").read_text()


# init


def init(home: Home, *options: str) -> Any:
    return home.run("init", "--non-interactive", "--network", "dev", "--rpc", "http://127.0.0.1:1", *options, "--json")


@pytest.mark.parametrize(
    ("options", "market"),
    [
        (("--market", "relay", "--market-url", "http://127.0.0.1:8402"), {"plugin": "relay", "url": "http://127.0.0.1:8402"}),
        (("--market-url", "https://relay.example"), {"plugin": "relay", "url": "https://relay.example"}),
        (("--market", "https://relay.example"), {"plugin": "relay", "url": "https://relay.example"}),
        (("--market-url", "http://relay.lan:8402", "--market-insecure"), {"plugin": "relay", "url": "http://relay.lan:8402", "insecure": True}),
    ],
)
def test_init_writes_the_relay_that_it_is_told(stage: Stage, options: tuple[str, ...], market: dict[str, Any]) -> None:
    home = stage.home(f"relayed-{abs(hash(options))}")
    init(home, *options).ok()
    assert yaml.safe_load((home.path / "config.yaml").read_text())["market"] == market


def test_init_writes_a_market_file_as_before(stage: Stage) -> None:
    home = stage.home("filed")
    init(home, "--market", str(stage.folder / "relay")).ok()
    assert yaml.safe_load((home.path / "config.yaml").read_text())["market"] == {"plugin": "embedded", "path": str(stage.folder / "relay")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--market", "relay"), ("--market-url", "relay serve")),
        (("--market", "market.db", "--market-url", "http://127.0.0.1:1"), ("'market.db' is a file", "--market relay")),
        (("--market", "market.db", "--market-insecure"), ("'market.db' is a file",)),
        (("--market-url", "127.0.0.1:8402"), ("market.url", "'127.0.0.1:8402'", "https://relay.example")),
        (("--market-url", "http://relay.lan:8402"), ("market.url", "plain http", "https", "insecure")),
        (("--market-url", "https://relay.example/?x=1"), ("market.url", "no query")),
    ],
)
def test_init_refuses_what_is_no_relay_and_leaves_nothing(stage: Stage, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    home = stage.home("nowhere")
    init(home, *options).failed(2, *words)
    assert not home.path.exists()


# doctor


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of the dev network; where its relay is, each test writes."""
    home = tmp_path_factory.mktemp("visitor") / "home"
    wallet = {"plugin": "nano", "rpc": ["http://127.0.0.1:1"]}
    create_profile(home, {"network": "dev", "market": {"plugin": "relay", "url": "http://127.0.0.1:1"}, "wallets": [wallet]}, "dev", PASSWORD, World())
    return home


def at(home: Path, url: str) -> None:
    config = yaml.safe_load((home / "config.yaml").read_text())
    (home / "config.yaml").write_text(json.dumps({**config, "market": {"plugin": "relay", "url": url}}))


def checks(home: Path) -> dict[str, dict[str, Any]]:
    return {check["check"]: check for check in asyncio.run(examine(lambda: Profile.load(home, lambda: PASSWORD)))}


def skewed(seconds: float) -> SteppedClock:
    """A clock that stands, so many seconds ahead of now."""
    clock = SteppedClock()
    clock.advance(time.time_ns() // 1_000_000 + round(seconds * 1000) - clock.now_ms())
    return clock


def test_doctor_says_that_a_relay_is_one_of_ours_and_tells_the_time(visitor: Path, tmp_path: Path) -> None:
    with relay_process(tmp_path / "relay.db", "--network", "dev") as relay:
        at(visitor, relay.url)
        found = checks(visitor)
    assert found["market"]["ok"]
    assert found["market"]["detail"] == "relay answers; 0 offers"
    said = re.fullmatch(
        re.escape(relay.url) + r" is one of ours \(relay [0-9a-f]{16}, network dev, 60 requests a minute and key\); "
        r"its clock is (\d+) ms (?:ahead of|behind) this machine's",
        found["relay"]["detail"],
    )
    assert said is not None, found["relay"]
    assert int(said[1]) < 5_000


@pytest.mark.parametrize(("seconds", "way"), [(-30.0, "behind"), (30.0, "ahead of")])
def test_doctor_says_how_far_the_clock_is_off(visitor: Path, tmp_path: Path, seconds: float, way: str) -> None:
    with stand("ours", tmp_path / "relay.db", clock=skewed(seconds)) as relay:
        at(visitor, relay.url)
        found = checks(visitor)
    assert found["relay"]["ok"]
    assert re.search(rf"its clock is (2\d|3\d|4\d) s {way} this machine's$", found["relay"]["detail"])


def test_doctor_fails_where_no_signed_request_would_pass(visitor: Path, tmp_path: Path) -> None:
    with stand("ours", tmp_path / "relay.db", clock=skewed(-4_000)) as relay:
        at(visitor, relay.url)
        found = checks(visitor)
    assert not found["relay"]["ok"]
    assert re.search(r"clock is 40\d\d s behind this machine's, 60 at most .*: set the clock$", found["relay"]["detail"])


def test_doctor_says_that_a_relay_is_without_our_additions(visitor: Path, tmp_path: Path) -> None:
    with stand("old", tmp_path / "relay.db") as relay:
        at(visitor, relay.url)
        found = checks(visitor)
    assert found["market"]["ok"]
    assert "is a relay without our additions (no fence, no decline, small results only; market.allow says nothing" in found["relay"]["detail"]


def test_doctor_says_once_that_a_relay_does_not_answer(visitor: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    at(visitor, url)
    found = checks(visitor)
    assert not found["market"]["ok"]
    assert "cannot be reached" in found["market"]["detail"]
    assert "relay" not in found


def test_doctor_names_a_relay_for_other_money(visitor: Path, tmp_path: Path) -> None:
    with relay_process(tmp_path / "relay.db", "--network", "test") as relay:
        at(visitor, relay.url)
        found = checks(visitor)
    assert not found["market"]["ok"]
    assert "for network 'test', this profile for 'dev'" in found["market"]["detail"]
