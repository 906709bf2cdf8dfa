"""The configuration's sections about providers: who they are, and how they are tried. Read by `farebox.config`."""

from typing import Literal

import msgspec

KEY_WEIGHT_MAX = 1_000


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class ModelTimeouts(_Section, frozen=True):
    """Time-outs of some models, in place of the configured ones and of their provider's."""

    models: tuple[str, ...]
    """Slugs; `*` stands for anything: `openai/o*`."""
    headers_s: float | None = None
    """In place of `attempts.headers_s` and the provider's."""
    first_token_s: float | None = None
    """In place of `attempts.first_token_s` and the provider's."""
    chunk_s: float | None = None
    """In place of `attempts.chunk_s` and the provider's."""
    total_s: float | None = None
    """In place of `attempts.total_s`, for calls whose first choice is such a model."""


class Attempts(_Section, frozen=True):
    """Time-outs and retries towards providers."""

    attempts_max: int = 6
    """Tries per call over all offers, 1 to 6. So many offers of the plan are held for."""
    per_offer_max: int = 3
    """Tries per call at one offer."""
    retries_percent: int = 20
    """Further tries of all calls, beside `retries_per_s`, as a share of the calls of the last ten seconds: when everything fails,
    trying again makes it worse."""
    retries_per_s: int = 10
    """So many are always allowed to each worker."""
    backoff_ms: int = 250
    """The first pause before the same provider is asked again; it doubles, and chance shortens it."""
    backoff_max_ms: int = 8_000
    """The longest such pause."""
    connect_s: float = 3.0
    """To look up the name and connect; TLS has five seconds of its own."""
    headers_s: float = 600.0
    """From the request to the head of the answer; long, since unstreamed answers come late."""
    first_token_s: float = 300.0
    """From the request to the first content of a stream, whatever else the provider says meanwhile."""
    chunk_s: float = 120.0
    """Between two parts of an answer."""
    total_s: float = 900.0
    """One call, from its start to its last byte, over all its attempts."""
    models: tuple[ModelTimeouts, ...] = ()
    """Models that need other time-outs, such as those that think for minutes; of several that match, the first that says
    something counts: `[[attempts.models]]`, `models = ["openai/o*"]`, `first_token_s = 900.0`."""
    stream_recovery: bool = True
    """A stream that breaks off is continued by the next provider that can, where that is sound. A call may say
    `x-farebox-stream-recovery: off`, or `"stream_recovery": "off"` in its body."""


class KeySection(_Section, frozen=True):
    """One of a provider's several keys."""

    key: str
    """Literal, or `"${NAME}"` from the environment."""
    weight: int = 1
    """Its share of the calls, 1 to 1000, against the others: one with a higher limit takes more."""

    def __repr__(self) -> str:
        return f"KeySection(…, {self.weight})"


class ProviderSection(_Section, frozen=True):
    """A provider of one's own, or changes to a known one. Providers whose key is in the environment need no section."""

    wire: Literal["openai_chat", "anthropic_messages"] | None = None
    """The API that it speaks; needed for a provider of one's own."""
    base_url: str | None = None
    """Its address, such as `http://127.0.0.1:9400/v1`; needed for a provider of one's own."""
    api_key: str | None = None
    """Literal, or `"${NAME}"` from the environment."""
    api_keys: tuple[str | KeySection, ...] = ()
    """Several keys in place of `api_key`: the one with the least to do is used, one that is refused is left alone for a while.
    `["…", { key = "…", weight = 3 }]` gives the second one three times the calls."""
    enabled: bool = True
    """`false` switches a provider off whose key is in the environment."""
    own_keys_only: bool = False
    """`true`: customers call it by keys of their own (BYOK), and nobody else does; it needs no key here."""
    title: str | None = None
    """Its name in messages to callers."""
    abort_stops_billing: bool | None = None
    """Whether hanging up stops its billing. Unset: as known, or no."""
    headers: dict[str, str] = {}
    """Sent with every call, in place of the provider's own of the same name."""
    output_limit_field: Literal["as_sent", "max_tokens", "max_completion_tokens"] | None = None
    """The only spelling of the output cap that it accepts."""
    reasoning_tokens: Literal["inside", "outside", "hidden"] | None = None
    """Whether thinking is counted inside the output tokens that it reports, beside them, or only in the total."""
    cached_tokens_inside_input: bool | None = None
    """Whether its input count contains the cached tokens (as OpenAI's does) or not (as Anthropic's)."""
    developer_role: bool | None = None
    """`false`: `developer` messages are sent as `system`."""
    prefill: Literal["none", "plain", "prefix", "partial", "continue_final_message"] | None = None
    """How it is told, on chat completions, to go on with a last turn of the assistant: not at all, by that turn alone, by
    `"prefix": true` or `"partial": true` on it, or by vLLM's `continue_final_message`. Streams that break off are continued
    only where it can be told."""
    uncounted_tools: tuple[str, ...] = ()
    """Tools that it runs on its side and is asked for all the same, though nothing counts them and so nothing is charged for them
    beside their tokens, whatever it bills: `["browser_search", "enable_search"]`, by kind of tool, plugin, field or model; `*`
    stands for anything."""
    ca_file: str | None = None
    """PEM file of the authorities that its certificate is checked against."""
    client_cert_file: str | None = None
    """PEM file of the certificate shown to it."""
    client_key_file: str | None = None
    """PEM file of that certificate's key, if it is not in the same file."""
    trains_on_prompts: bool | None = None
    """Whether it trains on what it is sent. Unset: as known, or not known, which `data_collection = "deny"` does not accept."""
    retention_days: int | None = None
    """How long it keeps prompts; 0: not at all, which is what `zdr` asks for. Unset: as known, or not known."""
    probe: str | None = None
    """A path below `base_url` that costs nothing, such as `/models`: asked every `health.probe_s` seconds by each worker. When it
    fails, the provider's models are out before a call has failed; when it is well again, the next call tries them at once."""
    connect_s: float | None = None
    """In place of `attempts.connect_s`."""
    headers_s: float | None = None
    """In place of `attempts.headers_s`, and so on: for a provider that is slower, or should be faster, than most."""
    first_token_s: float | None = None
    """In place of `attempts.first_token_s`."""
    chunk_s: float | None = None
    """In place of `attempts.chunk_s`."""
    regions: tuple[str, ...] | None = None
    """Where it computes, in words of your own such as `"eu"`; policies filter by them."""

    def __repr__(self) -> str:
        return f"ProviderSection({self.base_url}, {len(self.keys)} keys)"

    @property
    def keys(self) -> tuple[KeySection, ...]:
        """All of them, in the order of the file."""
        if self.api_key:
            return (KeySection(key=self.api_key),)
        return tuple(KeySection(key=one) if isinstance(one, str) else one for one in self.api_keys)
