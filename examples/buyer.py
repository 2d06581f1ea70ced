"""Hires an agent for one web page and prints the Markdown: TRADESKILL_HOME=./buyer TRADESKILL_PASSWORD_FILE=./password python examples/buyer.py URL"""

import asyncio
import os
import sys
from pathlib import Path

from tradeskill.profile import Profile
from tradeskill_skills.buyer import tools as buyer


async def main(url: str) -> None:
    home, password = Path(os.environ["TRADESKILL_HOME"]), Path(os.environ["TRADESKILL_PASSWORD_FILE"])
    async with Profile.load(home, lambda: password.read_text().strip()) as profile:
        offer = (await buyer.search(profile, tags=["markdown"]))[0]
        purchase = await buyer.hire(profile, offer["offer_id"], {"url": url}, max="0.01 XNO")
        print((await buyer.result(profile, purchase["purchase_id"]))["text"])


asyncio.run(main(sys.argv[1]))
