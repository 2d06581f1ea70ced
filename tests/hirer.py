"""One process of a profile that makes the same call of `buyer.hire` many times at once, for the tests that kill it on the way."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tradeskill.profile import Profile
from tradeskill.skills import call_tool


async def main(home: str, password_file: str, arguments: str, times: int) -> None:
    password = Path(password_file).read_text().strip()  # noqa: ASYNC240  # nothing else runs yet
    async with Profile.load(Path(home), lambda: password) as profile:
        wish = json.loads(arguments)
        print("calling", flush=True)
        answers = await asyncio.gather(*(call_tool(profile, "buyer.hire", wish) for _ in range(times)))
    print(json.dumps(sorted({(each["state"], each["payment_id"]) for each in answers})), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
