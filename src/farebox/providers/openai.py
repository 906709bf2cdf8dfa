"""OpenAI. The wire's author, so every default of the dialect is its behaviour; see https://developers.openai.com/api/docs.

Its counts: cached and cache-written tokens stand inside `prompt_tokens`, thinking inside `completion_tokens`.
"""

from farebox.providers.base import Credential, Provider, Speaks
from farebox.wires.dialect import Dialect

PROVIDER = Provider(
    name="openai",
    title="OpenAI",
    base_url="https://api.openai.com/v1",
    # Organization and project headers of a client name the client's own account and are never forwarded with our key.
    # https://developers.openai.com/api/docs/guides/tools-web-search: such models search for every answer.
    speaks={"openai_chat": Speaks(path="/chat/completions", dialect=Dialect(agents=r".*-search-.*"))},
    credential=Credential(env=("OPENAI_API_KEY",)),
    # https://openrouter.ai/docs/api_reference/streaming lists which vendors stop at once when the connection closes.
    abort_stops_billing=True,
    docs_url="https://developers.openai.com/api/docs/pricing",
    makes=("openai",),
)
