"""Stickiness: the turns of one conversation go to one offer, because its prompt cache is worth more than a cheaper list price.

There is no table to share or to lose. Each offer draws a number from the conversation's hash and its own salt, and the offers
are raced with it as if it were chance (weighted rendezvous hashing). So every worker and every restart finds the same order,
conversations spread over offers by their weights, and when an offer is lost only its own conversations move, each to its next.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec

from farebox.wires.call import Call

OPENING_BYTES_MAX = 64 * 1024
"""How far into the messages the opening is looked for; a longer one is known by its first part."""
SHORT_BYTES_MAX = 8 * 1024
"""Up to here all messages are split at once; in longer ones only the first are looked at."""
OPENING_MESSAGES_MAX = 16
INSTRUCTIONS = ("system", "developer")
_MARK = re.compile(rb'\s*,\s*"cache_control"\s*:\s*(?:\{[^{}]*\}|null)|"cache_control"\s*:\s*(?:\{[^{}]*\}|null)\s*,\s*')
_UNIT = 2.0**-64


_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_message = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_QUESTION_HEADS = (b'{"role":"user"', b'{"role": "user"')
_INSTRUCTION_HEADS = (b'{"role":"system"', b'{"role": "system"')
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode


def session_hash(name: str) -> int:
    """A conversation that has a name of its own."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def opening(call: Call) -> tuple[int, bool]:
    """The hash of a conversation's opening messages, and whether it has gone on since.

    The opening is everything up to the first message that is not an instruction: the part that every later turn repeats.
    Anthropic's `system` is left out, since tools put into it what changes from call to call. Half a hash of 64 bits is enough:
    two conversations that share one only share an offer.
    """
    raw = call.messages if call.messages is not None else call.fields["messages"]
    view = memoryview(raw)
    if len(view) > SHORT_BYTES_MAX:
        return _opening_of_long(view[:OPENING_BYTES_MAX])
    found = count = 0
    try:
        messages = _split(raw)
        for message in messages[:OPENING_MESSAGES_MAX]:
            text = bytes(message)
            found = crc32(_unmarked(text), found)
            count += 1
            if not _instructs(text):
                break
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not a conversation. The provider will say so; wherever it is sent is as good as anywhere.
        return crc32(view), False
    return found, count < len(messages)


def _instructs(message: bytes) -> bool:
    """Whether a message is an instruction. One that begins as most do need not be read."""
    if message.startswith(_QUESTION_HEADS):
        return False
    if message.startswith(_INSTRUCTION_HEADS):
        return True
    role = _decode_message(message).get("role")
    return role is not None and _decode_text(role) in INSTRUCTIONS


def _opening_of_long(view: memoryview) -> tuple[int, bool]:
    """The same of the beginning of long messages, message by message: the hash must not change as a conversation grows."""
    text = bytes(view).decode("latin-1")  # a character per byte, so that places in one are places in the other
    found, end = 0, _past_space(text, 1)
    for _ in range(OPENING_MESSAGES_MAX):
        begin = end
        try:
            message, end = _scan(text, begin)
        except (ValueError, RecursionError):
            return crc32(view[begin:], found), False
        found = crc32(_unmarked(bytes(view[begin:end])), found)
        end = _past_space(text, end)
        if not (isinstance(message, dict) and message.get("role") in INSTRUCTIONS):  # pyright: ignore[reportUnknownMemberType]
            break
        end = _past_space(text, end + 1)
    return found, text.startswith(",", end)


def _unmarked(message: bytes) -> bytes:
    """A message without the marks of the prompt cache: clients move them to the newest message with every turn."""
    return _MARK.sub(b"", message) if b'"cache_control"' in message else message


def _past_space(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\n", "\r", "\t"):
        place += 1
    return place


def salt(name: str) -> int:
    """An offer's own part of every draw."""
    return session_hash("offer " + name)


def draw(session: int, own: int) -> float:
    """A number in (0, 1] that looks random, the same in every process for this conversation and offer.

    Python's hash of two integers is xxHash's mixing, without the seed that strings get; and it is quick.
    """
    mixed = hash((session, own))  # of 64 bits, with a sign
    drawn = mixed * _UNIT
    return (drawn + 1.0 if mixed < 0 else drawn) or _UNIT


def finish_time(chance: float, distance: float) -> float:
    """When an offer of weight 1/distance arrives in the race: sorting by it draws offers in proportion to their weights."""
    return -math.log(chance) * distance
