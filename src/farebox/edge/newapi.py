"""new-api's three balance endpoints, which desktop clients poll: what may be spent and what is, as far as the calling key goes.

For a key with a budget of its own that budget is meant, in its current window; for one in no project the account; a key in a
project without a budget is unlimited, as far as it may know.
"""

import msgspec

from farebox.billing.budgets import account_scope, key_scope
from farebox.edge.info import Page, Question, identified
from farebox.edge.library import dollars
from farebox.edge.statements import query_of
from farebox.gate.principal import Principal
from farebox.gateway import Gateway
from farebox.money import NANO_PER_USD, divide_half_even, format_amount
from farebox.storage import key_queries

_encode = msgspec.json.Encoder().encode
POINTS_PER_USD = 500_000
"""new-api counts in points."""
UNLIMITED_USD = 100_000_000
"""What new-api says of a key without a limit."""


class Standing(msgspec.Struct, frozen=True):
    """What a key's calls are limited by. Nano-dollars; None = nothing that it may know of."""

    limit_nano: int | None
    used_nano: int


async def _standing(gateway: Gateway, request: Question) -> tuple[Principal, Standing]:
    principal = await identified(gateway, request)
    now_us = gateway.clock.now_us()
    if principal.budget_nano is not None:
        scope = key_scope(principal.key, principal.window, now_us)
        found = await request.library.read(lambda c: key_queries.balances(c, [scope.id]))
        used = found[scope.id].posted_nano if scope.id in found else 0
        return principal, Standing(principal.budget_nano, used)
    if principal.project or principal.permit.scopes.isdisjoint(("read_usage", "manage")):
        spent = await request.library.read(
            lambda c: key_queries.spent(c, [principal.key], day_us=now_us, week_us=now_us, month_us=now_us)
        )
        return principal, Standing(None, spent[principal.key].total_nano if principal.key in spent else 0)
    scope = account_scope(principal.account)
    found = await request.library.read(lambda c: key_queries.balances(c, [scope.id]))
    balance = found[scope.id]
    return principal, Standing(balance.limit_nano, balance.posted_nano)


async def subscription(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/dashboard/billing/subscription`: the limit in dollars."""
    principal, standing = await _standing(gateway, request)
    limit = msgspec.Raw(b"%d" % UNLIMITED_USD) if standing.limit_nano is None else dollars(standing.limit_nano)
    return Page(
        200,
        _encode(
            {
                "object": "billing_subscription",
                "has_payment_method": True,
                "soft_limit_usd": limit,
                "hard_limit_usd": limit,
                "system_hard_limit_usd": limit,
                "access_until": 0 if principal.expires_us is None else principal.expires_us // 1_000_000,
            }
        ),
    )


async def usage(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/dashboard/billing/usage`: what is used of that limit, in cents. Dates are accepted and, as there, mean nothing."""
    query_of(request, ("start_date", "end_date"))
    _, standing = await _standing(gateway, request)
    cents = msgspec.Raw(format_amount(standing.used_nano * 100).encode())
    return Page(200, _encode({"object": "list", "total_usage": cents}))


async def token(gateway: Gateway, request: Question) -> Page:
    """`GET /api/usage/token`: the same in points, 500,000 to the dollar."""
    principal, standing = await _standing(gateway, request)
    used, limit = _points(standing.used_nano), standing.limit_nano
    granted = 0 if limit is None else _points(limit)
    allowance = principal.permit.allowance
    models = () if allowance is None else allowance.models
    return Page(
        200,
        _encode(
            {
                "code": True,
                "message": "ok",
                "data": {
                    "object": "token_usage",
                    "name": principal.key_name,
                    "total_granted": granted,
                    "total_used": used,
                    "total_available": 0 if limit is None else max(granted - used, 0),
                    "unlimited_quota": limit is None,
                    "model_limits": dict.fromkeys(models, True),
                    "model_limits_enabled": bool(models),
                    "expires_at": 0 if principal.expires_us is None else principal.expires_us // 1_000_000,
                },
            }
        ),
    )


def _points(nano: int) -> int:
    return divide_half_even(nano * POINTS_PER_USD, NANO_PER_USD)
