"""A buyer with a policy, served over MCP in virtual time, at a market that shows whatever a case wants."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import mcp_types as types
from mcp.client.client import Client

from tests.hostile_oracle import FUNDS, judge, kept
from tests.rig import PRICE, SCHEMA, Rig
from tradeskill.agreement import Request, read_offer, read_request, sign_receipt
from tradeskill.contracts import Changes
from tradeskill.errors import NotFoundError, TradeskillError
from tradeskill.faces.mcp_profile import SharedProfile
from tradeskill.faces.mcp_server import make_server
from tradeskill.model import Job, JobError, Json, Offer, Result, SignedDocument
from tradeskill.money import Amount
from tradeskill.policy.owner import Owner
from tradeskill.profile import Profile
from tradeskill.signing import Identity
from tradeskill.skills import Skill, find_skills
from tradeskill.testing.fakes import FakeWallet

__all__ = ["CAP", "CEILING", "OFFER_ID", "QUIET", "Case", "Scene", "played"]

OFFER_ID = "5f0c7f1e-3d0a-4b53-9a54-0c7a6a2b9a11"
JOB_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
QUIET, CAP, CEILING = 1500, 2000, 4000  # raw: above it the owner is asked; of one payment; of a day
SECONDS, MEMORY = 20.0, 400 * 2**20  # of processor time, and what one case may add to the process's peak
STRANGER = Identity(b"x" * 32)


@dataclass(frozen=True)
class Case:
    """`shape` arranges the scene. `pays`: what leaves the buyer's account, to the raw. `ends`: the purchase's state, "" for none made."""

    name: str
    shape: Callable[[Scene], object]
    pays: int = 0
    ends: str = "abandoned"
    asked: int = 0  # how often the owner is asked, who says no
    says: str = ""  # words of the refusal: the rule, or what is wrong


class HostileMarket:
    """The buyer's side of `Market`, at its worst: it checks nothing and answers what it was told to."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.offers: list[Offer] = []
        self.job: Job | None = None
        self.quote_of: Callable[[Request], SignedDocument | None] = scene.signed_quote
        self.ending: Callable[[Job], Job] = scene.delivered
        self.at_request: Callable[[Job], Job] = lambda job: job
        self.at_accept: Callable[[Job], Job] = lambda job: job
        self.raises: dict[str, TradeskillError] = {}
        self.any_offer = False  # it answers with its first offer, whichever was asked for
        self.calls: list[str] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def offer(self, offer_id: str) -> Offer:
        self._called("offer")
        for offer in self.offers:
            if offer.offer_id == offer_id or self.any_offer:
                return offer
        raise NotFoundError(f"offer {offer_id} is not here")

    async def search(self, query: str = "", tags: Sequence[str] = (), seller: str = "", limit: int = 20, offset: int = 0) -> list[Offer]:
        self._called("search")
        folded = query.casefold()
        return [o for o in self.offers if set(tags) <= set(o.tags) and folded in f"{o.title} {o.description}".casefold() and seller in ("", o.seller)][:limit]

    async def request(self, document: SignedDocument) -> Job:
        self._called("request")
        if self.job is None:
            request = read_request(document, document.key)
            now = self.scene.rig.world.now_ms()
            job = Job(JOB_ID, request.offer_id, request.seller, request.buyer, "requested", document, now, now, 1)
            quote = self.quote_of(request)
            if quote is not None:
                job = replace(job, state="quoted", quote=quote, quote_expires_at=now + 900_000)
            self.job = self.at_request(job)
        return self.job

    async def accept(self, job_id: str) -> Job:
        self._called("accept")
        assert self.job is not None
        self.job = self.at_accept(replace(self.job, state="accepted", accepted_at=self.scene.rig.world.now_ms()))
        return self.job

    async def submit_payment(self, job_id: str, rail: str, payment_id: str, token: str = "") -> Job:
        self._called("submit_payment")
        assert self.job is not None
        if self.job.payment_id is None:
            self.job = self.ending(replace(self.job, state="running", payment_id=payment_id, payment_rail=rail))
        return self.job

    async def cancel(self, job_id: str, reason: str = "") -> Job:
        self._called("cancel")
        assert self.job is not None
        self.job = replace(self.job, state="canceled")
        return self.job

    async def get(self, job_id: str) -> Job:
        self._called("get")
        assert self.job is not None
        return self.job

    async def find_request(self, nonce: str) -> Job | None:
        return self.job

    async def changes(self, cursor: str, limit: int = 100) -> Changes:
        return Changes(() if self.job is None else (self.job,), "1", more=False)

    async def events(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.raises:
            raise self.raises[name]


@dataclass
class Scene:
    """What a case arranges: the market, what is asked for, and the seller's means of signing anything at all."""

    rig: Rig
    wallet: FakeWallet
    seller_wallet: FakeWallet
    market: HostileMarket = field(init=False)
    profile: Profile = field(init=False)
    offer_name: str = OFFER_ID
    due: str = str(PRICE.value)  # what an honest quote asks
    quoter: Identity = STRANGER  # who signs quotes: whoever showed the last offer
    before: tuple[str, dict[str, Any]] | None = None  # a call that was made earlier
    arguments: dict[str, Any] = field(default_factory=lambda: {"input": {"url": "http://a/"}, "max": "1 XNO"})
    answers: list[tuple[str, types.CallToolResult]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    addresses: set[str] = field(default_factory=set)  # of honest invoices

    def __post_init__(self) -> None:
        self.market = HostileMarket(self)

    @property
    def seller(self) -> Identity:
        return self.rig.seller_identity

    # offers

    def offer_body(self, **changes: Any) -> dict[str, Json]:
        body: dict[str, Json] = {
            "offer_id": OFFER_ID,
            "network": "dev",
            "title": "Web page to Markdown",
            "description": "test",
            "tags": ["web"],
            "price": {"amount": str(PRICE.value), "unit": "raw"},
            "input": SCHEMA,
            "pure": True,
            "trusted": True,
            "created_at": "1",
        }
        return {**body, **changes}

    def show(self, *, signer: Identity | None = None, **changes: Any) -> Offer:
        """Put an offer up, whatever is in it. Its signer quotes, at its price where that can be read."""
        self.quoter = signer or self.seller
        price = changes.get("price")
        if isinstance(price, dict) and str(price.get("amount")).isascii() and str(price.get("amount")).isdecimal():
            self.due = str(price["amount"])
        return self.show_document(self.quoter.sign("offer", self.offer_body(**changes)))

    def show_document(self, document: SignedDocument) -> Offer:
        try:
            offer = read_offer(document)
        except TradeskillError:
            body: Any = document.body
            tags = body.get("tags")
            schema = body.get("input")
            offer = Offer(
                offer_id=str(body.get("offer_id")),
                seller=document.key,
                title=str(body.get("title")),
                description=str(body.get("description")),
                tags=tuple(map(str, tags)) if isinstance(tags, list) else (),
                prices=(PRICE,),
                network="dev",
                input_schema=schema if isinstance(schema, dict) else {},
                offer_hash="0" * 64,
                document=document,
            )
        self.market.offers.append(offer)
        return offer

    # quotes

    def invoice_body(self, request: Request, amount: int | str = "", **changes: Any) -> dict[str, Json]:
        address = self.address()
        self.addresses.add(address)
        body: dict[str, Json] = {
            "rail": "fake",
            "network": "dev",
            "invoice_id": address,
            "amount": str(amount) or self.due,
            "unit": "raw",
            "address": address,
            "details": {},
        }
        return {**body, **changes}

    def quote_body(self, request: Request, **changes: Any) -> dict[str, Json]:
        body: dict[str, Json] = {
            "network": request.network,
            "job_id": JOB_ID,
            "input_hash": request.input_hash,
            "offer_hash": request.offer_hash,
            "buyer": request.buyer,
            "seller": self.quoter.key,
            "expires_at": str(self.rig.world.now_ms() + 900_000),
            "refund_rule": "R1",
            "nonce": "n",
            "invoices": [self.invoice_body(request)],
        }
        return {**body, **changes}

    def signed_quote(self, request: Request) -> SignedDocument | None:
        return self.quoter.sign("quote", self.quote_body(request))

    def quote(self, change: Callable[[Request], dict[str, Any]], signer: Identity | None = None) -> None:
        """Quotes that are as they should be but for these fields."""
        self.market.quote_of = lambda request: (signer or self.quoter).sign("quote", self.quote_body(request, **change(request)))

    def bill(self, change: Callable[[Request], dict[str, Any]]) -> None:
        """Quotes whose one invoice is as it should be but for these fields."""
        self.quote(lambda request: {"invoices": [{**self.invoice_body(request), **change(request)}]})

    def address(self, number: int = 0) -> str:
        from tradeskill.testing.fakes import _address

        return _address("dev", "the seller's", number)

    # endings

    def delivered(self, job: Job) -> Job:
        return self.with_result(job, Result(b"done", "text/plain"), {})

    def deliver(self, data: bytes, media_type: str = "text/plain") -> None:
        self.market.ending = lambda job: self.with_result(job, Result(data, media_type), {})

    def receipt(self, job: Job, result: Result, changes: dict[str, Any]) -> SignedDocument:
        quote: Any = job.quote
        mine = [item for item in quote.body["invoices"] if item["rail"] == "fake"]
        due = next((item for item in mine if (item["address"], int(item["amount"])) in self.sent), mine[0])["amount"]
        document = sign_receipt(
            self.seller,
            read_request(job.request, self.rig.buyer_identity.key),
            quote,
            job_id=JOB_ID,
            rail="fake",
            payment_ids=[job.payment_id or ""],
            amount=Amount(int(due), "raw"),
            result=result,
            delivered_at=1,
            fence=1,
        )
        return self.seller.sign("receipt", {**document.body, **changes}) if changes else document

    def with_result(self, job: Job, result: Result, changes: dict[str, Any]) -> Job:
        return replace(job, state="delivered", result=result, receipt=self.receipt(job, result, changes))

    def fail(self, code: str, message: str) -> None:
        self.market.ending = lambda job: replace(job, state="failed", error=JobError(code, message))

    def decline(self, code: str, message: str) -> None:
        self.market.quote_of = lambda request: None
        self.market.at_request = lambda job: replace(job, state="canceled", error=JobError(code, message))

    # what became of it

    @property
    def sent(self) -> list[tuple[str, int]]:
        """(to, amount) of all that left the buyer's account."""
        own = self.wallet._main
        return [(transfer.to, transfer.amount) for transfer in self.rig.ledger.transfers.values() if transfer.source == own]


@cache
def skills() -> list[Skill]:
    return find_skills()


def rules(scene: Scene) -> dict[str, Any]:
    return {
        "caps": {"payment": [f"{CAP} raw"], "seller": ["3000 raw"], "day": [f"{CEILING} raw"]},
        "allow": {"sellers": [scene.seller.key], "tags": ["web", "markdown"]},
        "deny": {"tags": ["banned"], "offers": ["00000000-0000-4000-8000-000000000bad"]},
        "ask_above": [f"{QUIET} raw"],
    }


def opened(scene: Scene, home: Path) -> Profile:
    """The profile as any face opens it, with its journal in memory, at this market and on this rail."""
    config = {"network": "dev", "market": {"plugin": "embedded", "path": "market.db"}, "wallets": []}
    fresh = home / "config.new"
    fresh.write_text(json.dumps(config))  # JSON is YAML
    fresh.replace(home / "config.yaml")  # another file, so the server opens the profile anew
    profile = Profile.load(home, lambda: "", world=scene.rig.world)
    vars(profile).update(identity=scene.rig.buyer_identity, journal=scene.rig.journal("buyer"), blobs=scene.rig.buyer_disk.blobs)
    profile._market, profile._wallets = cast(Any, scene.market), {"fake": scene.wallet}
    word = Owner(profile.journal, home / "policy.yaml", "dev", profile.identity.key, lambda looser, new: "the owner's", scene.rig.world.random_bytes)
    word.set(rules(scene))
    return profile


async def played(cases: Iterable[Case], home: Path) -> dict[str, Exception | None]:
    """One agent's session at one server, case after case, each with a journal, a ledger and a market of its own; what the oracle had against each."""
    verdicts: dict[str, Exception | None] = {}
    scenes: list[Scene] = []
    home.mkdir(parents=True)  # noqa: ASYNC240  # nothing else runs yet

    async def owner(context: Any, params: Any) -> types.ElicitResult:
        scenes[-1].questions.append(params.message)
        return types.ElicitResult(action="accept", content={"approve": False})

    async with Client(make_server(SharedProfile(home, lambda: scenes[-1].profile), skills), elicitation_callback=owner) as client:
        for case in cases:
            scenes.append(await set_scene(home))
            try:
                async with asyncio.timeout(7 * 86_400):
                    await visit(case, scenes[-1], client)
                verdicts[case.name] = None
            except Exception as error:  # noqa: BLE001  # the test of this case raises it
                verdicts[case.name] = error
    return verdicts


async def set_scene(home: Path) -> Scene:
    rig = Rig()
    wallet, seller_wallet = await rig.open_wallet("buyer"), await rig.open_wallet("seller")
    rig.ledger.fund(await wallet.address(), FUNDS)
    await wallet.collect()
    scene = Scene(rig, wallet, seller_wallet)
    scene.profile = opened(scene, home)
    return scene


async def visit(case: Case, scene: Scene, client: Client) -> None:
    """It looks, hires, hires again, asks how it stands and for the result. Then the oracle."""
    before = kept(scene.profile)
    case.shape(scene)

    async def call(tool: str, **arguments: Any) -> Any:
        answer = await client.call_tool(tool, arguments)
        scene.answers.append((tool, answer))
        return answer.structured_content

    began, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await call("buyer_search")
    if scene.before is not None:
        await call(scene.before[0], **scene.before[1])
    wish = {"offer_id": scene.offer_name, **scene.arguments}
    first = await call("buyer_hire", **wish)
    again = await call("buyer_hire", **wish)
    assert again.get("purchase_id") == first.get("purchase_id")
    if "purchase_id" in first:
        await call("buyer_status", purchase_id=first["purchase_id"])
        await call("buyer_result", purchase_id=first["purchase_id"])
    spent = time.process_time() - began
    assert spent < SECONDS, f"{spent:.1f} s of processor time"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < MEMORY
    assert kept(scene.profile) == before, "the policy changed"
    judge(case, scene)
