"""DeepSeek. Speaks chat completions and messages; see https://api-docs.deepseek.com.

`prompt_tokens` is cache hits plus misses, with the hits under a name of its own. Prices halve outside two peak windows of
a weekday (the catalog's `off_peak`).
"""

from farebox.providers.anthropic import MESSAGES_USAGE, VERSION
from farebox.providers.base import Credential, Provider, Speaks
from farebox.wires.dialect import Dialect, UsageRules

PROVIDER = Provider(
    name="deepseek",
    title="DeepSeek",
    base_url="https://api.deepseek.com",
    speaks={
        "openai_chat": Speaks(
            path="/chat/completions",
            # https://api-docs.deepseek.com/guides/chat_prefix_completion: a beta, at an address of its own.
            prefill_path="/beta/chat/completions",
            dialect=Dialect(
                prefill="prefix",
                usage=UsageRules(
                    cache_read_paths=(("prompt_cache_hit_tokens",), ("prompt_tokens_details", "cached_tokens")),
                ),
                output_limit_field="max_tokens",  # https://api-docs.deepseek.com/api/create-chat-completion
                developer_role=False,
                tool_strict=False,  # only under /beta: https://api-docs.deepseek.com/guides/function_calling
                json_schema=False,  # `json_object` only: https://api-docs.deepseek.com/guides/json_mode
                pdf=False,  # `unknown variant file` is the recorded refusal
                reasoning_request="thinking_type",
                # https://api-docs.deepseek.com/guides/thinking_mode: a turn with tool calls must bring its thinking back.
                reasoning_echo_required=True,
            ),
        ),
        # https://api-docs.deepseek.com/guides/anthropic_api
        "anthropic_messages": Speaks(
            path="/anthropic/v1/messages",
            dialect=Dialect(usage=MESSAGES_USAGE, output_limit_field="max_tokens", pdf=False),
            headers=(("anthropic-version", VERSION),),
        ),
    },
    credential=Credential(env=("DEEPSEEK_API_KEY",)),
    abort_stops_billing=True,  # https://openrouter.ai/docs/api_reference/streaming
    docs_url="https://api-docs.deepseek.com/quick_start/pricing",
    makes=("deepseek",),
)
