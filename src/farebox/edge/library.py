"""What the read-only endpoints know from the database, in OpenRouter's shapes; every question on a thread of its own."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection

from farebox.billing import hedges, seams
from farebox.billing.accounts import provider_keys
from farebox.billing.books import carrying, customers, own_key_usage
from farebox.billing.budgets import key_scope, window_name
from farebox.billing.covering import Covering
from farebox.billing.invoicing.invoices import Terms
from farebox.billing.payments.card_payments import CardTerms
from farebox.billing.records import Settle
from farebox.billing.sealing import receipt_keys
from farebox.billing.sealing.receipt_keys import Keys
from farebox.edge import health_files
from farebox.edge.signup_desk import Desk
from farebox.gate.keyring import Lookup
from farebox.gate.ladder import Ladder, Tier
from farebox.gate.limiter import Holder, with_classes
from farebox.gate.limits import Limits, lowest, restored
from farebox.gate.permissions import permit, shown
from farebox.gate.principal import USUAL, Principal
from farebox.money import format_amount
from farebox.routing.own_keys import OwnKey
from farebox.routing.shown import Overview
from farebox.storage import key_queries, queries
from farebox.storage.database import Database, StoreError
from farebox.storage.provider_key_queries import ProviderKey
from farebox.telemetry import exposition
from farebox.vault.vault import State, Vault
from farebox.wires.usage import Usage

T = TypeVar("T")
US_PER_DAY = 86_400_000_000
RESETS = {"none": None, "hour": "hourly", "day": "daily", "week": "weekly", "month": "monthly"}
_decode_settle = msgspec.json.Decoder(Settle).decode


def principal_lookup(database: Database, usual: Limits, ladder: Ladder, vault: Vault) -> Lookup:
    """A key's digest → its principal, for the keyring. `usual` is what every key may do, whatever else its own limits are;
    `vault` opens the provider keys that its calls may use."""

    def find(digest: bytes) -> Principal | None:
        row = database.read(lambda connection: queries.principal_by_digest(connection, digest))
        if row is None:
            return None
        expires_us = row.key.expires_us
        if row.previous:
            until_us = row.key.previous_until_us or 0
            expires_us = until_us if expires_us is None else min(expires_us, until_us)
        disabled = "the API key" if row.key.disabled_us is not None else ""
        if row.project is not None and row.project.disabled_us is not None:
            disabled = f"the project `{row.project.name}`"
        allowed = permit(row.key.permissions, row.key.restrictions)
        tier = ladder.of(row.account.tier)
        holders = _holders(row, usual, tier)
        return Principal(
            account=row.account.id,
            account_name=row.account.name,
            prepaid=row.account.kind == "prepaid",
            active=row.account.status == "active",
            key=row.key.id,
            key_name=row.key.name,
            covering=Covering(
                row.account.id,
                row.key.id,
                key_window=row.key.budget_window if row.key.budget_nano is not None else None,
                daily_nano=None if tier is None else tier.daily_spend_nano,
                budgets=[carrying.from_row(budget) for budget in row.budgets],
            ),
            key_hint=row.key.hint if not row.previous else row.key.previous_hint or row.key.hint,
            project=row.key.project,
            project_name=row.project.name if row.project is not None else "",
            budget_nano=row.key.budget_nano,
            window=row.key.budget_window,
            expires_us=expires_us,
            disabled=disabled,
            revoked=row.key.revoked_us is not None,
            created_us=row.key.created_us,
            holders=holders,
            metered=any(holder.most or holder.classes for holder in holders),
            tier=tier,
            markup=row.account.markup,
            policy=row.key.policy or row.account.policy,
            month=row.month,
            charged_nano=row.charged_nano,
            own_key_calls=row.own_key_calls,
            tags=msgspec.json.decode(row.key.tags, type=tuple[str, ...]) if row.key.tags else (),
            permit=USUAL if allowed == USUAL else allowed,
            own_keys=own_keys(row.provider_keys, vault),
        )

    return find


def own_keys(keys: Iterable[ProviderKey], vault: Vault) -> tuple[OwnKey, ...]:
    """Customers' keys at providers as calls use them."""
    return tuple(
        OwnKey(one.id, one.provider, vault.opened(one.sealed, provider_keys.place(one), one.master), one.always_use, one.name)
        for one in keys
    )


def may_read(principal: Principal, row: queries.UsageRow) -> bool:
    """Every key may read its own calls; one for reading usage its project's, or, in no project, its account's."""
    if row.key_id == principal.key:
        return True
    reads = not principal.permit.scopes.isdisjoint(("read_usage", "manage"))
    return reads and principal.project in ("", row.project)


def _holders(row: queries.Principal, usual: Limits, tier: Tier | None) -> tuple[Holder, ...]:
    """Whose limits a key's calls count against: its account's by the tier, its project's, its own."""
    found: list[Holder] = []
    if tier is not None:
        whose = f"the account `{row.account.name}` (tier `{tier.name}`)"
        found.append(with_classes(f"account:{row.account.id}", whose, tier.limits, tier.classes))
    if row.project is not None and row.project.limits:
        limits = restored(row.project.limits)
        found.append(Holder(f"project:{row.project.id}", f"the project `{row.project.name}`", limits))
    limits = lowest(restored(row.key.limits), usual) if row.key.limits else usual
    found.append(Holder(f"key:{row.key.id}", f"the key `{row.key.hint}`", limits))
    return tuple(found)


def dollars(nano: int) -> msgspec.Raw:
    """Nano-dollars → a JSON number, written from integers: no float is ever made."""
    return msgspec.Raw(format_amount(nano).encode())


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class DatabaseLibrary:
    """See `farebox.edge.info.Library`."""

    def __init__(
        self,
        database: Database,
        run: Callable[..., "asyncio.Future[Any]"],
        run_commands: Callable[..., "asyncio.Future[Any]"],
        run_dir: Path,
        terms: Terms,
        receipt_keys_file: Path,
        vault: Vault,
        cards: CardTerms | None = None,
        signup: Desk | None = None,
    ) -> None:
        self._database = database
        self._run = run
        self._run_commands = run_commands
        self._run_dir = run_dir
        self.terms = terms
        self._receipt_keys_file = receipt_keys_file
        self.vault = vault
        self.cards = cards
        self.signup = signup
        self.waiting = 0

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._run(self._database.read, work)

    async def command(self, work: Callable[[Database], T]) -> T:
        return await self._run_commands(work, self._database)

    async def receipt_keys(self, now_us: int) -> Keys:
        return await self._run(receipt_keys.read_or_make, self._receipt_keys_file, now_us)

    async def version(self) -> tuple[int, State | None]:
        """Another one after every change to keys and accounts, and to the file that opens their provider keys."""

        def ask(connection: Connection) -> tuple[int, State | None]:
            try:
                state = self.vault.state()
            except OSError:
                state = None  # as where there is none: nothing opens
            return queries.current_version(connection), state

        return await self.read(ask)

    async def note_use(self, used: dict[str, int]) -> None:
        """When keys were used; see `billing.books.customers.note_use`."""
        await self._run_commands(customers.note_use, self._database, used)

    async def generation(self, principal: Principal, generation: str) -> dict[str, Any] | None:
        rows: list[queries.UsageRow] = await self.read(
            lambda connection: queries.generation(connection, hedges.holds_of(generation), account_id=principal.account)
        )
        rows = [row for row in rows if may_read(principal, row)]
        settles = [_decode_settle(row.record) for row in rows if row.final]
        settled = hedges.answering(generation, settles)
        if settled is None:
            return None
        created_us = min(one.created_us for one in settles)
        last = seams.answering(settled.attempts)
        usage = (last.usage if last is not None else None) or Usage()
        charge = sum(row.charge_nano for row in rows)
        costs = [row.cost_nano for row in rows if row.cost_nano is not None]
        costs += [beside[5] for beside in own_key_usage.rows_beside(rows)]
        return {
            "id": generation,
            "total_cost": dollars(charge),
            "total_cost_usd": format_amount(charge),
            "usage": dollars(charge),
            "upstream_inference_cost": dollars(sum(costs)),
            "cache_discount": None,
            "model": settled.model,
            "provider_name": last.provider if last is not None else None,
            "latency": (last.first_byte_us - created_us) // 1000 if last is not None and last.first_byte_us else None,
            "generation_time": (settled.at_us - created_us) // 1000,
            "moderation_latency": None,
            "tokens_prompt": usage.prompt_tokens,
            "tokens_completion": usage.completion_tokens,
            "native_tokens_prompt": usage.prompt_tokens,
            "native_tokens_completion": usage.completion_tokens,
            "native_tokens_reasoning": usage.reasoning,
            "native_tokens_cached": usage.cache_read,
            "finish_reason": last.finish_reason or None if last is not None else None,
            "native_finish_reason": last.native_finish_reason or None if last is not None else None,
            "streamed": settled.streamed,
            "cancelled": settled.cancelled,
            "is_byok": last is not None and last.own_key,
            "created_at": _time(created_us),
            "origin": "",
            "app_id": None,
            "session_id": None,
            "service_tier": None,
            "upstream_id": last.upstream_request_id or None if last is not None else None,
            "state": settled.state,
            "provider_responses": [
                {
                    "attempt": attempt.n,
                    **({"record": one.id} if len(settles) > 1 else {}),
                    "provider_name": attempt.provider,
                    "model": attempt.upstream_id,
                    "status": attempt.status,
                    "outcome": attempt.outcome,
                    "basis": attempt.basis,
                    "flags": list(attempt.flags),
                    "latency": (attempt.ended_us - attempt.started_us) // 1000,
                    "charge_usd": format_amount(attempt.charge_nano),
                    "cost_usd": None if attempt.cost_nano is None else format_amount(attempt.cost_nano),
                    "price_version": attempt.price_version,
                }
                for one in settles
                for attempt in one.attempts
            ],
        }

    async def key(self, principal: Principal, now_us: int) -> dict[str, Any]:
        day_us = now_us // US_PER_DAY * US_PER_DAY
        week_us = day_us - (day_us // US_PER_DAY + 3) % 7 * US_PER_DAY
        month_us = int(datetime.strptime(window_name("month", now_us), "%Y-%m").replace(tzinfo=UTC).timestamp()) * 1_000_000
        scope = key_scope(principal.key, principal.window, now_us)

        starts = {"day_us": day_us, "week_us": week_us, "month_us": month_us}

        def ask(connection: Connection) -> tuple[queries.KeyUsage, queries.KeyUsage | None, queries.Balance | None]:
            spent = queries.key_usage(connection, principal.key, **starts)
            own = key_queries.own_key_costs(connection, [principal.key], **starts).get(principal.key)
            return spent, own, queries.scope_balance(connection, scope.id)

        spent, own, balance = await self.read(ask)
        own = own or queries.KeyUsage(0, 0, 0, 0)
        budget = principal.budget_nano
        remaining = None
        if budget is not None:
            remaining = dollars(max(budget if balance is None else balance.remaining_nano, 0))
        return {
            "label": principal.key_hint,
            "name": principal.key_name,
            "limit": None if budget is None else dollars(budget),
            "limit_remaining": remaining,
            "limit_reset": RESETS[principal.window],
            "include_byok_in_limit": False,
            "usage": dollars(spent.total_nano),
            "usage_daily": dollars(spent.day_nano),
            "usage_weekly": dollars(spent.week_nano),
            "usage_monthly": dollars(spent.month_nano),
            "byok_usage": dollars(own.total_nano),
            "byok_usage_daily": dollars(own.day_nano),
            "byok_usage_weekly": dollars(own.week_nano),
            "byok_usage_monthly": dollars(own.month_nano),
            "is_free_tier": False,
            "is_management_key": "manage" in principal.permit.scopes,
            "is_provisioning_key": "manage" in principal.permit.scopes,
            "expires_at": None if principal.expires_us is None else _time(principal.expires_us),
            "creator_user_id": None,
            **shown(principal.permit),
            "rate_limit": {"requests": -1, "interval": "10s", "note": "deprecated"},
        }

    async def credits(self, account: str) -> dict[str, Any]:
        def ask(connection: Connection) -> tuple[queries.Credits, queries.Balance | None]:
            return queries.account_credits(connection, account), queries.balance(connection, account)

        credits, balance = await self.read(ask)
        used = 0 if balance is None else balance.posted_nano
        total = credits.granted_nano - credits.expired_nano - credits.reversed_nano
        return {
            "total_credits": dollars(total),
            "total_usage": dollars(used),
            "total_credits_usd": format_amount(total),
            "total_usage_usd": format_amount(used),
        }

    async def ready(self) -> str | None:
        try:
            await self.version()
        except StoreError as error:
            return f"the database does not answer: {error}"
        return None

    async def health(self) -> Overview:
        return await self._run(health_files.read, self._run_dir)

    async def metrics(self) -> bytes:
        calls = await self._run(exposition, self._run_dir)
        return calls + await self._run(health_files.exposition, await self.health())
