"""MCP clients for the tests: in this process, over stdio and over HTTP, each talking to the same server code over a profile of the stage."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.cli_stage import PATIENCE, Home
from tradeskill.faces.mcp_profile import SharedProfile
from tradeskill.faces.mcp_server import make_server
from tradeskill.profile import Profile
from tradeskill.skills import find_skills


def shared(home: Home, config: str | None = None) -> SharedProfile:
    password = Path(home.environment["TRADESKILL_PASSWORD_FILE"]).read_text().strip()
    return SharedProfile(home.path, lambda: Profile.load(home.path, lambda: password, overlay=Path(config) if config else None))


@contextlib.asynccontextmanager
async def in_process(home: Home, config: str | None = None, **options: Any) -> AsyncIterator[Client]:
    async with Client(make_server(shared(home, config), find_skills), **options) as client:
        yield client


@contextlib.asynccontextmanager
async def over_stdio(home: Home, **options: Any) -> AsyncIterator[Client]:
    with Path(os.devnull).open("w") as quiet:  # noqa: ASYNC230  # nothing to wait for
        parameters = StdioServerParameters(command=sys.executable, args=["-m", "tradeskill", "mcp"], env={**os.environ, **home.environment})
        async with Client(stdio_client(parameters, errlog=quiet), **options) as client:
            yield client


@contextlib.contextmanager
def http_server(home: Home) -> Iterator[dict[str, str]]:
    """`tradeskill mcp --http` as a process of its own: its url and its token."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tradeskill", "mcp", "--http", "--port", "0", "--json"],
        env={**os.environ, **home.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        yield {**ready, "token": Path(ready["token_file"]).read_text().strip()}
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


@contextlib.asynccontextmanager
async def over_http(url: str, token: str, **options: Any) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE) as http,
        Client(streamable_http_client(url, http_client=http), **options) as client,
    ):
        yield client
