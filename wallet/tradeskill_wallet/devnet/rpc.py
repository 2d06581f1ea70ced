"""From a request's body to the node's answer: depth, parsing, control, dispatch. No sockets."""

from __future__ import annotations

from typing import Final

from tradeskill.errors import UsageError
from tradeskill_wallet.devnet.answers import Action, Answer, entry_of
from tradeskill_wallet.devnet.calculations import CALCULATIONS, work_generate
from tradeskill_wallet.devnet.chain import Chain
from tradeskill_wallet.devnet.publish import process
from tradeskill_wallet.devnet.read_accounts import ACCOUNTS
from tradeskill_wallet.devnet.read_blocks import BLOCKS
from tradeskill_wallet.devnet.read_node import NODE
from tradeskill_wallet.devnet.read_receivables import RECEIVABLES
from tradeskill_wallet.devnet.request import Refused, Request
from tradeskill_wallet.devnet.wire import BadJSON, Tree, dump, nests_too_deep, parse
from tradeskill_wallet.devnet.work import WorkPool

__all__ = ["ACTIONS", "Rpc", "error_text"]

_READS: Final[dict[str, Action]] = {**BLOCKS, **ACCOUNTS, **RECEIVABLES}
_ACTIONS: Final[dict[str, Action]] = {**_READS, **NODE, **CALCULATIONS}
_DEV_ONLY: Final = frozenset({"devnet_confirm", "devnet_faults"})
ACTIONS: Final = frozenset({*_ACTIONS, "block_confirm", "process", "work_cancel", "work_generate", *_DEV_ONLY})

# What a node answers only with `enable_control`, whether or not this one serves it.
_CONTROL: Final = frozenset(
    "account_create account_move account_remove account_representative_set accounts_create block_create bootstrap_lazy "  # noqa: SIM905 -- a page if one a line
    "database_txn_tracker epoch_upgrade keepalive ledger node_id password_change populate_backlog receive receive_minimum "
    "receive_minimum_set search_pending search_pending_all search_receivable search_receivable_all send stop unchecked_clear "
    "unopened wallet_add wallet_add_watch wallet_change_seed wallet_create wallet_destroy wallet_lock "
    "wallet_representative_set wallet_republish wallet_work_get work_cancel work_generate work_get work_peer_add work_peers "
    "work_peers_clear work_set".split()
)


def error_text(message: str) -> str:
    """The node's answer to whatever it will not do; it goes out with HTTP status 200."""
    return dump({"error": message})


class Rpc:
    """Answers requests. `control` is the node's `enable_control`; the dev-only actions need it too."""

    def __init__(self, chain: Chain, *, control: bool = True) -> None:
        self._chain = chain
        self._control = control
        self._pool = WorkPool()

    async def answer(self, body: bytes) -> str:
        """The JSON text for a request's body. Raises StorageError only: then nothing may be acknowledged."""
        try:
            text = body.decode()
            if nests_too_deep(text):
                return error_text("Max JSON depth exceeded")
            fields = parse(text)
            request = Request(fields if isinstance(fields, dict) else {})
            answer = await self._run(request.text("action"), request)
            if request.hyphenated:
                answer = {"deprecated_account_format": "1", **answer}
        except (BadJSON, UnicodeDecodeError):
            return error_text("Unable to parse JSON")
        except Refused as error:
            return error_text(str(error))
        return dump(answer) if answer else error_text("Empty response")

    def close(self) -> None:
        """End the searches for work that still run."""
        self._pool.close()

    async def _run(self, action: str, request: Request) -> Answer:
        if not self._control and (action in _CONTROL or (action == "process" and request.flag("force", default=False))):
            raise Refused("RPC control is disabled")
        if action in _READS:
            return self._told(_READS[action](self._chain, request))
        if action in _ACTIONS:
            return _ACTIONS[action](self._chain, request)
        if action == "process":
            return await process(self._chain, request)
        if action == "block_confirm":
            self._chain.ask(entry_of(self._chain, request.hash()))
            return {"started": "1"}
        if action == "work_generate":
            return await work_generate(self._chain, self._pool, request)
        if action == "work_cancel":
            self._pool.cancel(request.hash())
            return {"success": ""}
        if action in _DEV_ONLY and self._control:
            return self._steer(action, request)
        raise Refused("Unknown command")

    def _told(self, answer: Answer) -> Answer:
        told: Tree = self._chain.faults.falsify(answer)
        return told if isinstance(told, dict) else answer

    def _steer(self, action: str, request: Request) -> Answer:
        """`devnet_confirm` cements `hash`, or everything; `devnet_faults` changes what `set` names and tells what is on."""
        if action == "devnet_confirm":
            if request.has("hash"):
                self._chain.confirm(entry_of(self._chain, request.hash()).hash)
            else:
                self._chain.confirm_all()
            return {"confirmed": str(self._chain.ledger.cemented)}
        wanted = request.fields.get("set", {})
        try:
            self._chain.set_faults(wanted if isinstance(wanted, dict) else {})
        except UsageError as error:
            raise Refused(str(error)) from error
        return {"faults": self._chain.faults.describe()}
