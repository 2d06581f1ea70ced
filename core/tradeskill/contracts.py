"""What a wallet, a market, a backend and a skill promise. Third parties implement these; `tradeskill.testing` checks them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from tradeskill.model import Delivery, Invoice, Job, Json, Lock, Network, Offer, Payment, PaymentStatus, Proof, Result, SignedDocument
from tradeskill.money import Amount
from tradeskill.world import World

if TYPE_CHECKING:
    from tradeskill.signing import Identity

__all__ = [
    "Backend",
    "Balance",
    "Capability",
    "Changes",
    "Examinable",
    "ExecutionState",
    "ExecutionStatus",
    "LimitedMarket",
    "Limits",
    "Market",
    "PluginContext",
    "Task",
    "Wallet",
]


@dataclass(frozen=True)
class Capability:
    """One thing a plugin can or cannot do, as data. `reason` says why, for a person choosing a plugin."""

    name: str
    value: bool | int | str
    reason: str


@dataclass(frozen=True)
class PluginContext:
    """What a plugin is given when it is opened. `home` is its own folder (mode 0700, may not exist yet)."""

    name: str
    network: Network
    home: Path
    world: World
    identity: Identity
    password: Callable[[], str]  # asked for only when needed; raises SecretError when there is none


@dataclass(frozen=True)
class Balance:
    """`available` can be spent now; `incoming` is final but not collected yet."""

    available: Amount
    incoming: Amount


@runtime_checkable
class Wallet(Protocol):
    """A payment rail, both sides of it. Every call may raise UnavailableError; none rounds unknown to failed.

    Amounts are in `unit`. A call that names a job, an invoice or a key may be repeated and continues where it was.
    """

    rail: str
    unit: str

    async def open(self) -> None:
        """Open stores, check the network (NetworkMismatchError), start background work. Called once."""

    async def close(self) -> None:
        """Stop background work; safe to call twice."""

    async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
        """A fresh place to be paid for `job_id`. Its mapping is durable before this returns; the same job gets the same invoice again."""

    async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
        """The only call that may take funds: look up (Nano), swap (bearer tokens), place a hold (prepaid). Journalled, repeatable.

        `proof` is what the payer submitted: a hint, or the bearer token itself; never believed unchecked.
        """

    async def status(self, invoice: Invoice) -> PaymentStatus:
        """As `settle`, reading only."""

    def watch(self) -> AsyncIterator[str]:
        """Invoice ids that may have changed, of all invoices issued and not forgotten. Hints: may be late, doubled or lost."""

    async def forget(self, invoice: Invoice) -> None:
        """No hints for this invoice any more. Its funds and mapping stay."""

    def check(self, invoice: Invoice) -> None:
        """Before paying a stranger's invoice: address, network and unit are well-formed here, else raise UntrustedError.

        RefusedError where it is well-formed and this wallet can never pay it (no mint in common); another of the quote's invoices is tried then.
        """

    def check_address(self, address: str) -> str:
        """The canonical form of a payable address on this network, or raise UsageError naming what is wrong."""

    async def pay(self, invoice: Invoice, key: str) -> Proof:
        """Pay once per `key`, however often called. The payment is journalled before it leaves. Returns as soon as it is published.

        Raises RefusedError only while nothing was signed for `key` (no money moved and none will).
        """

    async def paid(self, key: str) -> Proof | None:
        """What is known of the payment made under `key`; None when nothing was ever signed for it."""

    async def conclude(self, payment: Payment, invoice: Invoice, outcome: Literal["delivered", "failed"]) -> None:
        """Capture or release a hold; nothing on other rails."""

    async def refund(self, payment: Payment, invoice: Invoice, to: str, amount: Amount, key: str) -> Proof:
        """Send `amount` back to `to`, once per `key`, out of what `invoice` received."""

    async def address(self) -> str:
        """Where this wallet itself can be funded and refunded."""

    async def balance(self) -> Balance: ...

    async def collect(self) -> int:
        """Receive and sweep what came in to where it can be spent. Returns how many transfers were made."""


@dataclass(frozen=True)
class Changes:
    """Jobs changed since a cursor: at least once, never lost. Consumers deduplicate on (job_id, revision)."""

    jobs: tuple[Job, ...]
    cursor: str
    more: bool


@runtime_checkable
class Market(Protocol):
    """Where offers and jobs are exchanged, opened for one identity. Never trusted with money or truth.

    Mutating calls may be repeated with the same arguments and then answer as the first time. A step that the job's state
    does not allow raises StateError; somebody else's job raises NotFoundError or RefusedError.
    """

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def publish(self, document: SignedDocument) -> Offer:
        """Put up a signed offer; the same offer_id again replaces it (edits never change open jobs)."""

    async def withdraw(self, offer_id: str) -> None: ...

    async def offer(self, offer_id: str) -> Offer: ...

    async def search(self, query: str = "", tags: Sequence[str] = (), seller: str = "", limit: int = 20, offset: int = 0) -> list[Offer]:
        """Active offers, newest first. `query` is a case-insensitive substring of title or description."""

    async def request(self, document: SignedDocument) -> Job:
        """Open a job. The request's nonce makes it idempotent."""

    async def quote(self, job_id: str, document: SignedDocument) -> Job: ...

    async def decline(self, job_id: str, code: str, message: str) -> Job: ...

    async def accept(self, job_id: str) -> Job: ...

    async def submit_payment(self, job_id: str, rail: str, payment_id: str, token: str = "") -> Job:
        """A claim, not a proof: the seller's own check decides."""

    async def lock(self, job_id: str) -> Lock:
        """Take or renew. Raises StateError without a submitted payment."""

    async def deliver(self, job_id: str, delivery: Delivery, market_fence: int | None) -> Job: ...

    async def cancel(self, job_id: str, reason: str = "") -> Job: ...

    async def get(self, job_id: str) -> Job: ...

    async def find_request(self, nonce: str) -> Job | None:
        """The job opened by this identity's signed request with that nonce, if any."""

    async def changes(self, cursor: str, limit: int = 100) -> Changes:
        """Jobs of this identity, both sides; cursor "" starts at the beginning."""

    def events(self) -> AsyncIterator[str]:
        """Job ids that may have changed. Hints only; `changes` always reconciles."""


@runtime_checkable
class LimitedMarket(Protocol):
    """What a market has beside its contract where it cannot carry the quotes and claims of every rail."""

    async def carries(self, rail: str) -> bool:
        """Whether an invoice of this rail can stand in a quote here, beside others that it carries too."""


@runtime_checkable
class Examinable(Protocol):
    """What a market, a wallet or a backend may have beside its contract: a line of its own in `tradeskill doctor`."""

    async def examine(self) -> str:
        """What is found, for the owner to read; a TradeskillError says what is wrong, with the way out."""


@dataclass(frozen=True)
class Limits:
    """What one execution may use; the backend enforces them and says in its capabilities which it can."""

    seconds: float = 60.0
    memory: int = 256 * 2**20  # bytes
    output: int = 4 * 2**20  # bytes, stdout or all output files together
    cpu_seconds: float | None = None  # None: as `seconds`
    files: int = 256


@dataclass(frozen=True)
class Task:
    """What to run: a command with JSON on stdin, for one job of one offer. `folder` is where its program files live."""

    argv: tuple[str, ...]
    stdin: bytes
    folder: Path | None = None
    trusted: bool = False
    details: Mapping[str, Json] | None = None
    network: bool = False  # granted by the seller; without it an isolating backend gives none


ExecutionState = Literal["absent", "running", "finished", "failed", "lost"]


@dataclass(frozen=True)
class ExecutionStatus:
    """`absent`: this id was never started here. `lost`: it was, and it is proved dead without an outcome. `detail`: for the seller's log."""

    state: ExecutionState
    detail: str = ""
    code: str = ""  # failed: limit.time, limit.memory, limit.output, limit.processes, exit, output, stopped


@runtime_checkable
class Backend(Protocol):
    """Where a job's work runs. Executions are known by their id alone and outlive the worker that started them."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def start(self, execution_id: str, task: Task, limits: Limits) -> Literal["run", "service"]:
        """Create if absent: a second start of the same id changes nothing. RefusedError where the task may not run here."""

    async def status(self, execution_id: str) -> ExecutionStatus: ...

    async def wait(self, execution_id: str, seconds: float) -> ExecutionStatus:
        """As `status`, after the execution ended or `seconds` passed, whichever is first."""

    async def result(self, execution_id: str) -> Result:
        """Collected output of a finished execution; hostile, so checked. Repeatable until `remove`."""

    async def stop(self, execution_id: str) -> None:
        """End it and everything it started; afterwards it is finished, failed or lost, never running."""

    async def remove(self, execution_id: str) -> None:
        """Drop all traces of an execution that ended. Safe to repeat."""

    async def list(self, owner: str) -> Sequence[str]:
        """Execution ids known here that `owner` started."""
