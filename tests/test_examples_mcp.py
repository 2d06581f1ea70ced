"""The examples for agents' hosts: each configuration starts a server that lists the tools; the scripted agent hires from a seller at work."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.cli_stage import PATIENCE, SHOUT, Home, Stage

EXAMPLES = Path(__file__).parent.parent / "examples"
HOSTS = {"claude-desktop.json": "mcpServers", "vscode-mcp.json": "servers"}  # the key under which each host keeps its servers
SCRIPTS = str(Path(sys.executable).parent)


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_s_configuration_starts_a_server_that_lists_the_tools(name: str, tmp_path: Path) -> None:
    written = json.loads((EXAMPLES / "hosts" / name).read_text())
    ((key, servers),) = written.items()
    assert key == HOSTS[name]
    server = servers["tradeskill"]
    assert set(server["env"]) == {"TRADESKILL_HOME", "TRADESKILL_PASSWORD_FILE"}
    environment = {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", "TRADESKILL_HOME": str(tmp_path)}

    async def main() -> set[str]:
        parameters = StdioServerParameters(command=server["command"], args=server["args"], env=environment)
        async with asyncio.timeout(PATIENCE), Client(stdio_client(parameters)) as client:
            return {tool.name for tool in (await client.list_tools()).tools}

    assert "buyer_hire" in asyncio.run(main())


def hire(home: Home, *arguments: str, **environment: str) -> Any:
    command = [sys.executable, str(EXAMPLES / "hire_over_mcp.py"), *arguments]
    where = {**home.environment, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", **environment}
    return subprocess.run(command, env=where, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_scripted_agent_hires_once_though_it_calls_twice(stage: Stage) -> None:
    seller, buyer = stage.profile("example-seller"), stage.funded("example-buyer")
    work = [sys.executable, "-I", "-c", "import json, sys; print('# ' + json.load(sys.stdin)['url'])"]
    offer = {**SHOUT, "name": "example", "tags": ["markdown"], "input": {"type": "object", "required": ["url"]}, "run": work}
    before = int(buyer.json("wallet", "balance")["available_raw"])
    with seller.selling(stage.config("example-offers", [offer], market={"plugin": "embedded", "path": str(stage.folder / "example.db")})):
        config = buyer.path / "config.yaml"
        config.write_text(config.read_text().replace("market.db", "example.db"))
        done = hire(buyer, "http://127.0.0.1/tides")
    assert (done.returncode, done.stdout) == (0, "# http://127.0.0.1/tides\n\n"), done.stderr
    assert "  paid\n" in done.stderr
    assert before - int(buyer.json("wallet", "balance")["available_raw"]) == 10**27


def test_a_scripted_agent_without_a_profile_is_told_what_is_missing(stage: Stage) -> None:
    done = hire(stage.home("example-nobody"), "http://127.0.0.1/tides")
    assert done.returncode == 1
    assert "tradeskill init" in done.stderr
    assert "money not moved" in done.stderr
