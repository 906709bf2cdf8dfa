"""Auditing receipts: what a customer can say about a file of them with nothing but the operator's public keys. Pure.

Of each receipt: that the operator signed these very words, and that its amount follows from its own units, rates and markup. Of
several: that each follows from the one before it. With the day's signed head: that none is missing, not even the last. What is
wrong is told by the receipt's number and call, one sentence for each.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, cast

import msgspec

from farebox.billing.markup import Fees, marked_up_nano
from farebox.billing.meter import CONTINUED_FLAG, REPORTED_COST_FLAG
from farebox.billing.sealing.receipts import Content, NotCanonical, canonical, digest, parse
from farebox.billing.sealing.signatures import PublicKeys, opened
from farebox.money import NANO_PER_USD, PICO_PER_NANO, MoneyError, parse_amount, parse_percent, parse_unit_rate
from farebox.wires.usage import Usage

LINE_BYTES_MAX = 256 * 1024
WHOLE_BYTES_MAX = 1024 * 1024
"""A file of up to so many bytes may be one JSON document instead of lines."""
FINDINGS_MAX = 1_000
_INPUTS = frozenset(Usage.TOKEN_CLASSES[:6])
_Chain = tuple[str, str]
"""An account and a day."""


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong."""

    line: int
    """In the file; 0 for what is not in it."""
    number: int | None
    """Of the receipt in its day; None where there is none."""
    call: str
    problem: str


class Report(msgspec.Struct):
    """What a file of receipts comes to."""

    receipts: int = 0
    accounts: tuple[str, ...] = ()
    days: tuple[str, ...] = ()
    amount_nano: int = 0
    """The sum of the receipts whose signatures are good."""
    whole: bool = False
    """Every day in it has its final head, so nothing can be missing at its end."""
    findings: list[Finding] = []
    """At most `FINDINGS_MAX`."""

    @property
    def ok(self) -> bool:
        return bool(self.receipts) and not self.findings


class _Read(msgspec.Struct, frozen=True):
    line: int
    number: int
    call: str
    previous: str
    digest: str
    good: bool


class _Days(msgspec.Struct):
    """What of each day was read."""

    receipts: defaultdict[_Chain, list[_Read]]
    heads: dict[_Chain, Content]


def documents(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The signed documents of a file, one a line: of JSON lines as they are, of one document (spaced as one likes) it, of a list
    of them (`data` of the API, `receipts` of the command line) its members."""
    rest = iter(lines)
    begun: list[bytes] = []
    size = 0
    for line in rest:
        begun.append(line)
        size += len(line)
        if size > WHOLE_BYTES_MAX:
            break
    else:
        try:
            whole = parse(b"".join(begun))
        except NotCanonical:
            pass
        else:
            listed: object = whole.get("data", whole.get("receipts"))
            members = cast("list[object]", listed) if isinstance(listed, list) else [whole]
            yield from (canonical(cast("Content", one)) for one in members)
            return
    yield from begun
    yield from rest


def audit(lines: Iterable[bytes], keys: PublicKeys) -> Report:
    """Check signed receipts and heads, one a line, in any number of accounts and days."""
    report = Report()
    days = _Days(defaultdict(list), {})
    for line, text in enumerate(lines, 1):
        if text.strip() and len(report.findings) < FINDINGS_MAX:
            report.findings += _line(report, days, line, text, keys)
    if len(report.findings) < FINDINGS_MAX:
        for chain in sorted({*days.receipts, *days.heads}):
            report.findings += _followed(days.receipts[chain], days.heads.get(chain))
        report.findings += _days_follow(days.heads)
    report.accounts = tuple(sorted({account for account, _ in days.receipts}))
    report.days = tuple(sorted({day for _, day in days.receipts}))
    report.whole = bool(days.receipts) and all(
        chain in days.heads and days.heads[chain]["final"] is True for chain in days.receipts
    )
    report.findings = sorted(report.findings[:FINDINGS_MAX], key=lambda one: (one.line, one.number or 0))
    return report


def _line(report: Report, days: _Days, line: int, text: bytes, keys: PublicKeys) -> Iterator[Finding]:
    if len(text) > LINE_BYTES_MAX:
        yield Finding(line, None, "", f"the line has more than {LINE_BYTES_MAX} bytes and is no receipt")
        return
    try:
        found = opened(text, keys)
    except NotCanonical as error:
        yield Finding(line, None, "", f"the line is no receipt: {error}")
        return
    content = found.content
    if found.kind == "head":
        if found.problem:
            yield Finding(line, None, "", f"the day's head: {found.problem}")
        else:
            days.heads[content["account"], content["day"]] = content
        return
    report.receipts += 1
    try:
        chain = content["chain"]
        account, day, previous = str(content["account"]), str(chain["day"]), str(chain["previous"])
        number, call = int(chain["number"]), str(content["call"])
    except (LookupError, TypeError, ValueError):
        yield Finding(line, None, "", found.problem or "it does not say where in its chain it stands")
        return
    if found.problem:
        yield Finding(line, number, call, found.problem)
    else:
        report.amount_nano += parse_amount(content["amount_usd"])
        for problem in not_following(content):
            yield Finding(line, number, call, problem)
    days.receipts[account, day].append(_Read(line, number, call, previous, digest(content), not found.problem))


# --- the chain ---------------------------------------------------------------------------------------------------------------


def _followed(found: list[_Read], head: Content | None) -> Iterator[Finding]:
    """What is wrong with the order of a day's receipts."""
    known: dict[int, _Read] = {}
    latest: _Read | None = None
    for one in found:
        if one.number in known:
            yield Finding(one.line, one.number, one.call, f"it stands twice, first in line {known[one.number].line}")
            continue
        known[one.number] = one
        if latest is not None and one.number < latest.number:
            problem = f"it stands after receipt {latest.number}; they were swapped"
            yield Finding(one.line, one.number, one.call, problem)
        latest = one
    first, last = (1, int(head["receipts"])) if head is not None else (min(known), max(known))
    for start, end in _gaps(known, first, last):
        which = f"receipt {start} is" if start == end else f"receipts {start} to {end} are"
        yield Finding(0, start, "", f"{which} missing from the day")
    for number in sorted(known):
        one, before = known[number], known.get(number - 1)
        if head is not None and number > last:
            yield Finding(one.line, number, one.call, f"the day's head knows only {last} receipts")
        elif one.good:
            wanted = head["opening"] if head is not None and number == 1 else None
            if before is not None and before.good:
                wanted = before.digest
            if wanted is not None and one.previous != wanted:
                yield Finding(one.line, number, one.call, "it does not follow from the receipt before it")
            if head is not None and number == last and one.digest != head["last"]:
                yield Finding(one.line, number, one.call, "it is not the one that the day's head ends with")


def _gaps(known: dict[int, _Read], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Runs of missing numbers; as many as there are receipts, however far the numbers reach."""
    expected = first
    for number in [*sorted(one for one in known if first <= one <= last), last + 1]:
        if number > expected:
            yield expected, number - 1
        expected = number + 1


def _days_follow(heads: dict[_Chain, Content]) -> Iterator[Finding]:
    """Of the days that are there, each opens with what the one before it ended with."""
    before: Content | None = None
    for _, head in sorted(heads.items()):
        if before is not None and before["account"] == head["account"] and head["opening"] != before["last"]:
            days = f"{before['day']} and {head['day']}"
            yield Finding(0, None, "", f"the days {days} do not follow each other: a day between them is not in the file")
        before = head


# --- the amount --------------------------------------------------------------------------------------------------------------


def not_following(content: Content) -> Iterator[str]:
    """Why a receipt's amounts do not follow from what it says; nothing when they do.

    An attempt is charged its price less what the operator bears of it, or nothing at all.
    """
    try:
        total, uncharged = parse_amount(content["total_usd"]), parse_amount(content["uncharged_usd"])
        if not content["revision"] and content["amount_usd"] != content["total_usd"]:
            yield "its amount is not its total, though it corrects nothing"
        if not total and not uncharged:
            return
        price = _price(content)
    except (LookupError, TypeError, AttributeError, MoneyError, ValueError):
        yield "its amounts cannot be worked out of what it says"
        return
    if total + uncharged != price:
        yield f"its total and what the operator bears are {total + uncharged} nano-dollars, its units cost {price}"


def _price(content: Content) -> int:
    """Units × rates and the markup, rounded once; nano-dollars."""
    markup: dict[str, Any] = content["markup"]
    bp, fees = parse_percent(markup["percent"]), _fees(markup)
    continued = CONTINUED_FLAG in content["flags"]
    if REPORTED_COST_FLAG in content["flags"] and not continued:
        whole, _, fraction = content["reported_cost_usd"].partition(".")
        return marked_up_nano(int(whole + fraction) * NANO_PER_USD, 10 ** len(fraction), bp, fees)
    rates = {name: parse_unit_rate(rate) for name, rate in content["rates_usd"].items()}
    units = {name: int(count) for name, count in content["units"].items()}
    # A continuation is charged its output only: the input, and the fee per request, were charged with the first part.
    pico = sum(count * rates.get(name, 0) for name, count in units.items() if not (continued and name in _INPUTS))
    return marked_up_nano(pico + (0 if continued else rates.get("request", 0)), PICO_PER_NANO, bp, fees)


def _fees(markup: dict[str, Any]) -> Fees | None:
    said = {name: parse_amount(markup[f"{name}_usd"]) for name in ("per_call", "min", "max") if f"{name}_usd" in markup}
    own = markup.get("own_key", False) is True
    return Fees(said.get("per_call", 0), said.get("min"), said.get("max"), own) if said or own else None
