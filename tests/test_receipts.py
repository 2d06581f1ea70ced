"""Receipt chains: one stands when every link holds, and falls by any changed byte; who signed what is checked again by somebody who knows only the file.

Past 400 lines because it is one catalogue of what a chain can be made to say, over one trade.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import PATIENCE, Home
from tests.rig import Rig, at_work
from tradeskill.agreement import read_offer, read_request, sign_receipt
from tradeskill.buyer import BuyerSettings
from tradeskill.errors import InputError, NotFoundError, RefusedError, StateError, TradeskillError, UntrustedError, UsageError
from tradeskill.faces.receipts import MAX_CHAIN, chain_bytes, documents_of, file_name, verify_bytes, verify_chain
from tradeskill.journal import Database, FileBlobs, Purchase
from tradeskill.model import Job, Json, Result, SignedDocument
from tradeskill.money import Amount
from tradeskill.signing import Identity, canonical, digest, document_hash, document_to_json
from tradeskill.sqlite import connector
from tradeskill.testing.virtual_time import run_virtual
from tradeskill.world import World

SELLER, BUYER = Identity(b"s" * 32), Identity(b"b" * 32)  # as the rig has them


@dataclass
class Trade:
    """One job bought and sold, another taken without a receipt, in two profiles on disk."""

    buyer: Home
    seller: Home
    purchase: Purchase
    unverified: Purchase
    documents: dict[str, SignedDocument]
    result: bytes

    def chain(self, **changes: SignedDocument | None) -> bytes:
        """With other documents, or without one."""
        found = {name: document for name, document in {**self.documents, **changes}.items() if document is not None}
        return chain_bytes(found)

    def resealed(self, kind: str, changes: Mapping[str, Json], identity: Identity | None = None) -> bytes:
        """The chain with a changed document that its own signer signs again."""
        body = {name: value for name, value in {**self.documents[kind].body, **changes}.items() if value != "GONE"}
        return self.chain(**{kind: (identity or (BUYER if kind in ("request", "countersign") else SELLER)).sign(kind, body)})


def home_of(folder: Path, name: str) -> Home:
    """A profile that can be looked into; it has no secret."""
    (folder / name).mkdir(mode=0o700)
    (folder / name / "config.yaml").write_text(json.dumps({"network": "dev", "market": {"plugin": "embedded", "path": "market.db"}}))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRADESKILL_")}
    return Home(folder / name, {**environment, "TRADESKILL_HOME": str(folder / name)})


@pytest.fixture(scope="module")
def trade(tmp_path_factory: pytest.TempPathFactory) -> Trade:
    folder = tmp_path_factory.mktemp("receipts")
    homes = {name: home_of(folder, name) for name in ("buyer", "seller")}

    async def main() -> tuple[Purchase, Purchase, bytes]:
        rig = Rig(buyer_settings=BuyerSettings(missing_receipts=True))
        for name, disk in (("buyer", rig.buyer_disk), ("seller", rig.seller_disk)):
            disk.connect = connector(folder / name / "journal.db", "the journal")
            disk.blobs = FileBlobs(folder / name / "results")  # type: ignore[assignment]  # keeps the same promises on disk
        async with at_work(await rig.seller()):
            buyer = await rig.buyer()
            first = await rig.hire(buyer)
            market = await rig.market("buyer")
            get = market.get

            async def forgetful(job_id: str) -> Job:
                return replace(await get(job_id), receipt=None)

            market.get = forgetful  # type: ignore[method-assign]  # a market that loses receipts
            other = await rig.buyer(market=market, fund=0)
            second = await rig.hire(other, "http://b/")
            await buyer.close()
            await other.close()
        return first, second, buyer.result(first)

    purchase, unverified, result = run_virtual(main())
    journal = opened(homes["buyer"])
    documents, _ = journal.read(lambda c: documents_of(c, purchase.purchase_id))
    asyncio.run(journal.close())
    assert (purchase.state, unverified.state, unverified.receipt) == ("received", "received", None)
    return Trade(homes["buyer"], homes["seller"], purchase, unverified, documents, result)


def opened(home: Home) -> Database:
    return Database(connector(home.path / "journal.db", "the journal"), World(), "dev")


# what stands


def test_a_chain_says_all_that_was_signed_and_every_link_that_was_checked(trade: Trade) -> None:
    found = verify_bytes(chain_bytes(trade.documents, trade.result), seller=SELLER.key)
    receipt = trade.documents["receipt"].body
    invoice: Any = trade.documents["quote"].body["invoices"][0]  # type: ignore[index]  # a quote's shape
    assert found == {
        "receipt_verified": True,
        "result_checked": True,
        "countersigned": True,
        "network": "dev",
        "job_id": trade.purchase.job_id,
        "offer_id": trade.documents["offer"].body["offer_id"],
        "seller": SELLER.key,
        "buyer": BUYER.key,
        "amount": "1000",
        "unit": "raw",
        "price": str(Amount(1000, "raw")),
        "rail": "fake",
        "invoice_address": invoice["address"],
        "payment_ids": [trade.purchase.payment_id],
        "result_sha256": digest(trade.result),
        "result_size": len(trade.result),
        "media_type": receipt["result"]["media_type"],  # type: ignore[index,call-overload]  # a receipt's shape
        "requested_at": int(str(trade.documents["request"].body["created_at"])),
        "quote_expires_at": int(str(trade.documents["quote"].body["expires_at"])),
        "delivered_at": int(str(receipt["delivered_at"])),
        "fence": 1,
        "checked": [
            *(f"{name}.signature" for name in ("offer", "request", "quote", "receipt")),
            *(f"request.{name}" for name in ("network", "seller", "offer_id", "offer_hash")),
            *(f"quote.{name}" for name in ("network", "seller", "buyer", "input_hash", "offer_hash", "invoices.network", "price")),
            *(f"receipt.{name}" for name in ("network", "job_id", "request_hash", "quote_hash", "buyer", "rail", "amount", "payment_ids", "result.sha256")),
            *(f"countersign.{name}" for name in ("signature", "receipt_hash", "result_sha256")),
            *("result.sha256", "result.size"),
        ],
        "remarks": [],
    }


def test_the_page_about_receipts_names_every_link(trade: Trade) -> None:
    page = (Path(__file__).parent.parent / "docs" / "receipts.md").read_text("utf-8")
    checked = verify_bytes(chain_bytes(trade.documents, trade.result))["checked"]
    assert [name for name in checked if not name.endswith(".signature") and f"`{name}`" not in page] == []
    named = set(re.findall(r"`((?:request|quote|receipt|countersign|result)\.[a-z0-9_.]+)`", page))
    assert named <= set(checked)


def test_it_stands_without_the_countersignature_and_without_the_bytes(trade: Trade) -> None:
    found = verify_bytes(trade.chain(countersign=None))
    assert (found["receipt_verified"], found["countersigned"], found["result_checked"]) == (True, False, False)


def test_what_show_printed_before_chains_had_a_mark_is_still_read(trade: Trade) -> None:
    old: dict[str, Any] = {name: document_to_json(document) for name, document in trade.documents.items() if name != "countersign"}
    whole = {**old, "job_id": trade.purchase.job_id, "payment_id": trade.purchase.payment_id, "result_base64": base64.b64encode(trade.result).decode()}
    assert verify_bytes(json.dumps(whole, indent=2).encode() + b"\n")["result_checked"] is True
    assert verify_bytes(json.dumps(old).encode())["receipt_verified"] is True
    for name, value in (("job_id", "another"), ("payment_id", "another"), ("payment_id", None), ("payment_id", [])):
        with pytest.raises(UntrustedError, match=name):
            verify_bytes(json.dumps({**whole, name: value}).encode())
    with pytest.raises(InputError, match="note does not belong"):
        verify_bytes(json.dumps({**whole, "note": "paid twice"}).encode())


def test_the_seller_has_the_same_chain_without_the_countersignature(trade: Trade) -> None:
    journal = opened(trade.seller)
    documents, row = journal.read(lambda c: documents_of(c, trade.purchase.job_id or ""))
    asyncio.run(journal.close())
    assert row.state == "delivered"
    assert documents == {name: document for name, document in trade.documents.items() if name != "countersign"}


# what falls


def test_any_single_changed_byte_makes_it_fall(trade: Trade) -> None:
    """Each position, a step up, a step down, the other case, and characters that mean something to JSON, hex and base64."""
    bare, whole = trade.chain(), chain_bytes(trade.documents, trade.result)
    assert verify_bytes(bare)["receipt_verified"] is verify_bytes(whole)["result_checked"] is True
    stood, tried = [], 0
    for data, first in ((bare, 0), (whole, whole.index(b'"result_base64"'))):
        for place in range(first, len(data)):
            old = data[place]
            for new in {(old + 1) % 256, (old - 1) % 256, old ^ 0x20, ord("0"), ord(" "), ord('"')} - {old}:
                tried += 1
                with suppress(TradeskillError):
                    verify_bytes(data[:place] + bytes([new]) + data[place + 1 :])
                    stood.append((place, chr(old), chr(new)))
    assert stood == []
    assert tried > 5 * len(bare)


def test_a_byte_more_or_less_anywhere_makes_it_fall(trade: Trade) -> None:
    good = chain_bytes(trade.documents, trade.result)
    for data in (good + b"\n", b" " + good, good[:-1], good[1:], b"\xef\xbb\xbf" + good, good + b"\0", good * 2):
        with pytest.raises(TradeskillError):
            verify_bytes(data)
    for place in range(0, len(good), 7):
        for more in (b" ", b"0"):
            with pytest.raises(TradeskillError):
                verify_bytes(good[:place] + more + good[place:])


OTHER = Identity(b"o" * 32)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("offer", {"title": "another"}, "request.offer_hash"),
        ("request", {"network": "test"}, "request.network is test"),
        ("request", {"seller": OTHER.key}, "request.seller"),
        ("request", {"offer_id": "another"}, "request.offer_id"),
        ("request", {"offer_hash": "0" * 64}, "request.offer_hash"),
        ("request", {"input": {"url": "http://evil/"}}, "quote.input_hash"),
        ("request", {"buyer": OTHER.key}, "request names buyer"),
        ("request", {"nonce": "another"}, "receipt.request_hash"),
        ("quote", {"network": "test"}, "quote.network"),
        ("quote", {"seller": OTHER.key}, "quote.seller"),
        ("quote", {"buyer": OTHER.key}, "quote.buyer"),
        ("quote", {"offer_hash": "0" * 64}, "quote.offer_hash"),
        ("quote", {"job_id": "another"}, "receipt.job_id"),
        ("quote", {"nonce": "another"}, "receipt.quote_hash"),
        ("receipt", {"network": "test"}, "receipt.network"),
        ("receipt", {"buyer": OTHER.key}, "receipt.buyer"),
        ("receipt", {"seller": OTHER.key}, "receipt names seller"),
        ("receipt", {"rail": "cashu"}, "receipt.rail is 'cashu', which was not quoted"),
        ("receipt", {"amount": "999"}, "receipt.amount"),
        ("receipt", {"unit": "sat"}, "receipt.amount"),
        ("receipt", {"payment_ids": []}, "receipt.payment_ids is none"),
        ("receipt", {"payment_ids": ["a", ""]}, "receipt.payment_ids is an empty one"),
        ("receipt", {"payment_ids": ["ab", "AB"]}, "receipt.payment_ids is a repeated one"),
        ("receipt", {"payment_ids": "ab"}, "payment_ids must be a list"),
        ("receipt", {"result": {"sha256": "AB" * 32, "size": "1", "media_type": "text/plain"}}, "receipt.result.sha256"),
        ("receipt", {"delivered_at": "GONE"}, "delivered_at is missing"),
        ("receipt", {"fence": "01"}, "fence must be digits"),
        ("countersign", {"receipt_hash": "0" * 64}, "countersign.receipt_hash"),
        ("countersign", {"result_sha256": "0" * 64}, "countersign.result_sha256"),
        ("countersign", {"receipt_hash": "GONE"}, "countersign.receipt_hash is None"),
    ],
)
def test_a_document_that_its_signer_signs_for_another_trade_breaks_its_link(trade: Trade, kind: str, changes: dict[str, Json], words: str) -> None:
    with pytest.raises(UntrustedError) as refused:
        verify_bytes(trade.resealed(kind, changes))
    assert words in str(refused.value)


def test_a_quote_above_the_offers_price_or_on_another_network_does_not_stand(trade: Trade) -> None:
    invoices: Any = trade.documents["quote"].body["invoices"]
    for changes, words in (({"amount": "1001"}, "quote.price"), ({"network": "live"}, "quote.invoices.network")):
        with pytest.raises(UntrustedError, match=words):
            verify_bytes(trade.resealed("quote", {"invoices": [{**invoices[0], **changes}]}))


@pytest.mark.parametrize("kind", ["offer", "request", "quote", "receipt", "countersign"])
def test_a_document_signed_by_somebody_else_does_not_stand(trade: Trade, kind: str) -> None:
    with pytest.raises(UntrustedError):
        verify_bytes(trade.resealed(kind, {}, OTHER))
    with pytest.raises(UntrustedError):
        verify_bytes(trade.chain(**{kind: trade.documents["offer" if kind != "offer" else "request"]}))


def test_two_invoices_that_fit_leave_the_address_open_and_a_strange_date_is_only_remarked(trade: Trade) -> None:
    offer = SELLER.sign("offer", {**trade.documents["offer"].body, "created_at": str(10**15)})
    request = BUYER.sign("request", {**trade.documents["request"].body, "offer_hash": document_hash(offer)})
    asked = read_request(request, BUYER.key)
    invoices: Any = trade.documents["quote"].body["invoices"]
    body = {**trade.documents["quote"].body, "offer_hash": document_hash(offer), "invoices": [*invoices, {**invoices[0], "address": "elsewhere"}]}
    quote = SELLER.sign("quote", body)
    terms: dict[str, Any] = {"job_id": trade.purchase.job_id, "rail": "fake", "payment_ids": ["p"], "amount": read_offer(offer).price, "fence": 1}
    receipt = sign_receipt(SELLER, asked, quote, result=Result(b"x", "text/plain"), delivered_at=5, **terms)
    found = verify_bytes(chain_bytes({"offer": offer, "request": request, "quote": quote, "receipt": receipt}, b"x"))
    assert found["invoice_address"] is None
    assert len(found["remarks"]) == 1
    assert "before its offer" in found["remarks"][0]


def spoiled(trade: Trade, change: Callable[[dict[str, Any]], object]) -> bytes:
    value = json.loads(chain_bytes(trade.documents, trade.result))
    change(value)
    return canonical(value)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda v: v.update(note="x"), InputError, "note does not belong"),
        (lambda v: v.update(job_id="x"), InputError, "job_id does not belong"),
        (lambda v: v.update(tradeskill_receipt=2), InputError, "version 2: this program knows 1"),
        (lambda v: v.update(tradeskill_receipt=True), InputError, "version True"),
        (lambda v: v.update(tradeskill_receipt="1"), InputError, "of version 1"),
        (lambda v: v.update(tradeskill_receipt=0), InputError, "version 0"),
        (lambda v: v.update(tradeskill_receipt=None), InputError, "version None"),
        (lambda v: v.pop("tradeskill_receipt"), InputError, "countersign does not belong"),
        (lambda v: v.pop("quote"), InputError, "not a receipt chain"),
        (lambda v: v["offer"].update(note="x"), UntrustedError, "not a signed document"),
        (lambda v: v["quote"].update(key=v["quote"]["key"].upper()), UntrustedError, "malformed key"),
        (lambda v: v["quote"].update(signature=v["quote"]["signature"].upper()), UntrustedError, "malformed key or signature"),
        (lambda v: v.update(result_base64=v["result_base64"][:-4] + "!!!!"), InputError, "not base64"),
        (lambda v: v.update(result_base64=7), InputError, "not base64"),
        (lambda v: v.update(result_base64=""), UntrustedError, "result.sha256"),
        (lambda v: v.update(result_base64="Zh=="), InputError, "its last digits say more"),
    ],
)
def test_what_nobody_signed_is_refused_with_the_reason(
    trade: Trade, change: Callable[[dict[str, Any]], object], kind: type[TradeskillError], words: str
) -> None:
    with pytest.raises(kind) as refused:
        verify_bytes(spoiled(trade, change))
    assert words in str(refused.value)


def test_another_spelling_of_the_same_json_is_refused(trade: Trade) -> None:
    value = json.loads(trade.chain())
    for data in (json.dumps(value).encode(), json.dumps(value, indent=1).encode(), trade.chain() + b"\n"):
        with pytest.raises(UntrustedError, match="not byte for byte what"):
            verify_bytes(data)
    twice = trade.chain().replace(b'"receipt":', b'"receipt":{},"receipt":', 1)
    with pytest.raises(InputError, match="duplicate key"):
        verify_bytes(twice)


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"\xff\xfe", b"[" * 10_000, b'{"a":' * 5000, b"9" * 100_000, b"NaN", b'"\\ud800"', b"[]," * (MAX_CHAIN // 3), b" " * (1 + MAX_CHAIN)],
    ids=["nothing", "null", "list", "no text", "deep lists", "deep objects", "a long number", "NaN", "surrogate", "many", "huge"],
)
def test_what_is_no_chain_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(InputError) as refused:
        verify_bytes(data)
    assert len(str(refused.value)) < 300


def test_a_result_too_large_for_the_file_is_said_before_anything_is_written(trade: Trade) -> None:
    with pytest.raises(InputError, match="leave it out"):
        chain_bytes(trade.documents, b"x" * MAX_CHAIN)


# files, profiles, strangers


def test_both_the_bytes_inside_and_the_file_beside_have_to_be_those_of_the_receipt(trade: Trade, tmp_path: Path) -> None:
    chain, result = tmp_path / "chain.json", tmp_path / "result"
    chain.write_bytes(chain_bytes(trade.documents, trade.result))
    result.write_bytes(trade.result)
    assert verify_chain(chain, result, SELLER.key)["result_checked"] is True
    result.write_bytes(trade.result + b"x")
    with pytest.raises(UntrustedError, match=r"chain\.json: result\.sha256"):
        verify_chain(chain, result, "")
    with pytest.raises(UntrustedError, match="not by the pinned seller"):
        verify_chain(chain, None, OTHER.key)
    for file, beside in ((tmp_path / "none", None), (chain, tmp_path / "none"), (tmp_path, None)):
        with pytest.raises(NotFoundError, match="cannot be read"):
            verify_chain(file, beside, "")


def test_a_stranger_with_the_package_and_the_file_and_nothing_else_can_verify(trade: Trade, tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    file.write_bytes(trade.buyer.run("receipt", "show", trade.purchase.purchase_id, "--with-result").ok().out.encode())
    (tmp_path / "home").mkdir()
    paths = os.pathsep.join(sorted({str(Path(module.__file__ or "").parents[1]) for name, module in sys.modules.items() if name == "tradeskill"}))
    command = ["env", "-i", f"HOME={tmp_path / 'home'}", f"PYTHONPATH={paths}", sys.executable, "-m", "tradeskill", "receipt", "verify", str(file), "--json"]
    done = subprocess.run([*command, "--seller", SELLER.key], cwd=tmp_path / "home", capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["receipt_verified"], found["countersigned"], found["result_checked"]) == (True, True, True)
    assert [*(tmp_path / "home").iterdir()] == []  # and leaves nothing behind
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    changed = subprocess.run(command, cwd=tmp_path / "home", capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert changed.returncode in (2, 5)
    assert "error: " in changed.stderr
    assert "Traceback" not in changed.stderr


def test_show_prints_exactly_the_file_for_both_sides(trade: Trade) -> None:
    for home in (trade.buyer, trade.seller):
        shown = home.run("receipt", "show", trade.purchase.job_id or "").ok()
        assert shown.out.encode() == trade.chain(**({} if home is trade.buyer else {"countersign": None}))
    trade.buyer.run("receipt", "show", "nothing").failed(3, "nothing", "tradeskill jobs")
    trade.buyer.run("receipt", "show", trade.unverified.purchase_id).failed(4, "unverified", "buyer.receipts")


def test_export_writes_a_file_a_job_may_be_repeated_and_says_what_it_left_out(trade: Trade, tmp_path: Path) -> None:
    folder = tmp_path / "receipts"
    for _ in range(2):
        found = trade.buyer.json("receipt", "export", "--all", "--with-result", "--to", str(folder))
        (path,) = folder.iterdir()
        assert found["written"] == [{"job_id": trade.purchase.job_id, "file": str(path)}]
        assert [(entry["job_id"], "unverified" in entry["reason"]) for entry in found["skipped"]] == [(trade.unverified.purchase_id, True)]
        assert path.name == f"{trade.purchase.job_id}.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes() == chain_bytes(trade.documents, trade.result)
    sold = trade.seller.json("receipt", "export", "--all", "--to", str(tmp_path / "sold"))
    assert len(sold["written"]) == 2  # the seller has a receipt for each
    assert sold["skipped"] == []
    assert [verify_chain(Path(entry["file"]), None, SELLER.key)["countersigned"] for entry in sold["written"]] == [False, False]
    named = trade.buyer.run("receipt", "export", trade.purchase.purchase_id, "nothing", "--to", str(folder))
    assert named.code == 3
    assert "skipped nothing" in named.err
    trade.buyer.run("receipt", "export", "--to", str(folder)).failed(2, "JOB_IDs, or --all")
    trade.buyer.run("receipt", "export", "x", "--all", "--to", str(folder)).failed(2, "JOB_IDs, or --all")


def test_a_result_that_is_not_kept_any_more_is_left_out_with_the_reason(trade: Trade, tmp_path: Path) -> None:
    kept = trade.seller.path / "results" / digest(trade.result)
    kept.rename(tmp_path / "away")
    try:
        found = trade.seller.json("receipt", "export", trade.purchase.job_id or "", "--to", str(tmp_path / "sold"))
        assert len(found["written"]) == 1
        missing = trade.seller.run("receipt", "export", trade.purchase.job_id or "", "--with-result", "--to", str(tmp_path / "more"), "--json")
        assert (missing.code, missing.json["written"], "not stored any more" in missing.json["skipped"][0]["reason"]) == (3, [], True)
    finally:
        (tmp_path / "away").rename(kept)


def test_what_does_not_stand_or_is_in_dispute_is_not_exported(trade: Trade, tmp_path: Path) -> None:
    journal = opened(trade.buyer)
    name, before = trade.purchase.purchase_id, trade.purchase.receipt
    try:
        for column, value, words in (("receipt", trade.purchase.quote, "signed receipt was expected"), ("state", "disputed", "the purchase is disputed")):
            old = journal.read(lambda c, column=column: c.execute(f"SELECT {column} FROM purchases WHERE purchase_id = ?", (name,)).fetchone()[0])  # type: ignore[misc]  # a default in a lambda
            for text in (value, old):
                journal.write_now(lambda tx, c=column, t=text: tx.execute(f"UPDATE purchases SET {c} = ? WHERE purchase_id = ?", (t, name)) and None)  # type: ignore[misc]  # as above
                if text == value:
                    found = trade.buyer.run("receipt", "export", name, "--to", str(tmp_path / "out"), "--json")
                    assert (found.code, found.json["written"]) == (3, [])
                    assert words in found.json["skipped"][0]["reason"]
        assert journal.read(lambda c: c.execute("SELECT receipt FROM purchases WHERE purchase_id = ?", (name,)).fetchone()[0]) == before
    finally:
        asyncio.run(journal.close())


@pytest.mark.parametrize("job_id", ["../../etc/passwd", "", ".hidden", "a/b", "A", "a" * 81, "con\n", "\u202egnp", "-rf", "a b"])
def test_a_strangers_job_id_never_names_the_file(job_id: str) -> None:
    name = file_name(job_id)
    assert name == f"sha256.{digest(job_id.encode())}.json"
    assert file_name(name.removesuffix(".json")) != name  # no job can be named to take its place


@pytest.mark.parametrize(
    ("side", "spoil", "mend", "words"),
    [
        ("seller", "UPDATE fulfilments SET state = 'failed'", "UPDATE fulfilments SET state = 'delivered'", "is failed, not delivered"),
        ("seller", "UPDATE offers SET offer_hash = 'x' || offer_hash", "UPDATE offers SET offer_hash = substr(offer_hash, 2)", "a version of its offer"),
        ("buyer", "UPDATE purchases SET state = 'waiting'", "UPDATE purchases SET state = 'received'", "is waiting and has no receipt"),
    ],
)
def test_a_job_that_has_no_receipt_says_why(trade: Trade, side: str, spoil: str, mend: str, words: str) -> None:
    journal = opened(trade.seller if side == "seller" else trade.buyer)
    journal.write_now(lambda tx: tx.execute(spoil) and None)
    try:
        with pytest.raises(NotFoundError, match=words):
            journal.read(lambda c: documents_of(c, trade.unverified.job_id or ""))
    finally:
        journal.write_now(lambda tx: tx.execute(mend) and None)
        asyncio.run(journal.close())


def test_the_commands_tell_people_what_they_tell_programs(trade: Trade, tmp_path: Path) -> None:
    folder, purchase = tmp_path / "receipts", trade.purchase
    both = trade.buyer.run("receipt", "export", purchase.purchase_id, purchase.job_id or "", "--to", str(folder)).ok()
    (file,) = both.out.splitlines()  # the same job under two names is one file
    assert "1 written, 0 skipped" in both.err
    told = trade.buyer.run("receipt", "verify", file).ok()
    assert [line.split()[1] for line in told.out.splitlines() if line.startswith(("job_id ", "amount ", "unit "))] == [purchase.job_id, "1000", "raw"]
    assert "not looked up: the payments" in told.err
    assert [found["job_id"] for found in trade.buyer.json("receipt", "verify", file, file)] == [purchase.job_id] * 2
    trade.buyer.run("receipt", "verify", file, file, "--result", file).failed(2, "--result goes with one receipt")


def test_on_a_terminal_a_receipt_is_printed_for_reading(trade: Trade) -> None:
    keyboard, terminal = os.openpty()
    command = [sys.executable, "-m", "tradeskill", "receipt", "show", trade.purchase.job_id or ""]
    process = subprocess.Popen(command, env=trade.buyer.environment, stdout=terminal, stdin=subprocess.DEVNULL)
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # what reading a terminal ends with, once nobody writes to it
        while part := os.read(keyboard, 1 << 16):
            shown += part
    os.close(keyboard)
    assert process.wait(PATIENCE) == 0
    assert canonical(json.loads(shown)) == trade.chain()


def test_errors_of_a_chain_are_of_the_two_kinds_that_export_counts_on() -> None:
    assert issubclass(UntrustedError, RefusedError)
    assert issubclass(InputError, UsageError)
    assert not issubclass(StateError, RefusedError)
