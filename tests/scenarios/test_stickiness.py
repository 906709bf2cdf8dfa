"""Conversations stay where their prompt is cached: over several offers as much is found there as at a single one."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.running import Farebox, offer, provider

from farebox.simulator.testing import SimulatorProcess

CONVERSATIONS, TURNS = 20, 5
OFFERS = 4
LOSS_PERCENT_MAX = 2.0
INSTRUCTIONS = "You are the support agent of a bicycle shop. " * 140


def configuration(base: str) -> str:
    """Every provider has a key of its own there, and so a cache of its own."""
    text = ""
    for wire in ("openai_chat", "anthropic_messages"):
        names = [f"{wire[:4]}-{n}" for n in range(OFFERS)]
        for name in names:
            address = base if wire == "openai_chat" else base.removesuffix("/v1")
            text += provider(name, address, wire=wire).replace("test-key", f"key-of-{name}")
        cached = {"cached_input": "0.25", "input": "2.50"}
        for slug, count in (("one", 1), ("many", OFFERS)):
            offers = ", ".join(offer(name, "sim+tokens=12", **cached) for name in names[:count])
            text += f'[[models]]\nslug = "s/{wire[:4]}-{slug}"\ncontext_window = 128000\nmax_output_tokens = 4096\n'
            text += f'capabilities = ["prompt_caching", "tools", "temperature"]\noffers = [{offers}]\n'
    return text


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    folder = tmp_path_factory.mktemp("sticky") / "box"
    with SimulatorProcess() as simulator, Farebox(folder, config=configuration(simulator.base_url), workers=2) as running:
        yield running


def chat_turn(box: Farebox, slug: str, said: list[str], heard: list[str], salt: str) -> tuple[str, str, int, int]:
    """The next turn: who answered, what, how many tokens the prompt had and how many were cached."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": f"{salt}: {INSTRUCTIONS}"}]
    for index, text in enumerate(said):
        messages.append({"role": "user", "content": text})
        if index < len(heard):
            messages.append({"role": "assistant", "content": heard[index]})
    reply = box.post("/v1/chat/completions", {"model": slug, "messages": messages, "max_tokens": 30})
    assert reply.status == 200, reply.body
    usage = reply.json()["usage"]
    text = reply.json()["choices"][0]["message"]["content"]
    return reply.headers["x-farebox-provider"], text, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def message_turn(box: Farebox, slug: str, said: list[str], heard: list[str], salt: str) -> tuple[str, str, int, int]:
    """The same as Anthropic's clients do it: the mark of the cache moves to the newest message with every turn."""
    messages: list[dict[str, Any]] = []
    for index, text in enumerate(said):
        block: dict[str, Any] = {"type": "text", "text": text}
        if index == len(said) - 1:
            block["cache_control"] = {"type": "ephemeral"}
        messages.append({"role": "user", "content": [block]})
        if index < len(heard):
            messages.append({"role": "assistant", "content": heard[index]})
    system = [{"type": "text", "text": f"{salt}: {INSTRUCTIONS}", "cache_control": {"type": "ephemeral"}}]
    reply = box.post("/v1/messages", {"model": slug, "system": system, "messages": messages, "max_tokens": 30})
    assert reply.status == 200, reply.body
    usage = reply.json()["usage"]
    cached = usage["cache_read_input_tokens"]
    prompt = usage["input_tokens"] + cached + usage["cache_creation_input_tokens"]
    return reply.headers["x-farebox-provider"], reply.json()["content"][0]["text"], prompt, cached


@pytest.mark.parametrize(("wire", "turn"), [("open", chat_turn), ("anth", message_turn)], ids=["chat", "messages"])
def test_as_much_is_cached_over_many_offers_as_at_one(box: Farebox, wire: str, turn: Any) -> None:
    shares: dict[str, float] = {}
    homes: dict[str, list[set[str]]] = {}
    for slug in ("one", "many"):
        talks: list[tuple[list[str], list[str]]] = [([], []) for _ in range(CONVERSATIONS)]
        homes[slug] = [set() for _ in range(CONVERSATIONS)]
        prompt = cached = 0
        for n in range(TURNS):
            for index, (said, heard) in enumerate(talks):
                said.append(f"Question {n} of caller {index}: what about my order {index * 7 + n}? " * 4)
                salt = f"{slug} {index}"
                who, text, asked, found = turn(box, f"s/{wire}-{slug}", said, heard, salt)
                heard.append(text)
                homes[slug][index].add(who)
                prompt, cached = prompt + asked, cached + found
        shares[slug] = 100 * cached / prompt
    assert shares["one"] > 50, "the single provider caches"
    assert shares["many"] >= shares["one"] - LOSS_PERCENT_MAX, shares
    assert all(len(home) == 1 for home in homes["many"]), "no conversation has moved"
    assert len(set().union(*homes["many"])) > 1, "and together they use several offers"
