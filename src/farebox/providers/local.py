"""Servers on one's own machines: no key needed, and hanging up stops the work, so there is nothing to drain.

None of them is on by itself: a section `[providers.ollama]` (or `vllm`, `llamacpp`) with its address switches it on, and the
operator names its models and prices. `local` is the gateway's own child process; its address is known when it runs.
"""

from farebox.providers.anthropic import MESSAGES_USAGE, VERSION
from farebox.providers.base import DataPolicy, Provider, Speaks
from farebox.wires.dialect import Dialect

_OWN_MACHINE = DataPolicy(trains=False, retention_days=0)
"""These programs keep nothing; what their operator logs is the operator's own business, and ours to believe."""

_LLAMA_CPP_CHAT = Dialect(
    developer_role=False,  # chat templates know `system` only
    pdf=False,
    # https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md: thinking is the template's matter, and a last
    # turn of the assistant is gone on with (`--prefill-assistant`, on by default).
    reasoning_request="none",
    prefill="plain",
)

_LLAMA_CPP_MESSAGES = Speaks(
    path="/v1/messages",
    dialect=Dialect(usage=MESSAGES_USAGE, output_limit_field="max_tokens", pdf=False),
    headers=(("anthropic-version", VERSION),),
    count_tokens_path="/v1/messages/count_tokens",
)

_VLLM = Dialect(
    developer_role=False,
    pdf=False,
    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html: extra parameters of chat completions
    prefill="continue_final_message",
)

OLLAMA = Provider(
    name="ollama",
    title="Ollama",
    base_url="http://127.0.0.1:11434/v1",
    speaks={
        "openai_chat": Speaks(
            path="/chat/completions",
            dialect=Dialect(
                # https://github.com/ollama/ollama/blob/main/docs/openai.md lists the fields it knows.
                output_limit_field="max_tokens",
                developer_role=False,
                logprobs=False,
                logit_bias=False,
                n_choices=False,
                pdf=False,
                reasoning_reply="reasoning",
            ),
        )
    },
    abort_stops_billing=True,
    docs_url="https://github.com/ollama/ollama/blob/main/docs/openai.md",
    data=_OWN_MACHINE,
    kind="local",
)

VLLM = Provider(
    name="vllm",
    title="vLLM or a compatible server",
    base_url="http://127.0.0.1:8000/v1",
    speaks={"openai_chat": Speaks(path="/chat/completions", dialect=_VLLM)},
    abort_stops_billing=True,
    docs_url="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
    data=_OWN_MACHINE,
    kind="local",
)

LLAMACPP = Provider(
    name="llamacpp",
    title="llama.cpp",
    base_url="http://127.0.0.1:8080",
    speaks={
        "openai_chat": Speaks(path="/v1/chat/completions", dialect=_LLAMA_CPP_CHAT),
        "anthropic_messages": _LLAMA_CPP_MESSAGES,
    },
    abort_stops_billing=True,
    docs_url="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    data=_OWN_MACHINE,
    kind="local",
)

LOCAL = Provider(
    name="local",
    title="Local model",
    base_url="http://127.0.0.1:0",  # replaced by the child's own address
    speaks={
        "openai_chat": Speaks(path="/v1/chat/completions", dialect=_LLAMA_CPP_CHAT),
        "anthropic_messages": _LLAMA_CPP_MESSAGES,
    },
    abort_stops_billing=True,
    docs_url="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    data=_OWN_MACHINE,
    kind="local",
    makes=("local",),
)

ROWS = (OLLAMA, VLLM, LLAMACPP, LOCAL)
