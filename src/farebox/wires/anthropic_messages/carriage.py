"""Carriages: signatures that a vendor of another wire wants back with its tool calls, for which this wire has no place.

Gemini signs its calls and wants each signature back with its call. Clients of messages send thinking blocks back as they came,
so before a signed call stands a block without a thought, whose own signature carries the vendor's:

    {"type": "thinking", "thinking": "", "signature": "farebox.v1.<signer>.<call's id>.<the vendor's signature>.<check>"}

On the way back it is taken out of the turn wherever that goes, since nobody but us reads it, and the vendor's signature is put
on its call (`unload`); a provider of this wire gets the turn without it (`without`). One that was cut, changed or is of a later
version is taken out, too, and its call goes as one without a signature does: refused, a conversation that a client has kept
would be lost for good. The check finds accidents; who forges one says no more than a client of chat completions can say itself.

Thinking that nobody signed, as most vendors of the other wire send it, is marked as such (`UNSIGNED`): it is text for those who
take it back, and no provider of this wire does.

Pure. Why a thinking block, and when there is none: docs/decisions/0022-signatures-travel-in-thinking-blocks.md.
"""

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec

from farebox.wires.call import Fields
from farebox.wires.media import CARRIAGE_PREFIX
from farebox.wires.neutral import Part, Reasoning, ToolUse

UNSIGNED = f"{CARRIAGE_PREFIX}unsigned"
"""Stands where a signature has to stand: Anthropic refuses thinking without its own, and some clients lose it without any."""
SIGNATURE_CHARS_MAX = 2**20
"""A longer signature is not carried. Gemini's hold its thoughts, encrypted: seldom more than some kilobytes."""
NAME_BYTES_MAX = 1024
"""Of the signer's name, and of a call's id."""
_VERSION = "farebox.v1"
_SIGNATURE = re.compile(r"[A-Za-z0-9+/_=-]+")
_CHECK_DIGITS = 12
_PIECES = 4
"""Behind the version."""
_MANUAL = b'"enabled"'

_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode


class Carried(msgspec.Struct, frozen=True):
    """What a carriage holds."""

    signer: str
    """The provider and its model: nobody else can read the signature (providers.md §3, 8)."""
    call: str
    signature: str


class _Block(msgspec.Struct):
    type: str = ""
    signature: str = ""


_decode_block = msgspec.json.Decoder(_Block).decode


def write(carried: Carried) -> str | None:
    """The signature of the block; None for what no carriage holds, whose call then goes back without it."""
    names = (carried.signer.encode(), carried.call.encode())
    if len(carried.signature) > SIGNATURE_CHARS_MAX or not _SIGNATURE.fullmatch(carried.signature):
        return None
    if any(len(name) > NAME_BYTES_MAX for name in names):
        return None
    text = ".".join((_VERSION, *(urlsafe_b64encode(name).decode().rstrip("=") for name in names), carried.signature))
    return f"{text}.{hashlib.sha256(text.encode()).hexdigest()[:_CHECK_DIGITS]}"


def read(text: str) -> Carried | None:
    """What `write` wrote; None for anything else."""
    pieces = text.removeprefix(f"{_VERSION}.").split(".", _PIECES)
    if len(pieces) != _PIECES:
        return None
    try:
        signer, call = (_name(piece) for piece in pieces[:2])
    except ValueError:  # no base64, or no text
        return None
    carried = Carried(signer, call, pieces[2])
    return carried if write(carried) == text else None


def _name(piece: str) -> str:
    return urlsafe_b64decode(piece + "=" * (-len(piece) % 4)).decode()


def block(signature: str, thinking: str = "") -> dict[str, Any]:
    return {"type": "thinking", "thinking": thinking, "signature": signature}


def is_carriage(kind: object, signature: object) -> bool:
    return kind == "thinking" and isinstance(signature, str) and signature.startswith(CARRIAGE_PREFIX)


def wanted(fields: Fields) -> bool:
    """Whether a client may be given carriages: not one that has to expect no thinking, from Anthropic's own models neither.

    Such a client switched thinking off; or it did not mention it and forces a call, which excludes thinking.
    """
    thinking = _kind(fields.get("thinking"))
    if thinking is not None:
        return thinking != b'"disabled"'
    return _kind(fields.get("tool_choice")) not in (b'"any"', b'"tool"')


def _kind(raw: msgspec.Raw | None) -> bytes | None:
    """`type` of an object; None when there is none. What is malformed is left for the translation to name."""
    if raw is None:
        return None
    try:
        found = _decode_fields(raw).get("type")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if found is None else bytes(found)


def unload(parts: list[Part]) -> list[Part]:
    """The parts of a turn, with signatures on the calls that they belong to and without what carried them."""
    held = [part for part in parts if isinstance(part, Reasoning) and is_carriage("thinking", part.signature)]
    if not held:
        return parts
    found = {one.call: one for part in reversed(held) if (one := read(part.signature or "")) is not None}
    rest = [part for part in parts if part not in held]
    return [_signed(part, found.get(part.id)) if isinstance(part, ToolUse) else part for part in rest]


def _signed(call: ToolUse, carried: Carried | None) -> ToolUse:
    if carried is None:
        return call
    return msgspec.structs.replace(call, signature=carried.signature, signer=carried.signer)


def without(fields: Fields) -> bytes:
    """`messages` of a request for a provider of this wire: the blocks that are ours taken out, all others byte for byte."""
    kept: list[msgspec.Raw] = []
    for raw in _decode_list(fields["messages"]):
        content = _blocks(raw)
        rest = [block for block in content if not _is_ours(block)]
        if len(rest) == len(content):
            kept.append(raw)
        elif rest:  # a turn that is nothing else is none: the API refuses an empty one
            kept.append(msgspec.Raw(_encode(_decode_fields(raw) | {"content": msgspec.Raw(_encode(rest))})))
    return _encode(kept)


def lost_thinking(fields: Fields, messages: bytes) -> bool:
    """Whether a request asks for thinking by budget amid a loop of tools that did not begin with it: Anthropic refuses that.

    `messages` is what `without` left. With `adaptive` thinking such a turn is accepted.
    """
    turns = _decode_list(messages)
    if _kind(fields.get("thinking")) != _MANUAL or len(turns) < 2:
        return False
    results, calls = _blocks(turns[-1]), _blocks(turns[-2])
    if not results or not calls or _type(results[0]) != "tool_result":
        return False
    return _type(calls[0]) not in ("thinking", "redacted_thinking")


def _blocks(message: msgspec.Raw) -> list[msgspec.Raw]:
    """The blocks of a message; none where its content is text, or malformed, which is left for the provider to name."""
    try:
        return _decode_list(_decode_fields(message)["content"])
    except (msgspec.DecodeError, KeyError):
        return []


def _is_ours(raw: msgspec.Raw) -> bool:
    try:
        found = _decode_block(raw)
    except msgspec.DecodeError:
        return False
    return is_carriage(found.type, found.signature)


def _type(raw: msgspec.Raw) -> str:
    try:
        return _decode_block(raw).type
    except msgspec.DecodeError:
        return ""
