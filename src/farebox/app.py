"""The composition root: configuration → providers, catalog, stores, services → the surfaces of one worker."""

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from farebox.billing import price_book, signups
from farebox.billing.allotments import AllotmentError, Allotments
from farebox.billing.card_payments import CardTerms
from farebox.billing.holds import Holds
from farebox.billing.invoices import Terms
from farebox.billing.journal import Journal, SyncPolicy
from farebox.billing.settlement import Books
from farebox.catalog.missing import ModelNotFound
from farebox.config import ConfigError, HealthSection, Loaded
from farebox.config_limits import SHIPPED_TIERS
from farebox.edge.app import App
from farebox.edge.library import DatabaseLibrary, principal_lookup
from farebox.edge.signup_desk import Desk
from farebox.edge.signup_desk import Terms as DeskTerms
from farebox.embedding import model as embedding
from farebox.errors import FareboxError
from farebox.failpoints import armed
from farebox.gate.addresses import network
from farebox.gate.keys import PEPPER_BYTES_MIN
from farebox.gate.ladder import Ladder, Tier
from farebox.gate.limits import Limiter, Limits
from farebox.gate.principal import Keyring
from farebox.gateway import Gateway, Market, Settings
from farebox.market import by_price, make_market
from farebox.money import parse_amount
from farebox.monotonic_health import MonotonicHealth
from farebox.ports import Clock, Ids, Random, SystemClock, SystemRandom, TimeOrderedIds
from farebox.probes import Prober
from farebox.providers.registry import PROVIDERS
from farebox.routing import retry
from farebox.routing.auto import AUTO, DECISIONS, automatic
from farebox.routing.circuit import Rules
from farebox.routing.health import Health
from farebox.routing.hedging import Waste
from farebox.routing.measured import Measured
from farebox.routing.policy import Decisions, Policies, Policy, PolicyError, compiled
from farebox.routing.preferences import Providers, Reader, split_suffix
from farebox.routing.retry_budget import RetryBudget
from farebox.routing.router import Router
from farebox.sorting import Sorter
from farebox.storage.database import Database, StoreError
from farebox.telemetry import Metrics
from farebox.transport import Client, PoolLimits, ProxySettings, Timeouts
from farebox.turn import Turn
from farebox.vault.vault import Vault


class Outside(msgspec.Struct, frozen=True):
    """What a process takes from outside its own memory, beside the network, which is its event loop's. The simulation brings
    its own (`tests/simulation`)."""

    clock: Clock
    random: Random
    ids: Ids
    open_database: Callable[[Loaded], Database]
    open_journal: Callable[[Path, SyncPolicy], Journal]
    """Raises `SlotBusy` while another process owns the slot."""
    fail_point: Callable[[str], None]


def real_outside(environment: Mapping[str, str]) -> Outside:
    """The machine itself."""
    clock = SystemClock()
    return Outside(
        clock=clock,
        random=SystemRandom(),
        ids=TimeOrderedIds(clock),
        open_database=open_database,
        open_journal=lambda slot, sync: Journal(slot, sync=sync),
        fail_point=armed(environment),
    )


def make_ladder(loaded: Loaded) -> Ladder:
    """The configuration's tiers, or the shipped ones."""
    sections = loaded.config.tiers or SHIPPED_TIERS
    tiers = [
        Tier(
            name,
            Limits(
                requests_per_minute=section.requests_per_minute,
                concurrent_calls=section.concurrent_calls,
                tokens_per_minute=section.tokens_per_minute,
                tokens_per_day=section.tokens_per_day,
            ),
            tuple(
                (
                    pattern,
                    Limits(
                        requests_per_minute=one.requests_per_minute,
                        tokens_per_minute=one.tokens_per_minute,
                        tokens_per_day=one.tokens_per_day,
                    ),
                )
                for pattern, one in section.classes.items()
            ),
            None if section.daily_spend is None else parse_amount(section.daily_spend),
            section.models,
            parse_amount(section.paid),
            section.age_days * 86_400_000_000,
        )
        for name, section in sections.items()
    ]
    return Ladder(tiers, loaded.config.limits.tier)


def invoice_terms(loaded: Loaded) -> Terms:
    """How this operator invoices."""
    section = loaded.config.invoices
    return Terms(
        seller=section.seller,
        address=section.address,
        tax_id=section.tax_id,
        tax_label=section.tax_label,
        tax_bp=loaded.tax_bp,
        prefix=section.prefix,
        credit_note_prefix=section.credit_note_prefix,
        grace_us=section.grace_hours * 3_600_000_000,
        due_days=section.due_days,
        reminder_days=section.reminder_days,
        pause_after_days=section.pause_after_days,
        display=loaded.config.display.shown,
    )


def signup_rules(loaded: Loaded) -> signups.Rules:
    """What a sign-up gets, and how often."""
    section = loaded.config.signup
    return signups.Rules(
        parse_amount(section.credit),
        section.credit_days,
        section.per_day,
        section.per_network_per_day,
        section.per_domain_per_day,
        read_pepper(loaded),
        frozenset(section.open_domains),
    )


def signup_desk(loaded: Loaded) -> Desk | None:
    """Sign-ups over the network; None: there are none."""
    section = loaded.config.signup
    if not section.endpoint:
        return None
    return Desk(DeskTerms(signup_rules(loaded), section.token.encode(), section.tries_per_network_per_hour))


def card_terms(loaded: Loaded) -> CardTerms | None:
    """What this operator takes by card; None: nothing."""
    section = loaded.config.stripe
    if section is None:
        return None
    return CardTerms(
        min_nano=parse_amount(section.min_amount),
        max_nano=parse_amount(section.max_amount),
        currency=section.currency,
        webhook_secret=section.webhook_secret.encode(),
        tolerance_s=section.tolerance_s,
    )


def _rules(section: HealthSection) -> Rules:
    return Rules(
        failures_in_a_row=section.failures_in_a_row,
        window_us=section.window_s * 1_000_000,
        failed_share_percent=section.failed_percent,
        samples_min=section.samples_min,
        ejection_us=section.ejection_s * 1_000_000,
        ejection_max_us=section.ejection_max_s * 1_000_000,
        ejected_max_percent=section.ejected_max_percent,
    )


def make_router(
    loaded: Loaded, market: Market, health: Measured, decisions: Mapping[str, Decisions] = DECISIONS
) -> Router:
    """Routing over a market, under the configuration's policies, every one of them checked."""
    sections = loaded.config.providers
    titles = {name: row.title for name, row in PROVIDERS.items()} | {name: s.title or name for name, s in sections.items()}
    providers = Providers.of(titles)
    policies: list[Policy] = []
    sections_of_policies = loaded.config.policies
    for name, section in sections_of_policies.items():
        try:
            policy = compiled(name, section, providers, decisions)
            for setting, models in policy.named_models():
                for index, model in enumerate(models):
                    _check_model(market, model, f"policies.{name}.{setting}[{index}]")
            if policy.examples and embedding.missing():
                raise PolicyError(f"policies.{name}.examples", f"needs a small model on this machine: {embedding.INSTALL}")
        except PolicyError as error:
            raise ConfigError(f"{loaded.path}: {error}") from None
        except FareboxError as error:
            raise ConfigError(f"{loaded.path}: {error.message}") from None
        policies.append(policy)
    if AUTO not in sections_of_policies:
        usual = automatic(market.targets.keys(), by_price(market))
        if usual is not None:
            policies.append(usual)
    return Router(
        market.catalog,
        market.by_wire,
        policies=Policies(policies, decisions),
        reader=Reader(providers),
        health=health,
        attempts_max=loaded.config.attempts.attempts_max,
        default_policy=loaded.config.routing.policy or "",
    )


def make_sorter(router: Router, run: Callable[..., "asyncio.Future[Any]"]) -> Sorter | None:
    """What sorts calls by examples, where policies want that; `run` is a thread of its own."""
    wanting = [policy for policy in router.policies if policy.examples]
    return Sorter(wanting, embedding.Model().embed, run) if wanting else None


def _check_model(market: Market, name: str, place: str) -> None:
    """A policy's model has to exist; whether its provider is switched on may change from day to day."""
    try:
        market.catalog.resolve(split_suffix(name)[0])
    except ModelNotFound as error:
        if "providers" not in error.details:
            raise PolicyError(place, error.message.partition("; `GET /v1/models`")[0]) from None


def read_pepper(loaded: Loaded) -> bytes:
    """The secret under which API keys are stored: `FAREBOX_PEPPER` (hex) or the file beside the configuration."""
    given = loaded.environment.get("FAREBOX_PEPPER")
    try:
        pepper = bytes.fromhex(given if given is not None else loaded.pepper_file.read_text().strip())
    except FileNotFoundError:
        raise ConfigError(
            f"{loaded.pepper_file}: missing; without it no API key can be checked; `farebox init` makes one, "
            "or set FAREBOX_PEPPER to the hex text of the one your keys were made with"
        ) from None
    except ValueError:
        raise ConfigError("the pepper must be hexadecimal text") from None
    if len(pepper) < PEPPER_BYTES_MIN:
        raise ConfigError(f"the pepper must have at least {PEPPER_BYTES_MIN} bytes")
    return pepper


def open_database(loaded: Loaded) -> Database:
    return Database.open(loaded.database_url)


def on_one_thread(name: str) -> tuple[Callable[..., "asyncio.Future[Any]"], ThreadPoolExecutor]:
    """`run(function, *arguments)` on a thread of its own: database calls stay in order and off the event loop."""
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def run(function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        return asyncio.get_running_loop().run_in_executor(executor, function, *arguments)

    return run, executor


class Worker:
    """One gateway worker's services, to be used on a running event loop."""

    def __init__(
        self,
        loaded: Loaded,
        outside: Outside,
        journal: Journal,
        life: str,
        *,
        local_url: str | None,
        run_dir: Path,
        limiter: Limiter | None = None,
        workers: int = 1,
    ) -> None:
        """`limiter` is the one that all workers of the machine share; without it this one counts alone. So many `workers`
        share what hedges may waste."""
        config = loaded.config
        clock = outside.clock
        self.database = outside.open_database(loaded)
        self.store = Allotments(self.database, life, clock)
        self.run_money, self._money_thread = on_one_thread("money")
        run_reads, self._read_thread = on_one_thread("reads")
        self._loaded, self._local_url, self._run_reads = loaded, local_url, run_reads
        self._prices, market = self._read_market()
        assert market is not None, "there is no revision that is known yet"
        health = Health(_rules(config.health))
        health.measures_answers = any(section.hedge is not None for section in config.policies.values())
        router = make_router(loaded, market, MonotonicHealth(health, clock))
        run_examples, self._examples_thread = on_one_thread("examples")
        sorter = make_sorter(router, run_examples)
        if sorter is not None:
            self._examples_thread.submit(sorter.warm)
        metrics = Metrics(access_log=config.server.access_log)
        journal.on_broken = self._disk_failed
        self.turn = Turn(journal.commit, outside.fail_point)
        journal.group = self.turn.end_soon
        holds = Holds(self.store, clock, self.run_money, journal.commit)
        self.books = Books(journal, holds, clock, life, bill_partial=config.billing.bill_partial)
        usual = Limits(requests_per_minute=config.limits.requests_per_minute, concurrent_calls=config.limits.concurrent_calls)
        vault = Vault(loaded.byok_master_file)
        lookup = principal_lookup(self.database, usual, make_ladder(loaded), vault)
        attempts = config.attempts
        self.gateway = Gateway(
            market=market,
            router=router,
            client=Client(
                limits=PoolLimits(connections_per_origin_max=4096, idle_per_origin_max=512),
                proxies=ProxySettings.from_env(loaded.environment),
                turn=self.turn,
            ),
            books=self.books,
            keyring=Keyring(lookup, read_pepper(loaded), run_reads),
            limiter=Limiter() if limiter is None else limiter,
            metrics=metrics,
            clock=clock,
            ids=outside.ids,
            random=outside.random,
            timeouts=Timeouts(
                connect_s=attempts.connect_s, headers_s=attempts.headers_s, chunk_s=attempts.chunk_s, total_s=attempts.total_s
            ),
            first_token_us=int(attempts.first_token_s * 1_000_000),
            retry_policy=retry.Policy(
                attempts.attempts_max, attempts.backoff_ms, attempts.backoff_max_ms, attempts.per_offer_max
            ),
            retries=RetryBudget(percent=attempts.retries_percent, floor_per_s=attempts.retries_per_s),
            health=health,
            settings=Settings(
                keepalive_us=int(config.server.keepalive_comment_s * 1_000_000),
                drain_us=int(config.billing.drain_s * 1_000_000),
                drains_max=config.billing.drains_max,
                body_bytes_max=config.server.body_bytes_max,
                metrics_public=config.server.metrics_public,
                trusted_proxies=tuple(network(text, "server.trusted_proxies") for text in config.server.trusted_proxies),
                stream_recovery=attempts.stream_recovery,
            ),
            fail_point=outside.fail_point,
            turn=self.turn,
            sorter=sorter,
            waste=Waste(parse_amount(config.hedging.waste_per_day) // workers, config.hedging.time_zone),
        )
        self.prober = Prober(
            self.gateway.client, health, clock, outside.random, interval_us=config.health.probe_s * 1_000_000
        )
        self.prober.watch(market.targets)
        run_commands, self._command_thread = on_one_thread("commands")
        self.library = DatabaseLibrary(
            self.database,
            run_reads,
            run_commands,
            run_dir,
            invoice_terms(loaded),
            loaded.receipt_keys_file,
            vault,
            card_terms(loaded),
            signup_desk(loaded),
        )
        self.app = App(self.gateway, self.library)

    def _disk_failed(self, error: OSError) -> None:
        """A disk that cannot take what was reserved on it has failed: a worker that went on would send what it could not account
        for. The next life reads what is there."""
        self.gateway.metrics.crashed("journal", error)
        os._exit(os.EX_IOERR)

    def _read_market(self, known: int | None = None) -> tuple[int, Market | None]:
        """The price book's revision and a market by it; None when the revision is the known one."""
        found = self.database.read(price_book.revision)
        if found == known:
            return found, None
        versions = self.database.read(price_book.versions)
        return len(versions), make_market(self._loaded, local_url=self._local_url, versions=versions)[0]

    async def renew_prices(self) -> None:
        """Take over prices that were approved; calls in flight keep those of their holds."""
        self._prices, market = await self._run_reads(self._read_market, self._prices)
        if market is not None:
            self.gateway.market = market
            self.prober.watch(market.targets)

    async def note_use(self) -> None:
        """Write down when keys were used."""
        used, self.gateway.keyring.used = self.gateway.keyring.used, {}
        if used:
            await self.library.note_use(used)

    async def close(self) -> None:
        """Give everything back: allotments, connections, threads."""
        try:
            await self.note_use()
        except StoreError as error:
            self.gateway.metrics.crashed("shutdown", error)
        await self.prober.close()
        await self.books.holds.close()
        try:
            await self.books.holds.return_idle(everything=True)
        except (StoreError, AllotmentError) as error:
            # The end of this life, which the journal says next, gives the rest back when it is posted.
            self.gateway.metrics.crashed("shutdown", error)
        await self.gateway.client.aclose()
        self._money_thread.shutdown()
        self._read_thread.shutdown()
        self._examples_thread.shutdown(cancel_futures=True)
        self._command_thread.shutdown()
        self.database.close()
