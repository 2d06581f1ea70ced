"""docs/vectors replayed: what stands verifies to the byte, what does not is refused in the words that are written, and no field can be changed."""

from __future__ import annotations

import base64
import copy
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tradeskill.agreement import read_offer, read_request, verify_quote, verify_receipt
from tradeskill.errors import TradeskillError, UntrustedError
from tradeskill.model import Result
from tradeskill.money import Amount, parse_raw
from tradeskill.signing import KINDS, Identity, canonical, document_from_json, document_hash, parse_json, value_hash, verify_document

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "vectors"
FILES = {path.name: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text("utf-8")


def amount(value: Any) -> Amount | None:
    return None if value is None else Amount(parse_raw(value["amount"]), value["unit"])


def sure(value: Any) -> Amount:
    found = amount(value)
    assert found is not None
    return found


def replay_offer(case: dict[str, Any]) -> object:
    return read_offer(document_from_json(case["document"]))


def replay_request(case: dict[str, Any]) -> object:
    return read_request(document_from_json(case["document"]), case["buyer"])


def replay_quote(case: dict[str, Any]) -> object:
    wish = document_from_json(case["request"])
    request, prices = read_request(wish, wish.key), [sure(price) for price in case["prices"]]
    return verify_quote(document_from_json(case["document"]), request, job_id=case["job_id"], prices=prices)


def replay_receipt(case: dict[str, Any]) -> object:
    wish = document_from_json(case["request"])
    return verify_receipt(
        None if case["document"] is None else document_from_json(case["document"]),
        read_request(wish, wish.key),
        document_from_json(case["quote"]),
        job_id=case["job_id"],
        payment_id=case["payment_id"],
        amount=sure(case["amount"]),
        result=Result(base64.b64decode(case["result"]["base64"]), case["result"]["media_type"]),
    )


def replay_countersign(case: dict[str, Any]) -> object:
    return verify_document(document_from_json(case["document"]), "countersign", case["buyer"])


REPLAY: dict[str, Callable[[dict[str, Any]], object]] = {
    "offer": replay_offer,
    "request": replay_request,
    "quote": replay_quote,
    "receipt": replay_receipt,
    "countersign": replay_countersign,
}


def cases(name: str, which: str) -> list[dict[str, Any]]:
    """A file's cases, each with the file's context under its own words."""
    file = FILES[f"{name}.json"]
    context = {key: value for key, value in file.items() if key not in ("valid", "invalid", "about")}
    return [{**context, **case} for case in file[which]]


def params(which: str, *names: str) -> list[Any]:
    return [pytest.param(name, case, id=f"{name}: {case['name']}") for name in names for case in cases(name, which)]


def test_every_file_of_vectors_is_replayed_and_every_kind_of_document_has_one() -> None:
    assert set(FILES) == {f"{name}.json" for name in (*REPLAY, "values", "keys")}
    assert set(REPLAY) == set(KINDS)
    for name in REPLAY:
        assert FILES[f"{name}.json"]["valid"]
        assert FILES[f"{name}.json"]["invalid"]


def test_the_files_are_what_the_tool_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_vectors", ROOT / "tools" / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert set(tool.FILES) == set(FILES)
    for name in tool.FILES:
        assert (FOLDER / name).read_text("utf-8") == tool.text_of(name), f"docs/vectors/{name}: run tools/make_vectors.py"


@pytest.mark.parametrize(("name", "case"), params("valid", *REPLAY))
def test_a_valid_vector_stands(name: str, case: dict[str, Any]) -> None:
    document = document_from_json(case["document"])
    assert case["signed"].encode() == f"tradeskill/{name}/1\n".encode() + canonical(document.body)
    assert case["document_hash"] == document_hash(document)
    if "input_hash" in case:
        assert case["input_hash"] == value_hash(document.body["input"])
    REPLAY[name](case)


@pytest.mark.parametrize(("name", "case"), params("invalid", *REPLAY))
def test_an_invalid_vector_is_refused_for_the_reason_given(name: str, case: dict[str, Any]) -> None:
    with pytest.raises(TradeskillError) as caught:
        REPLAY[name](case)
    assert caught.value.code == case["refusal"]["code"]
    assert case["refusal"]["says"]
    assert case["refusal"]["says"] in str(caught.value)


@pytest.mark.parametrize("case", FILES["values.json"]["valid"], ids=lambda case: case["name"])
def test_a_value_has_the_canonical_form_given(case: dict[str, Any]) -> None:
    value = parse_json(case["json"])
    assert canonical(value).decode() == case["canonical"]
    assert value_hash(value) == case["value_hash"]


@pytest.mark.parametrize("case", FILES["values.json"]["invalid"], ids=lambda case: case["name"])
def test_a_text_without_a_canonical_form_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(TradeskillError) as caught:
        canonical(parse_json(case["json"]))
    assert caught.value.code == case["refusal"]["code"]
    assert case["refusal"]["says"] in str(caught.value)


def test_the_seeds_make_the_keys() -> None:
    made = {entry["name"]: entry for entry in FILES["keys.json"]["keys"]}
    for entry in made.values():
        assert Identity(bytes.fromhex(entry["seed"])).key == entry["key"]
    assert FILES["request.json"]["valid"][0]["document"]["key"] == made["buyer"]["key"]
    assert FILES["offer.json"]["valid"][0]["document"]["key"] == made["seller"]["key"]


def test_the_countersignature_names_the_receipt_and_the_bytes() -> None:
    file = FILES["countersign.json"]
    receipt = document_from_json(file["receipt"])
    assert verify_document(document_from_json(file["valid"][0]["document"]), "countersign", file["buyer"]) == {
        "receipt_hash": document_hash(receipt),
        "result_sha256": receipt.body["result"]["sha256"],  # type: ignore[call-overload, index]  # the vector holds an object there
    }


# every field


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, branches and leaves."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from places(item, (*path, name))


def mutated(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return 0
    if isinstance(value, str):
        digits = re.fullmatch(r"[0-9]+", value)
        return str(int(value) + 1) if digits else value + "0"
    if isinstance(value, int | float):
        return value + 1
    return [*value, "x"] if isinstance(value, list) else {**value, "x": "x"}


def with_change(body: dict[str, Any], path: tuple[Any, ...], remove: bool) -> dict[str, Any]:
    changed = copy.deepcopy(body)
    place: Any = changed
    for name in path[:-1]:
        place = place[name]
    if remove:
        del place[path[-1]]
    else:
        place[path[-1]] = mutated(place[path[-1]])
    return changed


@pytest.mark.parametrize("name", REPLAY)
def test_no_field_of_a_signed_document_can_be_changed_or_taken_away(name: str) -> None:
    """As a market could: without the signer's key."""
    tried = 0
    for case in cases(name, "valid"):
        REPLAY[name](case)
        for path in places(case["document"]["body"]):
            for remove in (False, True):
                document = {**case["document"], "body": with_change(case["document"]["body"], path, remove)}
                with pytest.raises(UntrustedError, match="does not verify"):
                    REPLAY[name]({**case, "document": document})
                tried += 1
        for part in ("kind", "key", "signature"):
            text = case["document"][part]
            document = {**case["document"], part: text[:-1] + ("0" if text[-1] != "0" else "1")}
            with pytest.raises(UntrustedError):
                REPLAY[name]({**case, "document": document})
    assert tried >= 4


# What the signer alone decides: another value, properly signed, is another valid document. Everything else is pinned by the other side's
# own records. docs/protocol.md says the same in its tables (the test below compares).
SIGNER_DECIDES = {
    "quote": {"expires_at", "nonce", "invoices.rail", "invoices.invoice_id", "invoices.address", "invoices.details"},
    "receipt": {"rail", "delivered_at", "fence"},
}
LOWER_ONLY = {"invoices.amount"}  # a cheaper quote is welcome
OTHER_UNIT = {"invoices.unit"}  # compared with the offer's price only in its own unit; a buyer pays only in a unit its wallet has, within its caps


@pytest.mark.parametrize("name", ["quote", "receipt"])
def test_what_the_other_side_pins_is_refused_even_when_its_signer_changes_it(name: str) -> None:
    seller = Identity(bytes.fromhex(next(entry["seed"] for entry in FILES["keys.json"]["keys"] if entry["name"] == "seller")))
    case = cases(name, "valid")[0]
    body = case["document"]["body"]
    free = set()
    for path in places(body):
        field = ".".join(part for part in path if isinstance(part, str))
        for remove in (False, True):
            document = seller.sign(name, with_change(body, path, remove))
            try:
                REPLAY[name]({**case, "document": {"kind": name, "body": dict(document.body), "key": document.key, "signature": document.signature}})
            except UntrustedError:
                continue
            assert not remove, f"{name} without {field} was taken"
            free.add(field)
    containers = {"invoices", "result", "payment_ids"}  # an added key in an object, an added payment: nothing that was signed is weakened
    assert free - containers == SIGNER_DECIDES[name] | (OTHER_UNIT if name == "quote" else set())
    if name == "quote":
        cheaper = copy.deepcopy(body)
        cheaper["invoices"][0]["amount"] = "1"
        document = seller.sign("quote", cheaper)
        REPLAY[name]({**case, "document": {"kind": name, "body": dict(document.body), "key": document.key, "signature": document.signature}})


# the page


def table_fields(kind: str) -> dict[str, str]:
    """Field -> who decides, from the table under the heading of that kind."""
    section = re.search(rf"^## The {kind}\n(.*?)(?=^## |\Z)", PROTOCOL, re.DOTALL | re.MULTILINE)
    assert section is not None, kind
    rows = re.findall(r"^\| `([a-z_0-9.\[\]]+)` \|[^|\n]*\|[^|\n]*\|([^|\n]*)\|$", section.group(1), re.MULTILINE)
    return {field: decides.strip() for field, decides in rows}


@pytest.mark.parametrize("name", REPLAY)
def test_the_page_names_every_field_of_every_document_and_no_other(name: str) -> None:
    bodies = [case["document"]["body"] for case in cases(name, "valid") if "does not know" not in case["name"]]
    fields = set()
    for path in (path for body in bodies for path in places(body)):
        if "input" in path[:-1] or "details" in path[:-1] or "refund_to" in path[:-1] or isinstance(path[-1], int):
            continue  # the seller's schema, the rail's own keys, rail names, list items
        fields.add(".".join("[]" if isinstance(part, int) else part for part in path).replace(".[]", "[]"))
    assert set(table_fields(name)) == fields


@pytest.mark.parametrize("name", ["quote", "receipt"])
def test_the_page_says_truly_what_the_signer_alone_decides(name: str) -> None:
    free = {field.replace("[]", "") for field, decides in table_fields(name).items() if decides.startswith("signer")}
    assert free - LOWER_ONLY - OTHER_UNIT == SIGNER_DECIDES[name]


def test_the_page_names_every_file_of_vectors() -> None:
    assert set(re.findall(r"`([a-z]+\.json)`", PROTOCOL)) == set(FILES)
