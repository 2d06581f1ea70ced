"""The door of the MCP server over HTTP: only loopback, only with the token, only for who names this address; the token stays a secret."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli_stage import PATIENCE, Home
from tests.mcp_stage import http_server, over_http
from tradeskill.errors import SecretError, UnavailableError
from tradeskill.faces.mcp_http import HOST, TOKEN_FILE, listen, read_or_make_token

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The url and the token of a server in a folder without a profile."""
    home = tmp_path_factory.mktemp("http") / "home"
    with http_server(Home(home, {"TRADESKILL_HOME": str(home)})) as ready:
        yield ready["url"], ready["token"]


def status(url: str, **headers: str) -> int:
    return httpx.post(url, json=PING, headers={**ACCEPT, **headers}, timeout=PATIENCE, trust_env=False).status_code


def test_a_client_with_the_token_lists_the_tools(started: tuple[str, str]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), over_http(*started) as client:
            assert "buyer_hire" in {tool.name for tool in (await client.list_tools()).tools}

    asyncio.run(main())


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic {token}", "bearer {token}x", "Bearer {token} ", "{token}"])
def test_without_exactly_the_token_nothing_is_answered(started: tuple[str, str], given: str) -> None:
    """S34: the token."""
    url, token = started
    value = given.format(token=token).rstrip()
    if value == f"Bearer {token}":
        value += "x"
    assert status(url, **({"Authorization": value} if value else {})) == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", "localhost.:{port}"])
def test_a_name_that_was_bent_to_this_address_is_refused_even_with_the_token(started: tuple[str, str], host: str) -> None:
    """S35: rebinding."""
    url, token = started
    port = httpx.URL(url).port
    assert status(url, Authorization=f"Bearer {token}", Host=host.format(port=port)) == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:{port}.evil.example", "http://127.0.0.1:1"])
def test_a_page_of_another_origin_is_refused_even_with_the_token(started: tuple[str, str], origin: str) -> None:
    url, token = started
    port = httpx.URL(url).port
    assert status(url, Authorization=f"Bearer {token}", Origin=origin.format(port=port)) == 403
    assert status(url, Authorization=f"Bearer {token}", Origin=f"http://{HOST}:{port}") not in (401, 403, 421)


def test_the_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    token = read_or_make_token(tmp_path / "home")
    assert len(token) >= 32
    assert read_or_make_token(tmp_path / "home") == token
    assert stat.S_IMODE((tmp_path / "home" / TOKEN_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


@pytest.mark.parametrize("spoil", [lambda p: p.chmod(0o644), lambda p: p.write_text("short\n"), lambda p: (p.unlink(), p.symlink_to("/dev/null"))])
def test_a_token_that_others_may_know_is_not_used(tmp_path: Path, spoil: Any) -> None:
    read_or_make_token(tmp_path)
    spoil(tmp_path / TOKEN_FILE)
    with pytest.raises(SecretError, match=TOKEN_FILE):
        read_or_make_token(tmp_path)


def test_the_token_is_in_no_output_and_no_argument(tmp_path: Path) -> None:
    environment = {**os.environ, "TRADESKILL_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "tradeskill", "mcp", "--http", "--port", "0", "--verbose"]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    while "MCP at " not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    token = (tmp_path / "home" / TOKEN_FILE).read_text().strip()
    url = said.partition("MCP at ")[2].partition(";")[0]
    assert status(url, Authorization=f"Bearer {token}") != 401
    assert status(url, Authorization="Bearer wrong") == 401
    arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
    process.terminate()
    out, err = process.communicate(timeout=PATIENCE)
    assert token not in out + said + err + arguments


def test_a_port_that_is_taken_is_named_with_the_way_out() -> None:
    with listen(0) as first:
        first.listen()
        with pytest.raises(UnavailableError, match="--port"):
            listen(first.getsockname()[1])
