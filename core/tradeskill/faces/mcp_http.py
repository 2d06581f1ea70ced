"""The MCP server over streamable HTTP: on loopback only, behind a token, for requests that name this address themselves."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tradeskill.errors import SecretError, UnavailableError

if TYPE_CHECKING:
    from mcp.server import Server

__all__ = ["HOST", "PATH", "TOKEN_FILE", "guarded", "listen", "read_or_make_token", "serve"]

HOST: Final = "127.0.0.1"
PATH: Final = "/mcp"
TOKEN_FILE: Final = "mcp-token"  # noqa: S105  # its name
_WORDS: Final = {
    401: "a bearer token is needed: it is in the profile's file mcp-token",
    403: "requests of other origins are refused",
    421: "this is not that host",
}


def read_or_make_token(home: Path) -> str:
    """From the file `mcp-token` of the profile's folder, made with mode 0600 if absent. SecretError when others could read it."""
    path = home / TOKEN_FILE
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return _read_token(path)
        with os.fdopen(handle, "w") as file:
            token = secrets.token_urlsafe(32)
            file.write(token + "\n")
        return token
    except OSError as error:
        raise SecretError(f"token file {path} cannot be read or made: {error.strerror}") from error


def _read_token(path: Path) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
        mode = os.fstat(file.fileno()).st_mode
        token = file.readline(4096).strip()
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise SecretError(f"token file {path} can be read by others: delete it, a new one is made at the next start")
    if len(token) < 32:
        raise SecretError(f"token file {path} holds no token of 32 characters or more: delete it, a new one is made at the next start")
    return token


def listen(port: int) -> socket.socket:
    """Bound to loopback; port 0 takes a free one."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        raise UnavailableError(f"port {port} on {HOST} is taken: choose another with --port, or 0 for a free one") from error
    return bound


def guarded(app: Any, token: str, port: int) -> Any:
    """An ASGI application before `app`: Host, then Origin, then the token; nothing of a refused request reaches `app`."""
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
    origins = {f"http://{host}" for host in hosts}
    expected = f"Bearer {token}".encode()

    async def door(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        given: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            given.setdefault(name.lower(), []).append(value)
        refusal = 0
        if [value.decode("latin-1") for value in given.get(b"host", [])] not in [[host] for host in hosts]:
            refusal = 421
        elif any(value.decode("latin-1") not in origins for value in given.get(b"origin", [])):
            refusal = 403
        else:
            tokens = given.get(b"authorization", [])
            if len(tokens) != 1 or not hmac.compare_digest(tokens[0], expected):
                refusal = 401
        if refusal:
            await _refuse(refusal, send)
        else:
            await app(scope, receive, send)

    return door


async def _refuse(status: int, send: Any) -> None:
    body = _WORDS[status].encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve(server: Server[Any], bound: socket.socket, token: str, ready: Callable[[int], None]) -> None:
    """Until a signal ends it. `ready` is told the port once requests are taken."""
    import uvicorn

    port = bound.getsockname()[1]
    app = guarded(server.streamable_http_app(streamable_http_path=PATH, host=HOST), token, port)

    class Ready(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(port)

    logging.getLogger("mcp").setLevel(logging.WARNING)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=5)
    await Ready(config).serve(sockets=[bound])
