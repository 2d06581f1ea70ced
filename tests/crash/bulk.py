"""A buyer process that hires many at once: `python -m tests.crash.bulk OFFER WISH...`; prints one line of JSON for each purchase that ended."""

from __future__ import annotations

import asyncio
import json
import sys

from tradeskill.faces.cli.shell import load_profile


async def main(offer_id: str, wishes: list[str]) -> None:
    async with load_profile() as profile:
        buyer = await profile.buyer()
        offer = await (await profile.market()).offer(offer_id)

        async def one(wish: str) -> None:
            purchase = await buyer.intend(offer, json.loads(wish), caps=offer.prices)
            purchase = await buyer.drive(purchase.purchase_id)
            print(json.dumps({"state": purchase.state, "code": purchase.error_code}), flush=True)

        await asyncio.gather(*[one(wish) for wish in wishes])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
