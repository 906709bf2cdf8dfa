"""The provider's prompt cache: which prefixes it has seen, and what of a prompt is read from or written to it.

Chat wire: any prefix seen before, from `tokens_min` tokens, in steps of 128, free to write. Messages wire: only up to
`cache_control` marks; the part up to the longest known mark is read, the rest up to the last mark is written at the price of
its mark's lifetime. Nothing expires by time, so that a test needs no clock; `reset` forgets.
"""

from collections import OrderedDict
from hashlib import blake2b

import msgspec

from farebox.simulator.request import REQUEST_TOKENS, Request

PREFIXES_MAX = 65_536
"""Prefixes remembered; the least recently used are forgotten first."""
STEP_TOKENS = 128


class Cached(msgspec.Struct, frozen=True):
    """Prompt tokens that the cache took part in; disjoint."""

    read: int = 0
    write_5m: int = 0
    write_1h: int = 0


NOTHING = Cached()


class PrefixCache:
    """Digests of prefixes, per credential."""

    def __init__(self, tokens_min: int) -> None:
        self._tokens_min = tokens_min
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def reset(self) -> None:
        self._known.clear()

    def _remember(self, digest: bytes) -> None:
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > PREFIXES_MAX:
            self._known.popitem(last=False)

    def pass_through(self, request: Request, credential: bytes) -> Cached:
        """What the cache does with this prompt; the cache learns it."""
        if request.wire == "messages" and not any(block.cache for block in request.blocks):
            return NOTHING
        if request.prompt_tokens < self._tokens_min:
            return NOTHING
        return self._implicit(request, credential) if request.wire == "chat" else self._marked(request, credential)

    def _implicit(self, request: Request, credential: bytes) -> Cached:
        state = blake2b(credential, digest_size=16)
        tokens = REQUEST_TOKENS
        read = 0
        for block in request.blocks:
            state.update(len(block.content).to_bytes(8, "big"))
            state.update(block.content)
            tokens += block.tokens
            if tokens < self._tokens_min:
                continue
            digest = state.digest()
            if digest in self._known:
                read = tokens
            self._remember(digest)
        read = min(read, request.prompt_tokens - request.audio_tokens)
        return Cached(read=read // STEP_TOKENS * STEP_TOKENS)

    def _marked(self, request: Request, credential: bytes) -> Cached:
        state = blake2b(credential, digest_size=16)
        tokens = REQUEST_TOKENS
        read = written = 0
        writes = {"5m": 0, "1h": 0}
        for block in request.blocks:
            state.update(len(block.content).to_bytes(8, "big"))
            state.update(block.content)
            tokens += block.tokens
            if block.cache is None or tokens < self._tokens_min:
                continue
            digest = state.digest()
            if digest in self._known:
                read = written = tokens
                writes = {"5m": 0, "1h": 0}
            else:
                writes[block.cache] += tokens - written
                written = tokens
            self._remember(digest)
        return Cached(read=read, write_5m=writes["5m"], write_1h=writes["1h"])
