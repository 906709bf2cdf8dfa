"""Mistral. Speaks chat completions strictly: unknown fields and foreign ids are refused; see https://docs.mistral.ai/api.

Its counts have one trap: audio tokens of a prompt stand beside `prompt_tokens`, not inside.
"""

from farebox.providers.base import Credential, Provider, Speaks
from farebox.wires.dialect import Dialect, UsageRules

PROVIDER = Provider(
    name="mistral",
    title="Mistral",
    base_url="https://api.mistral.ai/v1",
    speaks={
        "openai_chat": Speaks(
            path="/chat/completions",
            dialect=Dialect(
                usage=UsageRules(
                    audio_inside_input=False,
                    # Older answers have the count at the top, under another name.
                    cache_read_paths=(("prompt_tokens_details", "cached_tokens"), ("num_cached_tokens",)),
                ),
                output_limit_field="max_tokens",
                developer_role=False,
                stream_usage_option=False,  # usage always comes, beside the finish reason
                tool_choice_required="any",  # https://docs.mistral.ai/capabilities/function_calling
                tool_strict=False,  # refused by older models
                tool_call_id_pattern=r"[a-zA-Z0-9]{9}",  # anything else is a 400 on several models
                seed_field="random_seed",  # https://docs.mistral.ai/api
                logprobs=False,  # neither field exists there
                logit_bias=False,
                prefill="prefix",  # https://docs.mistral.ai/capabilities/completion/prefix
                message_name=False,  # a `name` is allowed on tool messages only
                pdf=False,  # documents go as `document_url` parts
                reasoning_reply="content_list",  # thinking comes as parts of `content`
            ),
        )
    },
    credential=Credential(env=("MISTRAL_API_KEY",)),
    # Listed among those that bill on after the connection closes: https://openrouter.ai/docs/api_reference/streaming
    abort_stops_billing=False,
    docs_url="https://docs.mistral.ai/getting-started/models",
    makes=("mistral",),
)
