"""MiniMax. Speaks chat completions and messages; a failure may come with status 200; see https://platform.minimax.io/docs.

A `base_resp.status_code` other than 0 is the real status (1002 rate, 1004 key, 1008 balance…):
https://platform.minimax.io/docs/api-reference/errorcode. The messages endpoint keeps thinking and tool calls together
better, and counts as Anthropic does.
"""

from farebox.providers.anthropic import MESSAGES_USAGE, VERSION
from farebox.providers.base import Credential, Provider, Speaks
from farebox.wires.dialect import Dialect

PROVIDER = Provider(
    name="minimax",
    title="MiniMax",
    base_url="https://api.minimax.io",
    speaks={
        "openai_chat": Speaks(
            path="/v1/chat/completions",
            dialect=Dialect(
                output_limit_field="max_tokens",
                developer_role=False,
                pdf=False,
                cache_control=True,
                reasoning_request="none",  # thinking is always on; `reasoning_split` only moves it
                reasoning_reply="reasoning_details",
                error_in_200="base_resp",
            ),
        ),
        "anthropic_messages": Speaks(
            path="/anthropic/v1/messages",
            dialect=Dialect(
                usage=MESSAGES_USAGE, output_limit_field="max_tokens", pdf=False, cache_control=True, error_in_200="base_resp"
            ),
            headers=(("anthropic-version", VERSION),),
        ),
    },
    credential=Credential(env=("MINIMAX_API_KEY",)),
    # Listed among those that bill on after the connection closes: https://openrouter.ai/docs/api_reference/streaming
    abort_stops_billing=False,
    docs_url="https://platform.minimax.io/docs/guides/pricing",
    makes=("minimax",),
)
