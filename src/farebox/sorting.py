"""Sorting by examples: off the event loop, since it takes milliseconds, and bounded. What it cannot say, the classifier does."""

import asyncio
from collections.abc import Callable
from typing import Any

from farebox.embedding.nearest import Embed, Examples, Likeness
from farebox.routing.complexity import excerpt
from farebox.routing.complexity.classify import Assessment, Reason, assess
from farebox.routing.policy import Policies
from farebox.wires.call import Call

WAITING_MAX = 32
"""Calls whose message waits to be compared; further ones are sorted by the classifier at once."""
SHOWN_CHARS = 80


class Sorter:
    """The policies that sort by examples, by the names of models that mean them."""

    def __init__(self, policies: Policies, embed: Embed, run: Callable[..., "asyncio.Future[Any]"]) -> None:
        self._run = run
        self._waiting = 0
        self.examples: dict[str, Examples] = {}
        made = {policy.name: Examples(embed, policy.examples) for policy in policies if policy.examples}
        for name, called in policies.named.items():
            if called.policy.name in made:
                self.examples[name] = made[called.policy.name]

    def warm(self) -> None:
        """Look at all examples once, so that no call has to wait for that."""
        for one in self.examples.values():
            one.warm()

    async def assess(self, call: Call) -> Assessment:
        """The tier of a call to one of `examples`."""
        text = said(call)
        if not text or self._waiting >= WAITING_MAX:
            return assess(call)
        self._waiting += 1
        try:
            return judged(call, await self._run(self.examples[call.model].likeness, text))
        finally:
            self._waiting -= 1

    def assess_now(self, call: Call) -> Assessment:
        """The same where nobody else waits."""
        text = said(call)
        return judged(call, self.examples[call.model].likeness(text)) if text else assess(call)


def said(call: Call) -> str:
    """What the user said last, in bounds, after what it goes on from."""
    seen = excerpt.read(call)
    return f"{seen.before}\n{seen.text}".strip()


def judged(call: Call, found: Likeness) -> Assessment:
    """A message that is like no example is sorted by the classifier."""
    if not found.tier:
        return assess(call)
    return Assessment(found.percent, found.tier, (Reason("example", 1, found.percent, (found.example[:SHOWN_CHARS],)),))
