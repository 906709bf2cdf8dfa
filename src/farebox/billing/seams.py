"""Seams: what the parts of an answer are billed at that several providers made one after another (billing.md §4). Pure.

The first part pays the call's input and its own output; every part that went on with it pays its own output only. What the
parts cost us is each attempt's own, the repeated prompt included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from farebox.billing import own_keys, pricing
from farebox.billing.markup import Fees
from farebox.billing.meter import (
    ASIDE,
    CONTINUED_FLAG,
    INPUT_ESTIMATED_FLAG,
    RATING_FLAG,
    SEAM_FLAG,
    UNBILLED_FLAG,
)
from farebox.billing.quotes import Quote
from farebox.billing.records import Attempt
from farebox.money import PICO_PER_NANO, divide_half_even
from farebox.wires.usage import Usage

INPUT_FROM_CONTINUATION_FLAG: Final = "input_from_continuation"
"""The input is what the continuation's provider counted, less the prefill: better than an estimate by size."""


@dataclass(frozen=True)
class Shown:
    """What the client is told of a pieced-together answer: one usage, and list prices in nano-dollars."""

    usage: Usage
    prompt_nano: int
    completion_nano: int

    @property
    def upstream_nano(self) -> int:
        return self.prompt_nano + self.completion_nano


def parts(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempts whose output is part of the answer, in order."""
    return [
        one
        for one in attempts
        if one.usage is not None and (SEAM_FLAG in one.flags or (one.outcome == "ok" and not aside(one)))
    ]


def aside(attempt: Attempt) -> bool:
    """Whether an attempt is billed beside the answer: one that would not do, or the question about one."""
    return bool(attempt.flags) and not ASIDE.isdisjoint(attempt.flags)


def answering(attempts: Sequence[Attempt]) -> Attempt | None:
    """The attempt whose answer the caller got, or the last that was made for one."""
    found = [one for one in attempts if RATING_FLAG not in one.flags]
    for one in reversed(found):
        # What failed has no answer: then it is the one that was kept.
        if one.outcome == "ok" or one.charge_nano:
            return one
    return found[-1] if found else None


def delivered_tokens(attempts: Sequence[Attempt]) -> int:
    """Output tokens that broken-off attempts delivered."""
    return sum(one.usage.completion_tokens for one in attempts if one.usage is not None and SEAM_FLAG in one.flags)


def markup_taken_nano(attempts: Sequence[Attempt]) -> int:
    """The markup that the parts so far have borne."""
    taken = 0
    for one in attempts:
        if one.charge_nano and one.usage is not None and one.rates is not None and not aside(one):
            continued = CONTINUED_FLAG in one.flags
            pico = pricing.rest_pico(one.usage, one.rates) if continued else pricing.cost_pico(one.usage, one.rates)
            taken += one.charge_nano - pricing.owed_nano(divide_half_even(pico, PICO_PER_NANO), one.fees)
    return max(taken, 0)


def fees_left(fees: Fees | None, attempts: Sequence[Attempt]) -> Fees | None:
    """A continuation's share of what the markup takes beside its percentage."""
    return pricing.rest_fees(fees, markup_taken_nano(attempts))


def spoken_for_nano(attempts: Sequence[Attempt], quotes: dict[int, Quote], input_bound: int) -> int:
    """The most that the attempts so far can come to: an estimated input may still turn out as large as its bound.

    `quotes` are the attempts' own, by number.
    """
    total = 0
    for one in attempts:
        open_input = one.n in quotes and INPUT_ESTIMATED_FLAG in one.flags and CONTINUED_FLAG not in one.flags
        if open_input and one.usage is not None:
            output = one.usage.completion_tokens
            total += pricing.worst_case_nano(quotes[one.n], input_tokens=input_bound, output_tokens=output)
        else:
            total += one.charge_nano
    return total


def refined(first: Attempt, last: Attempt, quoted: Quote, *, prefill_tokens: int, input_bound: int, room_nano: int) -> Attempt:
    """The first part with the input that the last one's provider counted, where its own never said.

    `room_nano` bounds the new charge. Returns `first` itself when there is nothing to learn.
    """
    if INPUT_ESTIMATED_FLAG not in first.flags or CONTINUED_FLAG in first.flags or first.usage is None:
        return first
    if last.basis != "reported" or last.usage is None:
        return first
    counted = min(max(last.usage.prompt_tokens - prefill_tokens, 0), input_bound)
    usage = msgspec.structs.replace(first.usage, input=counted)
    billed = pricing.bill(usage, quoted)
    if billed.charge_nano > room_nano:
        return first
    return msgspec.structs.replace(
        first,
        usage=usage,
        rates=billed.rates,
        cost_nano=billed.cost_nano,
        charge_nano=billed.charge_nano,
        loss_nano=0,
        flags=(*first.flags, INPUT_FROM_CONTINUATION_FLAG),
    )


def free(attempt: Attempt) -> Attempt:
    """An attempt that was to be charged and is not."""
    flags = (*attempt.flags, UNBILLED_FLAG) if aside(attempt) else attempt.flags
    return msgspec.structs.replace(attempt, charge_nano=0, loss_nano=0, flags=flags)


def list_costs_nano(attempts: Sequence[Attempt]) -> tuple[int, int, int]:
    """What the charged attempts cost at list price in all, and of that the prompts and the completions."""
    upstream = prompt_pico = completion_pico = 0
    for one in attempts:
        if (one.charge_nano or one.own_key) and one.usage is not None and one.rates is not None:
            upstream += own_keys.provider_nano(one) if one.own_key else one.cost_nano or 0
            prompt, completion = pricing.side_costs_pico(one.usage, one.rates)
            prompt_pico += prompt
            completion_pico += completion
    return upstream, divide_half_even(prompt_pico, PICO_PER_NANO), divide_half_even(completion_pico, PICO_PER_NANO)


def shown(attempts: Sequence[Attempt]) -> Shown:
    """One usage for an answer in parts: the input once, all outputs."""
    pieces = parts(attempts)
    total: dict[str, int] = {}
    prompt_pico = completion_pico = 0
    for one in pieces:
        assert one.usage is not None, "a part has a usage"
        continued = CONTINUED_FLAG in one.flags
        for name in Usage.__struct_fields__:
            if not continued or name not in _INPUT:
                total[name] = total.get(name, 0) + getattr(one.usage, name)
        if one.rates is not None:
            prompt, completion = pricing.side_costs_pico(one.usage, one.rates)
            completion_pico += completion
            prompt_pico += 0 if continued else prompt
    return Shown(
        Usage(**total), divide_half_even(prompt_pico, PICO_PER_NANO), divide_half_even(completion_pico, PICO_PER_NANO)
    )


_INPUT: Final = frozenset({"input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input"})
