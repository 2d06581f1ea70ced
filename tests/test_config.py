"""config.py, configvalues.py and strictyaml.py: what is taken, what is refused, and in which words.

Past 400 lines because it is one table of wrong values with the words that answer them.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeskill import config, strictyaml
from tradeskill.config import BuyerConfig, Capacity, PluginChoice, ProfileConfig, SellerConfig, home_from_env, load_config, read_environment, write_config
from tradeskill.contracts import Limits
from tradeskill.errors import ConfigError, NetworkMismatchError, StorageError
from tradeskill.money import Amount
from tradeskill.strictyaml import dump_yaml, parse_yaml

ROOT = Path(__file__).parent.parent

HEAD = "network: dev\nmarket: {plugin: embedded, path: market.db}\n"
OFFER = """
network: dev
market: {plugin: relay, url: "http://127.0.0.1:8402"}
wallets: [{plugin: nano, rpc: ["http://127.0.0.1:7076"], ws: "ws://127.0.0.1:7078"}]
offers:
  - name: web-extract
    title: Web page to Markdown
    tags: [web, markdown]
    price: "0.001 XNO"
    input: {type: object, required: [url], properties: {url: {type: string, format: uri}, seed: {type: integer}}}
    backend: process
    trusted: true
    run: ["python", "-I", "extract.py"]
    pure: true
    limits: {seconds: 60, memory: 256M, output: 4M}
    capacity: {jobs: 4, per_buyer: 2}
"""


def load(tmp_path: Path, text: str, base: ProfileConfig | None = None) -> ProfileConfig:
    path = tmp_path / "seller.yaml"
    path.write_text(text, "utf-8")
    return load_config(path, base)


def refused(tmp_path: Path, text: str) -> str:
    """The error for this file, without the file's name, which it must begin with."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'seller.yaml'}: ")
    assert "\n" not in message
    return message.removeprefix(f"{tmp_path / 'seller.yaml'}: ")


def offer(**keys: str) -> str:
    """A profile with one offer; a key given as "" is left out."""
    lines = {"name": "a", "title": "A", "price": "1 XNO", "trusted": "true", "run": "[a]", **keys}
    return HEAD + "offers:\n  - " + "\n    ".join(f"{name}: {value}" for name, value in lines.items() if value != "") + "\n"


# What is taken


def test_the_design_s_sketch_is_read_whole(tmp_path: Path) -> None:
    profile = load(tmp_path, OFFER)
    assert profile.network == "dev"
    assert profile.market == PluginChoice("relay", {"url": "http://127.0.0.1:8402"})
    assert profile.wallets == (PluginChoice("nano", {"rpc": ["http://127.0.0.1:7076"], "ws": "ws://127.0.0.1:7078"}),)
    (sold,) = profile.offers
    assert (sold.name, sold.title, sold.description, sold.tags) == ("web-extract", "Web page to Markdown", "Web page to Markdown", ("web", "markdown"))
    assert sold.price == (Amount(10**27, "raw"),)
    assert sold.limits == Limits(60.0, 256 * 2**20, 4 * 2**20, None, 256)
    assert sold.capacity == Capacity(jobs=4, per_buyer=2)
    assert (sold.backend, sold.trusted, sold.run, sold.pure) == ("process", True, ("python", "-I", "extract.py"), True)
    assert sold.input["required"] == ["url"]
    assert sold.folder == tmp_path
    assert profile.source == tmp_path / "seller.yaml"


def test_a_profile_of_two_keys_gets_every_default(tmp_path: Path) -> None:
    profile = load(tmp_path, HEAD)
    assert (profile.wallets, profile.offers, profile.backends) == ((), (), {})
    assert profile.seller == SellerConfig()
    assert profile.buyer == BuyerConfig()
    assert profile.buyer.cap_total is None


def test_an_offer_s_defaults_are_those_of_the_contracts(tmp_path: Path) -> None:
    (sold,) = load(tmp_path, offer()).offers
    assert sold.limits == Limits()
    assert sold.input == {"type": "object"}
    assert not sold.pure


def test_the_program_s_folder_is_relative_to_the_file_it_stands_in(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (sold,) = load(tmp_path, offer(folder="jobs")).offers
    assert sold.folder == tmp_path / "jobs"
    assert "offers[0].folder: takes an existing folder" in refused(tmp_path, offer(folder="nowhere"))


@pytest.mark.parametrize(
    ("written", "bytes_"), [("256M", 256 * 2**20), ("2G", 2**31), ("1024K", 2**20), ("1048576", 2**20), ('"4M"', 4 * 2**20)]
)
def test_sizes_are_powers_of_1024(tmp_path: Path, written: str, bytes_: int) -> None:
    (sold,) = load(tmp_path, offer(limits=f"{{memory: {written}}}")).offers
    assert sold.limits.memory == bytes_


@pytest.mark.parametrize("written", ["60", '"60"', "60.0", '"60.0"'])
def test_seconds_are_a_number_or_its_digits(tmp_path: Path, written: str) -> None:
    (sold,) = load(tmp_path, offer(limits=f"{{seconds: {written}, cpu_seconds: 5}}")).offers
    assert (sold.limits.seconds, sold.limits.cpu_seconds) == (60.0, 5.0)


def test_one_job_at_once_leaves_one_per_buyer(tmp_path: Path) -> None:
    (sold,) = load(tmp_path, offer(capacity="{jobs: 1}")).offers
    assert sold.capacity == Capacity(jobs=1, per_buyer=1)


def test_a_file_over_a_profile_replaces_only_what_it_names(tmp_path: Path) -> None:
    base = load(tmp_path, HEAD + "seller: {workers: 9, late: refund}\nbuyer: {cap_total: 1 XNO}\nbackends: {process: {a: 1}, other: {b: 2}}\n")
    merged = load(tmp_path, offer().removeprefix(HEAD) + "seller: {workers: 2}\nbackends: {process: {a: 3}}\n", base)
    assert merged.market == base.market
    assert merged.seller == dataclasses.replace(base.seller, workers=2)
    assert merged.buyer == base.buyer
    assert merged.backends == {"process": {"a": 3}, "other": {"b": 2}}
    assert [sold.name for sold in merged.offers] == ["a"]
    assert load(tmp_path, "", base) == base


def test_a_plugin_s_relative_paths_start_where_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    write_config(tmp_path / "home" / "config.yaml", {"network": "dev", "market": {"plugin": "embedded", "path": "market.db"}})
    base = load_config(tmp_path / "home" / "config.yaml")
    merged = load(tmp_path, "wallets: [{plugin: nano}]\n", base)
    assert merged.market.folder == tmp_path / "home"
    assert merged.wallets[0].folder == tmp_path


def test_a_file_for_another_network_does_not_mix_in(tmp_path: Path) -> None:
    base = load(tmp_path, HEAD)
    assert load(tmp_path, "network: dev\n", base) == base
    with pytest.raises(NetworkMismatchError, match="network: is 'live', but the profile was made for 'dev'"):
        load(tmp_path, "network: live\n", base)


# What is refused


@pytest.mark.parametrize(
    "written", ['"1e3 XNO"', "1e3", '" 5 XNO"', '"１２ XNO"', '"-1 XNO"', f'"{2**128} raw"', '"1_0 raw"', '"+7 raw"', "5", '"5\\n raw"', "0.5", "null"]
)
def test_an_amount_that_is_none_is_refused_by_key_and_value(tmp_path: Path, written: str) -> None:
    assert refused(tmp_path, offer(price=written)).startswith("offers[0].price: amount ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (offer(prise="1 XNO"), "offers[0].prise: unknown key; did you mean 'price'?"),
        (HEAD + "zzz: 1\n", "zzz: unknown key; the keys here are network, market,"),
        (HEAD + "seller: {quote_ttl: 5}\n", "seller.quote_ttl: unknown key; did you mean 'quote_ttl_seconds'?"),
        ("market: {plugin: embedded}\n", "network is missing; it takes dev or test or live"),
        ("network: dev\n", "market is missing"),
        ("", "network is missing"),
        ("[]", "takes a mapping of keys to values, not []"),
        ("just words", "takes a mapping of keys to values, not 'just words'"),
        ("network: main\nmarket: {plugin: a}\n", "network: takes dev or test or live, not 'main'"),
        ("network: dev\nmarket: embedded\n", "market: takes a mapping such as {plugin: NAME}, not 'embedded'"),
        ("network: dev\nmarket: {path: x}\n", "market: plugin is missing"),
        ("network: dev\nmarket: {plugin: ../x}\n", "market.plugin: takes a plugin's name"),
        (HEAD + "wallets: {plugin: nano}\n", "wallets: takes a list, not {'plugin': 'nano'}"),
        (HEAD + "wallets: [{plugin: nano}, {plugin: nano}]\n", "wallets[1]: repeats 'nano'"),
        (HEAD + "backends: [process]\n", "backends: takes a mapping"),
        (HEAD + "backends: {process: 5}\n", "backends.process: takes a mapping of settings, not 5"),
        (HEAD + "backends: {Process: {}}\n", "backends.Process: takes a plugin's name"),
        (HEAD + "seller: {quote_ttl_seconds: 3601}\n", "seller.quote_ttl_seconds: takes a whole number from 60 to 3600, not 3601"),
        (HEAD + "seller: {workers: true}\n", "seller.workers: takes a whole number from 1 to 256, not True"),
        (HEAD + "seller: {workers: 2.0}\n", "seller.workers: takes a whole number"),
        (HEAD + "seller: {late: keep}\n", "seller.late: takes run or refund, not 'keep'"),
        (HEAD + "seller: {poll_seconds: 0}\n", "seller.poll_seconds: takes a number from 0.05 to 3600, not 0"),
        (HEAD + "buyer: {receipts: no}\n", "buyer.receipts: takes require or allow-missing, not 'no'"),
        (HEAD + "buyer: {cap_total: 5}\n", "buyer.cap_total: amount 5 is not"),
        (offer(name="Web Extract"), "offers[0].name: takes 1 to 64 of a-z, 0-9 and single hyphens, not 'Web Extract'"),
        (offer(name="a--b"), "offers[0].name: takes 1 to 64"),
        (offer(name=""), "offers[0].title"[:9]),
        (offer(title="x" * 121), "offers[0].title: takes a text of 1 to 120 characters"),
        (offer(title="5"), "offers[0].title: takes a text of 1 to 120 characters, not 5"),
        (offer(tags="[a, a]"), "offers[0].tags[1]: repeats 'a'"),
        (offer(tags="[" + "a," * 17 + "]"), "offers[0].tags: takes 0 to 16 entries, not 17"),
        (offer(price="0 XNO"), "offers[0].price: takes an amount above zero"),
        (offer(price=""), "offers[0]: price is missing; it takes an amount above zero"),
        (offer(run="extract.py"), "offers[0].run: takes a list, not 'extract.py'"),
        (offer(run="[]"), "offers[0].run: takes 1 to 256 entries, not 0"),
        (offer(run='["a\\0b"]'), "offers[0].run[0]: takes a text"),
        (offer(pure="yes"), "offers[0].pure: takes true or false, not 'yes'"),
        (offer(trusted="", backend="process"), "offers[0].trusted: must be true for the backend 'process', which isolates nothing"),
        (offer(trusted="false", backend="process@tradeskill"), "offers[0].trusted: must be true"),
        (offer(isolation="some"), "offers[0].isolation: takes none or sandbox or container or vm, not 'some'"),
        (offer(network="yes"), "offers[0].network: takes true or false, not 'yes'"),
        (offer(limits="{memory: 256MB}"), "offers[0].limits.memory: takes a size from 1M to 1024G, such as 256M, not '256MB'"),
        (offer(limits="{memory: 256}"), "offers[0].limits.memory: takes a size from 1M"),
        (offer(limits="{memory: 2.5G}"), "offers[0].limits.memory: takes a size"),
        (offer(limits="{memory: true}"), "offers[0].limits.memory: takes a size"),
        (offer(limits="{memory: 9999999999999G}"), "offers[0].limits.memory: takes a size"),
        (offer(limits="{memory: \"１M\"}"), "offers[0].limits.memory: takes a size"),
        (offer(limits="{seconds: 1:30}"), "offers[0].limits.seconds: takes a number from 0.1 to 86400, not '1:30'"),
        (offer(limits="{seconds: 1e3}"), "offers[0].limits.seconds: takes a number"),
        (offer(limits="{seconds: 0}"), "offers[0].limits.seconds: takes a number"),
        (offer(limits="{seconds: true}"), "offers[0].limits.seconds: takes a number"),
        (offer(capacity="{jobs: 1, per_buyer: 2}"), "offers[0].capacity.per_buyer: takes at most the 1 of `jobs`, not 2"),
        (offer(folder="5"), "offers[0].folder: takes an existing folder"),
        (HEAD + "offers:\n" + 2 * "- {name: a, title: A, price: 1 XNO, trusted: true, run: [a]}\n", "offers[1]: repeats 'a'"),
    ],
)
def test_a_wrong_value_is_named_by_key_and_value(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, text).startswith(said)


def test_without_a_word_what_is_not_trusted_goes_into_bubblewrap_and_what_is_into_a_process(tmp_path: Path) -> None:
    for trusted, backend in (("", "bubblewrap"), ("false", "bubblewrap"), ("true", "process")):
        (sold,) = load(tmp_path, offer(trusted=trusted)).offers
        assert (sold.backend, sold.network, sold.isolation) == (backend, False, None)


def test_an_offer_on_an_isolating_backend_need_not_be_trusted(tmp_path: Path) -> None:
    (sold,) = load(tmp_path, offer(trusted="", backend="bubblewrap")).offers
    assert not sold.trusted


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("5", "offers[0].input: takes a JSON Schema as a mapping, not 5"),
        ("{type: objekt}", "offers[0].input.type: is not a valid JSON Schema"),
        ("{allOf: [{minimum: a}]}", "offers[0].input.allOf[0].minimum: is not a valid JSON Schema"),
        ('{pattern: "("}', "offers[0].input.pattern: is not a valid JSON Schema"),
        ('{$schema: "http://json-schema.org/draft-07/schema#"}', "offers[0].input.$schema: takes the Draft 2020-12 dialect"),
        ('{properties: {a: {$ref: "https://example.com/a"}}}', "offers[0].input.properties.a.$ref: takes a reference to something in this schema"),
        ('{allOf: [{$ref: "#/$defs/missing"}]}', "offers[0].input.allOf[0].$ref: takes a reference"),
        ('{allOf: [{$ref: "#/allOf/7"}]}', "offers[0].input.allOf[0].$ref: takes a reference"),
        ('{$ref: "#/required", required: [a]}', "offers[0].input.$ref: takes a reference"),
    ],
)
def test_a_schema_that_would_fail_at_a_buyer_s_input_is_refused_now(tmp_path: Path, schema: str, said: str) -> None:
    assert refused(tmp_path, offer(input=schema)).startswith(said)


@pytest.mark.parametrize(
    "schema",
    [
        '{$schema: "https://json-schema.org/draft/2020-12/schema", type: object}',
        '{$defs: {"a/b": {type: string}}, properties: {x: {$ref: "#/$defs/a~1b"}, me: {$ref: "#"}, two: {$ref: "#/allOf/0"}}, allOf: [true]}',
        '{properties: {x: {const: {$ref: "https://example.com"}}}}',
        "{properties: {password: {type: string}}}",
    ],
)
def test_a_schema_within_itself_is_taken(tmp_path: Path, schema: str) -> None:
    load(tmp_path, offer(input=schema))


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "seed: hunter2\n",
        HEAD + "wallets: [{plugin: nano, seed: hunter2}]\n",
        HEAD + "wallets: [{plugin: nano, password: hunter2}]\n",
        HEAD + "wallets: [{plugin: nano, privateKey: hunter2}]\n",
        HEAD + "wallets: [{plugin: nano, nodes: [{api-key: hunter2}]}]\n",
        HEAD + "backends: {remote: {access_token: hunter2}}\n",
        HEAD + "backends: {remote: {url: 'postgresql://me:hunter2@localhost/db'}}\n",
    ],
)
def test_a_secret_is_refused_with_the_way_out_and_never_shown(tmp_path: Path, text: str) -> None:
    message = refused(tmp_path, text)
    assert "hunter2" not in message
    assert "--password-file" in message
    assert "tradeskill init" in message


def test_a_file_that_holds_a_secret_may_be_named(tmp_path: Path) -> None:
    assert load(tmp_path, HEAD + "wallets: [{plugin: nano, password_file: /run/secret, max_tokens: 5}]\n").wallets[0].settings["max_tokens"] == 5


def test_terminal_escapes_in_a_value_are_shown_escaped(tmp_path: Path) -> None:
    message = refused(tmp_path, 'network: "\\e[2J\\u202e"\nmarket: {plugin: a}\n')
    assert message.isprintable()
    assert "x1b" in message


# Strict YAML


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("network: dev\nnetwork: live\n", "line 2: the key 'network' stands twice"),
        ("a: &x [1]\nb: *x\n", "line 1: anchors (&) and aliases (*) are not supported"),
        ("a: !!python/object:os.system x\n", "line 1: the tag 'tag:yaml.org,2002:python/object:os.system' is not supported"),
        ("a: !!int '5'\n", "line 1: the tag"),
        ("? [a]\n: 5\n", "line 1: a key must be a plain word"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document starts here"),
        ("a: [1\nb: 2\n", "line 2: not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
        ("a: " + "[" * 100 + "]" * 100, "line 1: is nested deeper than 64 levels"),
        ("[" * 300_000, "line 1: is nested deeper than 64 levels"),
    ],
)
def test_what_yaml_does_without_being_asked_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *[(word, word) for word in ("no", "yes", "on", "Off", "True", "NULL", "1e3", "1:30", "0755", "1_000", "0x1f")],
        *[(word, word) for word in (".5", "+1", "-0", "2020-01-01", "<<", ".inf", "１２")],
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("0.5", 0.5),
        ("'5'", "5"),
        ('"true"', "true"),
        ("! 5", "5"),
    ],
)
def test_a_plain_word_means_what_it_looks_like(word: str, value: object) -> None:
    read = parse_yaml(f"a: {word}\n", "test")["a"]
    assert read == value
    assert type(read) is type(value)


def test_a_number_too_long_for_an_int_is_a_word() -> None:
    assert parse_yaml("9" * 5000, "test") == "9" * 5000


def test_a_block_of_text_keeps_its_lines() -> None:
    assert parse_yaml("a: |\n  5\n  true\n", "test") == {"a": "5\ntrue\n"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_document_is_nothing(text: str) -> None:
    assert parse_yaml(text, "test") is None


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["no", "1e3", "1:30", "0755", "~", "true", "12", "0.5", "=", "<<", "- a", "a: b", "*x"]
)
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(words, trees, max_size=5))
def test_what_is_written_is_what_is_read(value: dict[str, Any]) -> None:
    assert parse_yaml(dump_yaml(value), "test") == value


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": 1e300}, {"a": {1, 2}}, {"a": object()}])
def test_what_is_no_plain_value_is_not_written(value: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        dump_yaml(value)


def test_a_plain_decimal_is_written_and_read() -> None:
    assert parse_yaml(dump_yaml({"a": 0.25, "b": (1, 2)}), "test") == {"a": 0.25, "b": [1, 2]}


# Files


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such configuration file; `tradeskill init` makes one"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"a: \xff\n", "is not UTF-8 (byte 3)"), (b"a: 1\n" * 300_000, "is larger than 1048576 bytes"), (b"\xff\xfea\0", "is not UTF-8")],
)
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(tmp_path / "x.yaml")


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + HEAD).network == "dev"


def test_a_written_profile_is_private_and_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "home" / "config.yaml"
    write_config(path, {"network": "test", "market": {"plugin": "embedded", "path": "/srv/market.db"}, "buyer": {"cap_total": "1 XNO"}})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [item.name for item in path.parent.iterdir()] == ["config.yaml"]
    profile = load_config(path)
    assert profile.market == PluginChoice("embedded", {"path": "/srv/market.db"})
    assert profile.buyer.cap_total == (Amount(10**30, "raw"),)


def test_a_wrong_profile_is_not_written_over_a_right_one(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    right = {"network": "dev", "market": {"plugin": "embedded"}}
    write_config(path, right)
    before = path.read_bytes()
    for wrong in ({"network": "dev"}, {**right, "network": "main"}, {**right, "seed": "hunter2"}):
        with pytest.raises(ConfigError):
            write_config(path, wrong)
    assert path.read_bytes() == before


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    right = {"network": "dev", "market": {"plugin": "embedded"}}
    write_config(path, right)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(strictyaml.os, "fsync", full)
    with pytest.raises(StorageError, match=r"config\.yaml: cannot be written: No space left on device"):
        write_config(path, {**right, "network": "test"})
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["config.yaml"]


# Environment


def test_the_home_is_the_one_that_is_named(tmp_path: Path) -> None:
    assert home_from_env({"TRADESKILL_HOME": str(tmp_path)}) == tmp_path
    assert home_from_env({"TRADESKILL_HOME": "here"}) == Path.cwd() / "here"
    assert home_from_env({}).name == "tradeskill"
    assert home_from_env({}).is_absolute()


@pytest.mark.parametrize("value", ["", " ", "a\nb", "a\0b"])
def test_a_home_set_to_nothing_is_not_the_default_one(value: str) -> None:
    with pytest.raises(ConfigError, match="TRADESKILL_HOME: takes the path of a folder"):
        home_from_env({"TRADESKILL_HOME": value})


def test_a_home_under_nobody_s_home_is_refused() -> None:
    with pytest.raises(ConfigError, match="starts from a home folder that is not known"):
        home_from_env({"TRADESKILL_HOME": "~nobody-of-that-name/x"})


def test_the_environment_is_read_as_a_whole(tmp_path: Path) -> None:
    read = read_environment({"TRADESKILL_HOME": str(tmp_path), "TRADESKILL_NETWORK": "live", "TRADESKILL_PASSWORD_FILE": str(tmp_path / "p"), "PATH": "/bin"})
    assert (read.home, read.network, read.password_file) == (tmp_path, "live", tmp_path / "p")
    assert read_environment({"TRADESKILL_HOME": "/x"}).network is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TRADESKILL_NETWORK", "main", "TRADESKILL_NETWORK: takes dev or test or live, not 'main'"),
        ("TRADESKILL_NETWORK", "", "TRADESKILL_NETWORK: takes dev or test or live, not ''"),
        ("TRADESKILL_PASSWORD_FILE", "", "TRADESKILL_PASSWORD_FILE: takes the path of a file"),
        ("TRADESKILL_PASWORD_FILE", "x", "no such environment variable; did you mean TRADESKILL_PASSWORD_FILE?"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_environment({name: value})


def test_a_variable_of_somebody_else_s_plugin_is_left_alone() -> None:
    assert read_environment({"TRADESKILL_WEATHER_UNITS": "metric"}).network is None


def test_every_variable_in_the_source_is_described() -> None:
    found: set[str] = set()
    for package in ("core/tradeskill", "wallet/tradeskill_wallet", "plugins/tradeskill_plugins", "skills/tradeskill_skills"):
        for path in (ROOT / package).rglob("*.py"):
            found |= set(re.findall(r"TRADESKILL_[A-Z_]*[A-Z]", path.read_text("utf-8")))
    assert found <= set(config.ENVIRONMENT)
