"""Google AI Studio, through its OpenAI-compatible endpoint; see https://ai.google.dev/gemini-api/docs/openai.

That endpoint never names thinking tokens: they are in `total_tokens` only, so thinking is what neither the prompt nor the
answer explains. Cached tokens are often missing too, and then bill as plain input. Audio in a prompt is not told apart
from text, though it costs more, which is why the catalog lists no audio for this provider's offers.
"""

from farebox.providers.base import Credential, Provider, Speaks
from farebox.wires.dialect import Dialect, UsageRules

PROVIDER = Provider(
    name="google",
    title="Google AI Studio",
    base_url="https://generativelanguage.googleapis.com/v1beta/openai",
    speaks={
        "openai_chat": Speaks(
            path="/chat/completions",
            dialect=Dialect(
                usage=UsageRules(reasoning="hidden"),
                output_limit_field="max_tokens",  # the spelling in https://ai.google.dev/gemini-api/docs/openai
                developer_role=False,  # only OpenAI itself and gateways in front of it know the role
                pdf=False,  # `file` parts exist only in the native format
                logit_bias=False,  # no such field: https://ai.google.dev/api/generate-content#generationconfig
                stop_max=5,  # https://ai.google.dev/api/generate-content#generationconfig
                reasoning_reply="none",
                calls_streamed_loosely=True,  # https://github.com/googleapis/python-genai/issues/2868
                signed_calls=r"gemini-(?![12]\.).*",  # https://ai.google.dev/gemini-api/docs/thought-signatures
            ),
        )
    },
    credential=Credential(env=("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    # Listed among those that bill on after the connection closes: https://openrouter.ai/docs/api_reference/streaming
    abort_stops_billing=False,
    docs_url="https://ai.google.dev/gemini-api/docs/pricing",
    makes=("google",),
)
