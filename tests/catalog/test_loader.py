"""Reading catalog files: what is filled in, and how everything wrong is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from farebox.catalog import loader
from farebox.catalog.loader import CatalogError, PriceError
from farebox.catalog.price import Rates


def line(
    rates: dict[str, Any] | None = None, *, provider: str = "lab", offer: dict[str, Any] | None = None, **model: Any
) -> bytes:
    prices = [{"rates": rates or {"input": "1", "output": "2"}}]
    entry = {
        "slug": "lab/echo", "name": "Echo", "context": 1000, "max_output": 100,
        "offers": [{"provider": provider, "id": "echo", "prices": prices, **(offer or {})}], **model,
    }  # fmt: skip
    return json.dumps(entry).encode()


def standard(rates: dict[str, Any], provider: str = "lab") -> Rates:
    (model,) = loader.loads(line(rates, provider=provider))
    return model.offers[0].prices[0].standard.rates


def test_a_class_without_a_price_bills_as_input_or_output() -> None:
    assert standard({"input": "1", "output": "2"}) == Rates(
        input=1_000_000, cache_read=1_000_000, cache_write_5m=1_000_000, cache_write_1h=1_000_000, audio_input=1_000_000,
        image_input=1_000_000, output=2_000_000, reasoning=2_000_000, audio_output=2_000_000, image_output=2_000_000,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "stated", "five_minutes", "one_hour"),
    [
        ("anthropic", {}, "1", "1"),
        ("anthropic", {"cache_write": "1.25"}, "1.25", "2"),
        ("anthropic", {"cache_write": "1.25", "cache_write_1h": "1.9"}, "1.25", "1.9"),
        ("openai", {"cache_write": "1.25"}, "1.25", "1.25"),
    ],
)
def test_cache_writes(provider: str, stated: dict[str, str], five_minutes: str, one_hour: str) -> None:
    rates = standard({"input": "1", "output": "2", **stated}, provider)
    assert rates.cache_write_5m == int(float(five_minutes) * 1_000_000)
    assert rates.cache_write_1h == int(float(one_hour) * 1_000_000)


def test_a_stated_zero_stays_zero() -> None:
    assert standard({"input": "1", "output": "2", "cache_read": "0"}).cache_read == 0


def test_fees_per_call_hold_in_every_tier() -> None:
    tier = {"above": 10, "rates": {"input": "2", "output": "4"}}
    offer = {"prices": [{"rates": {"input": "1", "output": "2", "web_search": "0.01", "request": "0.005"}, "tiers": [tier],
                         "service_tiers": {"flex": {"rates": {"input": "0.5", "output": "1"}}}}]}  # fmt: skip
    (model,) = loader.loads(line(offer=offer))
    price = model.offers[0].prices[0]
    for rates in (price.standard.rates, price.standard.tiers[0].rates, price.service_tiers["flex"].rates):
        assert (rates.web_searches, rates.request) == (10_000_000_000, 5_000_000_000)


def test_a_batch_price_is_recorded_but_never_a_tier_of_a_call() -> None:
    half = {"rates": {"input": "0.5", "output": "1"}}
    offer = {"prices": [{"rates": {"input": "1", "output": "2"}, "service_tiers": {"batch": half}}]}
    (model,) = loader.loads(line(offer=offer))
    assert model.offers[0].prices[0].service_tiers == {}


def test_an_offer_says_only_what_differs_from_its_model() -> None:
    offer = {"context": 500, "lacks": ["tools"], "adds": ["pdf"], "efforts": ["low"], "retires": "2027-01-01"}
    (model,) = loader.loads(line(offer=offer, capabilities=["streaming", "tools"], input=["text", "image"]))
    (found,) = model.offers
    assert (found.context_window, found.max_output_tokens) == (500, 100)
    assert found.capabilities == {"streaming", "pdf"}
    assert model.capabilities == {"streaming", "tools"}
    assert (found.reasoning_efforts, found.retires, model.input_modalities) == (("low",), "2027-01-01", ("text", "image"))


def test_prices_are_dated() -> None:
    prices = [{"rates": {"input": "1", "output": "2"}, "checked": "2026-01-01"},
              {"rates": {"input": "3", "output": "4"}, "from": "2026-06-01"}]  # fmt: skip
    (model,) = loader.loads(line(offer={"prices": prices}))
    (offer,) = model.offers
    in_force = [offer.price_on(day) for day in ("2020-01-01", "2026-05-31", "2026-06-01")]
    assert [price and price.version for price in in_force] == [f"lab/echo@2026-{day}" for day in ("01-01", "01-01", "06-01")]


@pytest.mark.parametrize("text", ["0.18000000000000002", "0.0000001", "1e-3", "1,5", "-1", " 1", ""])
def test_a_price_that_is_not_exact_is_a_finding_and_never_rounded(text: str) -> None:
    with pytest.raises(PriceError) as caught:
        loader.loads(b"\n" + line({"input": text, "output": "2"}), "mine.jsonl")
    (finding,) = caught.value.findings
    assert finding.place == "mine.jsonl: line 2: `offers[0].prices[0].rates.input`"
    assert finding.value == text
    assert finding.place in str(caught.value)


def test_every_finding_of_a_file_is_reported_at_once() -> None:
    rates = {"input": "0.1234567", "output": "x", "web_search": "0.0000000000001"}
    data = line(rates) + b"\n" + line({"input": "1", "output": "0.00000001"}, slug="lab/other", provider="other")
    with pytest.raises(PriceError) as caught:
        loader.loads(data)
    assert [finding.place.rpartition(".")[2] for finding in caught.value.findings] == [
        "input`", "output`", "web_search`", "output`",
    ]  # fmt: skip


def test_many_findings_are_counted_not_listed() -> None:
    data = b"\n".join(line({"input": "x", "output": "2"}, slug=f"lab/m{n}", provider=f"p{n}") for n in range(30))
    with pytest.raises(PriceError, match="and 20 more"):
        loader.loads(data)


@pytest.mark.parametrize("number", [0.18, 2])
def test_a_price_written_as_a_number_is_a_finding(number: float) -> None:
    with pytest.raises(PriceError, match=r"line 1: `offers\[0\]\.prices\[0\]\.rates\.input`: prices are decimal strings.*quotes"):
        loader.loads(line({"input": number, "output": "2"}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "line 1: not valid JSON"),
        (b"\xff", "line 1: not valid JSON"),
        (line(nmae="x"), r"line 1: `the line`: object contains unknown field `nmae`"),
        (line(context="big"), r"line 1: `context`: expected `int`, got `str`"),
        (line(context=0), "line 1: `context`: 0 is not a token count"),
        (line(offer={"max_output": -1}), r"line 1: `offers\[0\]`: `max_output`: -1 is not a token count"),
        (line(offers=[]), "line 1: `offers`: 0 offers"),
        (line(slug=" x"), "`slug`: ' x' is empty or has spaces"),
        (line(offer={"id": ""}), r"`offers\[0\]`: `id`: '' is empty"),
        (line(capabilities=["telepathy"]), "unknown capability telepathy; known: tools"),
        (line() + b"\n" + line(), "line 2: `slug`: 'lab/echo' is on line 1 already"),
        (line() + b"\n" + line(slug="lab/b"), "version 'lab/echo@1970-01-01' exists already"),
    ],
)
def test_other_faults_name_place_and_fix(data: bytes, words: str) -> None:
    with pytest.raises(CatalogError, match=words):
        loader.loads(data, "mine.jsonl")


@pytest.mark.parametrize(
    ("price", "words"),
    [
        ({"from": "2026-13-01"}, "`offers.0..prices.0..from`.*not a date"),
        ({"checked": "today"}, "checked`.*not a date"),
        ({"tiers": [{"above": 0, "rates": {"input": "1", "output": "1"}}]}, r"tiers\[0\]\.above`: 0 must be"),
        ({"tiers": [{"above": 5, "rates": {"input": "1", "output": "1"}}] * 2}, r"tiers\[1\]\.above`: 5 must be"),
        ({"off_peak": {"peak_utc": ["4-5"], "rates": {"input": "1", "output": "1"}}}, r"off_peak\.peak_utc\[0\]`.*not a window"),
        ({"multipliers": {"geo": "1.00001"}}, r"multipliers\.geo`.*more than 4 decimals"),
        ({"tiers": [{"above": 5, "rates": {"input": "1", "output": "z"}}]}, r"tiers\[0\]\.rates\.output`"),
        ({"service_tiers": {"flex": {"rates": {"input": "?", "output": "1"}}}}, r"service_tiers\.flex\.rates\.input`"),
    ],
)  # fmt: skip
def test_faults_of_a_price_name_its_place(price: dict[str, Any], words: str) -> None:
    with pytest.raises(PriceError, match=words):
        loader.loads(line(offer={"prices": [{"rates": {"input": "1", "output": "2"}, **price}]}))


def test_versions_go_forward() -> None:
    prices = [{"rates": {"input": "1", "output": "2"}, "from": day} for day in ("2026-02-01", "2026-01-01")]
    with pytest.raises(CatalogError, match="oldest to the newest"):
        loader.loads(line(offer={"prices": prices}))


def test_a_file_is_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    with pytest.raises(CatalogError, match=r"mine\.jsonl: cannot be read: No such file"):
        loader.load(path)
    path.write_bytes(line() + b"\n\n")
    assert [model.slug for model in loader.load(path)] == ["lab/echo"]
    path.write_bytes(line({"input": "x", "output": "1"}))
    with pytest.raises(PriceError, match=r"mine\.jsonl: line 1"):
        loader.load(path)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(loader.FILE_BYTES_MAX + 1)
    with pytest.raises(CatalogError, match="larger than"):
        loader.load(path)
