"""Reads the catalog: the file that ships with Farebox, or another one in the same format (`farebox.catalog.record`).

Everything wrong is said with file, line, path and what to write instead; a price is never rounded to make it fit.
"""

from pathlib import Path

import msgspec

from farebox.catalog.configured import model_from_config, offer_from_config
from farebox.catalog.errors import CatalogError, PriceError, PriceFinding
from farebox.catalog.model import CAPABILITIES, Model, Offer
from farebox.catalog.price import Price
from farebox.catalog.rates import Reader
from farebox.catalog.record import ModelRecord, OfferRecord

__all__ = ["CatalogError", "PriceError", "PriceFinding", "load", "loads", "model_from_config", "offer_from_config"]

SHIPPED = (Path(__file__).with_name("models.jsonl"), Path(__file__).with_name("local.jsonl"))
"""What ships in the wheel: facts built by `tools/build_catalog.py`, and the local model."""
FILE_BYTES_MAX = 32 * 2**20
MODELS_MAX = 20_000
OFFERS_MAX = 64
"""Per model."""
TOKENS_MAX = 2**31
"""Context windows and caps above this are typing errors."""

_KNOWN = frozenset(CAPABILITIES)
_decode = msgspec.json.Decoder(ModelRecord).decode


def load(path: Path | None = None) -> tuple[Model, ...]:
    """The shipped catalog, or the one in a file. Raises `CatalogError`, as `PriceError` when prices are at fault."""
    if path is not None:
        return loads(_read(path), str(path))
    models: list[Model] = []
    for shipped in SHIPPED:
        models.extend(loads(_read(shipped), shipped.name))
    return tuple(models)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise CatalogError(f"{path}: larger than {FILE_BYTES_MAX} bytes")
    return data


def loads(data: bytes, name: str = "catalog") -> tuple[Model, ...]:
    """Models from the bytes of a file called `name`."""
    read = _File(name)
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            read.line(line, number)
    if read.findings:
        raise PriceError(tuple(read.findings))
    return tuple(read.models)


class _File:
    """One file being read: its models so far, and every price finding in it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.models: list[Model] = []
        self.findings: list[PriceFinding] = []
        self._slugs: dict[str, int] = {}
        self._versions: set[str] = set()
        self._sets: dict[tuple[str, ...], frozenset[str]] = {}
        """Capability sets already made: most offers share theirs with their model."""

    def line(self, line: bytes, number: int) -> None:
        place = f"{self._name}: line {number}: "
        try:
            record = _decode(line)
        except msgspec.ValidationError as error:
            raise _explained(place, str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CatalogError(f"{place}not valid JSON: {error}; write one model as one line") from None
        first = self._slugs.setdefault(record.slug, number)
        if first != number:
            raise CatalogError(f"{place}`slug`: {record.slug!r} is on line {first} already; put all its offers into one line")
        if len(self.models) >= MODELS_MAX:
            raise CatalogError(f"{place}more than {MODELS_MAX} models")
        self.models.append(self._model(record, place))

    def _set(self, names: tuple[str, ...], place: str) -> frozenset[str]:
        found = self._sets.get(names)
        if found is None:
            found = self._sets[names] = frozenset(names)
            if not found <= _KNOWN:
                wrong = ", ".join(sorted(found - _KNOWN))
                raise CatalogError(f"{place}: unknown capability {wrong}; known: {', '.join(CAPABILITIES)}")
        return found

    def _model(self, record: ModelRecord, place: str) -> Model:
        _check_text(record.slug, f"{place}`slug`")
        _check_tokens(record.context, f"{place}`context`")
        _check_tokens(record.max_output, f"{place}`max_output`")
        if not 1 <= len(record.offers) <= OFFERS_MAX:
            raise CatalogError(f"{place}`offers`: {len(record.offers)} offers; a model has 1 to {OFFERS_MAX}")
        capabilities = self._set(record.capabilities, f"{place}`capabilities`")
        return Model(
            slug=record.slug,
            name=record.name,
            context_window=record.context,
            max_output_tokens=record.max_output,
            offers=tuple(
                self._offer(offer, record, capabilities, f"{place}`offers[{index}]`", place, f"offers[{index}].")
                for index, offer in enumerate(record.offers)
            ),
            capabilities=capabilities,
            input_modalities=record.input,
            output_modalities=record.output,
            released=record.released,
            knowledge_cutoff=record.cutoff,
            open_weights=record.open_weights,
        )

    def _offer(
        self, offer: OfferRecord, model: ModelRecord, shared: frozenset[str], at: str, place: str, path: str
    ) -> Offer:
        _check_text(offer.id, f"{at}: `id`")
        context = model.context if offer.context is None else offer.context
        cap = model.max_output if offer.max_output is None else offer.max_output
        _check_tokens(context, f"{at}: `context`")
        _check_tokens(cap, f"{at}: `max_output`")
        capabilities = shared
        if offer.lacks or offer.adds:
            capabilities = (shared - self._set(offer.lacks, f"{at}: `lacks`")) | self._set(offer.adds, f"{at}: `adds`")
        return Offer(
            provider=offer.provider,
            id=offer.id,
            wire=offer.wire,
            prices=self._prices(offer, at, place, path),
            context_window=context,
            max_output_tokens=cap,
            capabilities=capabilities,
            aliases=offer.aliases,
            variant=offer.variant,
            max_input_tokens=offer.max_input,
            retires=offer.retires,
            reasoning_efforts=offer.efforts,
        )

    def _prices(self, offer: OfferRecord, at: str, place: str, path: str) -> tuple[Price, ...]:
        prices: list[Price] = []
        reader = Reader(place, offer.provider)
        for index, record in enumerate(offer.prices):
            price = reader.price(record, f"{path}prices[{index}].", offer.id, offer.variant)
            if prices and price.effective_from <= prices[-1].effective_from:
                raise CatalogError(f"{at}: `prices[{index}].from`: versions go from the oldest to the newest, one per day")
            if price.version in self._versions:
                raise CatalogError(
                    f"{at}: `prices[{index}]`: version {price.version!r} exists already; a version is never reused: "
                    "give this one another `checked` day, `variant` or `version`"
                )
            self._versions.add(price.version)
            prices.append(price)
        self.findings.extend(reader.findings)
        return tuple(prices)


def _check_tokens(count: int, place: str) -> None:
    if not 1 <= count <= TOKENS_MAX:
        raise CatalogError(f"{place}: {count} is not a token count from 1 to {TOKENS_MAX}")


def _check_text(text: str, place: str) -> None:
    if not text or text != text.strip():
        raise CatalogError(f"{place}: {text!r} is empty or has spaces around it")


def _explained(place: str, text: str) -> CatalogError:
    """msgspec's message → place, path and fix. A price written as a number is a finding: its decimals cannot be trusted."""
    path = ""
    if " - at `" in text:
        text, _, where = text.partition(" - at `")
        path = where.rstrip("`").removeprefix("$").lstrip(".")
    if ".rates." in path and ("got `float`" in text or "got `int`" in text):
        problem = "prices are decimal strings: put it in quotes, as its source publishes it"
        return PriceError((PriceFinding(f"{place}`{path}`", "", problem),))
    return CatalogError(f"{place}`{path or 'the line'}`: {text[:1].lower()}{text[1:]}; see farebox/catalog/record.py")
