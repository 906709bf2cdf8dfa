"""OpenAI's SDK against Farebox: another base URL and key, nothing else. `pip install openai`"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("FAREBOX_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ["FAREBOX_API_KEY"],
)
stream = client.chat.completions.create(
    model=os.environ.get("FAREBOX_MODEL", "local/smollm2-135m-instruct"),
    messages=[{"role": "user", "content": "Say hello."}],
    max_tokens=64,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
    if chunk.usage is not None:
        # Fields of ours arrive as extra fields of the SDK's own types.
        print(f"\n{chunk.usage.total_tokens} tokens, ${(chunk.usage.model_extra or {})['cost_usd']}")
