"""What an account can read of its own books: activity, usage by any dimension, comparisons, invoices.

Money is written from integers: numbers where OpenRouter's shape wants them (`usage`), decimal strings in `…_usd`.
"""

import base64
import datetime as dt
import difflib
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import unquote

import msgspec
from sqlalchemy import Connection

from farebox.billing.accounts import compare as comparing
from farebox.billing.accounts.compare import Comparison, compared
from farebox.billing.books import evidence
from farebox.billing.books.periods import format_day, format_moment, parse_moment
from farebox.billing.invoicing import dunning, exports, invoice_pages, months
from farebox.billing.invoicing import invoices as documents
from farebox.display import Shown
from farebox.edge.info import Page, Question, identified, whole_account
from farebox.edge.library import dollars
from farebox.errors import FareboxError, Kind, invalid
from farebox.gateway import Gateway
from farebox.money import format_amount
from farebox.storage import reports
from farebox.storage.reports import Group, Narrow

_encode = msgspec.json.Encoder().encode
ACTIVITY_DAYS = 30
NUMBER_MAX = 128
COMPARED_ROWS_MAX = 10_000
"""Each is decoded and priced at every offer of its model: about half a second."""
PAGE_LINES = 100
PAGE_LINES_MAX = 1_000
GROUPS: tuple[Group, ...] = tuple(name for name in reports.GROUPS if name != "account")
_NARROWING = {"key": "key_id", "project": "project", "model": "model", "provider": "provider", "user": "end_user"}


async def activity(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/activity`: by day, model and provider, of the last 30 whole UTC days or of one `date`, the newest first."""
    principal = await identified(gateway, request)
    now_us = gateway.clock.now_us()
    asked = query_of(request, ("date",)).get("date")
    today_us = now_us // reports.US_PER_DAY * reports.US_PER_DAY
    if asked is None:
        since_us, until_us = today_us - ACTIVITY_DAYS * reports.US_PER_DAY, today_us
    else:
        since_us = moment(asked, "date", now_us) // reports.US_PER_DAY * reports.US_PER_DAY
        until_us = since_us + reports.US_PER_DAY
    narrow = Narrow(since_us=since_us, until_us=until_us, account_id=principal.account, project=principal.project or None)
    groups: tuple[reports.Group, ...] = ("day", "model", "provider")
    lines, own = await request.library.read(
        lambda c: (reports.usage_lines(c, groups, narrow), reports.own_key_lines(c, groups, narrow))
    )
    shown = _Shown(request.library.terms.display, now_us)
    told = sorted((line for line in lines if line.groups[2]), key=lambda line: -int(line.groups[0]))
    rows = [_activity_row(line, own.get(line.groups, 0), shown) for line in told]
    return Page(200, _encode({"data": rows, **shown.rate}))


class _Shown:
    """The operator's other currency by today's rate: fields beside those in US dollars, none where no currency is shown."""

    def __init__(self, shown: Shown | None, now_us: int) -> None:
        self._shown = shown
        self._rate = None if shown is None else shown.rate_on(dt.date.fromisoformat(format_day(now_us)))

    @property
    def rate(self) -> dict[str, Any]:
        """Which rate it is, for the whole reply."""
        if self._shown is None or self._rate is None:
            return {}
        told = {"currency": self._shown.currency, "rate": self._rate.text, "since": self._rate.day.isoformat()}
        return {"display": {**told, "source": self._shown.source or None}}

    def amount(self, nano: int) -> dict[str, str]:
        """One amount, rounded once."""
        if self._shown is None or self._rate is None:
            return {}
        return {"usage_display": self._shown.convert(nano, self._rate)}


def _activity_row(line: reports.UsageLine, own_key_nano: int, shown: _Shown) -> dict[str, Any]:
    day, model, provider = line.groups
    return {
        "date": reports.shown("day", day),
        "model": model,
        "model_permaslug": model,
        "endpoint_id": f"{provider}/{model}",
        "provider_name": provider,
        "usage": dollars(line.charge_nano),
        "usage_usd": format_amount(line.charge_nano),
        **shown.amount(line.charge_nano),
        "byok_usage_inference": dollars(own_key_nano),
        "requests": line.calls,
        "prompt_tokens": line.prompt_tokens,
        "completion_tokens": line.completion_tokens,
        "reasoning_tokens": line.reasoning_tokens,
    }


async def usage(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/usage?group_by=model,day&since=7d`: sums of the account's calls, in pages that follow each other by `after`."""
    principal = await identified(gateway, request)
    now_us = gateway.clock.now_us()
    query = query_of(request, ("group_by", "since", "until", "limit", "after", *_NARROWING))
    by = _groups(query.get("group_by", "model"))
    limit = _limit(query.get("limit"))
    narrow = Narrow(
        since_us=moment(query.get("since", "30d"), "since", now_us),
        until_us=moment(query["until"], "until", now_us) if "until" in query else None,
        account_id=principal.account,
        **{column: query[name] for name, column in _NARROWING.items() if name in query},
    )
    if principal.project:
        if narrow.project not in (None, principal.project):
            raise FareboxError(Kind.NOT_FOUND, f"there is no project `{query['project'][:64]}` for this key", param="project")
        narrow = msgspec.structs.replace(narrow, project=principal.project)
    after = _cursor(query["after"], by) if "after" in query else None
    lines = await request.library.read(
        lambda c: reports.usage_lines(c, by, narrow, after=after, lines_max=limit + 1)
    )
    more, lines = len(lines) > limit, lines[:limit]
    shown = _Shown(request.library.terms.display, now_us)
    return Page(
        200,
        _encode(
            {
                "object": "list",
                "group_by": by,
                "since": format_moment(narrow.since_us),
                "until": None if narrow.until_us is None else format_moment(narrow.until_us),
                "data": [_usage_row(by, line, shown) for line in lines],
                **shown.rate,
                "has_more": more,
                "next": _written(lines[-1].groups) if more else None,
            }
        ),
    )


def _usage_row(by: Sequence[Group], line: reports.UsageLine, shown: _Shown) -> dict[str, Any]:
    return {
        **{name: reports.shown(name, value) for name, value in zip(by, line.groups, strict=True)},
        "requests": line.calls,
        "attempts": line.attempts,
        "prompt_tokens": line.prompt_tokens,
        "cached_tokens": line.cached_tokens,
        "completion_tokens": line.completion_tokens,
        "reasoning_tokens": line.reasoning_tokens,
        "usage": dollars(line.charge_nano),
        "usage_usd": format_amount(line.charge_nano),
        **shown.amount(line.charge_nano),
    }


async def compare(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/compare?since=30d`: what the account's calls cost here, and would have cost at each provider's list price."""
    principal = await identified(gateway, request)
    now_us = gateway.clock.now_us()
    query = query_of(request, ("since", "until"))
    narrow = Narrow(
        since_us=moment(query.get("since", "30d"), "since", now_us),
        until_us=moment(query["until"], "until", now_us) if "until" in query else now_us,
        account_id=principal.account,
        project=principal.project or None,
    )
    model_of = gateway.market.catalog.get

    def work(connection: Connection) -> tuple[tuple[Comparison, ...], Comparison] | None:
        if exports.count_usage(connection, narrow) > COMPARED_ROWS_MAX:
            return None
        return comparing.compare(exports.usage_rows(connection, narrow), evidence.attempt, model_of)

    found = await request.library.read(work)
    if found is None:
        many = f"the period has more than {COMPARED_ROWS_MAX} attempts; ask for a shorter one with `since` and `until`"
        raise invalid(many, param="since")
    models, total = found
    body = {"since": format_moment(narrow.since_us), "until": format_moment(narrow.until_us or now_us)}
    return Page(200, _encode({**body, "data": [compared(one) for one in models], "total": compared(total)}))


async def invoices(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/invoices`: the account's invoices and credit notes, and what is open of them."""
    principal = await whole_account(gateway, request)
    query_of(request, ())
    now_us = gateway.clock.now_us()
    terms = request.library.terms
    found = await request.library.read(lambda c: dunning.standings(c, principal.account, terms, now_us))
    return Page(200, _encode({"object": "list", "data": [_standing(one) for one in found]}))


def _standing(one: dunning.Standing) -> dict[str, Any]:
    return {
        "number": one.number,
        "kind": one.kind,
        "month": one.month,
        "corrects": one.corrects,
        "issued": format_day(one.issued_us),
        "due_day": None if one.due_us is None else format_day(one.due_us),
        "total_usd": format_amount(one.total_nano),
        "due_usd": format_amount(one.due_nano),
        "open_usd": format_amount(one.open_nano),
        "state": one.state,
    }


async def invoice(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/invoices/{number}`: the document as issued; `?format=html` as a page that prints well."""
    principal = await whole_account(gateway, request)
    form = query_of(request, ("format",)).get("format", "json")
    if form not in ("json", "html"):
        raise invalid(f"`format` must be json or html, not {form[:32]!r}", param="format")
    number = unquote(request.path.partition("/invoices/")[2]).rstrip("/")[:NUMBER_MAX]
    found = await request.library.read(lambda c: months.stored(c, account_id=principal.account, number=number))
    if not found:
        raise FareboxError(
            Kind.NOT_FOUND, f"there is no invoice `{number}` on this account; `GET /v1/invoices` lists them", param="number"
        )
    if form == "html":
        return Page(200, invoice_pages.html(found[0]).encode(), b"content-type: text/html; charset=utf-8\r\n")
    return Page(200, documents.encode(found[0]).encode())


# --- what the query says --------------------------------------------------------------------------------------------------


def query_of(request: Question, known: Sequence[str]) -> dict[str, str]:
    """The query's parameters; an unknown one is refused with the nearest known."""
    query = request.query()
    for name in query:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(f'`{one}`' for one in known)}"
            raise invalid(f"`{name[:64]}` is not a parameter here; {fix}", param=name[:64])
    return query


def moment(text: str, param: str, now_us: int) -> int:
    """A moment from the query, or the 400 that says how to write one."""
    try:
        return parse_moment(text[:64], now_us)
    except (ValueError, OverflowError) as error:
        raise invalid(f"`{param}`: {error}", param=param) from None


def _groups(text: str) -> tuple[Group, ...]:
    found = tuple(part.strip() for part in text[:256].split(","))
    for name in found:
        if name not in GROUPS:
            near = difflib.get_close_matches(name, GROUPS, n=1)
            fix = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(GROUPS)}"
            raise invalid(f"`group_by`: {name!r} is not a dimension; {fix}", param="group_by")
    if len(set(found)) != len(found):
        raise invalid("`group_by` names a dimension twice", param="group_by")
    return cast("tuple[Group, ...]", found)


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE_LINES
    if not text.isdecimal() or not 1 <= int(text[:9]) <= PAGE_LINES_MAX:
        raise invalid(f"`limit` must be from 1 to {PAGE_LINES_MAX}, not {text[:32]!r}", param="limit")
    return int(text)


def _written(groups: Sequence[str | int]) -> str:
    return base64.urlsafe_b64encode(_encode(groups)).decode().rstrip("=")


def _cursor(text: str, by: Sequence[Group]) -> list[str | int]:
    wrong = invalid("`after` must be the `next` of the page before, with the same `group_by`", param="after")
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=list[str | int])
    except (ValueError, msgspec.MsgspecError):
        raise wrong from None
    if len(found) != len(by):
        raise wrong
    for name, value in zip(by, found, strict=True):
        if isinstance(value, int) != (name in ("day", "hour")):
            raise wrong
    return found
