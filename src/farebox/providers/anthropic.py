"""Anthropic. The author of the messages wire; see https://platform.claude.com/docs.

Its counts differ from everybody else's: `input_tokens` holds neither cache reads nor cache writes, and writes are split
by lifetime (5 minutes, 1 hour) at two prices.
"""

from farebox.providers.base import Credential, Provider, Speaks
from farebox.wires.dialect import Dialect, UsageRules

VERSION = "2023-06-01"
"""https://platform.claude.com/docs/en/api/versioning: one version since 2023; betas come by their own header."""

MESSAGES_USAGE = UsageRules(
    cache_inside_input=False,
    cache_read_paths=(("cache_read_input_tokens",),),
    cache_write_paths=(("cache_creation_input_tokens",),),
)
"""How the messages wire counts, at Anthropic and at vendors that copy it."""

FREE_TOOLS = ("web_fetch_*", "code_execution_* with web_*", "mcp_servers", "mcp_toolset")
"""Nothing is billed for them beside their tokens: https://platform.claude.com/docs/en/about-claude/pricing#specific-tool-pricing.
Code is free beside the newer web tools only; of other code, and of what an advisor writes, no count is in the usage."""

PROVIDER = Provider(
    name="anthropic",
    title="Anthropic",
    base_url="https://api.anthropic.com",
    speaks={
        "anthropic_messages": Speaks(
            path="/v1/messages",
            # The whole range is 0 to 1; above is a 400: https://platform.claude.com/docs/en/api/messages
            dialect=Dialect(
                usage=MESSAGES_USAGE,
                output_limit_field="max_tokens",
                temperature_max=1,
                cache_control=True,
                hosted_tools=FREE_TOOLS,
            ),
            headers=(("anthropic-version", VERSION),),
            # Betas change what the body may contain, so a client's own list must arrive with its body.
            forward_headers=("anthropic-beta",),
            count_tokens_path="/v1/messages/count_tokens",
        )
    },
    credential=Credential(env=("ANTHROPIC_API_KEY",), header="x-api-key", scheme=""),
    abort_stops_billing=True,  # https://openrouter.ai/docs/api_reference/streaming
    docs_url="https://platform.claude.com/docs/en/about-claude/pricing",
    makes=("anthropic",),
)
