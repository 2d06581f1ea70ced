"""Results that do not travel in the job: put at the upload point by sellers, fetched from where a receipt says by buyers."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

from tradeskill.errors import RefusedError, UnavailableError, UsageError
from tradeskill.model import Result, SignedDocument
from tradeskill.signing import digest
from tradeskill.world import World
from tradeskill_plugins.relay.client.outbox import Outbox
from tradeskill_plugins.relay.client.upload import Upload

__all__ = ["Results"]

log = logging.getLogger("tradeskill.relay")
PATIENCE: Final = 3_600.0  # seconds for which a place that cannot be reached may still come back
KEPT: Final = 8  # fetched results held in memory


class Results:
    def __init__(self, upload: Upload | None, outbox: Outbox, world: World, *, local: bool) -> None:
        self._upload, self._outbox, self._world, self._local = upload, outbox, world, local
        self._failing: dict[str, float] = {}  # URL -> since when
        self._fetched: OrderedDict[tuple[str, str], Result] = OrderedDict()

    async def put(self, job_id: str, result: Result, sha256: str) -> str:
        """Its URL, the same for the same result of a job. UsageError where there is no upload point."""
        if self._upload is None:
            raise UsageError(
                f"result is {len(result.data)} bytes, more than this relay carries: give it an upload folder (market.upload) for what is larger"
            )
        mark = f"{job_id}/{sha256}"
        known = self._outbox.uploaded(mark)
        if known is None:
            known = await self._upload.put(self._world.random_bytes(16).hex(), result.data, result.media_type)
            await self._outbox.keep_upload(mark, known)
        return known

    async def get(self, url: str, receipt: SignedDocument | None) -> Result | None:
        """What lies there if it is what the receipt names; None where it never will be. UnavailableError for at most an hour of trying."""
        stated = None if receipt is None else receipt.body.get("result")
        sha256 = stated.get("sha256") if isinstance(stated, dict) else None
        media_type = stated.get("media_type") if isinstance(stated, dict) else None
        known = self._fetched.get((url, str(sha256)))
        if known is not None:
            return known
        from tradeskill_plugins.relay.client.fetching import fetch_result

        try:
            found = await fetch_result(url, local=self._local)
        except RefusedError as error:
            log.warning("a result cannot be had: %s", error)
            return None
        except UnavailableError as error:
            since = self._failing.setdefault(url, self._world.monotonic())
            if self._world.monotonic() - since >= PATIENCE:
                log.warning("a result was not to be had for an hour: %s", error)
                return None
            raise
        self._failing.pop(url, None)
        if isinstance(sha256, str) and digest(found.data) != sha256:
            log.warning("what lies at result_url is not what the receipt names")
            return None
        if isinstance(media_type, str):
            found = Result(found.data, media_type)
        self._fetched[url, str(sha256)] = found
        while len(self._fetched) > KEPT:
            self._fetched.popitem(last=False)
        return found
