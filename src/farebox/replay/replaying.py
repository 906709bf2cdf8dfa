"""Replaying: recorded calls through two configurations, the present and the proposed, added up. Pure; money is integers."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from farebox.billing.books import evidence
from farebox.billing.meter import ESCALATED_FLAG, SEAM_FLAG
from farebox.billing.records import Attempt
from farebox.errors import FareboxError
from farebox.replay.history import History
from farebox.replay.planning import CallerOf, Outcome, Planner, Recorded, Unsorted
from farebox.routing.target import Target
from farebox.storage.queries import UsageRow

MOVES_MAX = 2_000
"""Pairs of offers that are told apart; calls between others are added up as one."""
OTHERS = "others"
WIRES = {"messages": "anthropic_messages"}
"""Surfaces that do not speak chat completions."""

Left = Literal["unpaid", "in_parts", "own_key", "unsorted", "unknown_key", "refused_now"]
LEFT: dict[Left, str] = {
    "unpaid": "nobody paid for them: failed, refused, or free",
    "in_parts": "several attempts were paid for: broken streams that others completed, answers that were rated, or that a "
    "stronger model replaced",
    "own_key": "a key of the customer's own answered, which no house's price or order concerns",
    "unsorted": "their policy sorts calls by what they say, and which tier they were is not clear from the model that answered",
    "unknown_key": "their key is gone",
    "refused_now": "the present configuration refuses them already",
}
"""Calls that are not replayed, and why."""


class Sum(msgspec.Struct):
    """Money and time of some calls."""

    calls: int = 0
    cost_nano: int = 0
    charge_nano: int = 0
    timed: int = 0
    """Calls whose duration is known or can be expected."""
    duration_us: int = 0

    def add(self, cost_nano: int, charge_nano: int, duration_us: int | None) -> None:
        self.calls += 1
        self.cost_nano += cost_nano
        self.charge_nano += charge_nano
        if duration_us is not None:
            self.timed += 1
            self.duration_us += duration_us

    @property
    def margin_nano(self) -> int:
        return self.charge_nano - self.cost_nano


class Move(msgspec.Struct):
    """Calls that would go elsewhere."""

    source: str
    """`provider/id`."""
    target: str
    before: Sum
    after: Sum


class Replayed(msgspec.Struct):
    """Everything that a replay tells."""

    recorded: Sum
    """As the replayed calls were booked."""
    present: Sum
    """As they would be booked by the present configuration."""
    proposed: Sum
    """As they would be booked by the proposed one, those that it refuses left out."""
    kept: int
    moves: list[Move]
    """The most frequent first."""
    left: Counter[Left]
    refused: Counter[str]
    """Calls that the proposed configuration refuses, by the sentence."""
    refused_sum: Sum
    """What those come to by the present one."""


def calls(rows: Iterable[UsageRow], left: Counter[Left]) -> Iterator[tuple[UsageRow, Recorded, Attempt]]:
    """Usage rows in the order of calls, attempts and revisions → the calls that can be replayed, each with its final row."""
    held: list[UsageRow] = []
    for row in rows:
        if held and row.hold_id != held[0].hold_id:
            found = _recorded(held, left)
            if found is not None:
                yield found
            held = []
        held.append(row)
    found = _recorded(held, left) if held else None
    if found is not None:
        yield found


def _recorded(rows: list[UsageRow], left: Counter[Left]) -> tuple[UsageRow, Recorded, Attempt] | None:
    """One call, if exactly one of its attempts was paid for. Corrections are differences of money that restate the counts."""
    final = next((row for row in rows if row.final), None)
    settled = None if final is None else evidence.settle(final)
    charged: dict[int, int] = {}
    cost: dict[int, int] = {}
    last: dict[int, Attempt] = {} if settled is None else {one.n: one for one in settled.attempts}
    for row in rows:
        charged[row.attempt] = charged.get(row.attempt, 0) + row.charge_nano
        cost[row.attempt] = cost.get(row.attempt, 0) + (row.cost_nano or 0)
        if row.revision:
            corrected = evidence.attempt(row)
            if corrected is not None:
                last[row.attempt] = corrected
    paid = [n for n, nano in charged.items() if nano > 0 and n in last and last[n].usage is not None]
    if final is None or settled is None or not paid:
        left["unpaid"] += 1
        return None
    attempt = last[paid[0]]
    if attempt.own_key:
        left["own_key"] += 1
        return None
    if len(paid) > 1 or SEAM_FLAG in attempt.flags or ESCALATED_FLAG in attempt.flags:
        left["in_parts"] += 1
        return None
    assert attempt.usage is not None, "looked at above"
    call = Recorded(
        id=settled.id,
        requested=settled.requested,
        model=settled.model,
        wire=WIRES.get(settled.surface, "openai_chat"),
        streamed=settled.streamed,
        created_us=settled.created_us,
        provider=attempt.provider,
        upstream_id=attempt.upstream_id,
        usage=attempt.usage,
        cost_nano=cost[attempt.n],
        charge_nano=charged[attempt.n],
    )
    return final, call, attempt


def learn(rows: Iterable[UsageRow]) -> History:
    """How quick every offer was."""
    history = History()
    for _, call, attempt in calls(rows, Counter()):
        if attempt.outcome == "ok":
            history.learn(attempt, streamed=call.streamed)
    return history


def replay(rows: Iterable[UsageRow], present: Planner, proposed: Planner, caller_of: CallerOf, history: History) -> Replayed:
    """Usage rows as for `calls` → both configurations' sums, and who would move."""
    made = Replayed(Sum(), Sum(), Sum(), 0, [], Counter(), Counter(), Sum())
    moves: dict[tuple[str, str], Move] = {}
    for row, call, attempt in calls(rows, made.left):
        caller = caller_of(row.key_id)
        if caller is None:
            made.left["unknown_key"] += 1
            continue
        tiers = present.tiers(call.requested, call.model)
        tier = tiers[0] if len(tiers) == 1 else ""
        try:
            before = present.replay(call, caller, tier)
        except Unsorted:
            made.left["unsorted"] += 1
            continue
        except FareboxError:
            made.left["refused_now"] += 1
            continue
        expected_before = _expected(history, before, call)
        try:
            after = proposed.replay(call, caller, tier)
        except Unsorted:
            made.left["unsorted"] += 1
            continue
        except FareboxError as error:
            made.refused[error.message] += 1
            made.refused_sum.add(before.cost_nano, before.charge_nano, expected_before)
            continue
        expected_after = _expected(history, after, call)
        made.recorded.add(call.cost_nano, call.charge_nano, max(attempt.ended_us - attempt.started_us, 0))
        made.present.add(before.cost_nano, before.charge_nano, expected_before)
        made.proposed.add(after.cost_nano, after.charge_nano, expected_after)
        source, target = named(before.target), named(after.target)
        if source == target:
            made.kept += 1
            continue
        if (source, target) not in moves and len(moves) >= MOVES_MAX:
            source = target = OTHERS
        move = moves.get((source, target))
        if move is None:
            move = moves[source, target] = Move(source, target, Sum(), Sum())
        move.before.add(before.cost_nano, before.charge_nano, expected_before)
        move.after.add(after.cost_nano, after.charge_nano, expected_after)
    made.moves = sorted(moves.values(), key=lambda one: (-one.before.calls, one.source, one.target))
    return made


def named(target: Target) -> str:
    """An offer in a word: the model at a provider."""
    variant = f"#{target.offer.variant}" if target.offer.variant else ""
    return f"{target.model.slug} at {target.provider.name}{variant}"


def _expected(history: History, outcome: Outcome, call: Recorded) -> int | None:
    expected_ms = history.pace(outcome.target).expected_ms(call.usage.completion_tokens)
    return None if expected_ms is None else int(expected_ms * 1_000)
