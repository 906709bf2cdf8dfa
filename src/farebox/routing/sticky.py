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
from typing import Any, Final
from zlib import crc32

import msgspec

from farebox.wires.call import Call

OPENING_BYTES_MAX: Final = 64 * 1024
"""How far into the messages the opening is looked for; a longer one is known by its first part."""
SHORT_BYTES_MAX: Final = 8 * 1024
"""Up to here all messages are split at once; in longer ones only the first are looked at."""
OPENING_MESSAGES_MAX: Final = 16
_BEHIND_STRING: Final = frozenset({b",", b"}", b"]", b":", b" ", b"\t", b"\r", b"\n", b""})
INSTRUCTIONS: Final = ("system", "developer")
_MARK: Final = re.compile(rb'\s*,\s*"cache_control"\s*:\s*(?:\{[^{}]*\}|null)|"cache_control"\s*:\s*(?:\{[^{}]*\}|null)\s*,\s*')
_WORD: Final = 2**30 - 1
_UNIT: Final = 2.0**-30

_split: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_message: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_scan: Final[Callable[[str, int], tuple[Any, int]]] = json.JSONDecoder().raw_decode


def session_hash(name: str) -> int:
    """A conversation that has a name of its own."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=4).digest(), "big")


def opening(call: Call) -> tuple[int, bool]:
    """The hash of a conversation's opening messages, and whether it has gone on since.

    The opening is everything up to the first message that is not an instruction: the part that every later turn repeats.
    Anthropic's `system` is left out, since tools put into it what changes from call to call. Half a hash of 64 bits is enough:
    two conversations that share one only share an offer.
    """
    if call.messages is not None:
        quick = _opening_of_text(bytes(memoryview(call.messages)[:OPENING_BYTES_MAX]))
        if quick is not None:
            return quick
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
            role = _decode_message(text).get("role")
            if role is None or _decode_text(role) not in INSTRUCTIONS:
                break
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not a conversation. The provider will say so; wherever it is sent is as good as anywhere.
        return crc32(view), False
    return found, count < len(messages)


def _opening_of_text(raw: bytes) -> tuple[int, bool] | None:
    """The same of a plain call's messages, each of which says its role first, as most clients write them; else None.

    Nothing is parsed: messages without typed parts are objects without others. They have no mark of the prompt cache either,
    which has a type.
    """
    start, found = 1, 0
    for _ in range(OPENING_MESSAGES_MAX):
        head = raw[start : start + 20]
        if head.startswith(b'{"role": "'):
            role = head[10:]
        elif head.startswith(b'{"role":"'):
            role = head[9:]
        else:
            return None
        following = _object_behind(raw, start + 1)
        if following < 0:
            text = raw[start:] if len(raw) == OPENING_BYTES_MAX else raw[start:].rstrip(b" \t\r\n]")
            return crc32(text, found), False
        found = crc32(raw[start:following].rstrip(b" \t\r\n,"), found)
        start = following
        if not role.startswith((b'system"', b'developer"')):
            break
    return found, True


def _object_behind(raw: bytes, start: int) -> int:
    """Where the next object begins; -1 = nowhere.

    In a string a quote has a backslash before it, so `{"` begins an object, unless it ends a string: then no name follows.
    """
    at = raw.find(b"{", start)
    while at >= 0:
        if raw.startswith(b'{"', at) and raw[at + 2 : at + 3] not in _BEHIND_STRING:
            return at
        at = raw.find(b'{"', at + 1)
    return -1


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

    Multiplied and folded twice, in words of 30 bits: their products are no large integers, which compiled code is quick with.
    """
    word = (session ^ own) & _WORD
    word = ((word ^ (word >> 15)) * 0x21F0AAAD) & _WORD
    word = ((word ^ (word >> 15)) * 0x31848BAB) & _WORD
    return ((word ^ (word >> 15)) + 1) * _UNIT


def finish_time(chance: float, distance: float) -> float:
    """When an offer of weight 1/distance arrives in the race: sorting by it draws offers in proportion to their weights."""
    return -math.log(chance) * distance
