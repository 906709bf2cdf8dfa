"""xAI. Chat completions still work beside the preferred responses API; see https://docs.x.ai.

On this wire `completion_tokens` leaves thinking out: it is counted, and billed, beside the answer. The vendor also reports
its own charge in ticks of 10⁻¹⁰ dollars, kept as evidence.
"""

from farebox.providers.base import Credential, Provider, Speaks
from farebox.wires.dialect import Dialect, UsageRules

TICKS_PER_USD = 10**10

PROVIDER = Provider(
    name="xai",
    title="xAI",
    base_url="https://api.x.ai/v1",
    speaks={
        "openai_chat": Speaks(
            path="/chat/completions",
            dialect=Dialect(
                # Outside in all of 17 recordings: total = prompt + completion + reasoning.
                usage=UsageRules(reasoning="outside", cost_field="cost_in_usd_ticks", cost_divisor=TICKS_PER_USD),
                output_limit_field="max_tokens",
                developer_role=False,
                tool_strict=False,
                stop=False,  # refused from grok-4 on: https://docs.x.ai/docs/guides/reasoning
                penalties=False,  # likewise
                message_name=False,
            ),
        )
    },
    credential=Credential(env=("XAI_API_KEY",)),
    abort_stops_billing=True,  # https://openrouter.ai/docs/api_reference/streaming
    docs_url="https://docs.x.ai/docs/models",
    makes=("xai",),
)
