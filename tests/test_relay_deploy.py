"""What lies in deploy/ is true: the unit's directives are systemd's, every command and flag is ours, the container file and the proxy fit the relay."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.relay_started import PATIENCE, relay_process
from tradeskill.faces.cli import app
from tradeskill_plugins.relay import wire
from tradeskill_plugins.relay.server.admission import DoorSettings
from tradeskill_plugins.relay.server.cli import PORT
from tradeskill_plugins.relay.server.datasource import VARIABLE
from tradeskill_plugins.relay.server.endpoints import find

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PROGRAM = "/usr/local/lib/tradeskill/bin/tradeskill"
SYSTEMD = shutil.which("systemd-analyze")

# the directives that the unit may use, by section: systemd's own words, for machines without systemd-analyze
KNOWN = {
    "Unit": {"Description", "Wants", "After"},
    "Install": {"WantedBy"},
    "Service": {
        *("Type", "Environment", "EnvironmentFile", "ExecStart", "KillMode", "TimeoutStopSec", "Restart", "RestartSec", "LoadCredential"),
        *("DynamicUser", "StateDirectory", "StateDirectoryMode", "UMask", "LimitNOFILE", "NoNewPrivileges", "CapabilityBoundingSet"),
        *("AmbientCapabilities", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateUsers", "ProtectClock", "ProtectHostname"),
        *("ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc", "RestrictAddressFamilies"),
        *("RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute", "SystemCallArchitectures"),
        *("SystemCallFilter", "SystemCallErrorNumber"),
    },
}


def directives(name: str) -> list[tuple[str, str, str]]:
    """(section, directive, value) of a unit or drop-in, in order."""
    found, section = [], ""
    for line in (DEPLOY / name).read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            directive, equals, value = line.partition("=")
            assert equals, line
            found.append((section, directive, value))
    return found


def service(name: str, directive: str) -> list[str]:
    return [value for section, key, value in directives(name) if (section, key) == ("Service", directive)]


def parses(words: list[str]) -> dict[str, Any]:
    """The values that `tradeskill WORDS` gives to its command; raises on a flag that it does not have."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("tradeskill", [], resilient_parsing=True)
    while hasattr(command, "get_command"):
        command = command.get_command(context, words[0])
        context = type(context)(command, info_name=words[0], parent=context)
        words = words[1:]
    assert context.command_path == "tradeskill relay serve"
    values: dict[str, Any] = command.make_context("serve", words, parent=context.parent).params
    return values


def options_of_the_environment() -> list[str]:
    (line,) = [line for line in (DEPLOY / "relay.environment").read_text("utf-8").splitlines() if line.startswith("RELAY_OPTIONS=")]
    (text,) = shlex.split(line.partition("=")[2])
    return text.split()


# the unit


@pytest.mark.parametrize("name", ["tradeskill-relay.service", "postgresql.conf"])
def test_every_directive_is_one_of_systemd_s(name: str) -> None:
    assert [(section, key) for section, key, _ in directives(name) if key not in KNOWN.get(section, ())] == []


@pytest.mark.parametrize("with_drop_in", [False, True])
def test_systemd_where_it_is_there_finds_nothing_wrong_with_the_unit(tmp_path: Path, with_drop_in: bool) -> None:
    if SYSTEMD is None:
        return  # the directives are checked by name above
    program = tmp_path / "tradeskill"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "tradeskill-relay.service"
    unit.write_text((DEPLOY / unit.name).read_text("utf-8").replace(PROGRAM, str(program)))
    if with_drop_in:
        (tmp_path / f"{unit.name}.d").mkdir()
        (tmp_path / f"{unit.name}.d" / "postgresql.conf").write_text((DEPLOY / "postgresql.conf").read_text("utf-8").replace(PROGRAM, str(program)))
    done = subprocess.run([SYSTEMD, "verify", unit], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    graded = subprocess.run(
        [SYSTEMD, "security", "--offline=yes", "--no-pager", "--threshold=20", unit], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert graded.returncode == 0, graded.stdout.splitlines()[-1]  # exposure of at most 2.0 of 10


def test_the_unit_is_fenced_in() -> None:
    wanted = {
        *(("DynamicUser", "yes"), ("StateDirectory", "tradeskill-relay"), ("ProtectSystem", "strict"), ("NoNewPrivileges", "yes")),
        *(("CapabilityBoundingSet", ""), ("PrivateTmp", "yes"), ("ProtectHome", "yes"), ("StateDirectoryMode", "0700"), ("UMask", "0077")),
    }
    assert wanted <= {(key, value) for _, key, value in directives("tradeskill-relay.service")}
    assert max(DoorSettings().drain_seconds, 1) < float(service("tradeskill-relay.service", "TimeoutStopSec")[0])
    assert (DoorSettings().connections or 0) < int(service("tradeskill-relay.service", "LimitNOFILE")[0])


@pytest.mark.parametrize("name", ["tradeskill-relay.service", "postgresql.conf"])
def test_the_unit_starts_our_command_with_flags_that_it_has_and_no_secret(name: str) -> None:
    started = [value for value in service(name, "ExecStart") if value]
    assert len(started) == 1
    words = shlex.split(started[0])
    assert words[0] == PROGRAM
    assert words[-1] == "$RELAY_OPTIONS"
    defaults = [value.removeprefix("RELAY_OPTIONS=").split() for value in service("tradeskill-relay.service", "Environment") if "RELAY_OPTIONS=" in value]
    for options in (*defaults, options_of_the_environment()):
        assert parses([*words[1:-1], *options])["port"] == PORT
    assert len(defaults) == 1
    assert "://" not in started[0]
    data = parses(words[1:-1])
    assert (data["data"], str(data["data_file"])) == (None, "None" if name.endswith(".service") else "${CREDENTIALS_DIRECTORY}/dsn")


def test_the_data_is_in_the_one_folder_that_the_unit_may_write_unless_the_environment_says_otherwise() -> None:
    assert f"{VARIABLE}=%S/tradeskill-relay/relay.db" in service("tradeskill-relay.service", "Environment")
    assert service("tradeskill-relay.service", "EnvironmentFile") == ["-/etc/tradeskill-relay/environment"]
    assert f"\n#{VARIABLE}=postgresql://" in (DEPLOY / "relay.environment").read_text("utf-8")
    (credential,) = service("postgresql.conf", "LoadCredential")
    assert credential.partition(":")[0] == "dsn"


# the container file


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Containerfile").read_text("utf-8"))
    pairs = [line.partition(" ") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in pairs]


def said(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(place for place, (word, _) in enumerate(found) if word == "FROM") :]


def test_every_instruction_is_one_of_a_container_file() -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in instructions()} <= known


def test_the_image_is_a_slim_python_of_a_named_version_that_the_project_takes() -> None:
    images = {rest.split(" AS ")[0] for rest in said("FROM")}
    assert len(images) == 1
    version = re.fullmatch(r"docker\.io/library/python:(\d+\.\d+)-slim-[a-z]+", images.pop())
    assert version is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"Programming Language :: Python :: {version[1]}" in project["classifiers"]


def test_all_that_the_image_is_built_from_is_there_and_enough_for_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    sources = [word for rest in said("COPY") if not rest.startswith("--from") for word in rest.split()[:-1]]
    assert [name for name in sources if not (ROOT / name).exists()] == []
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {package.split("/")[0] for package in wheel["packages"]} | set(wheel["force-include"])
    assert needed <= set(sources)
    (extras,) = re.findall(r"install --no-cache-dir '\.\[([a-z,]+)\]'", said("RUN")[0])
    assert set(extras.split(",")) == {"relay", "postgres"} <= set(project["project"]["optional-dependencies"])


def test_the_container_runs_the_relay_as_nobody_in_particular_with_one_volume() -> None:
    stage = dict(last_stage())
    user = stage["USER"].split(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    assert f"useradd --uid {user} " in stage["RUN"]
    assert stage["VOLUME"] == "/data"
    assert f"{VARIABLE}=/data/relay.db" in stage["ENV"].split()
    words = [*json.loads(stage["ENTRYPOINT"]), *json.loads(stage["CMD"])]
    assert words[0] == "tradeskill"
    values = parses(words[1:])
    assert (values["host"], values["port"]) == ("0.0.0.0", int(stage["EXPOSE"]))


def test_the_health_check_tells_a_relay_that_is_ready_from_none(tmp_path: Path) -> None:
    (check,) = said("HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[0] == "python"
    assert f"http://127.0.0.1:{PORT}/ready" in command[2]
    assert find("GET", "/ready") is not None

    def healthy(url: str) -> bool:
        code = command[2].replace(f"http://127.0.0.1:{PORT}", url)
        return subprocess.run([sys.executable, command[1], code], stderr=subprocess.DEVNULL, check=False, timeout=PATIENCE).returncode == 0

    with relay_process(tmp_path / "relay.db") as relay:
        assert healthy(relay.url)
    assert not healthy(relay.url)


@pytest.mark.parametrize("name", ["tradeskill-relay.service", "postgresql.conf", "Containerfile", "nginx.conf"])
def test_what_the_comments_say_to_run_is_ours_where_it_names_us(name: str) -> None:
    """And the options that they show are options."""
    text = (DEPLOY / name).read_text("utf-8")
    for options in re.findall(r"(?:tradeskill-relay|runs with:|among the options\.) ?((?: --[a-z-]+ [^\s`]+)+)", text):
        parses(["relay", "serve", *options.split()])
    assert all((DEPLOY / file).exists() for file in re.findall(r"(?<![/\w])([a-z-]+\.(?:service|environment|conf))(?= )", text))


# the proxy


def blocks(text: str) -> dict[str, str]:
    """The locations of nginx.conf with what stands in them."""
    return {name.strip(): inside for name, inside in re.findall(r"location ([^{]+)\{([^}]*)\}", text)}


def test_the_proxy_passes_a_request_on_as_it_came_and_names_its_client() -> None:
    text = re.sub(r"#.*", "", (DEPLOY / "nginx.conf").read_text("utf-8"))
    assert text.count("{") == text.count("}")
    assert [line for line in text.splitlines() if line.strip() and line.strip()[-1] not in ";{}"] == []
    passed = re.findall(r"proxy_pass ([^;]+);", text)
    assert set(passed) == {"http://tradeskill_relay"}  # without a path
    assert f"server 127.0.0.1:{PORT};" in text
    assert "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;" in text
    size = re.search(r"client_max_body_size (\d+)k;", text)
    assert size is not None
    assert int(size[1]) * 1024 > wire.MAX_BODY
    assert "listen 443 ssl;" in text


def test_the_proxy_holds_no_event_back_and_metrics_in() -> None:
    places = blocks((DEPLOY / "nginx.conf").read_text("utf-8"))
    assert "proxy_buffering off;" in places["= /v1/events"]
    assert "deny all;" in places["= /metrics"]
    for place in places:
        path = place.removeprefix("= ")
        assert path == "/" or find("GET", path) is not None
