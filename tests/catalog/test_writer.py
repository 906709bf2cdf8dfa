"""Writing and reading are inverse: whatever models there are, `loads(dump(models)) == models`."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.catalog import loader
from farebox.catalog.model import CAPABILITIES, Model, Offer
from farebox.catalog.price import OffPeak, Price, Rates, Schedule, Tier
from farebox.catalog.writer import dump

rate = st.one_of(st.sampled_from((0, 1_000_000, 2_000_000)), st.integers(0, 10**12))
rates = st.builds(Rates, **dict.fromkeys(Rates.__struct_fields__, rate))
names = st.text(st.sampled_from("abcdeABC019.-:/é"), min_size=1, max_size=12)
days = st.dates().map(str)
tokens = st.integers(1, loader.TOKENS_MAX)
sizes = st.lists(st.integers(1, 2**30), unique=True, max_size=3).map(sorted)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    return Schedule(draw(rates), tuple(Tier(size, draw(rates)) for size in draw(sizes)))


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int]:
    start = draw(st.integers(0, 1438))
    return start, draw(st.integers(start + 1, 1439))


prices = st.builds(
    Price,
    version=names,
    effective_from=days,
    standard=schedules(),
    service_tiers=st.dictionaries(st.sampled_from(("flex", "priority", "fast")), schedules(), max_size=2),
    off_peak=st.none() | st.builds(OffPeak, schedules(), st.lists(windows(), max_size=2).map(tuple), st.booleans()),
    multipliers_bp=st.dictionaries(names, st.integers(0, 100_000), max_size=2),
    source=st.lists(names, max_size=2).map(tuple),
    checked=st.none() | days,
    confidence=st.sampled_from(("agreed", "single", "conflict", "operator")),
)
capabilities = st.frozensets(st.sampled_from(CAPABILITIES))


@st.composite
def models(draw: st.DrawFn) -> list[Model]:
    """Some models with distinct slugs; price versions are renamed to be distinct, and dated in order."""
    count = 0

    def dated() -> tuple[Price, ...]:
        nonlocal count
        found = sorted(draw(st.lists(prices, max_size=2, unique_by=lambda p: p.effective_from)), key=lambda p: p.effective_from)
        versions: list[Price] = []
        for price in found:
            count += 1
            versions.append(msgspec.structs.replace(price, version=f"{price.version}-{count}"))
        return tuple(versions)

    def offer() -> Offer:
        return Offer(
            provider=draw(st.sampled_from(("anthropic", "openai", "lab"))), id=draw(names), wire=draw(names), prices=dated(),
            context_window=draw(tokens), max_output_tokens=draw(tokens), capabilities=draw(capabilities),
            aliases=tuple(draw(st.lists(names, max_size=2))), variant=draw(st.sampled_from(("", "us"))),
            max_input_tokens=draw(st.none() | tokens), retires=draw(st.none() | days),
            reasoning_efforts=tuple(draw(st.lists(names, max_size=2))),
        )  # fmt: skip

    return [
        Model(
            slug=slug, name=draw(names), context_window=draw(tokens), max_output_tokens=draw(tokens),
            offers=tuple(offer() for _ in range(draw(st.integers(1, 2)))), capabilities=draw(capabilities),
            input_modalities=draw(st.sampled_from((("text",), ("text", "image"), ()))), released=draw(st.none() | days),
            knowledge_cutoff=draw(st.none() | names), open_weights=draw(st.none() | st.booleans()),
        )
        for slug in sorted(draw(st.sets(names, min_size=1, max_size=3)))
    ]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(models())
def test_what_is_written_reads_back(given_models: list[Model]) -> None:
    data = dump(given_models)
    assert list(loader.loads(data)) == given_models
    assert dump(loader.loads(data)) == data


def test_the_shipped_catalog_reads_back() -> None:
    shipped = loader.load()
    assert loader.loads(dump(shipped)) == tuple(sorted(shipped, key=lambda model: model.slug))
