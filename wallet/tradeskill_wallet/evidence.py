"""Asks nodes for what the judgement of an invoice needs: the sends to an account and the block before each, complete and bounded. Judges nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tradeskill.errors import UnavailableError, UsageError
from tradeskill.model import Json
from tradeskill.world import World
from tradeskill_wallet.primitives import ZERO, encode_address, parse_hash
from tradeskill_wallet.rpc import Node, Nodes, RpcError
from tradeskill_wallet.settlement import Answers, Seen

__all__ = ["Evidence", "Question", "blocks_info"]

PAGE: Final = 500
PAGES: Final = 20  # sends above the dust threshold to one account; more is not a purchase
LAG: Final = 1000  # blocks behind its peers before a node counts as lagging
FRESH: Final = 5.0  # seconds that "this node is in step" is believed


async def blocks_info(node: Node | Nodes, hashes: Sequence[str]) -> dict[str, Json]:
    """`block_info` entries by hash, as the node shows them; unknown ones are left out."""
    found: dict[str, Json] = {}
    for start in range(0, len(hashes), PAGE):
        part: list[Json] = list(hashes[start : start + PAGE])
        answer = await node.call("blocks_info", hashes=part, json_block="true", include_not_found="true")
        blocks = answer.get("blocks")
        if isinstance(blocks, dict):
            found.update({key.upper(): value for key, value in blocks.items()})
    return found


@dataclass(frozen=True)
class Question:
    """Which sends to look for: those waiting for `account` of at least `dust` raw, and the hashes in `extra`; not those `known` to be final."""

    account: bytes
    dust: int = 1
    extra: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    limit: int | None = None  # the largest so many only, where completeness does not matter


class Evidence:
    """Collects `Answers`. `landmark()` is the hash of a block known to be confirmed: a node without it is behind."""

    def __init__(self, nodes: Nodes, world: World, landmark: str | None = None) -> None:
        self._nodes, self._world = nodes, world
        self.landmark = landmark
        self._in_step: dict[str, tuple[float, str]] = {}
        self._stepping: dict[str, asyncio.Lock] = {}

    async def gather(self, question: Question, needed: int) -> list[Answers]:
        """The word of as many nodes as are needed (all are asked at once if more than one); where one fails, of the others too."""
        if needed > 1:
            return list(await asyncio.gather(*(self._ask(node, question) for node in self._nodes.all)))
        answers: list[Answers] = []
        for node in self._nodes.all:
            answers.append(await self._ask(node, question))
            if not answers[-1].problem:
                break
        return answers

    async def more(self, question: Question, asked: Sequence[Answers]) -> list[Answers]:
        """The nodes not asked yet: a second opinion."""
        names = {answer.node for answer in asked}
        rest = [node for node in self._nodes.all if node.url not in names]
        return list(await asyncio.gather(*(self._ask(node, question) for node in rest)))

    async def _ask(self, node: Node, question: Question) -> Answers:
        try:
            hashes, complete = await self._receivable(node, question.account, question.dust, question.limit)
            extra = [h for h in question.extra if _is_hash(h)]
            hashes = [h for h in dict.fromkeys([*hashes, *extra]) if h not in question.known]
            infos = await blocks_info(node, hashes) if hashes else {}
            previous = {h: p for h in hashes if (p := _previous(infos.get(h))) is not None}
            befores = await blocks_info(node, list(dict.fromkeys(previous.values()))) if previous else {}
            problem = "" if complete else f"more than {PAGE * PAGES} sends to one account"
            problem = problem or await self._step(node)
        except UnavailableError as error:
            return Answers(node.url, problem=str(error))
        return Answers(node.url, tuple(Seen(h, infos.get(h), befores.get(previous.get(h, ""))) for h in hashes), problem)

    async def _receivable(self, node: Node, account: bytes, dust: int, limit: int | None) -> tuple[list[str], bool]:
        """Hashes of sends of at least `dust` that wait for the account, confirmed or not, largest first; and whether these are all."""
        hashes: list[str] = []
        for page in range(PAGES):
            answer = await node.call(
                "receivable",
                account=encode_address(account),
                count=str(limit or PAGE),
                offset=str(page * PAGE),
                threshold=str(dust),
                sorting="true",
                source="true",
                include_active="true",
                include_only_confirmed="false",
            )
            blocks = answer.get("blocks")
            if blocks != "" and not isinstance(blocks, dict):
                raise UnavailableError(f"node {node.url} answered receivable with {type(blocks).__name__}, not a map")
            names = list(blocks) if isinstance(blocks, dict) else []
            hashes += [h.upper() for h in names if _is_hash(h)]
            if len(names) < PAGE or limit:
                return hashes, True
        return hashes, False

    async def _step(self, node: Node) -> str:
        """"" when the node keeps up with its peers and knows our last confirmed block; else what is wrong. Asked every few seconds only."""
        async with self._stepping.setdefault(node.url, asyncio.Lock()):  # many looks at once ask once
            at, problem = self._in_step.get(node.url, (0.0, "not asked"))
            now = self._world.monotonic()
            if problem or now - at >= FRESH:
                problem = await self._compare(node)
                self._in_step[node.url] = (now, problem)
            return problem

    async def _compare(self, node: Node) -> str:
        counts, peers = await asyncio.gather(node.call("block_count"), node.call("telemetry"))
        own, theirs = _number(counts.get("cemented")), _number(peers.get("cemented_count"))
        problem = f"the node lags: {own} of {theirs} blocks confirmed" if theirs - own > LAG else ""
        if not problem and self.landmark is not None:
            try:
                info = await node.call("block_info", hash=self.landmark, json_block="true")
                if info.get("confirmed") != "true":
                    problem = f"the node lags: block {self.landmark} is not confirmed there"
            except RpcError:
                problem = f"the node lags: it does not know block {self.landmark}"
        return problem


def _is_hash(text: str) -> bool:
    try:
        return parse_hash(text) != ZERO
    except UsageError:
        return False


def _previous(info: Json) -> str | None:
    contents = info.get("contents") if isinstance(info, dict) else None
    previous = contents.get("previous") if isinstance(contents, dict) else None
    return previous.upper() if isinstance(previous, str) and _is_hash(previous) else None


def _number(value: Json) -> int:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else 0
