"""What a provider row says: address, credential, the wires spoken on which paths, quirks, abort and data policy."""

from typing import Literal

import msgspec

from farebox.wires.dialect import Dialect


class Credential(msgspec.Struct, frozen=True):
    """Where the provider's key comes from and which header carries it."""

    env: tuple[str, ...] = ()
    """Environment variables that switch the provider on, first found wins; empty: no key needed."""
    header: str = "authorization"
    scheme: str = "Bearer "
    """Put before the key; empty for plain-key headers such as `x-api-key`."""


class Speaks(msgspec.Struct, frozen=True):
    """One wire of a provider: the path below its base URL and how it deviates."""

    path: str
    dialect: Dialect = Dialect()
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with every call, e.g. `anthropic-version`."""
    forward_headers: tuple[str, ...] = ()
    """Client headers passed on when present, lower case (`anthropic-beta`)."""
    count_tokens_path: str | None = None
    prefill_path: str | None = None
    """Where a request goes whose last turn is to be continued; None: to `path`, like any other."""


class DataPolicy(msgspec.Struct, frozen=True):
    """What the provider says it does with prompts; None = not stated in our sources."""

    trains: bool | None = None
    retention_days: int | None = None
    regions: tuple[str, ...] = ()


class Certificates(msgspec.Struct, frozen=True):
    """TLS files for a provider of one's own; None = the system's authorities, no client certificate."""

    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None


class Provider(msgspec.Struct, frozen=True):
    """A vendor. Most are one row in `farebox.providers.compatible`."""

    name: str
    title: str
    base_url: str
    speaks: dict[str, Speaks]
    """By wire name: `openai_chat`, `anthropic_messages`."""
    credential: Credential = Credential()
    abort_stops_billing: bool = False
    """Whether hanging up stops the provider's meter; if not, a vanished client's stream is drained (billing.md §4)."""
    charges_by_reported_cost: bool = False
    """True: the provider's own reported cost is the charge (OpenRouter's catalog price is only an estimate)."""
    data: DataPolicy = DataPolicy()
    certificates: Certificates = Certificates()
    probe: str | None = None
    """Path below the base URL that is asked, free of charge, whether the provider is well; None: it is not asked."""
    docs_url: str = ""
    kind: Literal["cloud", "local", "custom"] = "cloud"
    makes: tuple[str, ...] = ()
    """Vendor parts of slugs (`openai/…`) that are this provider's own models: when two providers use one id for different
    models, the maker's meaning wins."""

    @property
    def takes_key(self) -> bool:
        """Whether customers can have a key of their own there: not on the operator's own machines."""
        return self.kind != "local"
