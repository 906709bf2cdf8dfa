"""Vendors that speak chat completions closely enough for one row each.

A row belongs here while its deviations are flags that a comment can explain. One that needs a paragraph (how it counts, two
wires, failures with status 200) gets a file of its own. All rows count as OpenAI does unless `usage` says otherwise; "stops"
means that hanging up stops the vendor's meter, as listed at https://openrouter.ai/docs/api_reference/streaming, and a vendor
that is not listed there counts as one that bills on.
"""

from farebox.providers.anthropic import MESSAGES_USAGE, VERSION
from farebox.providers.base import Credential, Provider, Speaks
from farebox.wires.dialect import Dialect, UsageRules

_CHAT = "/chat/completions"

_CACHED_AT_TOP = UsageRules(cache_read_paths=(("cached_tokens",), ("prompt_tokens_details", "cached_tokens")))

# `developer_role=False` throughout: only OpenAI and gateways in front of it know the role.
# `output_limit_field="max_tokens"` where a vendor documents that spelling: an unknown spelling would be ignored, and the cap
# that the hold was made for with it.

GROQ = Provider(
    name="groq",
    title="Groq",
    base_url="https://api.groq.com/openai/v1",
    speaks={
        "openai_chat": Speaks(
            path=_CHAT,
            dialect=Dialect(
                developer_role=False,
                # https://console.groq.com/docs/openai#currently-unsupported-openai-features
                n_choices=False,
                logprobs=False,
                logit_bias=False,
                pdf=False,
                reasoning_reply="reasoning",  # https://console.groq.com/docs/reasoning
                agents=r"groq/compound.*|compound-.*",  # https://console.groq.com/docs/compound: tools are on by default
            ),
        )
    },
    credential=Credential(env=("GROQ_API_KEY",)),
    abort_stops_billing=False,
    docs_url="https://console.groq.com/docs/openai",
)

TOGETHER = Provider(
    name="together",
    title="Together",
    base_url="https://api.together.ai/v1",
    speaks={
        "openai_chat": Speaks(
            path=_CHAT,
            dialect=Dialect(
                usage=_CACHED_AT_TOP,  # recorded at the top of the usage object
                output_limit_field="max_tokens",  # https://docs.together.ai/reference/chat-completions
                developer_role=False,
                tool_strict=False,
                pdf=False,
                reasoning_reply="reasoning",
            ),
        )
    },
    credential=Credential(env=("TOGETHER_API_KEY",)),
    abort_stops_billing=True,
    docs_url="https://docs.together.ai/docs/openai-api-compatibility",
    makes=("together",),
)

FIREWORKS = Provider(
    name="fireworks",
    title="Fireworks",
    base_url="https://api.fireworks.ai/inference/v1",
    speaks={
        "openai_chat": Speaks(
            path=_CHAT,
            dialect=Dialect(
                output_limit_field="max_tokens",  # https://docs.fireworks.ai/api-reference/post-chatcompletions
                developer_role=False,
                pdf=False,  # `file` parts are a 400
            ),
            # Calls of one session land on one replica, whose cache is warm: https://docs.fireworks.ai/guides/prompt-caching
            forward_headers=("x-session-affinity",),
        ),
        "anthropic_messages": Speaks(
            path="/messages",
            dialect=Dialect(usage=MESSAGES_USAGE, output_limit_field="max_tokens", pdf=False),
            headers=(("anthropic-version", VERSION),),
            forward_headers=("x-session-affinity",),
        ),
    },
    credential=Credential(env=("FIREWORKS_API_KEY",)),
    abort_stops_billing=True,
    docs_url="https://docs.fireworks.ai/tools-sdks/openai-compatibility",
    makes=("fireworks",),
)

ALIBABA = Provider(
    name="alibaba",
    title="Alibaba Qwen",
    # International keys only; a key of another region needs that region's `base_url` in the configuration.
    base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    speaks={
        "openai_chat": Speaks(
            path=_CHAT,
            dialect=Dialect(
                # https://www.alibabacloud.com/help/en/model-studio/context-cache: the explicit cache counts its writes here.
                usage=UsageRules(cache_write_paths=(("prompt_tokens_details", "cache_creation_input_tokens"),)),
                output_limit_field="max_tokens",
                developer_role=False,
                pdf=False,
                cache_control=True,
                prefill="partial",  # https://www.alibabacloud.com/help/en/model-studio/partial-mode
                # https://www.alibabacloud.com/help/en/model-studio/deep-thinking
                reasoning_request="enable_thinking",
            ),
        )
    },
    credential=Credential(env=("DASHSCOPE_API_KEY",)),
    docs_url="https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope",
    makes=("qwen",),
)

ZAI = Provider(
    name="zai",
    title="Z.AI",
    # Keys of the mainland platform need `base_url = "https://open.bigmodel.cn/api/paas/v4"`.
    base_url="https://api.z.ai/api/paas/v4",
    speaks={
        "openai_chat": Speaks(
            path=_CHAT,
            dialect=Dialect(
                # https://docs.z.ai/api-reference/llm/chat-completion
                output_limit_field="max_tokens",
                developer_role=False,
                stream_usage_option=False,  # usage always comes with the last chunk
                tool_choice_required="unsupported",  # `auto` only
                json_schema=False,
                temperature_max=1,
                pdf=False,
                cache_control=True,
                reasoning_request="thinking_type",
            ),
        )
    },
    credential=Credential(env=("ZAI_API_KEY", "ZHIPU_API_KEY")),
    docs_url="https://docs.z.ai/guides/overview/pricing",
    makes=("zai",),
)

CEREBRAS = Provider(
    name="cerebras",
    title="Cerebras",
    base_url="https://api.cerebras.ai/v1",
    speaks={
        "openai_chat": Speaks(
            path=_CHAT,
            dialect=Dialect(
                # https://inference-docs.cerebras.ai/api-reference/chat-completions
                output_limit_field="max_completion_tokens",
                developer_role=False,
                penalties=False,
                pdf=False,
                reasoning_reply="reasoning",
            ),
        )
    },
    credential=Credential(env=("CEREBRAS_API_KEY",)),
    docs_url="https://inference-docs.cerebras.ai/resources/openai",
)

HUGGINGFACE = Provider(
    name="huggingface",
    title="Hugging Face",
    base_url="https://router.huggingface.co/v1",
    speaks={
        "openai_chat": Speaks(
            path=_CHAT,
            dialect=Dialect(
                # Usage is the sub-provider's: Together's `cached_tokens` at the top, others' inside the details.
                usage=UsageRules(cache_read_paths=(("prompt_tokens_details", "cached_tokens"), ("cached_tokens",))),
                output_limit_field="max_tokens",  # the one spelling that every sub-provider takes
                developer_role=False,
                pdf=False,
            ),
        )
    },
    credential=Credential(env=("HF_TOKEN",)),
    abort_stops_billing=False,
    docs_url="https://huggingface.co/docs/inference-providers",
)

NEBIUS = Provider(
    name="nebius",
    title="Nebius",
    base_url="https://api.tokenfactory.nebius.com/v1",
    speaks={
        "openai_chat": Speaks(
            path=_CHAT,
            dialect=Dialect(output_limit_field="max_tokens", developer_role=False, pdf=False),
        )
    },
    credential=Credential(env=("NEBIUS_API_KEY",)),
    docs_url="https://docs.tokenfactory.nebius.com/api-reference/introduction",
)

DEEPINFRA = Provider(
    name="deepinfra",
    title="DeepInfra",
    base_url="https://api.deepinfra.com/v1/openai",
    speaks={
        "openai_chat": Speaks(
            path=_CHAT,
            dialect=Dialect(output_limit_field="max_tokens", developer_role=False, pdf=False),
        )
    },
    credential=Credential(env=("DEEPINFRA_API_KEY",)),
    abort_stops_billing=True,
    docs_url="https://deepinfra.com/docs/openai_api",
)

NOVITA = Provider(
    name="novita",
    title="Novita",
    base_url="https://api.novita.ai/openai/v1",
    speaks={
        "openai_chat": Speaks(
            path=_CHAT,
            dialect=Dialect(output_limit_field="max_tokens", developer_role=False, pdf=False),
        )
    },
    credential=Credential(env=("NOVITA_API_KEY",)),
    abort_stops_billing=True,
    docs_url="https://novita.ai/docs/api-reference/model-apis-llm-create-chat-completion",
)

ROWS = (GROQ, TOGETHER, FIREWORKS, ALIBABA, ZAI, CEREBRAS, HUGGINGFACE, NEBIUS, DEEPINFRA, NOVITA)
