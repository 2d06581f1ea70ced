"""One process of a profile that makes many different calls of `buyer.hire` at once, for the tests of crowds against a cap."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tradeskill.profile import Profile
from tradeskill.skills import call_tool


async def main(home: str, password_file: str, wishes: str) -> None:
    password = Path(password_file).read_text().strip()  # noqa: ASYNC240  # nothing else runs yet
    async with Profile.load(Path(home), lambda: password) as profile:
        answers = await asyncio.gather(*(call_tool(profile, "buyer.hire", wish) for wish in json.loads(wishes)))
    print(json.dumps([[each["state"], each["payment_id"], (each["error"] or {}).get("message")] for each in answers]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3]))
