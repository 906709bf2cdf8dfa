"""Anthropic's SDK against Farebox: any model of any provider, translated where it must be. `pip install anthropic`"""

import os

from anthropic import Anthropic

client = Anthropic(
    base_url=os.environ.get("FAREBOX_URL", "http://127.0.0.1:8080"),  # without /v1: the SDK adds it
    api_key=os.environ["FAREBOX_API_KEY"],
)
message = client.messages.create(
    model=os.environ.get("FAREBOX_MODEL", "local/smollm2-135m-instruct"),
    messages=[{"role": "user", "content": "Say hello."}],
    max_tokens=64,
)
for block in message.content:
    if block.type == "text":
        print(block.text)
print(f"{message.usage.output_tokens} tokens out, ${(message.usage.model_extra or {})['cost_usd']}")
