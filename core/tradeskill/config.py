"""One profile's configuration: every key with its meaning, read from YAML and the environment, checked as a whole.

The classes below are the definition: reading, checking, merging and docs/configuration.md all follow their fields.
"""
# ruff: noqa: RUF009 - _key() returns a dataclasses.field, which is not shared between instances

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tradeskill import configvalues as v
from tradeskill.configvalues import Place, Shape
from tradeskill.configvalues import section as _section
from tradeskill.configvalues import setting as _key
from tradeskill.errors import ConfigError, NetworkMismatchError
from tradeskill.isolation import LEVELS
from tradeskill.model import NETWORKS, Network
from tradeskill.money import Amount

if TYPE_CHECKING:
    from tradeskill.contracts import Limits

__all__ = [
    "CONFIG_FILE",
    "ENVIRONMENT",
    "BuyerConfig",
    "Capacity",
    "Environment",
    "LimitsConfig",
    "OfferConfig",
    "PluginChoice",
    "PluginsConfig",
    "ProfileConfig",
    "SellerConfig",
    "home_from_env",
    "load_config",
    "read_environment",
    "write_config",
]

CONFIG_FILE: Final = "config.yaml"  # in the profile's folder


@dataclass(frozen=True)
class PluginChoice:
    """A plugin and what is written for it; the plugin checks `settings` itself when it is opened. Relative paths in them start at `folder`."""

    plugin: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)  # of the file it is written in, which `source` is not once files are merged


def _plugin(value: Any, place: Place) -> PluginChoice:
    if not isinstance(value, dict):
        raise place.error("takes a mapping such as {plugin: NAME}", value)
    if "plugin" not in value:
        raise place.error("plugin is missing; it takes the name of a plugin, see `tradeskill plugins`")
    settings = {name: item for name, item in value.items() if name != "plugin"}
    return PluginChoice(v.plugin_name().read(value["plugin"], place.key("plugin")), settings, place.file.absolute().parent)


def _settings(value: Any, place: Place) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise place.error("takes a mapping of settings", value)
    return value


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """What one execution of an offer may use."""

    seconds: float = _key(v.number(0.1, 86_400), "Wall clock from start to end.", 60.0)
    cpu_seconds: float | None = _key(v.optional(v.number(0.1, 86_400)), "Processor time; null: as much as `seconds`.", None)
    memory: int = _key(v.size(2**20, 2**40), "Memory of the job and all it starts.", 256 * 2**20)
    output: int = _key(v.size(1, 2**30), "Standard output, or all output files together.", 4 * 2**20)
    files: int = _key(v.integer(1, 10_000), "How many output files there may be.", 256)

    def limits(self) -> Limits:
        """The same as backends take it."""
        from tradeskill.contracts import Limits  # late: it brings the event loop with it, which most commands do without

        return Limits(self.seconds, self.memory, self.output, self.cpu_seconds, self.files)


def _limits(value: Any, place: Place) -> Limits:
    return _section(LimitsConfig, value, place).limits()


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How many jobs of one offer may be open at once. A place is held from the quote until its deadlines end."""

    jobs: int = _key(v.integer(1, 10_000), "Jobs open at once, all buyers together.", 4)
    per_buyer: int = _key(v.integer(1, 10_000), "Jobs open at once for one buyer key; never more than `jobs`.", 2)


def _capacity(value: Any, place: Place) -> Capacity:
    capacity = _section(Capacity, value, place)
    if capacity.per_buyer <= capacity.jobs:
        return capacity
    if "per_buyer" in value:
        raise place.key("per_buyer").error(f"takes at most the {capacity.jobs} of `jobs`", capacity.per_buyer)
    return dataclasses.replace(capacity, per_buyer=capacity.jobs)


@dataclass(frozen=True, kw_only=True)
class OfferConfig:
    """One thing a seller sells."""

    name: str = _key(v.slug(), "Short name; with the seller's key it names the offer for good.")
    title: str = _key(v.text(120), "What buyers see first.")
    description: str = _key(v.text(2000), "What it does, what goes in and what comes out. Default: the title.", "")
    tags: tuple[str, ...] = _key(v.list_of(v.text(32), 16, unique="."), "Words to search by.", ())
    price: tuple[Amount, ...] = _key(v.amounts(v.positive_amount()), "Price of one job. Of several, the buyer pays the one that suits it.")
    input: Mapping[str, Any] = _key(
        v.json_schema(), "What a job's input must look like; checked before a quote is given.", factory=lambda: {"type": "object"}
    )
    backend: str = _key(
        v.plugin_name(), "The backend plugin that runs the jobs, where there is a `run`. Default: `bubblewrap`; with `trusted: true`, `process`.", ""
    )
    trusted: bool = _key(v.flag(), "Says that the program is your own. The process backend isolates nothing and takes no other.", False)
    isolation: str | None = _key(
        v.optional(v.choice(*LEVELS)), "The least isolation its backend must give, else it is not sold. Without `trusted: true` at least `sandbox`.", None
    )
    network: bool = _key(v.flag(), "Lets its jobs use the machine's network, loopback included. Without it an isolating backend gives them none.", False)
    run: tuple[str, ...] = _key(
        v.list_of(v.text(4096), 256, 1),
        "Command and arguments. The input comes as JSON on standard input. Without it, jobs are done by hand: `tradeskill call seller.deliver`.",
        (),
    )
    pure: bool = _key(v.flag(), "Says that running it twice does no harm, so that a job lost in a crash is run again.", False)
    limits: Limits = _key(Shape("a mapping, see `offers[].limits`", _limits), "What one job may use.", None)
    capacity: Capacity = _key(Shape("a mapping, see `offers[].capacity`", _capacity), "How many jobs at once.", Capacity())
    folder: Path = _key(v.folder(), "Where the program's files lie. Default: the folder of this file.", None)


def _offer(value: Any, place: Place) -> OfferConfig:
    offer = _section(OfferConfig, value, place)
    if offer.run and offer.backend.partition("@")[0] == "process" and not offer.trusted:
        raise place.key("trusted").error(
            "must be true for the backend 'process', which isolates nothing: write it if the program is your own, else name another backend"
        )
    return dataclasses.replace(
        offer,
        backend=offer.backend or ("process" if offer.trusted else "bubblewrap"),
        description=offer.description or offer.title,
        limits=offer.limits or LimitsConfig().limits(),
        folder=offer.folder or place.file.absolute().parent,
    )


@dataclass(frozen=True, kw_only=True)
class SellerConfig:
    """How this profile sells."""

    quote_ttl_seconds: int = _key(v.integer(60, 3600), "How long a quote and its invoice hold.", 900)
    late: Literal["run", "refund"] = _key(
        v.choice("run", "refund"), "A payment after the quote's end, with the job still open: do the work, or send it back.", "run"
    )
    surplus: Literal["keep", "refund"] = _key(
        v.choice("keep", "refund"), "What was paid beyond the price: record and keep it, or send it back.", "keep"
    )
    uncertain: Literal["refund", "review"] = _key(
        v.choice("refund", "review"), "A job lost after its start, not `pure`: send the money back, or leave it to `tradeskill review`.", "refund"
    )
    refund_minimum: tuple[Amount, ...] = _key(
        v.amounts(v.amount()),
        "Smaller sums beyond a price, or without a job, are kept: sending them back would cost more. In a unit without one, everything is sent back.",
        (Amount(10**24, "raw"),),
    )
    poll_seconds: float = _key(v.number(0.05, 3600), "How often open jobs and invoices are looked at even without a hint.", 5.0)
    lease_seconds: float = _key(
        v.number(1, 3600), "How long a running job stays with a worker that fell silent before another takes it over; renewed three times as often.", 60.0
    )
    keep_results_days: int = _key(v.integer(1, 3650), "How long a paid result can be fetched again.", 30)
    workers: int = _key(v.integer(1, 256), "Jobs executed at once.", 4)


def _seller(value: Any, place: Place) -> SellerConfig:
    return _section(SellerConfig, value, place)


@dataclass(frozen=True, kw_only=True)
class BuyerConfig:
    """How this profile buys. Nothing that a market or a seller sends can raise these caps."""

    cap_total: tuple[Amount, ...] | None = _key(
        v.optional(v.amounts(v.amount())),
        "All spending of this profile together. A unit that a cap does not name is not spent. Null: no cap on dev, nothing at all on test and live.",
        None,
    )
    cap_per_payment: tuple[Amount, ...] | None = _key(v.optional(v.amounts(v.amount())), "One payment. Null: as `cap_total`.", None)
    first_use_cap: tuple[Amount, ...] | None = _key(
        v.optional(v.amounts(v.amount())), "One payment to a seller whose key was not seen before. Null: as `cap_per_payment`.", None
    )
    quote_timeout_seconds: int = _key(v.integer(1, 3600), "How long to wait for a quote before the job is canceled.", 120)
    receipts: Literal["require", "allow-missing"] = _key(
        v.choice("require", "allow-missing"),
        "Whether a delivery without a signed receipt is taken, as unverified; over an old relay its `allow` must hold unsigned-receipts too.",
        "require",
    )


def _buyer(value: Any, place: Place) -> BuyerConfig:
    return _section(BuyerConfig, value, place)


@dataclass(frozen=True, kw_only=True)
class PluginsConfig:
    """Which plugins this profile trusts, and how long it waits for those of other packages."""

    allow: tuple[str, ...] = _key(
        v.list_of(v.allowed_plugin(), 64, unique="."),
        "Payment plugins of other packages that may touch money, by name; with a hash, only the package as it is now installed.",
        (),
    )
    call_seconds: float = _key(
        v.number(1, 86_400), "What a call of another package's plugin may take; then nobody knows what became of it, and it is asked again.", 120.0
    )
    slow_seconds: float = _key(v.number(1, 86_400), "The same for a call that moves money, computes work or starts a machine.", 900.0)
    patience_seconds: float = _key(
        v.number(0, 604_800),
        "How long a job puts up with another package's backend that raises, hangs or lies. Then it goes to review, or back to the buyer where nothing was run.",
        3600.0,
    )


def _plugins(value: Any, place: Place) -> PluginsConfig:
    return _section(PluginsConfig, value, place)


_PLUGIN: Final = Shape("a mapping: `plugin` and that plugin's settings", _plugin)


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """One identity's market, wallets, backends and ways to buy and sell."""

    network: Network = _key(v.choice(*NETWORKS), "Which money is meant. Fixed by `tradeskill init`; dev, test and live never mix.")
    market: PluginChoice = _key(_PLUGIN, "Where offers and jobs are exchanged.")
    wallets: tuple[PluginChoice, ...] = _key(v.list_of(_PLUGIN, 16, unique="plugin"), "The payment rails.", ())
    backends: Mapping[str, Mapping[str, Any]] = _key(
        v.mapping_of(v.plugin_name(), Shape("a mapping of its settings", _settings)), "Settings of backend plugins, by plugin name.", factory=dict
    )
    offers: tuple[OfferConfig, ...] = _key(
        v.list_of(Shape("a mapping, see `offers[]`", _offer), 1000, unique="name"), "What this profile sells.", ()
    )
    seller: SellerConfig = _key(Shape("a mapping, see `seller`", _seller), "How it sells.", SellerConfig())
    buyer: BuyerConfig = _key(Shape("a mapping, see `buyer`", _buyer), "How it buys.", BuyerConfig())
    plugins: PluginsConfig = _key(Shape("a mapping, see `plugins`", _plugins), "Which plugins it trusts.", PluginsConfig())
    source: Path | None = None  # not a key: the file that was read last


def load_config(path: Path, base: ProfileConfig | None = None) -> ProfileConfig:
    """The configuration in the file `path`; ConfigError names file, key and value.

    With `base`, any subset of keys may stand in the file: `seller` and `buyer` are merged key by key, `backends` by name,
    everything else is replaced. A different network raises NetworkMismatchError.
    """
    from tradeskill.strictyaml import read_yaml

    path = Path(path)
    document = read_yaml(path)
    return _profile({} if document is None else document, Place(path), base)


def write_config(path: Path, mapping: Mapping[str, Any]) -> None:
    """Write a profile's configuration: checked first, then replaced whole, mode 0600. ConfigError or StorageError; the old file then stays."""
    from tradeskill.strictyaml import dump_yaml, parse_yaml, write_private

    path = Path(path)
    text = dump_yaml(mapping)
    _profile(parse_yaml(text, str(path)), Place(path), None)
    write_private(path, text.encode())


def _profile(value: Any, place: Place, base: ProfileConfig | None) -> ProfileConfig:
    v.refuse_secrets(value, place, exempt=r"offers\[[0-9]+\]\.input")
    profile = _section(ProfileConfig, value, place, base)
    if base is None:
        return dataclasses.replace(profile, source=place.file)
    if profile.network != base.network:
        raise NetworkMismatchError(
            f"{place.file}: network: is {profile.network!r}, but the profile was made for {base.network!r}; use a profile of its own (TRADESKILL_HOME)"
        )
    return dataclasses.replace(
        profile,
        source=place.file,
        backends={**base.backends, **profile.backends},
        seller=_section(SellerConfig, value.get("seller", {}), place.key("seller"), base.seller),
        buyer=_section(BuyerConfig, value.get("buyer", {}), place.key("buyer"), base.buyer),
    )


# Whatever name starting with TRADESKILL_ stands anywhere in the code stands here with its meaning (a test says so).
ENVIRONMENT: Final[Mapping[str, str]] = {
    "TRADESKILL_HOME": "The profile's folder. Default: `tradeskill` in the user's data folder.",
    "TRADESKILL_PASSWORD_FILE": "A file whose first line is the password of the seed; the same as `--password-file`.",
    "TRADESKILL_NETWORK": "The network that the caller means: dev, test or live. A profile of another network stops with exit code 8.",
    "TRADESKILL_SKILLS": "The workspace's folder of skills, searched after the profile's own `skills`. Their tools run with the profile's rights.",
    "TRADESKILL_GRANT": "The grant (`tradeskill policy grant`) that everything started with it spends from, within all other rules.",
    "TRADESKILL_RELAY_DATA": "Where `tradeskill relay serve` keeps everything: a file, or a PostgreSQL DSN; the same as `--data`.",
    "TRADESKILL_OUTPUT": "Set for a job by its backend: the folder for output files.",
    "TRADESKILL_CRASH_AT": "For tests: `before:LABEL` or `after:LABEL` kills the process at that step.",
}


@dataclass(frozen=True)
class Environment:
    """What the environment asks for, checked."""

    home: Path
    password_file: Path | None
    network: Network | None


def read_environment(environ: Mapping[str, str]) -> Environment:
    """ConfigError on an empty or impossible value, and on a name that looks like a misspelled one."""
    for name in sorted(environ):
        near = difflib.get_close_matches(name, ENVIRONMENT, 1, 0.85) if name.startswith("TRADESKILL_") and name not in ENVIRONMENT else []
        if near:
            raise ConfigError(f"{name}: no such environment variable; did you mean {near[0]}?")
    given = environ.get("TRADESKILL_NETWORK")
    network = next((n for n in NETWORKS if n == given), None)
    if given is not None and network is None:
        raise ConfigError(f"TRADESKILL_NETWORK: takes {' or '.join(NETWORKS)}, not {given!r}")
    return Environment(home_from_env(environ), _path(environ, "TRADESKILL_PASSWORD_FILE"), network)


def home_from_env(environ: Mapping[str, str]) -> Path:
    """The profile's folder, absolute: TRADESKILL_HOME, else `tradeskill` in the user's data folder. It may not exist yet."""
    home = _path(environ, "TRADESKILL_HOME")
    if home is not None:
        return home
    from platformdirs import user_data_path

    return user_data_path("tradeskill")


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    value = environ.get(name)
    if value is None:
        return None
    if not value.strip() or not value.isprintable():  # an empty one is a script's unset variable, not a wish for the default profile
        raise ConfigError(f"{name}: takes the path of a {'file' if name.endswith('_FILE') else 'folder'}, not {value!r}; set it or unset it")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"{name}: {value!r} starts from a home folder that is not known; write the whole path") from error
