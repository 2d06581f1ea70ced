"""Plugin `relay`: a market over HTTP. Picks the way to talk to a relay by what it announces, and answers the market contract."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from tradeskill.contracts import Capability, Changes, Market, PluginContext
from tradeskill.errors import ConfigError, NetworkMismatchError, TradeskillError, UnavailableError
from tradeskill.hookspecs import hookimpl
from tradeskill.manifest import API, Manifest
from tradeskill.model import NETWORKS, Delivery, Job, JobError, Json, Lock, Offer, SignedDocument
from tradeskill_plugins.relay.client.settings import Settings, read_settings
from tradeskill_plugins.relay.wire import INLINE_RESULT, MAX_PROOF, PER_IP, PER_KEY, STRICT, WINDOW_MS

if TYPE_CHECKING:
    from tradeskill_plugins.relay.client.dialect import Dialect
    from tradeskill_plugins.relay.client.hints import HintStreams
    from tradeskill_plugins.relay.client.outbox import Outbox
    from tradeskill_plugins.relay.client.transport import Transport
    from tradeskill_plugins.relay.client.upload import Upload

__all__ = ["RelayMarket", "tradeskill_capabilities", "tradeskill_manifest", "tradeskill_open_market"]

log = logging.getLogger("tradeskill.relay")
OLD_LIMITS: Final = {"ip": PER_IP, "key": PER_KEY, "strict": STRICT}  # of a relay that does not say


tradeskill_api = API


@hookimpl
def tradeskill_manifest() -> Manifest:
    return Manifest(hosts=("the relay in `url`", "where results lie that are too large for a relay"), files=("the folder of `upload`, where it is set",))


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    """Of a relay with our additions; one without them has no fence, no decline and no withdraw, and carries no result and no token."""
    return (
        Capability("authoritative", True, "the relay holds the one state of every job"),
        Capability("lock", True, "a job is locked for its seller for 5 minutes at a time"),
        Capability("market_fence", True, "each new lock takes a greater fence, and deliver checks it"),
        Capability("inline_result", INLINE_RESULT, "bytes of a result that travel with the job; larger ones need market.upload"),
        Capability("proof_bytes", MAX_PROOF, "bytes of a payment token that travel with the claim"),
        Capability("withdraw", True, "a seller can take an offer down"),
        Capability("decline", True, "a seller can say no with a reason"),
    )


@hookimpl
def tradeskill_open_market(settings: Mapping[str, Json], context: PluginContext) -> Market:
    """`url`, `insecure`, `allow`, `limits`, `upload`, `local_results`: see settings.py."""
    return RelayMarket(read_settings(settings), context)


class RelayMarket:
    """`Market` for one identity. A relay that is away when it is opened is asked again at the first call; every call may raise UnavailableError.

    Steps are on disk (context.home) before they are first sent, see steps.py. Nothing that a relay says is believed where a signature can tell.
    """

    def __init__(self, settings: Settings, context: PluginContext, upload: Upload | None = None) -> None:
        """`upload`: another upload point than the settings' folder."""
        self._settings, self._context, self._upload = settings, context, upload
        self._transport: Transport | None = None
        self._outbox: Outbox | None = None
        self._hints: HintStreams | None = None
        self._dialect: Dialect | None = None
        self._choosing = asyncio.Lock()

    async def open(self) -> None:
        from tradeskill_plugins.relay.client.hints import HintStreams
        from tradeskill_plugins.relay.client.outbox import Outbox, outbox_file
        from tradeskill_plugins.relay.client.pacing import Turns
        from tradeskill_plugins.relay.client.transport import Transport

        context, url = self._context, self._settings.url
        if self._settings.upload is not None and not self._settings.upload.folder.is_dir():
            raise ConfigError(f"market.upload.folder {self._settings.upload.folder} is no folder: make it, for a web server to serve")
        world = context.world
        self._turns = Turns(world.monotonic, world.sleep)
        self._transport = Transport(url, context.identity, world, self._turns)
        await self._transport.open()
        self._outbox = await world.offload(lambda: Outbox(outbox_file(context.home, url, context.identity.key), world))
        self._hints = HintStreams(self._transport, world)
        try:
            await self._outbox.prune()
            await self._chosen()
        except UnavailableError as error:
            log.warning("%s; what needs no relay works meanwhile", error)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Safe to call twice. What is under way ends with UnavailableError, `events` ends."""
        hints, transport, outbox = self._hints, self._transport, self._outbox
        self._hints = self._transport = self._outbox = self._dialect = None
        if hints is not None:
            await hints.close()
        if transport is not None:
            await transport.close()
        if outbox is not None:
            await outbox.close()

    async def carries(self, rail: str) -> bool:
        """A relay without our additions has room for one invoice, of the rail nano."""
        return (await self._chosen()).carries(rail)

    # offers

    async def publish(self, document: SignedDocument) -> Offer:
        from tradeskill_plugins.market.signed import offer_entry

        offer_entry(document, self._context.identity.key)
        return await (await self._chosen()).publish(document)

    async def withdraw(self, offer_id: str) -> None:
        await (await self._chosen()).withdraw(_checked("offer_id", offer_id, 64))

    async def offer(self, offer_id: str) -> Offer:
        return await (await self._chosen()).offer(_checked("offer_id", offer_id, 64))

    async def search(self, query: str = "", tags: Sequence[str] = (), seller: str = "", limit: int = 20, offset: int = 0) -> list[Offer]:
        from tradeskill_plugins.market.entries import check_range, check_text

        check_text("query", query, 0, 200)
        check_text("seller", seller, 0, 64)
        wanted = list(dict.fromkeys(check_text("tags", tag, 1, 32) for tag in tags))
        check_range("limit", limit, 1, 100)
        check_range("offset", offset, 0, 1_000_000)
        return await (await self._chosen()).search(query, wanted, seller, limit, offset)

    # jobs

    async def request(self, document: SignedDocument) -> Job:
        from tradeskill_plugins.market.signed import request_entry

        request_entry(document, self._context.identity.key)
        return await (await self._chosen()).request(document)

    async def quote(self, job_id: str, document: SignedDocument) -> Job:
        from tradeskill_plugins.market.signed import quote_entry

        quote_entry(document, self._context.identity.key, job_id)
        return await (await self._chosen()).quote(job_id, document)

    async def decline(self, job_id: str, code: str, message: str) -> Job:
        from tradeskill_plugins.market.entries import error_entry

        error_entry(code, message)
        return await (await self._chosen()).decline(job_id, JobError(code, message))

    async def accept(self, job_id: str) -> Job:
        return await (await self._chosen()).accept(job_id)

    async def submit_payment(self, job_id: str, rail: str, payment_id: str, token: str = "") -> Job:
        from tradeskill_plugins.market.entries import claim_entry

        claim_entry(rail, payment_id, token)
        return await (await self._chosen()).submit_payment(job_id, rail, payment_id, token)

    async def lock(self, job_id: str) -> Lock:
        return await (await self._chosen()).lock(job_id)

    async def deliver(self, job_id: str, delivery: Delivery, market_fence: int | None) -> Job:
        from tradeskill_plugins.market.signed import delivery_entry

        delivery_entry(delivery, self._context.identity.key, job_id)
        return await (await self._chosen()).deliver(job_id, delivery, market_fence)

    async def cancel(self, job_id: str, reason: str = "") -> Job:
        return await (await self._chosen()).cancel(job_id, _checked("reason", reason, 200, 0))

    async def get(self, job_id: str) -> Job:
        return await (await self._chosen()).get(job_id)

    async def find_request(self, nonce: str) -> Job | None:
        seen = await (await self._chosen()).find_request(_checked("nonce", nonce, 128))
        return None if seen is None else seen.job

    async def changes(self, cursor: str, limit: int = 100) -> Changes:
        from tradeskill_plugins.market.entries import check_range

        check_range("limit", limit, 1, 1000)
        return await (await self._chosen()).changes(cursor, limit)

    async def events(self) -> AsyncIterator[str]:
        """Hints until the market is closed. On a relay with our additions pushed as they happen, else looked for every few seconds."""
        async with aclosing((await self._chosen()).events()) as hints:
            async for job_id in hints:
                yield job_id

    # which relay is this?

    async def examine(self) -> str:
        """For `doctor`: see examination.py."""
        from tradeskill_plugins.relay.client.examination import examined

        if self._transport is None:
            raise UnavailableError("the relay market is not open: call open() first")
        return await examined(self._transport, self._settings, self._context.world)

    async def _chosen(self) -> Dialect:
        """By what the relay announces; asked once it can be reached."""
        if self._dialect is None:
            async with self._choosing:
                if self._dialect is None:
                    self._dialect = await self._choose()
        return self._dialect

    async def _choose(self) -> Dialect:
        from tradeskill_plugins.relay.client.dialect import Parts
        from tradeskill_plugins.relay.client.ours import Ours
        from tradeskill_plugins.relay.client.plain import Plain
        from tradeskill_plugins.relay.client.results import Results
        from tradeskill_plugins.relay.client.upload import LocalFolder

        if self._transport is None or self._outbox is None or self._hints is None:
            raise UnavailableError("the relay market is not open: call open() first")
        settings, context = self._settings, self._context
        announced = await self._announced(self._transport)
        self._limit(announced)
        upload = self._upload
        if upload is None and settings.upload is not None:
            upload = LocalFolder(settings.upload.folder, settings.upload.url, context.world)
        parts = Parts(self._transport, self._outbox, context.identity, context.world, settings, upload)
        results = Results(upload, self._outbox, context.world, local=settings.local_results)
        if announced is None:
            log.info("the relay %s is without our additions", settings.url)
            return Plain(parts, results, self._hints)
        abilities = announced.get("capabilities")
        inline = abilities.get("inline_result") if isinstance(abilities, dict) else None
        return Ours(parts, results, self._hints, min(inline, INLINE_RESULT) if type(inline) is int else INLINE_RESULT)

    async def _announced(self, transport: Transport) -> Mapping[str, Json] | None:
        """The relay's capabilities; None where it is one without our additions. NetworkMismatchError where it is for other money."""
        try:
            value = (await transport.ask("/v1/capabilities", signed=False)).value
        except UnavailableError:
            raise
        except TradeskillError:
            return None
        if value.get("tradeskill") != 1:
            return None
        network = value.get("network")
        if network in NETWORKS and network != self._context.network:
            raise NetworkMismatchError(f"the relay {self._settings.url} is for network {network!r}, this profile for {self._context.network!r}")
        return value

    def _limit(self, announced: Mapping[str, Json] | None) -> None:
        if not self._settings.limits:
            return
        said = {} if announced is None else announced.get("limits")
        given: Mapping[str, Json] = said if isinstance(said, dict) else {}
        window = given.get("window_ms")
        seconds = window / 1000 if type(window) is int and 0 < window <= 3_600_000 else WINDOW_MS / 1000
        for bucket, usual in OLD_LIMITS.items():
            limit = given.get(bucket, usual)
            self._turns.limit(bucket, limit if type(limit) is int and limit > 0 else None if limit is None else usual, seconds)


def _checked(name: str, value: str, most: int, least: int = 1) -> str:
    from tradeskill_plugins.market.entries import check_text

    return check_text(name, value, least, most)
