"""A server's processor time from its start to its first list of tools: ours, and a bare one with one tool, by turns in one run."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from statistics import median

PATIENCE = 60.0
BARE = '''from mcp.server import MCPServer

server = MCPServer("bare")


@server.tool()
def greet(who: str) -> str:
    """Greet."""
    return f"hello {who}"


server.run("stdio")
'''
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
TALK = [HELLO, {"jsonrpc": "2.0", "method": "notifications/initialized"}, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}]


def seconds(command: list[str], environment: Mapping[str, str]) -> tuple[float, list[str]]:
    """Of the processor, until the list was read and the server, its input closed, had ended; and the names listed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for message in TALK:
            process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        answer: dict[str, object] = {}
        while answer.get("id") != 2:
            answer = json.loads(process.stdout.readline())
        process.stdin.close()
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    listed = answer["result"]["tools"]  # type: ignore[index]  # the answer's shape
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, [tool["name"] for tool in listed]


def measured(bare: str, rounds: int, environment: Mapping[str, str]) -> dict[str, float]:
    """Medians of both, after one round that nobody counts; `bare` is the file with BARE in it."""
    commands = {"bare": [sys.executable, bare], "ours": [sys.executable, "-m", "tradeskill", "mcp"]}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            used, listed = seconds(command, {**os.environ, **environment})
            assert listed
            if turn:
                taken[name].append(used)
    return {name: median(values) for name, values in taken.items()}
