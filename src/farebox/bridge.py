"""Bridge: from the client's wire to the provider's and back. Same wire: bytes forwarded. Different: the neutral form.

The pipeline asks here and does not know which of the two it got.
"""

import re
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from farebox.errors import FareboxError, Kind
from farebox.routing.plan import Candidate
from farebox.routing.target import Target
from farebox.wires import NAMES, anthropic_messages, openai_chat, redaction
from farebox.wires.anthropic_messages import call as messages_call
from farebox.wires.anthropic_messages import carriage
from farebox.wires.anthropic_messages import relay as messages_relay
from farebox.wires.anthropic_messages import reply as messages_reply
from farebox.wires.call import Call
from farebox.wires.delivered import Delivered, Transcript
from farebox.wires.gathering import Gathering
from farebox.wires.neutral import Completion, Conversation, ModelTraits, ResponseFormat, UpstreamError
from farebox.wires.openai_chat import call as chat_call
from farebox.wires.openai_chat import relay as chat_relay
from farebox.wires.openai_chat import reply as chat_reply
from farebox.wires.prefill import CannotContinue
from farebox.wires.relay import Relay, Reply, with_members
from farebox.wires.seam import Seam
from farebox.wires.translation import ContinuedRelay, TranslatedRelay, TranslatedReply

_SECRET_HEADER: Final = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)
WIRES: Final = {chat_call.WIRE: openai_chat, messages_call.WIRE: anthropic_messages}
assert tuple(WIRES) == NAMES


class Outgoing:
    """A request body for a provider, and what could not be said on its wire."""

    __slots__ = ("body", "dropped")

    def __init__(self, body: bytes, dropped: tuple[str, ...] = ()) -> None:
        self.body = body
        self.dropped = dropped


def outgoing(call: Call, candidate: Candidate, *, drop_unsupported: bool) -> Outgoing:
    """The upstream body. What cannot be expressed is a 400 that names the fields, or dropped and named on request."""
    target = candidate.target
    dialect = target.speaks.dialect
    cap = None if candidate.bound.capped else candidate.bound.cap
    wire = target.wire
    if wire == call.wire:
        if wire == chat_call.WIRE:
            body = chat_call.forward_body(
                call, model=candidate.entry.upstream_id_json, dialect=dialect, output_cap=cap, put=candidate.entry.fields
            )
            return Outgoing(body)
        lost: list[str] | None = [] if call.media.carriages else None
        body = messages_call.forward_body(
            call, model=candidate.entry.upstream_id_json, output_cap=cap, put=candidate.entry.fields, lost=lost
        )
        if not lost:
            return Outgoing(body)
        if not drop_unsupported:
            raise FareboxError(
                Kind.UNSUPPORTED,
                "`thinking` cannot be asked for by budget in this turn: another model began it, whose thoughts "
                f"`{target.offer.provider}/{target.offer.id}` cannot read; ask for `adaptive` thinking, leave it out until the "
                "tools' results are answered, or send `x-farebox-drop-unsupported: true`",
                param="thinking",
                details={"unsupported": lost},
            )
        return Outgoing(body, tuple(lost))
    unsupported: list[str] = []
    body = WIRES[wire].request.from_neutral(
        conversation(call),
        model=candidate.entry.upstream_id,
        stream=call.stream,
        output_cap=candidate.bound.cap,
        dialect=dialect,
        unsupported=unsupported,
        traits=_traits(candidate),
    )
    if unsupported and not drop_unsupported:
        names = ", ".join(f"`{name}`" for name in unsupported)
        raise FareboxError(
            Kind.UNSUPPORTED,
            f"{names} cannot be expressed on `{wire}`, which `{target.offer.provider}/{target.offer.id}` speaks; remove it, "
            "call a model that speaks this API, or send `x-farebox-drop-unsupported: true`",
            param=unsupported[0],
            details={"unsupported": unsupported},
        )
    return Outgoing(_with_fields(body, candidate), tuple(unsupported))


def unsayable(call: Call, candidate: Candidate, *, drop_unsupported: bool) -> str | None:
    """What keeps a call from being said on a candidate's wire, or None."""
    if candidate.target.wire == call.wire:
        return None
    try:
        outgoing(call, candidate, drop_unsupported=drop_unsupported)
    except FareboxError as error:
        return error.message
    return None


def _with_fields(body: bytes, candidate: Candidate) -> bytes:
    if not candidate.entry.fields:
        return body
    return with_members(body, b",".join(b'"%b":%b' % (name.encode(), value) for name, value in candidate.entry.fields))


def _traits(candidate: Candidate) -> ModelTraits:
    """What a translation must know of the target model, from the catalog.

    Models without capabilities in the catalog (an operator's own) are taken to do whatever they are asked.
    """
    offer = candidate.target.offer
    signer = _signer(candidate)
    if not offer.capabilities or candidate.target.provider.kind == "custom":
        return ModelTraits(signer=signer)
    thinking: Literal["adaptive", "budget", "none"]
    if "reasoning" not in offer.capabilities:
        thinking = "none"
    else:
        thinking = "adaptive" if offer.reasoning_efforts else "budget"
    return ModelTraits(
        thinking=thinking,
        efforts=offer.reasoning_efforts,
        sampling="temperature" in offer.capabilities,
        prefill="assistant_prefill" in offer.capabilities,
        signer=signer,
    )


def _signer(candidate: Candidate) -> str:
    """Who signs the calls of this candidate's answers; "" where nobody does."""
    target = candidate.target
    return "" if target.speaks.dialect.signed_calls is None else f"{target.provider.name}/{candidate.entry.upstream_id}"


def _carrying(call: Call, candidate: Candidate) -> dict[str, str]:
    """What the writer of a translated answer is told, so that its client is given the signatures that the provider wants back."""
    if call.wire != messages_call.WIRE:
        return {}
    signer = _signer(candidate)
    return {"signer": signer} if signer and carriage.wanted(call.fields) else {}


def relay(call: Call, candidate: Candidate, *, id: str, created_s: int) -> Relay:
    """A stream on its way from this candidate's provider to the client."""
    target = candidate.target
    wire, dialect, provider = target.wire, target.speaks.dialect, target.provider.name
    same = wire == call.wire
    if not same or (dialect.calls_streamed_loosely and "tools" in call.needs):
        return TranslatedRelay(
            WIRES[wire].stream.Reader(dialect),
            WIRES[call.wire].stream.Writer(
                id=id,
                model=target.offer.id if same else target.model.slug,
                provider=provider,
                created=created_s,
                include_usage=call.include_usage,
                **_carrying(call, candidate),
            ),
            choices=call.choices,
        )
    if wire == chat_call.WIRE:
        return chat_relay.Relay(
            id=id,
            provider=provider,
            include_usage=call.include_usage,
            dialect=dialect,
            created=created_s,
            model=target.offer.id,
            one_event_one_token=not call.plain and "logprobs" in call.fields,
            choices=call.choices,
        )
    return messages_relay.Relay(id=id, provider=provider, dialect=dialect)


def transcript(call: Call) -> Transcript:
    """Where to keep what the client of a stream is sent."""
    return Transcript(WIRES[call.wire].delivered.read)


def continues(candidate: Candidate) -> bool:
    """Whether this offer goes on with a last turn of the assistant: its model takes one, and its vendor can be told."""
    target = candidate.target
    if target.wire == chat_call.WIRE and target.speaks.dialect.prefill == "none":
        return False
    return _traits(candidate).prefill


def continued(call: Call, candidate: Candidate, text: str, *, drop_unsupported: bool) -> Outgoing:
    """The upstream body that asks for the rest of an answer of which `text` is the beginning.

    Raises `FareboxError` like `outgoing`, also for a request whose last turn, in the target's words, is no beginning of a text.
    """
    first = outgoing(call, candidate, drop_unsupported=drop_unsupported)
    target = candidate.target
    thinks = "reasoning" in target.offer.capabilities
    try:
        body = WIRES[target.wire].prefill.continued(first.body, text, target.speaks.dialect, thinks=thinks)
    except CannotContinue as problem:
        raise FareboxError(Kind.UNSUPPORTED, f"the answer cannot be continued: {problem}") from None
    return Outgoing(body, first.dropped)


def continued_relay(call: Call, candidate: Candidate, delivered: Delivered, seam: Seam, *, id: str, created_s: int) -> Relay:
    """The rest of a stream on its way to a client that has its beginning. It is always read, never scanned: it is rare."""
    target = candidate.target
    model = target.model.slug
    writer = WIRES[call.wire].stream.Writer(
        id=id,
        model=delivered.model or model,
        provider=target.provider.name,
        created=delivered.created or created_s,
        include_usage=call.include_usage,
    )
    return ContinuedRelay(WIRES[target.wire].stream.Reader(target.speaks.dialect), writer, seam, delivered)


def reply(call: Call, candidate: Candidate, body: bytes, *, created_s: int) -> Reply:
    """A whole answer of this candidate's provider. Raises `NotACompletion`."""
    target = candidate.target
    wire, dialect = target.wire, target.speaks.dialect
    if wire != call.wire:
        return TranslatedReply(
            WIRES[wire].response,
            WIRES[call.wire].response,
            body,
            dialect,
            model=target.model.slug,
            created_s=created_s,
            more=_carrying(call, candidate),
        )
    if wire == chat_call.WIRE:
        return chat_reply.Reply.read(body, dialect)
    return messages_reply.Reply(body, dialect)


def completion(candidate: Candidate, body: bytes) -> Completion:
    """A whole answer of this candidate's provider in the neutral form. Raises `UpstreamFailure` or `UpstreamGarbage`."""
    target = candidate.target
    return WIRES[target.wire].response.read(body, target.speaks.dialect)


def gathering(candidate: Candidate) -> Gathering:
    """Puts a stream of this candidate's provider together to the whole answer."""
    target = candidate.target
    reader = WIRES[target.wire].stream.Reader(target.speaks.dialect)
    return Gathering(reader.feed, reader.end)


def conversation(call: Call) -> Conversation:
    """What the call says, in the neutral form. Raises `FareboxError` (400) for a request that cannot be read."""
    return WIRES[call.wire].request.to_neutral(call.fields)


def request(candidate: Candidate, said: Conversation, *, output_cap: int) -> bytes:
    """A request of the gateway's own to a candidate's provider, not streamed."""
    target = candidate.target
    body = WIRES[target.wire].request.from_neutral(
        said,
        model=candidate.entry.upstream_id,
        stream=False,
        output_cap=output_cap,
        dialect=target.speaks.dialect,
        unsupported=[],
        traits=_traits(candidate),
    )
    return _with_fields(body, candidate)


def response_format(call: Call) -> ResponseFormat | None:
    """The format that the caller wants its answer in. Raises `FareboxError` (400) for a request that cannot be read."""
    return conversation(call).params.response_format


def failure(
    candidate: Candidate, found: bytes | UpstreamError, header: Callable[[bytes], bytes | None], *, status: int = 500
) -> UpstreamError:
    """A provider's error in neutral words; `status` is what an error inside a success counts as."""
    target = candidate.target
    if isinstance(found, UpstreamError):
        return _redacted(found, target)

    def named(name: str) -> str | None:
        value = header(name.encode())
        return None if value is None else value.decode("latin-1")

    return _redacted(WIRES[target.wire].errors.read(status, named, found, target.speaks.dialect), target)


def _redacted(error: UpstreamError, target: Target) -> UpstreamError:
    """A provider may repeat the key that it refuses; nobody else is to read it, neither in an answer nor in a record."""
    message = without_keys(error.message, target)
    code, param = error.provider_code, error.param
    if code is not None:
        code = without_keys(code, target)
    if param is not None:
        param = without_keys(param, target)
    if (message, code, param) == (error.message, error.provider_code, error.param):
        return error
    return msgspec.structs.replace(error, message=message, provider_code=code, param=param)


def without_keys(text: str, target: Target) -> str:
    """What a provider said, without the keys that it may have been called with, and other secrets in its headers."""
    headers = [value for name, value in target.speaks.headers if _SECRET_HEADER.search(name)]
    return redaction.without(text, (*target.keys, *headers))
