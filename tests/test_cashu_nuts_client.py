"""client.py and websocket.py against servers that refuse, hang, lie and flood: each failure has its type, and nothing is ever sent twice."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.mint_between import Between, Fault, Passing, between, refuses
from tests.paper_mint import PaperMint
from tradeskill.errors import InputError, TradeskillError, UnavailableError, UnknownOutcomeError, UntrustedError
from tradeskill_plugins.cashu.nuts import requests
from tradeskill_plugins.cashu.nuts.client import MAX_ANSWER, MintClient
from tradeskill_plugins.cashu.nuts.errors import MintRefusedError
from tradeskill_plugins.cashu.nuts.websocket import hints

T = TypeVar("T")
PAPER = PaperMint()
SECRET = "d0bcf0ff-quote-id-that-is-a-secret"
SWAP = requests.swap(PAPER.proofs(8, 4), PAPER.outputs(1, 2, 8, counter=9), PAPER.known)
MINT_QUOTE = {"quote": SECRET, "request": "lnbc1", "amount": 5, "unit": "sat", "state": "UNPAID", "expiry": None, "pubkey": None}


@pytest.fixture
def server() -> Iterator[Between]:
    """It answers what a test plans; behind it is nothing."""
    with between("http://127.0.0.1:9") as made:
        yield made


def run(scenario: Awaitable[T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(scenario, 30)

    return asyncio.run(bounded())


def call(url: str, use: Callable[[MintClient], Awaitable[T]], seconds: float = 10.0) -> T:
    async def scenario() -> T:
        async with MintClient(url, seconds, seconds) as client:
            return await use(client)

    return run(scenario())


def says(body: Any, status: int = 200) -> Fault:
    return refuses(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def raised(url: str, use: Callable[[MintClient], Awaitable[object]], seconds: float = 10.0) -> TradeskillError:
    with pytest.raises(TradeskillError) as caught:
        call(url, use, seconds)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (11001, "spent"),
        (11002, "pending"),
        (11004, "pending"),
        (20005, "pending"),
        (11003, "signed"),
        (10002, "signed"),
        (20001, "unpaid"),
        (20002, "issued"),
        (20006, "paid"),
        (12001, "keyset"),
        (12002, "keyset"),
        (12003, "keyset"),
        (20004, "lightning"),
        (11005, ""),
        (20008, ""),
    ],
)
def test_a_code_of_the_protocol_is_a_refusal_with_its_meaning(server: Between, code: int, meaning: str) -> None:
    server.always("/", says({"detail": "no\x1b[2J\nno", "code": code}, 400))
    for use in (lambda client: client.send_request(SWAP), lambda client: client.info()):
        error = raised(server.url, use)
        assert isinstance(error, MintRefusedError)
        assert (error.mint_code, error.code, error.details["mint_code"]) == (code, "refused.mint", code)
        assert f"no [2J no (code {code})" in str(error)
        meanings = ("spent", "pending", "signed", "unpaid", "issued", "paid", "keyset", "lightning")
        assert [name for name in meanings if getattr(error, name)] == ([meaning] if meaning else [])


NO_DECISION: dict[str, Fault] = {
    "code 0": says({"detail": "database is locked", "code": 0}, 400),
    "a code that is true": says({"detail": "x", "code": True}, 400),
    "a code in words": says({"detail": "x", "code": "11001"}, 400),
    "a code of another book": says({"detail": "x", "code": 404}, 400),
    "no code": says({"detail": [{"loc": ["body"], "msg": "field required"}]}, 422),
    "a list": says([11001], 400),
    "a page": says(b"<html>502 Bad Gateway</html>", 502),
    "a code with a server error": says({"detail": "x", "code": 11001}, 500),
    "too many requests": says(b"slow down", 429),
    "moved": says(b"", 307),
    "no content": says(b"", 204),
    "duplicate codes": says(b'{"code":11001,"code":11001}', 400),
    "a flood": says(b"[" + b" " * (MAX_ANSWER + 1)),
    "nothing": lambda passing: None,
}


@pytest.mark.parametrize("fault", NO_DECISION.values(), ids=NO_DECISION.keys())
def test_what_decides_nothing_is_unknown_for_money_and_unavailable_for_questions(server: Between, fault: Fault) -> None:
    server.always("/", fault)
    assert type(raised(server.url, lambda client: client.send_request(SWAP))) is UnknownOutcomeError
    assert type(raised(server.url, lambda client: client.info())) is UnavailableError
    assert len(server.seen) == 2


def test_a_mint_that_is_down_is_unavailable() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        assert type(raised(url, lambda client: client.keysets())) is UnavailableError
        assert type(raised(url, lambda client: client.send_request(SWAP))) is UnknownOutcomeError


def test_a_mint_that_hangs_is_given_up_in_time(server: Between) -> None:
    server.always("/", lambda passing: server.released.wait(20) and None)
    start = time.monotonic()
    error = raised(server.url, lambda client: client.send_request(SWAP), 0.2)
    assert type(error) is UnknownOutcomeError
    assert "within" in str(error)
    assert time.monotonic() - start < 5
    assert len(server.seen) == 1


def test_a_mint_that_drips_is_given_up_in_time(server: Between) -> None:
    def drips(passing: Passing) -> None:
        passing.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not passing.between.released.wait(0.02):
            passing.write(b" ")

    server.always("/", drips)
    assert "within" in str(raised(server.url, lambda client: client.info(), 0.3))


def test_a_packed_bomb_is_not_unpacked(server: Between) -> None:
    server.always("/", lambda passing: passing.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"))
    assert call(server.url, lambda client: client.send("/v1/swap", b"{}")) == b"abc"


def test_the_stored_bytes_go_out_once_as_they_are_and_the_answer_comes_back_as_it_is(server: Between) -> None:
    server.plan("/v1/swap", says(b"anything at all"))
    assert call(server.url, lambda client: client.send(SWAP.path, SWAP.body)) == b"anything at all"
    assert server.seen == [("POST", "/v1/swap", SWAP.body)]


def test_answers_to_questions_that_are_lies_are_untrusted(server: Between) -> None:
    other = {str(amount): key for amount, key in PaperMint("other").keyset.keys.items()}
    melt = {**MINT_QUOTE, "fee_reserve": 0}
    lies: list[tuple[str, Any, Callable[[MintClient], Awaitable[object]]]] = [
        ("/v1/info", b"garbage", lambda client: client.info()),
        ("/v1/keysets", {"keysets": 7}, lambda client: client.keysets()),
        ("/v1/keys/", {"keysets": [{"id": PAPER.keyset.id, "keys": other}]}, lambda client: client.keyset(PAPER.info)),
        ("/v1/mint/quote/bolt11/", {**MINT_QUOTE, "quote": "another"}, lambda client: client.mint_quote(SECRET)),
        ("/v1/melt/quote/bolt11/", {**melt, "quote": "another"}, lambda client: client.melt_quote(SECRET)),
        ("/v1/mint/quote/bolt11", {**MINT_QUOTE, "amount": 4}, lambda client: client.new_mint_quote(5, "sat")),
        ("/v1/mint/quote/bolt11", {**MINT_QUOTE, "unit": "usd"}, lambda client: client.new_mint_quote(5, "sat")),
        ("/v1/mint/quote/bolt11", MINT_QUOTE, lambda client: client.new_mint_quote(5, "sat", pubkey=PAPER.keyset.keys[1])),
        ("/v1/melt/quote/bolt11", melt, lambda client: client.new_melt_quote("lnbc2", "sat")),
        ("/v1/checkstate", {"states": []}, lambda client: client.states([PAPER.keyset.keys[1]])),
        ("/v1/restore", {"outputs": [], "signatures": [1]}, lambda client: client.restore(PAPER.outputs(1), PAPER.known)),
    ]
    for path, body, use in lies:
        server.plan(path, says(body))
        assert type(raised(server.url, use)) is UntrustedError, path


def test_a_quote_with_a_description_and_a_key_is_asked_for_as_such(server: Between) -> None:
    key = PAPER.keyset.keys[1]
    server.plan("/v1/mint/quote/bolt11", says({**MINT_QUOTE, "pubkey": key}))
    assert call(server.url, lambda client: client.new_mint_quote(5, "sat", key, "a job")).pubkey == key
    assert json.loads(server.seen[0][2]) == {"amount": 5, "unit": "sat", "pubkey": key, "description": "a job"}


@pytest.mark.parametrize("quote_id", ["../../v1/swap", "a/b", "", "a b", "a?b=c", "a#b", "ä"])
def test_a_quote_id_that_leads_elsewhere_is_never_asked_for(server: Between, quote_id: str) -> None:
    for use in (lambda client: client.mint_quote(quote_id), lambda client: client.melt_quote(quote_id)):
        with pytest.raises(InputError, match="quote is"):
            call(server.url, use)
    assert server.seen == []


def test_a_quote_id_stands_in_no_message(server: Between) -> None:
    server.always("/", says({"detail": "quote not paid", "code": 20001}, 400))
    assert "/v1/mint/quote/bolt11:" in str(raised(server.url, lambda client: client.mint_quote(SECRET)))
    server.always("/", says(b"", 500))
    assert "/v1/melt/quote/bolt11 " in str(raised(server.url, lambda client: client.melt_quote(SECRET)))


def test_any_number_of_states_is_asked_for_in_parts(server: Between) -> None:
    ys = [f"{number:066x}" for number in range(2_500)]

    def fault(passing: Passing) -> None:
        asked = json.loads(passing.body)["Ys"]
        passing.answer(200, json.dumps({"states": [{"Y": y, "state": "UNSPENT"} for y in asked]}).encode())

    server.always("/v1/checkstate", fault)
    states = call(server.url, lambda client: client.states(ys))
    assert [state.y for state in states] == ys
    assert len(server.seen) == 3
    assert call(server.url, lambda client: client.states([])) == ()


def test_a_url_that_is_none_makes_no_client() -> None:
    with pytest.raises(InputError, match="mint URL"):
        MintClient("https://user@mint.example")


def test_closing_twice_is_closing_once() -> None:
    async def scenario() -> None:
        client = MintClient("http://127.0.0.1:9")
        await client.close()
        await client.close()

    run(scenario())


# --- hints ---

Talk = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def talking(talk: Talk) -> Any:
    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/v1/ws"
        await talk(connection)

    async with serve(handle, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}"


def heard(talk: Talk, count: int = 100) -> tuple[list[str], str]:
    """What was hinted at before it ended, and how it ended."""

    async def scenario() -> tuple[list[str], str]:
        names: list[str] = []
        async with talking(talk) as url:
            stream = hints(url, "bolt11_mint_quote", ["one", "two"])
            try:
                async for name in stream:
                    names.append(name)
                    if len(names) == count:
                        return names, "enough"
            except UnavailableError as error:
                return names, str(error)
            finally:
                await stream.aclose()
        return names, "ended"

    return run(scenario())


async def accept(connection: ServerConnection) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(await connection.recv())
    await connection.send(json.dumps({"jsonrpc": "2.0", "result": {"status": "OK", "subId": request["params"]["subId"]}, "id": request["id"]}))
    return request


def notice(**payload: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": "subscribe", "params": {"subId": "1", "payload": payload}})


def test_hints_name_what_was_asked_for_and_nothing_else() -> None:
    async def talk(connection: ServerConnection) -> None:
        request = await accept(connection)
        assert (request["method"], request["params"]["kind"], request["params"]["filters"]) == ("subscribe", "bolt11_mint_quote", ["one", "two"])
        for message in (notice(quote="three"), notice(quote=7), notice(), "{}", '{"params":{"payload":[]}}', notice(quote="two"), notice(Y="one")):
            await connection.send(message)
        await connection.wait_closed()

    assert heard(talk, 2) == (["two", "one"], "enough")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (["garbage"], "not valid JSON"),
        (["[]"], "no object"),
        ([b"\xff\xfe"], "not valid JSON"),
        (['{"error":{"code":-32601,"message":"no\\nno"},"id":1}'], "answered"),
        (['{"result":{},"result":{}}'], "duplicate key"),
        ([" " * 70_000], "gives no hints"),
        ([], "gives no hints"),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("accepted", [False, True])
def test_hints_end_when_the_mint_says_no_or_garbage_or_goes(messages: list[Any], words: str, accepted: bool) -> None:
    async def talk(connection: ServerConnection) -> None:
        if accepted:
            await accept(connection)
        else:
            await connection.recv()
        for message in messages:
            await connection.send(message)

    names, end = heard(talk)
    assert names == []
    assert words in end
    assert "\n" not in end


def test_a_mint_without_a_websocket_gives_no_hints() -> None:
    async def scenario(url: str) -> None:
        with pytest.raises(UnavailableError, match="gives no hints"):
            await anext(hints(url, "proof_state", ["02"]))

    with between("http://127.0.0.1:9") as server:
        server.always("/", says(b"", 404))
        run(scenario(server.url))
    run(scenario("http://127.0.0.1:9"))


@pytest.mark.parametrize("count", [0, 1001])
def test_too_many_things_to_watch_are_refused(count: int) -> None:
    async def scenario() -> None:
        with pytest.raises(InputError, match="things to watch"):
            await anext(hints("http://127.0.0.1:9", "proof_state", ["02"] * count))

    run(scenario())
