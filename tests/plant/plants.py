"""The bugs. Each is a small change of one shipped file, and says who must catch it: the simulation, or named tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["PLANTS", "Plant"]

SELLER: Final = "core/tradeskill/seller"
JOURNAL: Final = "core/tradeskill/journal"
POLICY: Final = "core/tradeskill/policy"
BUYER: Final = "core/tradeskill/buyer.py"
WALLET: Final = "wallet/tradeskill_wallet"


@dataclass(frozen=True)
class Plant:
    """`old` stands exactly once in `file` and becomes `new`. `tests`: of these one must fail; none: the simulation must find it, from seed `first` on."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    first: int = 0


PLANTS: Final = (
    # the seller and its journal
    Plant(
        "no-fence",
        f"{JOURNAL}/selling.py",
        '    where = " AND ".join(f"{name} = ?" for name in (*key',
        '    fence = None\n    where = " AND ".join(f"{name} = ?" for name in (*key',
    ),
    Plant("normal-sync", "core/tradeskill/sqlite.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"),
    Plant(
        "quote-sent-before-it-is-stored",
        f"{SELLER}/quoting.py",
        '        with self._shop.world.step("seller.quote-stored"):',
        '        await self._shop.market.quote(job_id, document)\n        with self._shop.world.step("seller.quote-stored"):',
    ),
    Plant(
        "started-before-recorded",
        f"{SELLER}/executing.py",
        '        with self._shop.world.step("seller.start-intent"):\n            return await self._shop.journal.write(start)',
        '        listing = self._shop.listings[row.offer_name]\n'
        "        task = self._task(listing, request_of(row), row)\n"
        "        await self._shop.backends[listing.backend].start(execution_id(row.job_id, row.attempt + 1), task, listing.limits)\n"
        '        with self._shop.world.step("seller.start-intent"):\n            return await self._shop.journal.write(start)',
    ),
    Plant(
        "execution-named-by-fence",
        f"{SELLER}/executing.py",
        "            execution = row.execution_id or execution_id(row.job_id, row.attempt)",
        "            execution = execution_id(row.job_id, row.fence)",
    ),
    Plant(
        "money-back-for-what-may-have-run",
        f"{SELLER}/executing.py",
        "            if fence is None or (row.state",
        "            if fence is not None and (row.state",
        ("tests/test_flow_strangers.py",),
    ),
    Plant(
        "asked-and-forgotten",
        f"{SELLER}/executing.py",
        "                self._check_mine(row)\n                self._unasked.pop(row.job_id, None)",
        "                self._check_mine(row)",
        ("tests/test_flow_strangers.py",),
    ),
    Plant("wallet-given-up", f"{SELLER}/worker.py", 'if error.details.get("kind") != "Backend":', "if False:", ("tests/test_flow_strangers.py",)),
    Plant("one-wallet-stops-all", f"{SELLER}/worker.py", "[self._take_note(job) for", "[self.observe(job) for", ("tests/test_flow_strangers.py",)),
    Plant("a-backend-fills-the-room", f"{SELLER}/executing.py", "asyncio.Semaphore(1))", "self._room)", ("tests/test_flow_strangers.py",)),
    Plant("call-without-end", "core/tradeskill/pluginruns.py", "asyncio.wait({task}, timeout=seconds)", "asyncio.wait({task})", ("tests/test_guard.py",)),
    Plant("impure-work-repeated", f"{SELLER}/executing.py", "if listing.pure and row.attempt <", "if row.attempt <"),
    Plant("start-forgotten-too-early", f"{SELLER}/executing.py", "            if not row.contested:", "            if True:", first=3000),
    Plant("float-sum", f"{JOURNAL}/spending.py", "    value = total(tx, name) + by\n", "    value = int(float(total(tx, name)) + float(by))\n"),
    Plant("float-allocation", "core/tradeskill/allocation.py", "        missing -= used\n", "        missing = int(float(missing) - float(used))\n"),
    Plant("excess-forgotten", "core/tradeskill/allocation.py", "        if rest:\n", "        if rest < 0:\n"),
    Plant(
        "payment-allocated-twice",
        f"{JOURNAL}/selling.py",
        'if row.state == "found" and row.invoice_id == invoice.invoice_id}',
        "if row.invoice_id == invoice.invoice_id}",
    ),
    Plant(
        "refund-to-the-sender",
        f"{SELLER}/settling.py",
        "        selling.allocate_found(tx, invoice, allocation, refund_to, now)\n",
        "        selling.allocate_found(tx, invoice, allocation, found[0].sender if found else None, now)\n",
    ),
    Plant("refund-key-by-time", f"{SELLER}/settling.py", "row.refund_to, amount, row.key)", 'row.refund_to, amount, f"{row.key}-{now}")'),
    Plant(
        "a-lying-wallet-is-believed",
        f"{SELLER}/settling.py",
        "invoice {invoice.invoice_id}\")\n    return status\n",
        "invoice {invoice.invoice_id}\")\n"
        '    if status.state == "paid" and not status.payments:\n'
        "        from tradeskill.model import Payment\n"
        '        return PaymentStatus("paid", (Payment(f"said of {invoice.invoice_id}", invoice.amount, 1),))\n'
        "    return status\n",
    ),
    # several rails
    Plant(
        "both-invoices-pay",
        f"{SELLER}/settling.py",
        "            row.state, invoice.amount.value, found, late",
        '            "quoted" if row.state == "paid" else row.state, invoice.amount.value, found, late',
    ),
    Plant(
        "refund-by-another-rail",
        f"{SELLER}/settling.py",
        "refund_to = request_of(row).refund_to.get(invoice.rail)",
        'refund_to = next(iter(request_of(row).refund_to.values()), None)',
    ),
    Plant(
        "one-rail-down-hides-the-others",
        f"{SELLER}/settling.py",
        "        except TradeskillError as error:\n            return error\n",
        "        except TradeskillError:\n            raise\n",
        ("tests/test_flow_rails.py::test_one_rail_down_hides_no_payment_on_the_other",),
    ),
    Plant(
        "expired-while-a-rail-is-down",
        f"{SELLER}/settling.py",
        "        sure = sure and all(",
        "        sure = all(",
        ("tests/test_flow_rails.py::test_a_job_does_not_expire_while_one_of_its_rails_cannot_be_asked",),
    ),
    Plant(
        "minimum-across-units",
        "core/tradeskill/allocation.py",
        "terms.refund_minimum.get(amount.unit, 0)",
        "max(terms.refund_minimum.values(), default=0)",
        ("tests/test_flow_rails.py::test_a_minimum_for_refunds_in_one_unit_keeps_nothing_in_another",),
    ),
    Plant(
        "refused-rail-picked",
        "core/tradeskill/choosing.py",
        "ranks.append((refused, ",
        "ranks.append((False, ",
        ("tests/test_flow_rails.py::test_the_policy_picks_the_rail",),
    ),
    Plant(
        "a-claim-is-believed",
        f"{SELLER}/worker.py",
        '            self._settle_soon(job.job_id)\n        elif row.state in ("paid", "executed"):',
        '            await self._shop.journal.write(lambda tx: selling.move_fulfilment(tx, job.job_id, "pay", 1, paid_at=1))\n'
        '        elif row.state in ("paid", "executed"):',
    ),
    Plant(
        "effect-done-before-it-ran",
        f"{SELLER}/worker.py",
        "                again = await self._effects[effect.name](effect.subject_id)\n                if again is None:",
        "                await self._shop.journal.write(partial(selling.effect_done, effect_id=effect.effect_id))\n"
        "                again = await self._effects[effect.name](effect.subject_id)\n                if again is None:",
    ),
    Plant(
        "refunded-though-perhaps-delivered",
        f"{SELLER}/executing.py",
        'maybe = row.state == "executed" and not never',
        "maybe = False",
        ("tests/test_flow_worker.py::test_a_result_that_may_have_been_seen_is_not_paid_back_without_its_owner",),
    ),
    # the buyer and its policy
    Plant(
        "signed-again-on-retry",
        BUYER,
        "            proof = await wallet.pay(read_invoice(purchase.invoice), purchase.purchase_id)",
        '            proof = await wallet.pay(read_invoice(purchase.invoice), f"{purchase.purchase_id}{self._world.now_ms()}")',
    ),
    Plant(
        "unverified-quote",
        "core/tradeskill/signing.py",
        "        VerifyKey(bytes.fromhex(document.key)).verify(",
        '        kind == "quote" or VerifyKey(bytes.fromhex(document.key)).verify(',
    ),
    Plant(
        "unverified-request",
        "core/tradeskill/signing.py",
        "        VerifyKey(bytes.fromhex(document.key)).verify(",
        '        kind == "request" or VerifyKey(bytes.fromhex(document.key)).verify(',
    ),
    Plant(
        "receipt-unchecked",
        "core/tradeskill/agreement.py",
        '        if found != wanted:\n            raise UntrustedError(f"receipt for job',
        '        if found is None:\n            raise UntrustedError(f"receipt for job',
    ),
    Plant(
        "reservation-released-on-unknown",
        BUYER,
        '        if proof.state == "unknown":\n            raise',
        '        if proof.state == "unknown":\n'
        '            await self._give_up(purchase, "release", "unknown", "not published")\n'
        '            return\n        if proof.state == "nothing":\n            raise',
    ),
    Plant("cap-unchecked", f"{POLICY}/gate.py", "    if not caps.in_total or replaced:\n", "    if True:\n"),
    Plant(
        "window-forgotten",
        f"{POLICY}/gate.py",
        "            by[kind] = spending.within(connection, clock - span)\n",
        "            by[kind] = spending.within(connection, clock)\n",
        ("tests/test_policy_model.py::test_what_is_reserved_is_what_the_model_allows",),
    ),
    Plant(
        "ancestor-not-debited",
        f"{POLICY}/gate.py",
        "    for grant in lineage(tx, grant_id):\n        spending.change_budget",
        "    for grant in lineage(tx, grant_id)[:1]:\n        spending.change_budget",
        ("tests/test_policy_model.py::test_what_is_reserved_is_what_the_model_allows",),
    ),
    Plant(
        "clock-set-back-frees",
        f"{JOURNAL}/spending.py",
        '    return max(now, int(meta(connection, "spending.clock") or "0"))\n',
        "    return now\n",
        ("tests/test_policy_windows.py::test_a_clock_set_back_frees_nothing",),
    ),
    Plant(
        "older-policy-obeyed",
        f"{POLICY}/gate.py",
        "    if looser:\n        older",
        "    if not serial:\n        older",
        ("tests/test_policy_owner.py::test_an_older_signed_policy_put_back_stops_spending",),
    ),
    Plant(
        "release-not-logged",
        f"{POLICY}/gate.py",
        '        spendlog.append(tx, "returned" if held.state == "committed" else "released", held, clock)\n',
        "",
    ),
    # the wallet
    Plant(
        "bool-of-the-string-false",
        f"{WALLET}/settlement.py",
        'seen.info.get("confirmed") == "true"',
        'bool(seen.info.get("confirmed"))',
        ("tests/test_wallet_settlement.py::test_only_exactly_the_string_true_is_confirmed",),
    ),
    Plant(
        "mapping-stored-after-the-address-left",
        f"{WALLET}/nano.py",
        '        with self._world.step("seller.index-reserved"):\n            await',
        '        with self._world.step("seller.index-reserved"):\n            pass\n        if True:\n            await',
        ("tests/test_wallet_nano.py::test_the_mapping_is_durable_before_the_address_leaves",),
    ),
    Plant(
        "address-reused",
        f"{WALLET}/nano.py",
        "        if await probe(self._nodes, [(row.index, row.account)]):",
        "        if False:",
        ("tests/test_wallet_nano.py::test_an_address_the_ledger_saw_before_is_skipped",),
    ),
    Plant("no-subtype", f"{WALLET}/chain.py", "subtype=row.subtype, block=", "block=", ("tests/test_wallet_nano.py::test_every_block_says_its_subtype",)),
    Plant(
        "wallet-signs-again-on-retry",
        f"{WALLET}/nano.py",
        'self._pay("pay", f"pay:{key}", to, amount)',
        'self._pay("pay", f"pay:{key}:{self._world.now_ms()}", to, amount)',
        ("tests/test_wallet_nano.py::test_a_block_the_node_dropped_is_published_again_as_the_same_bytes",),
    ),
    Plant(
        "wallet-normal-sync",
        f"{WALLET}/store.py",
        "synchronous = FULL",
        "synchronous = NORMAL",
        ("tests/test_wallet_store.py::test_the_disk_settings_are_those_that_survive_a_power_cut",),
    ),
    # others' plugins
    Plant(
        "others-payment-plugin-unasked",
        "core/tradeskill/opening.py",
        "    if plugin.shipped:\n        return\n    names",
        "    if plugin.name:\n        return\n    names",
        ("tests/test_plugin_trust.py::test_a_profile_opens_no_wallet_and_makes_none_before_it_is_allowed",),
    ),
    Plant(
        "changed-files-allowed-by-their-old-hash",
        "core/tradeskill/records.py",
        "decode() != file.hash.value",
        "decode() == file.hash.mode",
        ("tests/test_plugin_trust.py::test_a_file_changed_after_it_was_installed_is_found",),
    ),
    Plant(
        "a-plugins-trouble-called-refused",
        "core/tradeskill/guard.py",
        'raise BrokenPluginError(f"{self._who}: {what}", plugin=self._who, kind=self._kind) from error',
        'raise RefusedError(f"{self._who}: {what}", plugin=self._who, kind=self._kind) from error',
        ("tests/test_guard.py::test_whatever_a_call_raises_is_unknown_with_the_plugins_name",),
    ),
    Plant(
        "replaced-checks-let-in",
        "core/tradeskill/testing/clauses.py",
        "            if inspect.getattr_static(kind, name, None) is not item:",
        "            if getattr(kind, name, None) is None:",
        ("tests/test_kit.py::test_clauses_come_in_the_order_of_their_numbers_and_only_the_contract_itself_may_give_them",),
    ),
)
