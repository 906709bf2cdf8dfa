"""Moonshot (Kimi). Automatic caching, thinking that must be echoed, usage in odd places; see https://platform.moonshot.ai/docs.

Keys are bound to a region; a key of api.moonshot.cn needs that `base_url` in the configuration.
"""

from farebox.providers.base import Credential, Provider, Speaks
from farebox.wires.dialect import Dialect, UsageRules

PROVIDER = Provider(
    name="moonshot",
    title="Moonshot",
    base_url="https://api.moonshot.ai/v1",
    speaks={
        "openai_chat": Speaks(
            path="/chat/completions",
            dialect=Dialect(
                usage=UsageRules(
                    cache_read_paths=(("cached_tokens",), ("prompt_tokens_details", "cached_tokens")),
                    usage_in_choice=True,  # a stream's usage may sit in `choices[0].usage`
                ),
                output_limit_field="max_tokens",  # https://platform.moonshot.ai/docs/api/chat
                developer_role=False,
                # https://platform.moonshot.ai/docs/guide/migrating-from-openai-to-kimi: no `required`.
                tool_choice_required="unsupported",
                tool_strict=False,
                pdf=False,  # files are uploaded first and quoted as text
                prefill="partial",  # https://platform.moonshot.ai/docs/guide/use-partial-mode-feature-of-kimi-api
                reasoning_request="thinking_type",
                reasoning_echo_required=True,  # thinking models, on turns with tool calls
            ),
        )
    },
    credential=Credential(env=("MOONSHOT_API_KEY",)),
    docs_url="https://platform.moonshot.ai/docs/pricing/chat",
    makes=("moonshotai",),
)
