"""The payment rail `nano`: ties keys, chains, evidence and hints to the Wallet contract. The plugin's hooks are at the end.

It runs past 400 lines because it is the one place where the contract is answered; each answer is short and the work is done in the modules below it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Literal, TypeVar

from tradeskill.contracts import Balance, Capability, PluginContext
from tradeskill.errors import NotFoundError, RefusedError, SecretError, TradeskillError, UnavailableError, UntrustedError, UsageError
from tradeskill.hookspecs import hookimpl
from tradeskill.manifest import API, Manifest
from tradeskill.model import NETWORKS, Invoice, Json, Payment, PaymentStatus, Proof
from tradeskill.money import Amount, parse_raw
from tradeskill_wallet.chain import Chain
from tradeskill_wallet.evidence import Evidence, Question
from tradeskill_wallet.hints import Hints
from tradeskill_wallet.keys import EPOCHS, Keys, invoice_index
from tradeskill_wallet.primitives import BURN, decode_address, encode_address
from tradeskill_wallet.purse import Gate, Purse
from tradeskill_wallet.recovery import EMPTY_EPOCHS, Found, gap_scan, probe
from tradeskill_wallet.rpc import Nodes
from tradeskill_wallet.seedfile import create_seed, open_seed
from tradeskill_wallet.settings import NanoSettings, parse_settings
from tradeskill_wallet.settlement import judge
from tradeskill_wallet.store import AccountRow, BlockRow, IncomingRow, Rows, Store
from tradeskill_wallet.work import WorkSource

__all__ = ["NanoWallet", "tradeskill_capabilities", "tradeskill_create_wallet", "tradeskill_manifest", "tradeskill_open_wallet"]

log = logging.getLogger("tradeskill.nano")
T = TypeVar("T")

DUST: Final = 1000  # a send below 1/1000 of the invoice is not looked at: 10,000 of them must not hide the payment
TEND_SECONDS: Final = 5.0  # between looks at blocks that were published and not confirmed yet


class NanoWallet:
    """Both sides of the rail. Needs `seed.json` in its home (made by `create_seed`); keeps everything else in `wallet.db` beside it."""

    rail = "nano"
    unit = "raw"

    def __init__(self, settings: NanoSettings, context: PluginContext) -> None:
        self._settings, self._context = settings, context
        self._world, self._network = context.world, context.network
        self._seed: Keys | None = None
        self._unlocking = asyncio.Lock()
        self._collecting = asyncio.Lock()
        self._watched: dict[bytes, str] = {}  # account -> invoice id
        self._listeners: list[Hints] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = False

    # --- life

    async def open(self) -> None:
        self._store = Store(self._context.home / "wallet.db")
        self._nodes = Nodes(self._settings.rpc, self._network, self._world)
        self._is_open = True
        self._work = WorkSource(self._world, self._nodes, self._settings.work)
        self._chain = Chain(self._store, self._nodes, self._work, self._keys, self._world, self._network, self._settings.representative)
        self._evidence = Evidence(self._nodes, self._world)
        self._purse = Purse(self._store, self._chain, self._evidence, self._nodes, self._world, self._settings.accounts)
        try:
            await self._set_up()
            await self._nodes.check()
        except UnavailableError as error:
            log.warning("%s; what needs no node works meanwhile", error)
        except BaseException:
            await self.close()
            raise
        self._watched = {row.account: encode_address(row.account) for row in self._store.rows.invoices(watched=True)}
        self._spawn(self._tend)

    async def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        for hints in self._listeners:
            hints.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._work.close()
        await self._nodes.close()
        self._store.close()

    # --- selling

    async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
        self._check_amount(amount)
        row = self._store.rows.account_of_job(job_id)
        while row is None or row.invoice is None:
            row = await self._issue(job_id, amount, expires_at)
        invoice = _invoice(row.invoice)
        if row.account not in self._watched and not row.forgotten:
            self._watched[row.account] = invoice.invoice_id
            self._tell_listeners()
        return invoice

    async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
        account, status = await self._look(invoice, proof)
        known = {row.hash for row in self._store.rows.incoming(account)}
        new = [IncomingRow(p.payment_id, account, p.amount.value, p.sender, p.received_at) for p in status.payments if p.payment_id not in known]
        if new:
            await self._write(partial(_remember, new))
        return status

    async def status(self, invoice: Invoice) -> PaymentStatus:
        return (await self._look(invoice, None))[1]

    async def watch(self) -> AsyncIterator[str]:
        hints = Hints(self._settings.ws, self._world, lambda: set(self._watched))
        self._listeners.append(hints)
        try:
            async for account in hints.listen():
                if (invoice_id := self._watched.get(account)) is not None:
                    yield invoice_id
        finally:
            self._listeners.remove(hints)

    async def forget(self, invoice: Invoice) -> None:
        account = self._own(invoice)
        await self._write(partial(_forget, account))
        if self._watched.pop(account, None) is not None:
            self._tell_listeners()

    async def conclude(self, payment: Payment, invoice: Invoice, outcome: Literal["delivered", "failed"]) -> None:
        return None  # final money needs no capture and no release

    async def refund(self, payment: Payment, invoice: Invoice, to: str, amount: Amount, key: str) -> Proof:
        account, target = self._own(invoice), decode_address(self.check_address(to))
        self._check_amount(amount)
        purpose = f"refund:{key}"
        if self._store.rows.by_purpose(purpose) is None:
            if self._store.rows.account(target) is not None:
                raise UsageError(f"refund to {to}: that is this wallet's own account; give the buyer's address")
            row = next((row for row in self._store.rows.incoming(account) if row.hash == payment.payment_id), None)
            if row is None:
                raise NotFoundError(f"payment {payment.payment_id} is not known to have reached {invoice.address}: settle the invoice first")
            if amount.value > row.amount:
                raise RefusedError(f"refund of {amount.value} raw is more than payment {payment.payment_id} brought ({row.amount} raw)")
        return await self._continue(purpose, lambda: self._purse.refund(account, purpose, target, amount.value))

    # --- paying

    def check(self, invoice: Invoice) -> None:
        if (invoice.rail, invoice.network, invoice.amount.unit) != (self.rail, self._network, self.unit):
            raise UntrustedError(
                f"invoice {invoice.invoice_id!r} is for {invoice.rail}/{invoice.network} in {invoice.amount.unit}, "
                f"this wallet is {self.rail}/{self._network} in {self.unit}"
            )
        if invoice.amount.value < 1:
            raise UntrustedError(f"invoice {invoice.invoice_id!r} asks for nothing")
        try:
            canonical = self.check_address(invoice.address)
        except UsageError as error:
            raise UntrustedError(f"invoice {invoice.invoice_id!r}: {error}") from error
        if canonical != invoice.address:
            raise UntrustedError(f"invoice {invoice.invoice_id!r}: address {invoice.address} is not written as {canonical}")

    def check_address(self, address: str) -> str:
        account = decode_address(address)
        if account == BURN:
            raise UsageError(f"address {address} is the burn account: nobody could ever spend what is sent there")
        return encode_address(account)

    async def pay(self, invoice: Invoice, key: str) -> Proof:
        self.check(invoice)
        to, amount = decode_address(invoice.address), invoice.amount.value
        return await self._continue(f"pay:{key}", lambda: self._pay("pay", f"pay:{key}", to, amount))

    async def paid(self, key: str) -> Proof | None:
        row = self._store.rows.by_purpose(f"pay:{key}")
        return None if row is None else _proof(await self._chain.look(row))

    # --- the wallet's own money

    async def address(self) -> str:
        return encode_address(self._purse.mains()[0].account)

    async def balance(self) -> Balance:
        available, incoming = await self._purse.balance()
        return Balance(Amount(available, self.unit), Amount(incoming, self.unit))

    async def collect(self) -> int:
        """Receive what waits for the main accounts, then receive and sweep what invoices were paid. Call again after it confirmed to finish."""
        async with self._collecting:
            await self._chain.flush_all()
            await self._chain.confirm()
            return await self.receive() + await self.sweep()

    async def receive(self) -> int:
        """Receive final sends waiting for the main accounts, largest first. Returns how many receive blocks were made."""
        await self._chain.flush_all()  # what an interrupted call stored is finished first
        return await self._purse.receive()

    async def sweep(self, to: str | None = None, gate: Gate | None = None) -> int:
        """Bring what paid invoices hold to the first main account, or to `to`. Returns how many blocks were made. Safe to repeat.

        `gate` stands around each send, under its purpose and with its amount.
        """
        await self._chain.flush_all()
        return await self._purse.sweep(None if to is None else decode_address(self.check_address(to)), gate)

    def owns(self, address: str) -> bool:
        """Whether money sent there stays in this wallet."""
        return self._store.rows.account(decode_address(self.check_address(address))) is not None

    def signed(self, purpose: str) -> bool:
        """Whether a block was ever stored under this purpose (`send:KEY`, `sweep:…`): only what is stored is published."""
        return self._store.rows.by_purpose(purpose) is not None

    async def send(self, address: str, amount: Amount, key: str) -> Proof:
        """Send from the main accounts to any address, once per `key`. RefusedError while nothing was signed for it."""
        to = decode_address(self.check_address(address))
        self._check_amount(amount)
        return await self._continue(f"send:{key}", lambda: self._pay("send", f"send:{key}", to, amount.value))

    async def spread(self, key: str) -> int:
        """Share the first main account's money evenly with the other spending accounts, once per `key`. Returns how many sends were made."""
        return await self._purse.spread(key)

    # --- after a restore

    async def scan(self, gap: int = 20) -> list[Found]:
        """Every account of this seed that the ledger knows. Money found on invoices we have no record of is put up for `collect`."""
        keys = await self._keys()
        found = await gap_scan(self._nodes, keys, gap)
        for item in found:
            if not item.main:
                if self._store.rows.account(item.account) is None:
                    await self._write(partial(_add_found, item))
                await self._chain.sync(item.account, whole=True)
                row = self._store.rows.account(item.account)
                if row is not None and row.kind == "found":  # an invoice with a job is settled by its owner, with its times
                    await self._purse.remember_sends(item.account)
        return found

    async def restore(self, gap: int = 20) -> list[Found]:
        """After a seed or a backup was restored: scan, then hand out invoices from a new epoch of indexes, so that none is ever reused."""
        found = await self.scan(gap)
        await self.new_epoch(max((item.epoch for item in found), default=0))
        return found

    async def new_epoch(self, highest_used: int = 0) -> int:
        """Hand out new invoices from an epoch that was never used here or, as far as known, elsewhere. Returns it."""
        step = 1 + self._world.random_bytes(1)[0] % (EMPTY_EPOCHS - 2)

        def change() -> int:
            with self._store.write() as rows:
                epoch = max(int(rows.meta("epoch") or 0), highest_used) + step
                if epoch >= EPOCHS:
                    raise RefusedError("the seed's index range is used up: create a new seed")
                rows.set_meta("epoch", str(epoch))
                return epoch

        return await self._world.offload(change)

    # --- below: what the answers above are made of

    async def _set_up(self) -> None:
        """First opening: network and main accounts. A wallet.db that was copied or restored begins a new epoch of indexes."""
        rows = self._store.rows
        network = rows.meta("network")
        if network is not None and network != self._network:
            raise SecretError(f"{self._store.path} belongs to network {network!r}, this profile is on {self._network!r}: the networks never mix")
        if network is None or len(rows.mains()) < self._settings.accounts:
            keys = await self._keys()
            await self._write(partial(_set_up, keys, self._network, self._settings.accounts))
        identity = str(self._store.path.stat().st_ino)
        if rows.meta("file") != identity:
            if rows.meta("file") is not None and rows.invoices(watched=False):
                epoch = await self.new_epoch()
                log.warning("%s was copied or restored: new invoices use epoch %d; do not run two copies at once", self._store.path, epoch)
            await self._write(partial(_set_meta, "file", identity))

    async def _keys(self) -> Keys:
        """The seed, asked for once; SecretError when it is not the one this wallet was made with."""
        async with self._unlocking:
            if self._seed is None:
                path, password = self._context.home / "seed.json", self._context.password
                keys = Keys(await self._world.offload(lambda: open_seed(path, self._network, password())))
                mains = self._store.rows.mains()
                if mains and keys.account(0) != mains[0].account:
                    raise SecretError(f"{path} holds another seed than the one {self._store.path} was made with: restore the right one")
                self._seed = keys
            return self._seed

    async def _issue(self, job_id: str, amount: Amount, expires_at: int) -> AccountRow | None:
        """Reserve an index, see that the ledger never saw it, make the mapping durable. None when it was used: try the next one."""
        row = await self._world.offload(partial(self._reserve, await self._keys(), job_id))
        address = encode_address(row.account)
        if await probe(self._nodes, [(row.index, row.account)]):
            log.warning("address %s (index %d) was used before and is skipped: was a backup restored?", address, row.index)
            await self._write(partial(_burn, row.index))
            return None
        with self._world.step("seller.index-reserved"):
            await self._write(partial(_issue, row.index, Invoice(self.rail, self._network, address, job_id, address, amount, expires_at)))
        return self._store.rows.account_of_job(job_id)

    def _reserve(self, keys: Keys, job_id: str) -> AccountRow:
        with self._store.write() as rows:
            row = rows.account_of_job(job_id)
            if row is None:
                epoch = int(rows.meta("epoch") or 0)
                highest = rows.highest_index(epoch)
                index = invoice_index(epoch, 0 if highest is None else highest + 1 - invoice_index(epoch, 0))
                rows.add_account(index, keys.account(index), epoch, "reserved", job_id)
                row = rows.account_of_job(job_id)
            assert row is not None
            return row

    async def _look(self, invoice: Invoice, proof: str | None) -> tuple[bytes, PaymentStatus]:
        account = self._own(invoice)
        many = self._settings.two_node_threshold
        needed = self._settings.confirmations_from if many is not None and invoice.amount.value > many else 1
        dust = max(1, invoice.amount.value // DUST)
        known = [Payment(row.hash, Amount(row.amount, self.unit), row.received_at, row.sender) for row in self._store.rows.incoming(account)]
        last = self._store.rows.last_confirmed()
        self._evidence.landmark = last.block.hash_hex if last else None
        for fresh in (True, False):
            extra = frozenset(source.hex().upper() for source in self._store.rows.received_sources(account)) | ({proof.upper()} if proof else set())
            question = Question(account, dust, extra, frozenset(p.payment_id for p in known))
            answers = await self._evidence.gather(question, needed)
            status = judge(invoice, answers, now_ms=self._world.now_ms(), needed=needed, known=known)
            if status.state == "unknown" and len(answers) < len(self._settings.rpc):
                answers += await self._evidence.more(question, answers)
                status = judge(invoice, answers, now_ms=self._world.now_ms(), needed=needed, known=known)
            if not fresh or status.state not in ("none", "pending", "partial"):
                break
            try:  # a payment that another copy of this wallet received is not receivable any more: its receive names it
                if not await self._chain.sync(account, whole=True):
                    break
            except UnavailableError as error:
                return account, PaymentStatus("unknown", status.payments, detail=str(error))
        return account, status

    def _own(self, invoice: Invoice) -> bytes:
        try:
            account = decode_address(invoice.address)
        except UsageError as error:
            raise NotFoundError(f"invoice {invoice.invoice_id!r} is not of this wallet: {error}") from error
        row = self._store.rows.account(account)
        if row is None or row.kind == "main" or (row.job_id is not None and row.job_id != invoice.job_id):
            raise NotFoundError(f"invoice {invoice.invoice_id!r} of job {invoice.job_id!r} was not issued by this wallet")
        return account

    async def _continue(self, purpose: str, act: Callable[[], Awaitable[BlockRow]]) -> Proof:
        """Carry on with a purpose; after it was once signed, trouble means unknown and is never raised as if nothing had happened."""
        before = self._store.rows.by_purpose(purpose)
        try:
            row = await act()
        except UnavailableError:
            signed = self._store.rows.by_purpose(purpose)
            if signed is None:
                raise
            return Proof(signed.block.hash_hex, "unknown")
        if before is not None:
            row = await self._chain.look(row)
        return _proof(row)

    async def _pay(self, kind: str, purpose: str, to: bytes, amount: int) -> BlockRow:
        row = await self._purse.spend(kind, purpose, to, amount)
        self._spawn(partial(self._chain.prepare, row.block.account))
        return row

    async def _tend(self) -> None:
        """Publish what a crash left unpublished and notice confirmations; hints and calls do the same sooner."""
        while True:
            try:
                await self._chain.flush_all()
                await self._chain.confirm()
            except UnavailableError as error:
                log.info("%s; trying again in %.0f s", error, TEND_SECONDS)
            except TradeskillError as error:
                log.warning("%s", error)
            await self._world.sleep(TEND_SECONDS)

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            with contextlib.suppress(UnavailableError):
                await work()

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell_listeners(self) -> None:
        for hints in self._listeners:
            hints.changed()

    def _check_amount(self, amount: Amount) -> None:
        if amount.unit != self.unit or amount.value < 1:
            raise UsageError(f"amount {amount.value} {amount.unit} cannot move on the rail nano: it must be 1 raw or more, in raw")

    async def _write(self, change: Callable[[Rows], None]) -> None:
        def work() -> None:
            with self._store.write() as rows:
                change(rows)

        await self._world.offload(work)


def _proof(row: BlockRow) -> Proof:
    match row.state:
        case "confirmed":
            return Proof(row.block.hash_hex, "final")
        case "published":
            return Proof(row.block.hash_hex, "published")
        case _:  # signed and perhaps on its way; or lost its place and is to be signed again
            return Proof(row.block.hash_hex, "unknown")


def _invoice_json(invoice: Invoice) -> dict[str, Json]:
    return {
        "rail": invoice.rail,
        "network": invoice.network,
        "invoice_id": invoice.invoice_id,
        "job_id": invoice.job_id,
        "address": invoice.address,
        "amount": str(invoice.amount.value),
        "expires_at": str(invoice.expires_at),
    }


def _invoice(value: Mapping[str, Json]) -> Invoice:
    text = {key: str(field) for key, field in value.items()}
    network = next(n for n in NETWORKS if n == text["network"])
    amount = Amount(parse_raw(text["amount"]), "raw")
    return Invoice(text["rail"], network, text["invoice_id"], text["job_id"], text["address"], amount, int(text["expires_at"]))


def _set_up(keys: Keys, network: str, accounts: int, rows: Rows) -> None:
    have = {row.index for row in rows.mains()}
    for index in range(accounts):
        if index not in have:
            rows.add_account(index, keys.account(index), 0, "main")
    rows.set_meta("network", network)


def _issue(index: int, invoice: Invoice, rows: Rows) -> None:
    rows.issue(index, _invoice_json(invoice))


def _burn(index: int, rows: Rows) -> None:
    rows.burn(index)


def _remember(payments: Sequence[IncomingRow], rows: Rows) -> None:
    for payment in payments:
        rows.add_incoming(payment)


def _forget(account: bytes, rows: Rows) -> None:
    rows.forget(account)


def _set_meta(key: str, value: str, rows: Rows) -> None:
    rows.set_meta(key, value)


def _add_found(item: Found, rows: Rows) -> None:
    if rows.account(item.account) is None:
        rows.add_account(item.index, item.account, item.epoch, "found")


# --- the plugin


tradeskill_api = API


@hookimpl
def tradeskill_manifest() -> Manifest:
    return Manifest(
        hosts=("the nodes in `rpc` and `ws`",),
        secrets=("the wallet's seed, in a file encrypted with the profile's password",),
        spends=("Nano that the wallet holds",),
    )


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    return (
        Capability("push_to_address", True, "the payer sends to a fresh account; nothing is handed over"),
        Capability("splits", True, "several sends to one account add up"),
        Capability("final_after_seconds", 1, "typically; one account's chain confirms about 8 blocks a second"),
        Capability("fees", False, "a transfer costs work instead of money"),
        Capability("refunds", True, "a refund is a send of its own, out of the invoice's account while the money is there"),
    )


@hookimpl
def tradeskill_open_wallet(settings: Mapping[str, Json], context: PluginContext) -> NanoWallet:
    return NanoWallet(parse_settings(settings), context)


@hookimpl
def tradeskill_create_wallet(settings: Mapping[str, Json], context: PluginContext, secret: bytes) -> None:
    parse_settings(settings)
    create_seed(context.home / "seed.json", context.network, context.password(), context.world.random_bytes, secret)
