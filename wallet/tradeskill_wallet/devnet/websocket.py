"""The websocket: subscriptions, filters and messages, with the node's habits (leaking options and silent filters included)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tradeskill_wallet.devnet.answers import Answer, contents, upper
from tradeskill_wallet.devnet.chain import ACTIVE_HEIGHT, ACTIVE_QUORUM, Chain
from tradeskill_wallet.devnet.ledger import Entry
from tradeskill_wallet.devnet.request import Request
from tradeskill_wallet.devnet.wire import BadJSON, Tree, decode_account, dump, parse
from tradeskill_wallet.primitives import encode_address

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection

__all__ = ["WebsocketServer"]

# Known to the node, so acknowledged; only the first two are ever sent here.
_TOPICS: Final = frozenset(["confirmation", "new_unconfirmed_block", "ack", "bootstrap", "started_election", "stopped_election", "telemetry", "vote", "work"])
_TYPES: Final[dict[str, frozenset[str]]] = {
    "active": frozenset({ACTIVE_QUORUM, ACTIVE_HEIGHT}),
    "active_quorum": frozenset({ACTIVE_QUORUM}),
    "active_confirmation_height": frozenset({ACTIVE_HEIGHT}),
    "inactive": frozenset({"inactive"}),
}
_MAX_MESSAGE: Final = 1024 * 1024
_MAX_BACKLOG: Final = 16 * 1024 * 1024  # unread bytes after which a client is dropped


@dataclass
class _Options:
    """A subscription's options; `given` is False when it had none, and then it cannot be updated."""

    given: bool = False
    include_block: bool = True
    election: bool = False
    votes: bool = False
    sideband: bool = False
    types: frozenset[str] = frozenset({ACTIVE_QUORUM, ACTIVE_HEIGHT, "inactive"})
    accounts: set[str] | None = None  # None: no filter; empty: nothing passes

    def wants(self, kind: str, message: Answer) -> bool:
        """By type, and by account where the message built has a block; without one an account filter lets nothing through."""
        if kind not in self.types:
            return False
        if self.accounts is None:
            return True
        block = message.get("block")
        return isinstance(block, dict) and not self.accounts.isdisjoint((str(message["account"]), str(block.get("link_as_account", ""))))


def _addresses(texts: list[str]) -> list[str]:
    return [encode_address(account) for text in texts if (account := decode_account(text)) is not None]


def _options(fields: Tree) -> _Options:
    request = Request(fields if isinstance(fields, dict) else {})
    local = request.has("all_local_accounts")  # this node has no wallet, so no local accounts
    return _Options(
        given=True,
        include_block=request.flag("include_block", default=True),
        election=request.flag("include_election_info", default=False) or request.flag("include_election_info_with_votes", default=False),
        votes=request.flag("include_election_info_with_votes", default=False),
        sideband=request.flag("include_sideband_info", default=False),
        types=_TYPES.get((request.optional("confirmation_type") or "all").lower(), _Options.types),
        accounts=set(_addresses(request.items("accounts"))) if request.has("accounts") else set() if local else None,
    )


@dataclass(eq=False)
class _Session:
    connection: ServerConnection
    topics: dict[str, _Options] = field(default_factory=dict)


class WebsocketServer:
    """Tells subscribers what the chain does. Messages go out in the order of events; a confirmation only once the ledger says so."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._sessions: dict[_Session, None] = {}  # oldest first: its options decide what all get
        self._server: Server | None = None
        self._entered_ms: dict[bytes, int] = {}
        chain.on_entered.append(self._new_block)
        chain.on_confirmed.append(self._confirmed)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError if it is taken."""
        from websockets.asyncio.server import serve

        self._server = await serve(self._serve, host, port, compression=None, max_size=_MAX_MESSAGE, ping_interval=None, close_timeout=1)
        bound: int = next(iter(self._server.sockets)).getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Say goodbye to everybody and stop listening. Twice is safe."""
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        session = _Session(connection)
        self._sessions[session] = None
        try:
            async for data in connection:
                try:
                    fields = parse(data if isinstance(data, str) else data.decode())
                except (BadJSON, UnicodeDecodeError):
                    connection.transport.abort()  # the node drops the connection without a word
                    return
                answer = self._handle(session, Request(fields if isinstance(fields, dict) else {}))
                if answer:
                    await connection.send(dump(answer))
        except ConnectionClosed:
            pass  # gone, like any client one day
        finally:
            self._sessions.pop(session, None)

    def _handle(self, session: _Session, request: Request) -> Answer | None:
        action, topic = request.optional("action") or "", request.optional("topic") or ""
        ack = request.flag("ack", default=False)
        if action == "subscribe" and topic in _TOPICS:
            given = request.fields.get("options") if topic == "confirmation" else None
            session.topics[topic] = _Options() if given is None else _options(given)
        elif action == "update":
            if not self._update(session.topics.get(topic), request.fields.get("options")):
                return None
        elif action == "unsubscribe" and topic in _TOPICS:
            session.topics.pop(topic, None)
        elif action == "ping":
            ack, action = True, "pong"
        else:
            return None
        if not ack:
            return None
        answer: Answer = {"ack": action, "time": str(self._chain.clock.now_ms())}
        given_id = request.optional("id")
        return answer | {"id": given_id} if given_id else answer

    @staticmethod
    def _update(options: _Options | None, fields: Tree | None) -> bool:
        if options is None or not options.given or fields is None:
            return False
        request = Request(fields if isinstance(fields, dict) else {})
        for name in ("accounts_add", "accounts_del"):
            if request.has(name):
                addresses = _addresses(request.items(name))
                options.accounts = options.accounts or set()
                if name == "accounts_add":
                    options.accounts.update(addresses)
                else:
                    options.accounts.difference_update(addresses)
        return True

    # --- what the chain tells

    def _envelope(self, topic: str) -> Answer:
        return {"topic": topic, "time": str(self._chain.clock.now_ms())}

    def _send(self, sessions: list[_Session], message: Answer) -> None:
        from websockets.asyncio.server import broadcast

        if self._chain.faults.silent_websocket or not sessions:
            return
        for session in sessions:
            if session.connection.transport.get_write_buffer_size() > _MAX_BACKLOG:
                session.connection.transport.abort()
        broadcast([session.connection for session in sessions], dump(message))

    def _new_block(self, entry: Entry) -> None:
        self._entered_ms[entry.hash] = self._chain.clock.now_ms()
        sessions = [session for session in self._sessions if "new_unconfirmed_block" in session.topics]
        if sessions:
            block = contents(entry.block) | {"subtype": entry.kind}
            self._send(sessions, {**self._envelope("new_unconfirmed_block"), "hash": upper(entry.hash), "message": block})

    def _confirmed(self, entry: Entry, kind: str) -> None:
        entered = self._entered_ms.pop(entry.hash, self._chain.clock.now_ms())
        built: dict[bool, Answer] = {}  # with and without block; made for the first session that needs it, and used for all
        groups: dict[bool, list[_Session]] = {True: [], False: []}
        for session in self._sessions:
            options = session.topics.get("confirmation")
            if options is None:
                continue
            if options.include_block not in built:
                built[options.include_block] = self._confirmation(entry, kind, entered, options)
            if options.wants(kind, built[options.include_block]):
                groups[options.include_block].append(session)
        for with_block, message in built.items():
            self._send(groups[with_block], {**self._envelope("confirmation"), "message": message})

    def _confirmation(self, entry: Entry, kind: str, entered_ms: int, options: _Options) -> Answer:
        block_hash = upper(entry.hash)
        message: Answer = {
            "account": encode_address(entry.account),
            "amount": str(entry.amount),
            "hash": block_hash,
            "confirmation_type": kind,
        }
        if options.election:
            now = self._chain.clock.now_ms()
            weights = sorted(self._chain.ledger.weights.items(), key=lambda item: -item[1]) if kind == ACTIVE_QUORUM else []
            tally = str(sum(weight for _, weight in weights))
            info: Answer = {
                "duration": str(now - entered_ms),
                "time": str(now),
                "tally": tally,
                "final": tally,
                "blocks": "1",
                "voters": str(len(weights)),
                "request_count": "0",
            }
            if options.votes:
                info["votes"] = [
                    {"representative": encode_address(account), "timestamp": str(2**64 - 1), "hash": block_hash, "weight": str(weight)}
                    for account, weight in weights
                ]
            message["election_info"] = info
        if options.include_block:
            block = contents(entry.block)
            message["block"] = block | {"subtype": entry.kind} if entry.kind else block
        if options.sideband:
            message["sideband"] = {"height": str(entry.height), "local_timestamp": str(entry.timestamp)}
        return message
