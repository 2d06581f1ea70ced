"""The command `mcp`: the skills' tools for agents' hosts, over stdio or HTTP. Starts without a profile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradeskill.faces.cli.shell import AsJson, PasswordFile, Verbose, example, logs, password_from, run, say, show

if TYPE_CHECKING:
    from tradeskill.profile import Profile

__all__ = ["mcp"]


@example("tradeskill mcp", "tradeskill mcp --http --port 8403")
def mcp(
    http: Annotated[bool, typer.Option("--http", help="Streamable HTTP on 127.0.0.1 instead of stdio.")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="For --http; 0 takes a free one.")] = 8403,
    config: Annotated[Path | None, typer.Option("--config", help="YAML merged over the profile's, as with `sell CONFIG`.", show_default=False)] = None,
    as_json: AsJson = False,
    password_file: PasswordFile = None,
    verbose: Verbose = False,
) -> None:
    """Serve the skills' tools to an agent's host, over MCP.

    Over stdio, or with --http for clients that send the token in the profile's file mcp-token.
    The password comes from --password-file or TRADESKILL_PASSWORD_FILE. Without a profile
    the tools are listed, and say what is missing.
    """
    logs(verbose)
    run(lambda: _serve(http, port, config, password_file, as_json), as_json=as_json and http)


async def _serve(http: bool, port: int, overlay: Path | None, password_file: Path | None, as_json: bool) -> None:
    from tradeskill.config import read_environment
    from tradeskill.errors import PluginError
    from tradeskill.skills import SkillFolders, find_skills

    environment = read_environment(os.environ)
    try:
        from tradeskill.faces.mcp_profile import SharedProfile
        from tradeskill.faces.mcp_server import make_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise PluginError("the package mcp is not installed: pip install 'tradeskill[mcp]'") from error

    def load() -> Profile:
        from tradeskill.profile import Profile

        return Profile.load(environment.home, _unattended(password_file or environment.password_file), network=environment.network, overlay=overlay)

    server = make_server(SharedProfile(environment.home, load), lambda: find_skills(folders=SkillFolders.of(environment.home)))
    if http:
        await _over_http(server, environment.home, port, as_json)
    else:
        from mcp.server.stdio import stdio_server

        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())


async def _over_http(server: Any, home: Path, port: int, as_json: bool) -> None:
    from tradeskill.faces.mcp_http import HOST, PATH, TOKEN_FILE, listen, read_or_make_token, serve

    token, bound = read_or_make_token(home), listen(port)

    def ready(port: int) -> None:
        url = f"http://{HOST}:{port}{PATH}"
        if as_json:
            show({"url": url, "token_file": str(home / TOKEN_FILE)})
        else:
            say(f"MCP at {url}; the token is in {home / TOKEN_FILE}; Ctrl-C stops")

    with bound:
        await serve(server, bound, token, ready)


def _unattended(file: Path | None) -> Callable[[], str]:
    """The terminal, where there is one, belongs to the protocol or to nobody: a password is read from a file or not at all."""

    def read() -> str:
        from tradeskill.errors import SecretError

        if file is None:
            raise SecretError("the profile's password is needed: start `tradeskill mcp` with --password-file FILE or TRADESKILL_PASSWORD_FILE")
        return password_from(file)()

    return read
