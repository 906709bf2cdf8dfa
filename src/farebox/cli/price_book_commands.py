"""`prices diff|sync|set|approve|reject`: the price book. Nothing that an import says is in force before it is approved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from farebox.billing.accounts import price_book
from farebox.billing.accounts.price_book import NeedsConfirmation, Proposal
from farebox.billing.books.customers import CommandRefused
from farebox.billing.books.periods import format_day
from farebox.catalog import imports
from farebox.catalog.catalog import Catalog
from farebox.catalog.errors import CatalogError
from farebox.catalog.imports import Format, Skipped
from farebox.catalog.model import Model, Offer
from farebox.catalog.rates import DAY, write_price
from farebox.catalog.record import PriceRecord
from farebox.cli.output import CliError, config_option, database_of, json_option, local_url, print_json, print_table
from farebox.config import ConfigError, Loaded
from farebox.market import make_market
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.storage.database import Database

SHOWN_MAX = 10
FORMATS = ("litellm", "genai-prices", "farebox")


def _catalog(loaded: Loaded, database: Database) -> tuple[Catalog, int]:
    """The catalog with the book over it, and the usual markup in basis points."""
    try:
        market, _ = make_market(loaded, local_url=local_url(loaded), versions=database.read(price_book.versions))
    except ConfigError as error:
        raise CliError(str(error)) from None
    return market.catalog, market.markups[""].terms("", "").bp


def _file_proposals(
    file: Path, form: str | None, providers: Sequence[str], catalog: Catalog, bp: int
) -> tuple[list[Proposal], list[Skipped], int]:
    """What a list would change, what of it cannot be taken, and how many of its entries are of no offer here."""
    with file.open("rb") as opened:
        data = opened.read(imports.BYTES_MAX + 1)
    if len(data) > imports.BYTES_MAX:
        raise CliError(f"{file}: larger than {imports.BYTES_MAX} bytes")
    chosen: Format = imports.guess(data) if form is None else form  # pyright: ignore[reportAssignmentType]
    try:
        listed, skipped = imports.read(data, chosen, day=format_day(SystemClock().now_us()))
    except CatalogError as error:
        raise CliError(f"{file}: {error}") from None
    by_name: dict[tuple[str, str, str], tuple[Model, Offer]] = {}
    for model in catalog.list_models():
        for offer in model.offers:
            for name in (offer.id, *offer.aliases):
                by_name.setdefault((offer.provider, name, offer.variant), (model, offer))
    found: dict[str, Proposal] = {}
    strangers = 0
    for one in listed:
        known = by_name.get((one.provider, one.id, one.variant))
        if known is None or (providers and one.provider not in providers):
            strangers += 1
            continue
        model, offer = known
        if one.id != offer.id:
            continue  # an alias has the price of its offer, which the list has under its own name
        try:
            record = _over(offer, one)
            proposal = price_book.compare(model, offer, record, bp=bp, source=f"{chosen}: {file.name}")
        except CatalogError as error:
            skipped.append(Skipped(f"{one.provider}/{one.id}", str(error)))
            continue
        if proposal is not None:
            found[proposal.version.version] = proposal
    return list(found.values()), skipped, strangers


def _over(offer: Offer, one: imports.Listed) -> PriceRecord:
    current = offer.price_on(one.record.effective_from)
    if current is None:
        return one.record
    return imports.carried_over(one, write_price(current, offer.provider, offer.id, offer.variant))


def _words(one: Proposal) -> dict[str, Any]:
    return {
        "id": one.id or None,
        "model": one.model,
        "provider": one.version.provider,
        "offer": one.version.offer_id,
        "version": one.version.version,
        "effective_from": one.version.record.effective_from,
        "source": one.source,
        "changes": [
            {"place": change.place, "old": change.old, "new": change.new, "finding": change.finding or None}
            for change in one.changes
        ],
        "needs_confirmation": one.findings,
        "above_our_price": list(one.passed),
        "state": one.state,
    }


def _print(found: Sequence[Proposal], skipped: Sequence[Skipped], empty: str) -> None:
    lines: list[tuple[str, ...]] = []
    for one in found:
        for change in one.changes:
            over = "above our own price" if change.place in one.passed else ""
            remark = "; ".join(part for part in (change.finding, over) if part)
            lines.append((one.id, one.model, one.version.provider, change.place, change.old, change.new, remark))
    print_table(("proposal", "model", "provider", "price", "old", "new", "remark"), lines, right=(4, 5), empty=empty)
    for one in skipped[:SHOWN_MAX]:
        click.echo(f"not taken: {one.place}: {one.problem}")
    if len(skipped) > SHOWN_MAX:
        click.echo(f"not taken: {len(skipped) - SHOWN_MAX} more")


_form_option = click.option("--format", "form", type=click.Choice(FORMATS), help="Of the file; unset: as it looks.")
_provider_option = click.option("--provider", "providers", multiple=True, help="Only this provider's; may be repeated.")
_file_type = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("file", type=_file_type, required=False)
@_form_option
@_provider_option
@config_option
@json_option
def diff(file: Path | None, form: str | None, providers: tuple[str, ...], config_path: Path, as_json: bool) -> None:
    """What a price list would change; without a file, what the waiting proposals would."""
    skipped: list[Skipped] = []
    strangers = 0
    with database_of(config_path) as (loaded, database):
        if file is None:
            found = database.read(price_book.proposals)
        else:
            found, skipped, strangers = _file_proposals(file, form, providers, *_catalog(loaded, database))
    if as_json:
        print_json({"proposals": [_words(one) for one in found], "not_taken": skipped, "other_entries": strangers})
        return
    _print(found, skipped, "No price would change." if file else "No proposal waits; `farebox prices sync FILE` makes some.")


@click.command()
@click.argument("file", type=_file_type)
@_form_option
@_provider_option
@config_option
@json_option
def sync(file: Path, form: str | None, providers: tuple[str, ...], config_path: Path, as_json: bool) -> None:
    """Propose the prices of a list: LiteLLM's JSON map, genai-prices, or a file in the catalog's format."""
    clock = SystemClock()
    with database_of(config_path) as (loaded, database):
        found, skipped, strangers = _file_proposals(file, form, providers, *_catalog(loaded, database))
        made = price_book.propose(database, TimeOrderedIds(clock), found, now_us=clock.now_us())
    if as_json:
        print_json({"proposals": [_words(one) for one in made], "not_taken": skipped, "other_entries": strangers})
        return
    _print(made, skipped, "No price would change.")
    alarms = sum(1 for one in made if one.passed)
    if alarms:
        click.echo(f"{alarms} of them ask more than customers pay now: those calls lose money until they are approved.")
    if made:
        click.echo("Next: farebox prices approve PROPOSAL, or --all for those that need no confirmation.")


@click.command("set")
@click.argument("slug")
@click.option("--provider", required=True, help="Whose offer of the model.")
@click.option("--variant", default="", help="Which of its offers, where there are several.")
@click.option("--input", "input_", help="USD per million tokens.")
@click.option("--output", help="USD per million tokens.")
@click.option("--cached-input", help="USD per million tokens.")
@click.option("--cache-write", help="USD per million tokens.")
@click.option("--reasoning", help="USD per million tokens.")
@click.option("--request", help="USD per call.")
@click.option("--web-search", help="USD per search.")
@click.option("--from", "day", help="The UTC day from which it holds; unset: today.")
@click.option("--yes", is_flag=True, help="Confirm what would ask for confirmation.")
@config_option
@json_option
def set_price(
    slug: str, provider: str, variant: str, input_: str | None, output: str | None, cached_input: str | None,
    cache_write: str | None, reasoning: str | None, request: str | None, web_search: str | None, day: str | None, yes: bool,
    config_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Set prices of one offer; what is not given stays. Running servers take it within a second, for calls that begin then."""
    clock = SystemClock()
    day = format_day(clock.now_us()) if day is None else day
    if DAY.fullmatch(day) is None:
        raise CliError(f"--from {day!r} is not a day such as 2026-12-01")
    given = {
        "input": input_, "output": output, "cache_read": cached_input, "cache_write": cache_write, "reasoning": reasoning,
        "request": request, "web_search": web_search,
    }  # fmt: skip
    new = {name: value for name, value in given.items() if value is not None}
    if not new:
        raise CliError("give at least one price, e.g. --input 2.50")
    ids = TimeOrderedIds(clock)
    with database_of(config_path) as (loaded, database):
        catalog, bp = _catalog(loaded, database)
        model = catalog.get(slug)
        if model is None:
            raise CliError(f"there is no model `{slug}`; `farebox prices list --all` shows them")
        offer = next((one for one in model.offers if (one.provider, one.variant) == (provider, variant)), None)
        if offer is None:
            known = ", ".join(f"{one.provider}{'#' + one.variant if one.variant else ''}" for one in model.offers)
            raise CliError(f"`{slug}` has no such offer; its offers: {known}")
        current = offer.price_on(day)
        if current is None and not {"input", "output"} <= new.keys():
            raise CliError("the offer has no price on that day yet: give --input and --output")
        try:
            proposal = price_book.compare(model, offer, _changed(offer, new, day), bp=bp, source="prices set")
            if proposal is None:
                raise CliError("that is the price already")
            if proposal.findings and not yes:
                raise CliError(f"{'; '.join(proposal.findings)}; --yes confirms it")
            (made,) = price_book.propose(database, ids, [proposal], now_us=clock.now_us())
            made = price_book.decide(database, ids, made.id, "approved", confirmed=True, now_us=clock.now_us())
        except (CommandRefused, CatalogError) as error:
            raise CliError(str(error)) from None
    if as_json:
        print_json(_words(made))
        return
    click.echo(f"{made.version.version} holds from {day} on.")


def _changed(offer: Offer, new: dict[str, str], day: str) -> PriceRecord:
    """The offer's price of that day with some rates replaced; tiers and service tiers stay as they are."""
    from farebox.catalog.record import RatesRecord

    current = offer.price_on(day)
    if current is None:
        return PriceRecord(RatesRecord(**new), effective_from=day, source=("prices set",))
    record = write_price(current, offer.provider, offer.id, offer.variant)
    return msgspec.structs.replace(
        record, rates=msgspec.structs.replace(record.rates, **new), effective_from=day, checked=day, source=("prices set",),
        confidence="operator", version=None,
    )  # fmt: skip


@click.command()
@click.argument("proposal_ids", nargs=-1, metavar="[PROPOSAL]...")
@click.option("--all", "everything", is_flag=True, help="All that need no confirmation; with --yes, all.")
@click.option("--yes", is_flag=True, help="Confirm what asks for confirmation.")
@config_option
@json_option
def approve(proposal_ids: tuple[str, ...], everything: bool, yes: bool, config_path: Path, as_json: bool) -> None:
    """Put proposed prices in force. One with a finding needs --yes."""
    if everything == bool(proposal_ids):
        raise CliError("name proposals, or --all")
    _decide("approved", proposal_ids, everything, yes, config_path, as_json)


@click.command()
@click.argument("proposal_ids", nargs=-1, required=True, metavar="PROPOSAL...")
@config_option
@json_option
def reject(proposal_ids: tuple[str, ...], config_path: Path, as_json: bool) -> None:
    """Drop proposed prices."""
    _decide("rejected", proposal_ids, False, True, config_path, as_json)


def _decide(
    state: Any, proposal_ids: tuple[str, ...], everything: bool, yes: bool, config_path: Path, as_json: bool
) -> None:
    clock = SystemClock()
    made: list[Proposal] = []
    left: list[Proposal] = []
    with database_of(config_path) as (_, database):
        if everything:
            waiting = database.read(price_book.proposals)
            left = [one for one in waiting if one.findings and not yes]
            proposal_ids = tuple(one.id for one in waiting if yes or not one.findings)
        ids = TimeOrderedIds(clock)
        for one in proposal_ids:
            try:
                made.append(price_book.decide(database, ids, one, state, confirmed=yes, now_us=clock.now_us()))
            except NeedsConfirmation as error:
                raise CliError(f"{error}; --yes confirms it") from None
            except CommandRefused as error:
                raise CliError(f"{error}; `farebox prices diff` shows those that wait") from None
    if as_json:
        print_json({state: [_words(one) for one in made], "left": [_words(one) for one in left]})
        return
    for one in made:
        click.echo(f"{state} {one.version.version}")
    for one in left:
        click.echo(f"waits for --yes: {one.id}: {one.model} at {one.version.provider}: {'; '.join(one.findings)}")
    if not made and not left:
        click.echo("Nothing waits.")


COMMANDS = (diff, sync, set_price, approve, reject)
