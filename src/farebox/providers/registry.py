"""All providers by name, and rows made from the configuration.

Adding a vendor: write its row in `farebox.providers.compatible`, or, when it needs a paragraph, its own file named here.
"""

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from farebox.providers import anthropic, compatible, deepseek, google, local, minimax, mistral, moonshot, openai, openrouter, xai
from farebox.providers.base import Credential, DataPolicy, Provider, Speaks
from farebox.wires.dialect import Dialect

_OWN_FILE = (
    openai.PROVIDER, anthropic.PROVIDER, google.PROVIDER, mistral.PROVIDER, deepseek.PROVIDER, xai.PROVIDER,
    moonshot.PROVIDER, minimax.PROVIDER, openrouter.PROVIDER,
)  # fmt: skip

PROVIDERS: Mapping[str, Provider] = {row.name: row for row in (*_OWN_FILE, *compatible.ROWS, *local.ROWS)}


class Settings(Protocol):
    """What a `[providers.NAME]` section may say of a row (`farebox.config.ProviderSection`); None leaves it as it is."""

    @property
    def wire(self) -> Literal["openai_chat", "anthropic_messages"] | None: ...
    @property
    def base_url(self) -> str | None: ...
    @property
    def title(self) -> str | None: ...
    @property
    def abort_stops_billing(self) -> bool | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def output_limit_field(self) -> Literal["as_sent", "max_tokens", "max_completion_tokens"] | None: ...
    @property
    def reasoning_tokens(self) -> Literal["inside", "outside", "hidden"] | None: ...
    @property
    def cached_tokens_inside_input(self) -> bool | None: ...
    @property
    def developer_role(self) -> bool | None: ...
    @property
    def prefill(self) -> Literal["none", "plain", "prefix", "partial", "continue_final_message"] | None: ...
    @property
    def uncounted_tools(self) -> tuple[str, ...]: ...
    @property
    def trains_on_prompts(self) -> bool | None: ...
    @property
    def retention_days(self) -> int | None: ...
    @property
    def regions(self) -> tuple[str, ...] | None: ...


def custom(name: str, settings: Settings, *, base: Provider | None = None) -> Provider:
    """A provider row from a configuration section: a changed copy of `base`, or a new one when `base` is None.

    A new provider needs `wire` and `base_url`; the configuration says so before it gets here, so their absence is a
    `ValueError`. With a known provider, `wire` chooses the one that the operator's own models are called on.
    """
    wire, base_url = settings.wire, settings.base_url
    if base is None:
        if wire is None or base_url is None:
            raise ValueError(f"provider `{name}` is not a known one, so it needs `wire` and `base_url`")
        messages = wire == "anthropic_messages"
        base = Provider(
            name=name,
            title=name,
            base_url=base_url,
            speaks={wire: _plain(wire, base_url)},
            credential=Credential(header="x-api-key", scheme="") if messages else Credential(),
            kind="custom",
        )
    speaks = dict(base.speaks)
    if base_url is not None and base_url.rstrip("/").endswith("/v1"):
        # Rows whose own base has no `/v1` carry it in the path; an address that already ends in it must not get it twice.
        speaks = {key: _below_v1(spoken) for key, spoken in speaks.items()}
    if wire is not None:
        speaks = {wire: speaks.get(wire) or _plain(wire, base_url or base.base_url), **speaks}
    return msgspec.structs.replace(
        base,
        name=name,
        title=settings.title or base.title,
        base_url=base_url or base.base_url,
        speaks={key: _changed(spoken, settings) for key, spoken in speaks.items()},
        data=DataPolicy(
            trains=base.data.trains if settings.trains_on_prompts is None else settings.trains_on_prompts,
            retention_days=base.data.retention_days if settings.retention_days is None else settings.retention_days,
            regions=base.data.regions if settings.regions is None else settings.regions,
        ),
        abort_stops_billing=base.abort_stops_billing if settings.abort_stops_billing is None else settings.abort_stops_billing,
    )


def _plain(wire: str, base_url: str) -> Speaks:
    """The wire as its author defines it, below a base URL with or without `/v1`: both habits are common."""
    if wire == "anthropic_messages":
        version = "" if base_url.rstrip("/").endswith("/v1") else "/v1"
        known = anthropic.PROVIDER.speaks[wire]
        return msgspec.structs.replace(
            known, path=f"{version}/messages", count_tokens_path=f"{version}/messages/count_tokens"
        )
    return Speaks(path="/chat/completions")


def _below_v1(spoken: Speaks) -> Speaks:
    count = spoken.count_tokens_path
    return msgspec.structs.replace(
        spoken,
        path=spoken.path.removeprefix("/v1") if spoken.path.startswith("/v1/") else spoken.path,
        count_tokens_path=count.removeprefix("/v1") if count is not None and count.startswith("/v1/") else count,
    )


def _changed(spoken: Speaks, settings: Settings) -> Speaks:
    dialect = spoken.dialect
    usage = dialect.usage
    usage = msgspec.structs.replace(
        usage,
        reasoning=settings.reasoning_tokens or usage.reasoning,
        cache_inside_input=(
            usage.cache_inside_input if settings.cached_tokens_inside_input is None else settings.cached_tokens_inside_input
        ),
    )
    changed: Dialect = msgspec.structs.replace(
        dialect,
        usage=usage,
        output_limit_field=settings.output_limit_field or dialect.output_limit_field,
        developer_role=dialect.developer_role if settings.developer_role is None else settings.developer_role,
        prefill=settings.prefill or dialect.prefill,
        hosted_tools=(*dialect.hosted_tools, *settings.uncounted_tools),
    )
    overridden = {key.lower() for key in settings.headers}
    kept = tuple((key, value) for key, value in spoken.headers if key.lower() not in overridden)
    return msgspec.structs.replace(spoken, dialect=changed, headers=(*kept, *settings.headers.items()))
