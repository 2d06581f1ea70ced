"""A scripted agent hires over MCP: TRADESKILL_HOME=./buyer TRADESKILL_PASSWORD_FILE=./password python examples/hire_over_mcp.py URL

What a host does with a model in it, without the model: starts `tradeskill mcp`, looks at the tools, chooses an offer, hires within a cap, and repeats
the call, as models do, which pays nothing. Needs `pip install 'tradeskill[mcp]'`.
"""

import asyncio
import os
import sys

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

MOST = "0.01 XNO"


async def main(url: str) -> None:
    server = StdioServerParameters(command="tradeskill", args=["mcp"], env=dict(os.environ))
    async with Client(stdio_client(server)) as agent:
        tools = {tool.name for tool in (await agent.list_tools()).tools}
        assert {"buyer_search", "buyer_hire"} <= tools
        offers = await call(agent, "buyer_search", {"tags": ["markdown"]})
        wish = {"offer_id": offers["result"][0]["offer_id"], "input": {"url": url}, "max": MOST}
        hired = await call(agent, "buyer_hire", wish)
        if hired["result"] is None:
            sys.exit(f"{hired['state']}, money {hired['money']}: {hired['next']}")
        again = await call(agent, "buyer_hire", wish)
        assert again["repeated"]
        assert again["payment_id"] == hired["payment_id"]
    print(hired["result"]["text"])


async def call(agent, name, arguments):
    """A tool's answer; an error tells whether money moved and what to do next."""
    answer = await agent.call_tool(name, arguments, progress_callback=told)
    if answer.is_error:
        error = answer.structured_content["error"]
        sys.exit(f"{name}: {error['message']} (money {error['money']}): {error['next']}")
    return answer.structured_content


async def told(done, total, state):
    print(f"  {state}", file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
