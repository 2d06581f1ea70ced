"""One identity's home: opens configuration, journal, plugins and keys, and hands them out. The only composer.

Past 400 lines because nothing else may put the parts together.
"""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tradeskill.config import CONFIG_FILE, OfferConfig, PluginChoice, ProfileConfig, load_config
from tradeskill.errors import ConfigError, NetworkMismatchError, NotFoundError, PolicyError, SecretError, StorageError
from tradeskill.guard import Deadlines, guarded
from tradeskill.isolation import demanded_level, level_of, reaches, shows_folder
from tradeskill.model import Network
from tradeskill.money import Amount
from tradeskill.opening import check_allowed, opened
from tradeskill.plugins import Plugins
from tradeskill.signing import Identity, canonical, digest
from tradeskill.world import World

if TYPE_CHECKING:
    from tradeskill.buyer import Buyer
    from tradeskill.contracts import Backend, Market, PluginContext, Wallet
    from tradeskill.journal import Blobs, Database, Purchase
    from tradeskill.model import Json, SignedDocument
    from tradeskill.plugins import Plugin
    from tradeskill.policy import AskOwner, Caps, Guard
    from tradeskill.seller import Listing, Seller, SellerSettings, Shop

__all__ = ["IDENTITY_FILE", "JOURNAL_FILE", "PUBLIC_FILE", "Profile", "check_vacant", "create_profile"]

IDENTITY_FILE = "identity.json"
PUBLIC_FILE = "identity.pub"  # the public key in hex, so that reading needs no password
JOURNAL_FILE = "journal.db"
RESULTS_FOLDER = "results"
WALLETS_FOLDER = "wallets"
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)


class _LockedIdentity(Identity):
    """The public key at once, the secret one when the first signature is asked for."""

    def __init__(self, key: str, unlock: Callable[[], bytes]) -> None:
        self.key = key
        self._unlock = unlock
        self._identity: Identity | None = None

    def sign(self, kind: str, body: Mapping[str, Json]) -> SignedDocument:
        return self.unlocked().sign(kind, body)

    def sign_bytes(self, message: bytes) -> str:
        return self.unlocked().sign_bytes(message)

    def unlocked(self) -> Identity:
        if self._identity is None:
            identity = Identity(self._unlock())
            if identity.key != self.key:
                raise SecretError(f"{IDENTITY_FILE} holds another key than {PUBLIC_FILE} says: restore both from one backup")
            self._identity = identity
        return self._identity


class Profile:
    """A home folder, opened. Parts are opened when first asked for and closed with the profile (`async with`)."""

    ask_owner: AskOwner | None = None  # who is asked where the policy says so; a face that has somebody to ask sets it

    def __init__(self, home: Path, config: ProfileConfig, password: Callable[[], str], world: World, grant: str = "") -> None:
        """`grant`: the child budget that everything spent through this profile is taken from."""
        self.home, self.config, self.world, self.grant = home, config, world, grant
        self._password = password
        self.plugins = Plugins()
        self._stack = AsyncExitStack()
        self._market: Market | None = None
        self._wallets: dict[str, Wallet] | None = None
        self._opening = asyncio.Lock()  # calls that share the parts open each of them once
        self.progress: Callable[[Purchase], None] = lambda purchase: None

    @classmethod
    def load(
        cls, home: Path, password: Callable[[], str], *, world: World | None = None, network: Network | None = None, overlay: Path | None = None
    ) -> Profile:
        """NotFoundError without a profile there; NetworkMismatchError when the caller means another `network`. `overlay`: a `sell CONFIG` file."""
        path = home / CONFIG_FILE
        if not path.exists():
            raise NotFoundError(f"no profile in {home}: make one with `tradeskill init` (TRADESKILL_HOME names the folder)")
        config = load_config(path)
        if overlay is not None:
            config = load_config(overlay, config)
        if network is not None and network != config.network:
            raise NetworkMismatchError(f"the profile in {home} is for network {config.network!r}, the caller means {network!r}")
        return cls(home, config, password, world or World(os.environ.get("TRADESKILL_CRASH_AT")), os.environ.get("TRADESKILL_GRANT", ""))

    async def __aenter__(self) -> Profile:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    # what lies in the home

    @cached_property
    def identity(self) -> Identity:
        """The public key needs no password; signing asks for it once."""
        from tradeskill.secretfile import read_secret

        path = self.home / PUBLIC_FILE
        try:
            key = path.read_text(encoding="ascii").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SecretError(f"{path} cannot be read: restore the profile from its backup") from error
        if _KEY.fullmatch(key) is None:
            raise SecretError(f"{path} is damaged: it must hold 64 hex digits; restore the profile from its backup")
        return _LockedIdentity(key, lambda: read_secret(self.home / IDENTITY_FILE, "identity", self.config.network, self.password()))

    @cached_property
    def password(self) -> Callable[[], str]:
        """Asked for at most once."""
        known: list[str] = []

        def once() -> str:
            if not known:
                known.append(self._password())
            return known[0]

        return once

    @cached_property
    def journal(self) -> Database:
        from tradeskill.journal import Database
        from tradeskill.sqlite import connector

        journal = Database(connector(self.home / JOURNAL_FILE, "the journal"), self.world, self.config.network)
        self._stack.push_async_callback(journal.close)
        return journal

    @cached_property
    def blobs(self) -> Blobs:
        from tradeskill.journal import FileBlobs

        return FileBlobs(self.home / RESULTS_FOLDER)

    # plugins

    def context(self, kind: str, name: str) -> PluginContext:
        from tradeskill.contracts import PluginContext

        folder = name.partition("@")[0]
        return PluginContext(folder, self.config.network, self.home / kind / folder, self.world, self.identity, self.password)

    async def market(self) -> Market:
        async with self._opening:
            if self._market is None:
                choice = self.config.market
                plugin = self.plugins.require(choice.plugin, "market")
                market = plugin.open_market(self._settings(choice), self.context("markets", choice.plugin))
                market = guarded(plugin, market, "Market", self._deadlines)
                await opened(plugin, market.open(), self._deadlines.call)
                self._stack.push_async_callback(market.close)
                self._market = market
            return self._market

    @property
    def _deadlines(self) -> Deadlines:
        return Deadlines(self.config.plugins.call_seconds, self.config.plugins.slow_seconds)

    def check_market(self) -> None:
        """ConfigError naming the key when the market's plugin refuses what is written for it. Opens nothing."""
        choice = self.config.market
        self.plugins.require(choice.plugin, "market").open_market(self._settings(choice), self.context("markets", choice.plugin))

    async def wallets(self) -> dict[str, Wallet]:
        """By rail. ConfigError when two wallets of the configuration serve one rail."""
        async with self._opening:
            if self._wallets is None:
                wallets: dict[str, Wallet] = {}
                for choice in self.config.wallets:
                    plugin = self._payment_plugin(choice)
                    wallet = plugin.open_wallet(self._settings(choice), self.context(WALLETS_FOLDER, choice.plugin))
                    wallet = guarded(plugin, wallet, "Wallet", self._deadlines)
                    if wallet.rail in wallets:
                        raise ConfigError(f"{self.config.source}: two wallets serve the rail {wallet.rail!r}: keep one")
                    await opened(plugin, wallet.open(), self._deadlines.call)
                    self._stack.push_async_callback(wallet.close)
                    wallets[wallet.rail] = wallet
                self._wallets = wallets
            return self._wallets

    async def wallet(self, rail: str = "") -> Wallet:
        """The wallet of `rail`, or the only one."""
        wallets = await self.wallets()
        if (rail and rail not in wallets) or (not rail and len(wallets) != 1):
            raise NotFoundError(f"wallet {rail or '(unnamed)'}: this profile has {', '.join(wallets) or 'none'}; name one with --rail")
        return wallets[rail or next(iter(wallets))]

    def create_wallet(self, choice: PluginChoice, secret: bytes) -> None:
        """Make a wallet's secret files; SecretError when they are there."""
        self._payment_plugin(choice).create_wallet(self._settings(choice), self.context(WALLETS_FOLDER, choice.plugin), secret)

    def _payment_plugin(self, choice: PluginChoice) -> Plugin:
        """Before a rail touches money: one of other people's only if the owner allowed it."""
        plugin = self.plugins.require(choice.plugin, "wallet")
        check_allowed(plugin, self.config.plugins.allow, self.config.source)
        return plugin

    async def backends(self) -> dict[str, Backend]:
        """Those that run jobs of the configured offers. ConfigError where one of them isolates less than its offer demands; nothing less is used instead."""
        backends: dict[str, Backend] = {}
        for name in sorted({offer.backend for offer in self.config.offers if offer.run}):
            plugin = self.plugins.require(name, "backend")
            for offer in self.config.offers:
                if offer.run and offer.backend == name:
                    self._check_isolation(offer, level_of(plugin.capabilities), shows_folder(plugin.capabilities))
            backend = plugin.open_backend(self.config.backends.get(name, {}), self.context("backends", name))
            backend = guarded(plugin, backend, "Backend", self._deadlines)
            await opened(plugin, backend.open(), self._deadlines.call)
            self._stack.push_async_callback(backend.close)
            backends[name] = backend
        return backends

    def _check_isolation(self, offer: OfferConfig, level: str, shown: bool) -> None:
        demanded = demanded_level(offer.isolation, offer.trusted)
        if not reaches(level, demanded):
            way_out = "name another backend" if offer.isolation or offer.trusted else "name another backend, or write trusted: true if the program is your own"
            raise ConfigError(
                f"{self.config.source}: offer {offer.name}: backend {offer.backend} gives isolation {level!r}, the offer demands {demanded!r}; {way_out}"
            )
        if level != "none" and shown and self.home.resolve().is_relative_to(offer.folder.resolve()):
            raise ConfigError(
                f"{self.config.source}: offer {offer.name}: its folder {offer.folder} holds this profile, and its jobs can read that folder: "
                "put the program's files into one of their own and name it as the offer's `folder`"
            )

    def _settings(self, choice: PluginChoice) -> Mapping[str, Json]:
        """A relative path starts at the file it is written in, wherever the command is typed."""
        settings = dict(choice.settings)
        path = settings.get("path")
        if isinstance(path, str) and choice.folder is not None and not path.startswith(("~", "/")):
            settings["path"] = str(choice.folder / path)
        return cast("Mapping[str, Json]", settings)

    # the two sides

    @property
    def caps(self) -> Caps:
        """What the owner allows; on real networks nothing until a cap is written."""
        from tradeskill.policy import Caps

        buyer = self.config.buyer
        unwritten = buyer.cap_total is None and self.config.network != "dev"
        return Caps(per_payment=buyer.cap_per_payment or (), in_total=(Amount(0, "raw"),) if unwritten else buyer.cap_total or (), unwritten=unwritten)

    @property
    def market_names(self) -> tuple[str, ...]:
        """What the policy may call the market: its plugin, and its path or URL as the configuration has it."""
        choice = self.config.market
        return (choice.plugin, *(str(choice.settings[name]) for name in ("url", "path") if name in choice.settings))

    def guard(self) -> Guard:
        """All that holds for a spend at this moment; policy.yaml is read anew. PolicyError where it is no policy."""
        from tradeskill.policy import Guard
        from tradeskill.policy.sealed import POLICY_FILE, read_policy_file

        try:
            return Guard(self.caps, read_policy_file(self.home / POLICY_FILE), self.grant)
        except ConfigError as error:
            raise PolicyError(f"{error}; until that is mended nothing is spent") from error

    async def buyer(self, progress: Callable[[Purchase], None] | None = None) -> Buyer:
        """`progress` is told each new state; without one, whoever serves the call is."""
        from tradeskill.buyer import Buyer, BuyerSettings

        config = self.config.buyer
        buyer = Buyer(
            identity=self.identity,
            journal=self.journal,
            blobs=self.blobs,
            market=await self.market(),
            wallets=await self.wallets(),
            settings=BuyerSettings(
                caps=self.caps,
                first_use_cap=config.first_use_cap or (),
                quote_timeout=float(config.quote_timeout_seconds),
                guard=self.guard,
                markets=self.market_names,
                missing_receipts=config.receipts == "allow-missing",
            ),
            world=self.world,
            progress=progress or self.progress,
            ask_owner=self.ask_owner,
        )
        self._stack.push_async_callback(buyer.close)
        return buyer

    @cached_property
    def _owner(self) -> str:
        """Names this profile's leases: one name, so that what one call of a tool locked the next one may deliver. Fences keep the calls apart."""
        from tradeskill.instance import own_name

        return own_name(self.world.random_bytes(8))

    async def shop(self) -> Shop:
        """Everything a seller worker, or a seller's tool, acts with."""
        from tradeskill.instance import is_dead
        from tradeskill.seller import Shop

        return Shop(
            identity=self.identity,
            journal=self.journal,
            blobs=self.blobs,
            market=await self.market(),
            wallets=await self.wallets(),
            backends=await self.backends(),
            listings=self.listings(),
            settings=self.seller_settings(),
            world=self.world,
            owner=self._owner,
            is_dead=is_dead,
        )

    async def seller(self) -> Seller:
        from tradeskill.seller import Seller

        return Seller(await self.shop(), self.config.plugins.patience_seconds)

    def seller_settings(self) -> SellerSettings:
        from tradeskill.allocation import Terms
        from tradeskill.seller import SellerSettings

        config = self.config.seller
        return SellerSettings(
            quote_ttl_ms=config.quote_ttl_seconds * 1000,
            terms=Terms(late=config.late, surplus=config.surplus, refund_minimum={least.unit: least.value for least in config.refund_minimum}),
            uncertain=config.uncertain,
            poll_seconds=config.poll_seconds,
            lease_ms=round(config.lease_seconds * 1000),
            heartbeat_seconds=config.lease_seconds / 3,
            keep_results_ms=config.keep_results_days * 86_400_000,
            workers=config.workers,
        )

    def listings(self) -> dict[str, Listing]:
        """The configured offers, signed; one that did not change keeps its signed version."""
        from tradeskill.agreement import read_offer, sign_offer
        from tradeskill.journal import selling
        from tradeskill.journal.records import read_document
        from tradeskill.seller import Listing

        current = self.journal.read(selling.current_offers)
        listings: dict[str, Listing] = {}
        for config in self.config.offers:
            offer_id = str(uuid.UUID(bytes=bytes.fromhex(digest(f"{self.identity.key}\n{config.name}".encode()))[:16], version=4))
            document = sign_offer(
                self.identity,
                offer_id=offer_id,
                network=self.config.network,
                title=config.title,
                description=config.description,
                tags=tuple(dict.fromkeys((config.name, *config.tags))),  # so that buyers can ask for it by the name its seller gave it
                prices=config.price,
                input_schema=cast(Any, config.input),
                pure=config.pure,
                trusted=config.trusted,
                created_at=self.world.now_ms(),
            )
            if config.name in current:
                old = read_document(current[config.name][2])
                if canonical({**old.body, "created_at": ""}) == canonical({**document.body, "created_at": ""}):
                    document = old
            listings[config.name] = Listing(
                name=config.name,
                offer=read_offer(document),
                run=config.run,
                folder=str(config.folder),
                backend=config.backend,
                pure=config.pure,
                trusted=config.trusted,
                network=config.network,
                limits=config.limits,
                jobs=config.capacity.jobs,
                per_buyer=config.capacity.per_buyer,
            )
        return listings


def check_vacant(home: Path) -> None:
    """ConfigError when a profile, or what an interrupted `init` left of one, lies in `home`."""
    if (home / CONFIG_FILE).exists():
        raise ConfigError(f"{home} holds a profile already: choose another folder with TRADESKILL_HOME")
    for left in (home / IDENTITY_FILE, home / WALLETS_FOLDER):
        if left.exists():
            raise ConfigError(f"{home} holds part of a profile ({left.name}, but no {CONFIG_FILE}): restore it from its backup, or choose another folder")


def create_profile(home: Path, config: Mapping[str, Any], network: Network, password: str, world: World, wallet_secret: bytes | None = None) -> str:
    """A new profile: identity key, configuration, wallet secrets (`wallet_secret` restores one). Returns the public key.

    Refuses a folder that holds a profile; when anything fails, nothing of the new one stays. Never overwrites a secret.
    """
    from tradeskill.config import write_config
    from tradeskill.secretfile import write_secret

    check_vacant(home)
    made = [home / name for name in (CONFIG_FILE, IDENTITY_FILE, PUBLIC_FILE, WALLETS_FOLDER)]
    folders = [folder for folder in (home, *home.parents) if not folder.exists()]  # to be made, innermost first
    try:
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_config(home / CONFIG_FILE, config)
            profile = Profile.load(home, lambda: password, world=world)
            profile.plugins.require(profile.config.market.plugin, "market")
            for choice in profile.config.wallets:
                profile._payment_plugin(choice)  # noqa: SLF001 - the composer's own
            secret = world.random_bytes(32)
            write_secret(home / IDENTITY_FILE, "identity", network, secret, password, world.random_bytes)
            key = Identity(secret).key
            (home / PUBLIC_FILE).write_text(key + "\n")
            profile.check_market()
            for choice in profile.config.wallets:
                profile.create_wallet(choice, wallet_secret or world.random_bytes(32))
        except OSError as error:
            raise StorageError(f"{home} cannot be written: {error.strerror or error}; check the path, its rights and the space left") from error
    except BaseException:
        _undo(made, folders)
        raise
    return key


def _undo(made: Sequence[Path], folders: Sequence[Path]) -> None:
    """Nobody was ever told an address or a key of it."""
    import shutil

    for path in made:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
