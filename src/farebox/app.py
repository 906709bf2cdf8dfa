"""The composition root: configuration → providers, catalog, stores, services → the surfaces of one worker."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from farebox.billing.accounts import price_book
from farebox.billing.books.allotments import AllotmentError, Allotments
from farebox.billing.holds import Holds
from farebox.billing.journal import Journal
from farebox.billing.settlement import Books
from farebox.config import HealthSection, Loaded
from farebox.configured_routing import make_router, make_sorter
from farebox.edge.app import App
from farebox.edge.library import DatabaseLibrary, principal_lookup
from farebox.edge.signup_desk import Desk
from farebox.edge.signup_desk import Terms as DeskTerms
from farebox.gate.addresses import network
from farebox.gate.keyring import Keyring
from farebox.gate.limiter import Limiter
from farebox.gate.limits import Limits
from farebox.gateway import Gateway
from farebox.market import make_market
from farebox.money import parse_amount
from farebox.monotonic_health import MonotonicHealth
from farebox.outside import Outside
from farebox.pepper import read_pepper
from farebox.probes import Prober
from farebox.routing import retry
from farebox.routing.health import Health
from farebox.routing.health_rules import Rules
from farebox.routing.hedging import Waste
from farebox.routing.market import Market
from farebox.routing.retry_budget import RetryBudget
from farebox.settings import Settings
from farebox.storage.database import StoreError
from farebox.telemetry import Metrics
from farebox.terms import card_terms, invoice_terms, make_ladder, signup_rules
from farebox.transport import Client, PoolLimits, ProxySettings, Timeouts
from farebox.turn import Turn
from farebox.vault.vault import Vault


def signup_desk(loaded: Loaded) -> Desk | None:
    """Sign-ups over the network; None: there are none."""
    section = loaded.config.signup
    if not section.endpoint:
        return None
    return Desk(DeskTerms(signup_rules(loaded), section.token.encode(), section.tries_per_network_per_hour))


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
