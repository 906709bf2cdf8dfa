"""Continuation: when a stream broke off, who can go on with it, from where, and for how much. Pure.

A call's answer may be continued when it is text and nothing else (`forbidden`, `Delivered.why_not`). Then the partial answer
becomes a prefill for the next candidate of the plan whose model takes one, with what is left of the output cap, if the hold
covers the rest at that candidate's rates. One that refuses the prefill is just a failed attempt: the next one is asked.
"""

from collections.abc import Mapping

import msgspec

from farebox import bridge
from farebox.billing.bound import Bound
from farebox.billing.pricing import worst_rest_nano
from farebox.bridge import Outgoing
from farebox.errors import FareboxError, invalid
from farebox.routing.plan import Candidate, Plan
from farebox.wires import seam as wire_seam
from farebox.wires.call import Call
from farebox.wires.delivered import Delivered
from farebox.wires.prefill import CannotContinue, own_beginning
from farebox.wires.relay import Relay

HEADER = b"x-farebox-stream-recovery"
FORBIDDING = frozenset({"json_schema", "json_mode", "web_search", "audio_output"})
"""What a call may need that makes its answer more than text, or a text that must not be pieced together."""
_FREE_CHOICES = (b'"auto"', b'"none"', b"null")

SWITCHED_OFF = "switched_off"
NO_CANDIDATE = "no_capable_provider"
NOTHING_LEFT = "output_cap_reached"
NOT_CONTINUED = "nobody_continued"
"""Somebody was asked to go on, and nobody did."""


def allowed(call: Call, headers: Mapping[bytes, bytes], *, default: bool) -> bool:
    """Whether the caller wants its stream continued: by header, by body, else as configured. Raises `FareboxError` (400)."""
    said = headers.get(HEADER)
    if said is None:
        return default if call.stream_recovery is None else call.stream_recovery
    if said.lower() not in (b"on", b"off"):
        raise invalid(f"`{HEADER.decode()}` must be `on` or `off`", param=HEADER.decode())
    return said.lower() == b"on"


def forbidden(call: Call) -> str:
    """Why a stream of this call is never continued, whatever it holds; empty when it may be."""
    if call.plain:
        return ""
    if call.choices > 1:
        return "several_choices"
    needed = FORBIDDING & call.needs
    if needed:
        return min(needed)
    if call.hosted:
        return "hosted_tools"
    fields = call.fields
    if bytes(fields.get("logprobs", b"false")) not in (b"false", b"null"):
        return "logprobs"
    choice = bytes(fields.get("tool_choice", b"null"))
    if choice not in _FREE_CHOICES and b'"auto"' not in choice and b'"none"' not in choice:
        return "tool_choice"
    return ""


class Seam(msgspec.Struct, frozen=True):
    """A place in the answer where one attempt broke off and another went on."""

    attempt: int
    """The one that broke off."""
    output_tokens: int
    """Delivered before it, by all attempts so far."""
    text_bytes: int
    """UTF-8 bytes of text before it."""


class Rest(msgspec.Struct, frozen=True):
    """What is asked of the next provider."""

    candidates: tuple[Candidate, ...]
    """The whole plan's, in its order, with what is left of the output cap."""
    able: tuple[int, ...]
    """Which of them can go on."""
    text: str
    """The prefill."""
    white_space: str
    """What the client has behind it."""
    delivered: Delivered

    def relay(self, call: Call, candidate: Candidate, *, id: str, created_s: int) -> Relay:
        """The rest on its way to the client."""
        seam = wire_seam.Seam(self.text, self.white_space)
        return bridge.continued_relay(call, candidate, self.delivered, seam, id=id, created_s=created_s)

    def outgoing(self, call: Call, candidate: Candidate, *, drop_unsupported: bool) -> Outgoing:
        """The request for the rest. Raises `FareboxError`."""
        if not self.text:
            return bridge.outgoing(call, candidate, drop_unsupported=drop_unsupported)
        return bridge.continued(call, candidate, self.text, drop_unsupported=drop_unsupported)


def rest(call: Call, plan: Plan, delivered: Delivered, *, output_tokens: int, room_nano: int) -> Rest | str:
    """How the answer can go on, or the reason why it cannot.

    `output_tokens` were delivered; `room_nano` of the hold are not spoken for by what was delivered so far.
    """
    problem = delivered.why_not()
    if problem:
        return problem
    try:
        beginning = own_beginning(call.body)
    except CannotContinue:
        return "own_prefill"
    text, white_space = wire_seam.split_prefill(beginning + delivered.text)
    # Without text there is nothing to go on from: the call itself is sent once more, to anybody.
    candidates: list[Candidate] = []
    able: list[int] = []
    reason = NOTHING_LEFT
    for index, candidate in enumerate(plan.candidates):
        left = candidate.bound.cap - output_tokens
        if left > 0:
            reason = NO_CANDIDATE
            left = _affordable(candidate, left, room_nano)
        if left < 1:
            candidates.append(candidate)
            continue
        bound = Bound(candidate.bound.input_tokens, left, left, False)
        candidates.append(candidate.within(bound, candidate.hold_nano))
        if not text or bridge.continues(candidate):
            able.append(index)
    return Rest(tuple(candidates), tuple(able), text, white_space, delivered) if able else reason


def _affordable(candidate: Candidate, tokens: int, room_nano: int) -> int:
    """What is left of the cap, if the hold covers it at this candidate's rates; else 0.

    Each part of an answer is rounded for itself, and the hold was rounded once: where it was made for just these rates, one
    token less pays for the difference.
    """
    prompt_tokens = candidate.bound.input_tokens + candidate.bound.cap
    for left in (tokens, tokens - 1):
        if left > 0 and worst_rest_nano(candidate.quoted, prompt_tokens=prompt_tokens, output_tokens=left) <= room_nano:
            return left
    return 0


class Recovery:
    """What one stream's flight keeps for the case that it breaks off."""

    __slots__ = ("broke", "call", "problem", "rest", "seams", "transcript")

    def __init__(self, call: Call, *, wanted: bool) -> None:
        self.call = call
        self.problem = forbidden(call) if wanted else SWITCHED_OFF
        """Why the stream cannot be continued; grows more telling when it breaks off."""
        self.transcript = bridge.transcript(call) if not self.problem else None
        self.rest: Rest | None = None
        """Set from the first seam on."""
        self.broke: FareboxError | None = None
        """What the client is told when nobody could go on."""
        self.seams: list[Seam] = []

    def text_bytes(self) -> int | None:
        """The size of the text that was delivered since the last seam; None where it is not all that was."""
        delivered = None if self.transcript is None else self.transcript.delivered()
        if delivered is None or delivered.problem or delivered.thought:
            return None
        before = self.seams[-1].text_bytes if self.seams else 0
        return len(delivered.text.encode("utf-8", "replace")) - before

    def take_over(self, plan: Plan, *, attempt: int, output_tokens: int, room_nano: int, told: FareboxError) -> bool:
        """An attempt broke off after `output_tokens` of the answer in all. True: `rest` says how to go on."""
        self.broke = told
        if self.transcript is None:
            return False
        delivered = self.transcript.delivered()
        found = rest(self.call, plan, delivered, output_tokens=output_tokens, room_nano=room_nano)
        if isinstance(found, str):
            self.problem = found
            return False
        self.rest = found
        self.seams.append(Seam(attempt, output_tokens, len(delivered.text.encode("utf-8", "replace"))))
        return True
