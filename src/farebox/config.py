"""Configuration: frozen, validated structs from `farebox.toml` and the environment.

Unknown names are refused, so a typo is an error and not a silent default. Every error names the file, the path inside it,
the value and what to write instead.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from farebox.money import MoneyError, parse_rate

CONFIG_BYTES_MAX = 4 * 2**20
_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class ConfigError(Exception):
    """The configuration cannot be used; the message says where and how to mend it."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Server(_Section, frozen=True):
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    body_bytes_max: int = 10 * 2**20
    """Larger request bodies are a 413."""
    keepalive_comment_s: float = 15.0
    """Silence before the first token after which a stream gets an SSE comment."""
    drain_s: float = 60.0
    """How long streams may go on after SIGTERM."""
    connections_max: int = 4096
    """Per worker."""
    header_s: float = 10.0
    """How long a client may take to send a request's head."""
    metrics_public: bool = True
    """Whether `/metrics` answers without a key."""
    access_log: bool = False
    """A JSON line per call on standard error: no prompt, no key."""


class Database(_Section, frozen=True):
    url: str = "sqlite:///farebox.db"
    """SQLite paths are relative to the configuration file; or `postgresql://user@host/name`."""


class Journal(_Section, frozen=True):
    dir: str = "journal"
    """Relative to the configuration file."""
    sync: Literal["always", "interval", "os"] = "interval"


class Billing(_Section, frozen=True):
    markup_percent: str = "0"
    """Added to the list price, at most two decimals: `5.5`."""
    bill_partial: bool = False
    """Charge for what was delivered before a provider broke off (billing.md §4)."""
    drain_s: float = 60.0
    """How long a vanished client's stream is read on where hanging up does not stop the provider's billing."""
    drains_max: int = 64
    """Such streams at a time; beyond it they are cut and estimated."""


class RateLimits(_Section, frozen=True):
    requests_per_minute: int = 60_000
    concurrent_calls: int = 2_000


class Attempts(_Section, frozen=True):
    attempts_max: int = 3
    backoff_ms: int = 250
    backoff_max_ms: int = 8_000
    connect_s: float = 3.0
    headers_s: float = 600.0
    chunk_s: float = 120.0
    total_s: float = 900.0


class LocalModel(_Section, frozen=True):
    enabled: bool | None = None
    """None: on when its packages are installed."""
    port: int = 0
    """0: any free one."""
    threads: int = 2
    context_window: int = 8192
    parallel: int = 4


class ProviderSection(_Section, frozen=True):
    """A provider of one's own, or changes to a known one."""

    wire: Literal["openai_chat", "anthropic_messages"] | None = None
    base_url: str | None = None
    api_key: str | None = None
    api_keys: tuple[str, ...] = ()
    enabled: bool = True
    title: str | None = None
    abort_stops_billing: bool | None = None
    headers: dict[str, str] = {}
    output_limit_field: Literal["as_sent", "max_tokens", "max_completion_tokens"] | None = None
    reasoning_tokens: Literal["inside", "outside", "hidden"] | None = None
    """Whether thinking is counted inside the output tokens that this provider reports."""
    cached_tokens_inside_input: bool | None = None
    developer_role: bool | None = None
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None


class TierSection(_Section, frozen=True):
    above: int
    input: str | None = None
    cached_input: str | None = None
    cache_write: str | None = None
    cache_write_1h: str | None = None
    output: str | None = None
    reasoning: str | None = None
    audio_input: str | None = None
    audio_output: str | None = None


class OfferSection(_Section, frozen=True):
    """Prices are decimal strings: USD per million tokens, `request` and `web_search` USD each."""

    provider: str
    id: str
    input: str
    output: str
    cached_input: str | None = None
    cache_write: str | None = None
    cache_write_1h: str | None = None
    reasoning: str | None = None
    audio_input: str | None = None
    audio_output: str | None = None
    image_input: str | None = None
    image_output: str | None = None
    request: str | None = None
    web_search: str | None = None
    tiers: tuple[TierSection, ...] = ()
    effective_from: str = "1970-01-01"
    context_window: int | None = None
    max_output_tokens: int | None = None


class ModelSection(_Section, frozen=True):
    slug: str
    context_window: int
    max_output_tokens: int
    offers: tuple[OfferSection, ...]
    name: str | None = None
    capabilities: tuple[str, ...] | None = None
    """None: assume that it can do whatever it is asked."""


class Config(_Section, frozen=True):
    server: Server = Server()
    database: Database = Database()
    journal: Journal = Journal()
    billing: Billing = Billing()
    limits: RateLimits = RateLimits()
    attempts: Attempts = Attempts()
    local_model: LocalModel = LocalModel()
    providers: dict[str, ProviderSection] = {}
    models: tuple[ModelSection, ...] = ()
    aliases: dict[str, str] = {}


class Loaded(msgspec.Struct, frozen=True):
    """A configuration and where it came from."""

    config: Config
    path: Path
    environment: Mapping[str, str]

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def journal_dir(self) -> Path:
        return self.folder / self.config.journal.dir

    @property
    def database_url(self) -> str:
        """The URL with an SQLite path made absolute."""
        url = self.config.database.url
        prefix = "sqlite:///"
        if url.startswith(prefix) and not url.startswith(prefix + "/"):
            return f"{prefix}{(self.folder / url.removeprefix(prefix)).resolve()}"
        return url

    @property
    def pepper_file(self) -> Path:
        return self.folder / "pepper"

    @property
    def markup_bp(self) -> int:
        return _percent_bp(self.config.billing.markup_percent)


def _percent_bp(text: str) -> int:
    """`5.5` percent → 550 basis points."""
    value = parse_rate(text)
    points, rest = divmod(value, 10_000)
    if rest:
        raise MoneyError(f"markup {text!r} has more than two decimals")
    return points


def load(path: Path, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read, fill in `${NAME}` from the environment, validate. Raises `ConfigError`."""
    environment = os.environ if environment is None else environment
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `farebox init --data {path.parent or '.'}` makes one") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {CONFIG_BYTES_MAX} bytes")
    try:
        raw = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    filled = _fill(raw, environment, str(path), "")
    try:
        config = msgspec.convert(filled, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(path, error)) from None
    _check(config, path)
    return Loaded(config, path.resolve(), environment)


def _fill(value: Any, environment: Mapping[str, str], path: str, place: str) -> Any:
    """Replace `${NAME}` in strings; a missing variable is an error that names it."""
    if isinstance(value, str):

        def lookup(match: re.Match[str]) -> str:
            found = environment.get(match[1])
            if found is None:
                raise ConfigError(
                    f"{path}: `{place}`: the environment has no `{match[1]}`; set it, or write the value in place of `{match[0]}`"
                )
            return found

        return _ENV.sub(lookup, value)
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        return {k: _fill(v, environment, path, f"{place}.{k}" if place else k) for k, v in table.items()}
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [_fill(v, environment, path, f"{place}[{i}]") for i, v in enumerate(items)]
    return value


def _known_names(place: str) -> tuple[str, ...]:
    """The names allowed at a path such as `providers.lab` or `models[0].offers[1]`."""
    steps = [step for step in re.split(r"\.|\[\d+\]|\[\.\.\.\]", place) if step]
    if not steps:
        return Config.__struct_fields__
    section: dict[str, Any] = {
        "server": Server, "database": Database, "journal": Journal, "billing": Billing, "limits": RateLimits,
        "attempts": Attempts, "local_model": LocalModel, "providers": ProviderSection, "models": ModelSection,
    }  # fmt: skip
    found: Any = section.get(steps[0])
    if "tiers" in steps:
        found = TierSection
    elif "offers" in steps:
        found = OfferSection
    return () if found is None else cast("tuple[str, ...]", found.__struct_fields__)


def _explain(path: Path, error: msgspec.ValidationError) -> str:
    """msgspec's message → file, path inside it, what is wrong, what to write."""
    text = str(error)
    place = ""
    if " - at `" in text:
        text, _, where = text.partition(" - at `")
        place = where.rstrip("`").removeprefix("$").lstrip(".")
    unknown = re.search(r"unknown field `([^`]+)`", text)
    if unknown is not None:
        near = difflib.get_close_matches(unknown[1], _known_names(place), n=1)
        fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(_known_names(place)) or 'nothing'}"
        name = f"{place}.{unknown[1]}" if place else unknown[1]
        return f"{path}: `{name}` is not a setting; {fix}"
    missing = re.search(r"missing required field `([^`]+)`", text)
    if missing is not None:
        name = f"{place}.{missing[1]}" if place else missing[1]
        return f"{path}: `{name}` is missing; add it"
    hint = ""
    if "Expected `str`, got `int`" in text or "Expected `str`, got `float`" in text:
        hint = "; put the value in quotes: prices and percentages are decimal strings, never floats"
    return f"{path}: `{place or 'the file'}`: {text[0].lower()}{text[1:]}{hint}"


def _check(config: Config, path: Path) -> None:
    """What types alone cannot say."""

    def refuse(place: str, problem: str) -> None:
        raise ConfigError(f"{path}: `{place}`: {problem}")

    if not 0 <= config.server.port <= 65535:
        refuse("server.port", f"{config.server.port} is not a port; write 1 to 65535, or 0 for any free one")
    if not 1 <= config.server.workers <= 64:
        refuse("server.workers", f"{config.server.workers} is not from 1 to 64")
    if config.server.body_bytes_max < 1024:
        refuse("server.body_bytes_max", "must be at least 1024 bytes")
    if not 1 <= config.attempts.attempts_max <= 6:
        refuse("attempts.attempts_max", f"{config.attempts.attempts_max} is not from 1 to 6")
    limits = config.limits
    for name, value in (("requests_per_minute", limits.requests_per_minute), ("concurrent_calls", limits.concurrent_calls)):
        if value < 1:
            refuse(f"limits.{name}", f"{value} must be at least 1")
    try:
        _percent_bp(config.billing.markup_percent)
    except MoneyError as error:
        refuse("billing.markup_percent", str(error))
    for name, provider in config.providers.items():
        if provider.base_url is not None and not re.match(r"https?://[^\s/]+", provider.base_url):
            refuse(
                f"providers.{name}.base_url",
                f"{provider.base_url!r} is not an http or https URL such as `http://127.0.0.1:9400/v1`",
            )
        if provider.api_key is not None and provider.api_keys:
            refuse(f"providers.{name}", "has both `api_key` and `api_keys`; write one of them")
    for index, model in enumerate(config.models):
        if not model.offers:
            refuse(f"models[{index}].offers", f"model `{model.slug}` has no offer, so nobody could answer it; add one")
        if model.context_window < 1 or model.max_output_tokens < 1:
            refuse(f"models[{index}]", "`context_window` and `max_output_tokens` must be positive token counts")
