"""The market, from the configuration: providers that are switched on, models of the catalog and the operator's, their prices."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from farebox.billing.markup import MarkupError, MarkupPlan, flat, plan_from_config
from farebox.catalog import loader
from farebox.catalog.book import Version, overlay
from farebox.catalog.catalog import Catalog
from farebox.catalog.model import Model, Offer
from farebox.config import ConfigError, Loaded, ModelSection
from farebox.config.providers import Attempts
from farebox.providers.base import Certificates, Provider
from farebox.providers.registry import PROVIDERS, custom
from farebox.routing.market import Market
from farebox.routing.patience import Patience, before
from farebox.routing.target import Target, target
from farebox.wires import NAMES

LOCAL_PROVIDER = "local"


class Enabled(msgspec.Struct, frozen=True):
    """A provider that is switched on: its row, where it is, and its keys."""

    provider: Provider
    base_url: str
    keys: tuple[str, ...]
    weights: tuple[int, ...] = ()
    """The keys' shares; empty: all alike."""
    patience: Patience | None = None
    house: bool = True
    """Not only customers' own keys are used."""

    def __repr__(self) -> str:
        return f"Enabled({self.provider.name}, {self.base_url}, {len(self.keys)} keys)"


def enabled_providers(loaded: Loaded, *, local_url: str | None) -> dict[str, Enabled]:
    """Providers switched on by a key in the environment, by the configuration, or, the local model, by running."""
    found: dict[str, Enabled] = {}
    sections = loaded.config.providers
    for name, row in PROVIDERS.items():
        if name in sections or (name == LOCAL_PROVIDER and local_url is None):
            continue
        keys = _environment_keys(row, loaded.environment)
        if keys or name == LOCAL_PROVIDER:
            found[name] = Enabled(row, local_url if name == LOCAL_PROVIDER and local_url else row.base_url, keys)
    for name, section in sections.items():
        if not section.enabled:
            continue
        known = PROVIDERS.get(name)
        place = f"{loaded.path}: `providers.{name}`"
        if known is None and (section.base_url is None or section.wire is None):
            missing = "base_url" if section.base_url is None else "wire"
            raise ConfigError(
                f"{place}: `{missing}` is missing; a provider of your own needs `wire` and `base_url`, "
                f"or use a known name: {', '.join(sorted(PROVIDERS))}"
            )
        row = custom(name, section, base=known)
        keys = tuple(one.key for one in section.keys) or _environment_keys(row, loaded.environment)
        keys = () if section.own_keys_only else keys
        weights = tuple(one.weight for one in section.keys)
        certificates = Certificates(
            ca_file=_beside(loaded, section.ca_file),
            client_cert_file=_beside(loaded, section.client_cert_file),
            client_key_file=_beside(loaded, section.client_key_file),
        )
        row = msgspec.structs.replace(row, certificates=certificates, probe=section.probe)
        patience = Patience(section.headers_s, section.first_token_s, section.chunk_s, connect_s=section.connect_s)
        found[name] = Enabled(
            row,
            section.base_url or row.base_url,
            keys,
            weights if len(set(weights)) > 1 else (),
            None if patience == Patience() else patience,
            not section.own_keys_only,
        )
    return found


def _beside(loaded: Loaded, name: str | None) -> str | None:
    """A file named in the configuration: relative names are relative to it."""
    return None if name is None else str(loaded.folder / name)


def _environment_keys(row: Provider, environment: Mapping[str, str]) -> tuple[str, ...]:
    for variable in row.credential.env:
        value = environment.get(variable, "").strip()
        if value:
            return (value,)
    return ()


def _configured_model(section: ModelSection, loaded: Loaded, index: int, providers: Mapping[str, Enabled]) -> Model:
    """A `[[models]]` entry as a catalog model."""
    offers: list[Offer] = []
    for number, entry in enumerate(section.offers):
        place = f"{loaded.path}: `models[{index}].offers[{number}]`"
        at = providers.get(entry.provider)
        known = PROVIDERS.get(entry.provider)
        if at is None and known is None and entry.provider not in loaded.config.providers:
            raise ConfigError(f"{place}: there is no provider `{entry.provider}`; add `[providers.{entry.provider}]`")
        row = at.provider if at is not None else known
        wire = next(iter(row.speaks)) if row is not None else "openai_chat"
        try:
            offers.append(loader.offer_from_config(entry, section, wire=wire))
        except loader.CatalogError as error:
            raise ConfigError(f"{place}: {error}") from None
    try:
        return loader.model_from_config(section, tuple(offers))
    except loader.CatalogError as error:
        raise ConfigError(f"{loaded.path}: `models[{index}]`: {error}") from None


def markup_plans(loaded: Loaded) -> dict[str, MarkupPlan]:
    """The configured plans by name; under the empty name the one of accounts without a plan of their own."""
    found: dict[str, MarkupPlan] = {}
    for name, section in loaded.config.markup.items():
        try:
            found[name] = plan_from_config(name, section)
        except MarkupError as error:
            raise ConfigError(f"{loaded.path}: `markup.{name}`: {error}") from None
    usual = loaded.config.billing.markup
    found[""] = flat(loaded.markup_bp) if usual is None else found[usual]
    return found


def make_market(
    loaded: Loaded, *, local_url: str | None, versions: Sequence[Version] = ()
) -> tuple[Market, dict[str, Enabled]]:
    """The catalog, the configuration's models over it, the price book over both, and every offer that can be called."""
    providers = enabled_providers(loaded, local_url=local_url)
    models = {model.slug: model for model in loader.load()}
    for index, section in enumerate(loaded.config.models):
        models[section.slug] = _configured_model(section, loaded, index, providers)
    models = {model.slug: model for model in overlay(models.values(), versions)}
    try:
        catalog = Catalog(tuple(models.values()), aliases=loaded.config.aliases, enabled_providers=frozenset(providers))
    except loader.CatalogError as error:
        raise ConfigError(f"{loaded.path}: {error}") from None
    markups = markup_plans(loaded)
    targets: dict[str, dict[str, tuple[Target, ...]]] = {wire: {} for wire in NAMES}
    for model in models.values():
        offers = [(offer, providers[offer.provider]) for offer in model.offers if offer.provider in providers]
        offers = [(offer, at) for offer, at in offers if offer.wire in at.provider.speaks]
        if not offers:
            continue
        for wire, by_slug in targets.items():
            by_slug[model.slug] = tuple(
                target(
                    model,
                    offer,
                    at.provider,
                    # Where the provider speaks the client's own wire nothing needs to be translated.
                    wire=wire if wire in at.provider.speaks else offer.wire,
                    base_url=at.base_url,
                    keys=at.keys,
                    key_weights=at.weights,
                    markup=markups[""],
                    patience=before(_patience_of(model.slug, loaded.config.attempts), at.patience),
                    house=at.house,
                )
                for offer, at in offers
            )
    return Market(catalog, targets, markups), providers


def _patience_of(slug: str, section: Attempts) -> Patience | None:
    """A model's own time-outs, if it has some."""
    found: Patience | None = None
    for some in section.models:
        if any(fnmatchcase(slug, pattern) for pattern in some.models):
            found = before(found, Patience(some.headers_s, some.first_token_s, some.chunk_s, some.total_s))
    return found


def by_price(market: Market) -> list[str]:
    """The slugs of what can be called, the cheapest first, as the first offer of each is listed; what has no price comes last."""

    def price(slug: str) -> tuple[int, str]:
        offer = market.targets[slug][0].offer
        found = offer.prices[-1].standard.rates if offer.prices else None
        return (2**62 if found is None else found.input + 2 * found.output, slug)

    # What customers' own keys alone can call is nobody's default.
    return sorted((slug for slug, targets in market.targets.items() if any(one.house for one in targets)), key=price)
