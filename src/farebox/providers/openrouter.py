"""OpenRouter: a gateway in front of many vendors, speaking our own extensions; see https://openrouter.ai/docs.

Which vendor answers, and so the price, is decided there call by call: `usage.cost` is the charge, the catalog's price only
an estimate for the hold (https://openrouter.ai/docs/use-cases/usage-accounting).
"""

from farebox.providers.anthropic import MESSAGES_USAGE, VERSION
from farebox.providers.base import Credential, Provider, Speaks
from farebox.wires.dialect import Dialect, UsageRules

_ATTRIBUTION = ("http-referer", "x-title")
"""Headers by which an application names itself: https://openrouter.ai/docs/app-attribution."""

_TOOLS = (
    "openrouter:web_search", "openrouter:web_fetch", "openrouter:datetime", "web_fetch_*",
    "web", "file-parser", "response-healing", "context-compression", "auto-router", "moderation",
)  # fmt: skip
"""Part of `usage.cost`, and small beside what is held for the tokens that they read. Tools that ask other models, make images or
rent machines are part of it, too, but nothing bounds them before: https://openrouter.ai/docs/guides/features/server-tools."""

PROVIDER = Provider(
    name="openrouter",
    title="OpenRouter",
    base_url="https://openrouter.ai/api/v1",
    speaks={
        "openai_chat": Speaks(
            path="/chat/completions",
            dialect=Dialect(
                usage=UsageRules(cost_field="cost"),
                stream_usage_option=False,  # always included; the option is ignored
                cache_control=True,
                reasoning_request="openrouter",
                reasoning_reply="reasoning_details",
                error_in_200="error_object",  # https://openrouter.ai/docs/api_reference/errors-and-debugging
                prefill="plain",  # https://openrouter.ai/docs/api-reference/overview#assistant-prefill
                hosted_tools=_TOOLS,
                extensions=True,
            ),
            forward_headers=_ATTRIBUTION,
        ),
        "anthropic_messages": Speaks(
            path="/messages",
            dialect=Dialect(
                usage=UsageRules(
                    cache_inside_input=False,
                    cache_read_paths=MESSAGES_USAGE.cache_read_paths,
                    cache_write_paths=MESSAGES_USAGE.cache_write_paths,
                    cost_field="cost",
                ),
                output_limit_field="max_tokens",
                cache_control=True,
                error_in_200="error_object",
                hosted_tools=_TOOLS,
                extensions=True,
            ),
            headers=(("anthropic-version", VERSION),),
            forward_headers=("anthropic-beta", *_ATTRIBUTION),
        ),
    },
    credential=Credential(env=("OPENROUTER_API_KEY",)),
    # It depends on the vendor behind (https://openrouter.ai/docs/api_reference/streaming); draining brings the exact cost.
    abort_stops_billing=False,
    charges_by_reported_cost=True,
    docs_url="https://openrouter.ai/docs",
    makes=("openrouter",),
)
