"""Published prices ↔ integer rates.

Reading fills in what a source does not price, so that nothing is free by omission: cached, audio and image tokens of a prompt
bill at `input`, thinking, audio and images of an answer at `output`, a cache write at `input`. A one-hour write without a
price bills as a five-minute one, except at Anthropic, whose list is twice the input price
(https://platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing). Fees per call hold for every tier that does not
state its own.
"""

import re
from collections.abc import Sequence

from farebox.catalog.errors import PriceFinding
from farebox.catalog.price import OffPeak, Price, Rates, Schedule, Tier
from farebox.catalog.record import OffPeakRecord, PriceRecord, RatesRecord, ScheduleRecord, TierRecord, price_version
from farebox.money import BASIS_POINTS, RATE_DECIMALS_MAX, MoneyError, format_rate, format_unit_rate, parse_rate, parse_unit_rate

_HOUR_WRITE_DOUBLES = frozenset({"anthropic"})
_MULTIPLIER_PICO = 10**RATE_DECIMALS_MAX // BASIS_POINTS
"""Pico-dollars of `parse_rate` per basis point of a factor."""
NOT_SYNCHRONOUS = frozenset({"batch"})
"""Tiers of other endpoints: recorded in the file, but a call of ours is never served at one, however it asks."""
MINUTES_PER_DAY = 1440
_WINDOW = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
DAY = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])")

CONFIG_NAMES = {"cache_read": "cached_input"}
"""Where the configuration calls a class by another name than the file."""


class Reader:
    """Turns records into rates and collects what is wrong with them, so that one run reports every finding."""

    def __init__(self, place: str, provider: str, names: dict[str, str] | None = None) -> None:
        self._place = place
        self._provider = provider
        self._names = names or {}
        self.findings: list[PriceFinding] = []

    def _find(self, path: str, value: str, problem: str) -> None:
        self.findings.append(PriceFinding(f"{self._place}`{path}`", value, problem))

    def _rate(self, record: RatesRecord, field: str, path: str) -> int | None:
        text: str | None = getattr(record, field)
        if text is None:
            return None
        try:
            return parse_unit_rate(text) if field in ("web_search", "request") else parse_rate(text)
        except MoneyError as error:
            self._find(path + self._names.get(field, field), text, str(error))
            return 0

    def rates(self, record: RatesRecord, path: str, fees: Rates | None = None) -> Rates:
        """Every class with a number; `fees` are the per-call fees to inherit."""

        def rate(field: str, default: int) -> int:
            value = self._rate(record, field, path)
            return default if value is None else value

        read, output = rate("input", 0), rate("output", 0)
        write = rate("cache_write", read)
        hour_doubles = record.cache_write is not None and self._provider in _HOUR_WRITE_DOUBLES
        return Rates(
            input=read,
            cache_read=rate("cache_read", read),
            cache_write_5m=write,
            cache_write_1h=rate("cache_write_1h", 2 * read if hour_doubles else write),
            audio_input=rate("audio_input", read),
            image_input=rate("image_input", read),
            output=output,
            reasoning=rate("reasoning", output),
            audio_output=rate("audio_output", output),
            image_output=rate("image_output", output),
            web_searches=rate("web_search", fees.web_searches if fees else 0),
            request=rate("request", fees.request if fees else 0),
        )

    def schedule(self, rates: RatesRecord, tiers: Sequence[TierRecord], path: str, fees: Rates | None = None) -> Schedule:
        base = self.rates(rates, path, fees)
        found: list[Tier] = []
        for index, tier in enumerate(tiers):
            place = f"{self._tiers_path(path)}tiers[{index}]."
            if tier.above < 1 or (found and tier.above <= found[-1].above):
                self._find(place + "above", str(tier.above), f"{tier.above} must be a prompt size above the tier before it")
            found.append(Tier(tier.above, self.rates(tier.rates, place + self._rates_path, base)))
        return Schedule(base, tuple(found))

    @property
    def _rates_path(self) -> str:
        """Tiers in the configuration carry their prices directly, those of the file under `rates`."""
        return "" if self._names else "rates."

    def _tiers_path(self, path: str) -> str:
        return path.removesuffix("rates.")

    def _window(self, text: str, path: str) -> tuple[int, int]:
        match = _WINDOW.fullmatch(text)
        if match is not None:
            start, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
            if start < end <= MINUTES_PER_DAY:
                return start, end
        self._find(path, text, f"{text!r} is not a window of one UTC day such as `01:00-04:00`")
        return 0, 0

    def _off_peak(self, record: OffPeakRecord, path: str, fees: Rates) -> OffPeak:
        return OffPeak(
            self.schedule(record.rates, record.tiers, path + "rates.", fees),
            tuple(self._window(text, f"{path}peak_utc[{index}]") for index, text in enumerate(record.peak_utc)),
            record.weekends,
        )

    def _multiplier(self, text: str, path: str) -> int:
        try:
            points, rest = divmod(parse_rate(text), _MULTIPLIER_PICO)
        except MoneyError as error:
            self._find(path, text, str(error))
            return BASIS_POINTS
        if rest:
            self._find(path, text, f"factor {text!r} has more than 4 decimals")
        return points

    def price(self, record: PriceRecord, path: str, offer_id: str, variant: str) -> Price:
        """One dated version. A bad date is a finding too: it would put the price out of force."""
        for name, day in (("from", record.effective_from), ("checked", record.checked)):
            if day is not None and DAY.fullmatch(day) is None:
                self._find(path + name, day, f"{day!r} is not a date such as `2026-11-23`")
        standard = self.schedule(record.rates, record.tiers, path + "rates.")
        return Price(
            version=record.version
            or price_version(self._provider, offer_id, variant, record.checked or record.effective_from),
            effective_from=record.effective_from,
            standard=standard,
            service_tiers={
                name: self.schedule(tier.rates, tier.tiers, f"{path}service_tiers.{name}.rates.", standard.rates)
                for name, tier in record.service_tiers.items()
                if name not in NOT_SYNCHRONOUS
            },
            off_peak=self._off_peak(record.off_peak, path + "off_peak.", standard.rates) if record.off_peak else None,
            multipliers_bp={
                name: self._multiplier(text, f"{path}multipliers.{name}") for name, text in record.multipliers.items()
            },
            source=record.source,
            checked=record.checked,
            confidence=record.confidence,
        )


def write_rates(rates: Rates, provider: str, fees: Rates | None = None) -> RatesRecord:
    """The record that reads back as these rates: classes that the reader would fill in alike are left out."""
    write = None if rates.cache_write_5m == rates.input else rates.cache_write_5m
    hour_doubles = write is not None and provider in _HOUR_WRITE_DOUBLES
    hour = 2 * rates.input if hour_doubles else rates.cache_write_5m

    def unless(value: int, filled: int) -> str | None:
        return None if value == filled else format_rate(value)

    def fee(value: int, inherited: int) -> str | None:
        return None if value == inherited else format_unit_rate(value)

    return RatesRecord(
        input=format_rate(rates.input),
        output=format_rate(rates.output),
        cache_read=unless(rates.cache_read, rates.input),
        cache_write=None if write is None else format_rate(write),
        cache_write_1h=unless(rates.cache_write_1h, hour),
        reasoning=unless(rates.reasoning, rates.output),
        audio_input=unless(rates.audio_input, rates.input),
        audio_output=unless(rates.audio_output, rates.output),
        image_input=unless(rates.image_input, rates.input),
        image_output=unless(rates.image_output, rates.output),
        web_search=fee(rates.web_searches, fees.web_searches if fees else 0),
        request=fee(rates.request, fees.request if fees else 0),
    )


def _write_tiers(schedule: Schedule, provider: str) -> tuple[TierRecord, ...]:
    return tuple(TierRecord(tier.above, write_rates(tier.rates, provider, schedule.rates)) for tier in schedule.tiers)


def write_price(price: Price, provider: str, offer_id: str, variant: str) -> PriceRecord:
    """The record of a price version, for `farebox.catalog.writer`."""
    fees = price.standard.rates
    off_peak = price.off_peak
    usual = price_version(provider, offer_id, variant, price.checked or price.effective_from)
    return PriceRecord(
        rates=write_rates(fees, provider),
        tiers=_write_tiers(price.standard, provider),
        service_tiers={
            name: ScheduleRecord(write_rates(schedule.rates, provider, fees), _write_tiers(schedule, provider))
            for name, schedule in price.service_tiers.items()
        },
        off_peak=None
        if off_peak is None
        else OffPeakRecord(
            peak_utc=tuple(
                f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}" for start, end in off_peak.peak_minutes_utc
            ),
            rates=write_rates(off_peak.schedule.rates, provider, fees),
            tiers=_write_tiers(off_peak.schedule, provider),
            weekends=off_peak.weekends_off_peak,
        ),
        multipliers={name: format_rate(points * _MULTIPLIER_PICO) for name, points in price.multipliers_bp.items()},
        effective_from=price.effective_from,
        checked=price.checked,
        source=price.source,
        confidence=price.confidence,
        version=None if price.version == usual else price.version,
    )
