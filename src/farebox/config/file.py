"""Configuration: frozen, validated structs from `farebox.toml` and the environment.

Unknown names are refused, so a typo is an error and not a silent default. Every error names the file, the path inside it,
the value and what to write instead.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

import msgspec

from farebox.config.control import Alerts, ChannelSection, SignupSection, SmtpSection, check_alerts, check_signup
from farebox.config.display import DisplaySection, check_display
from farebox.config.limits import ClassLimits, RateLimits, RateTierSection, check_tiers
from farebox.config.models import ModelSection, OfferSection, TierSection
from farebox.config.overlay import laid_over
from farebox.config.payments import StripeSection, check_stripe
from farebox.config.providers import KEY_WEIGHT_MAX, Attempts, KeySection, ModelTimeouts, ProviderSection
from farebox.config.routing import (
    EscalationSection,
    ExamplesSection,
    HealthSection,
    HedgeSection,
    Hedging,
    PercentilesSection,
    PolicySection,
    PriceCapSection,
    Routing,
    check_hedging,
)
from farebox.money import BASIS_POINTS, MoneyError, parse_percent

CONFIG_BYTES_MAX = 4 * 2**20
_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class ConfigError(Exception):
    """The configuration cannot be used; the message says where and how to mend it."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Server(_Section, frozen=True):
    """The listening side."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface. TLS is the business of a proxy in front."""
    port: int = 8080
    """0 takes any free one, which the banner names."""
    workers: int = 1
    """Gateway processes, 1 to 64. Each has a journal of its own; budgets and rate limits hold over all of them."""
    body_bytes_max: int = 10 * 2**20
    """Larger request bodies are a 413, compressed ones by their size when unpacked."""
    keepalive_comment_s: float = 15.0
    """Silence before the first token after which a stream gets an SSE comment."""
    drain_s: float = 60.0
    """How long streams may go on after SIGTERM."""
    connections_max: int = 4096
    """Client connections, per worker."""
    header_s: float = 10.0
    """How long a client may take to send a request's head."""
    metrics_public: bool = True
    """Whether `/metrics` answers without a key."""
    access_log: bool = False
    """A JSON line per call on standard error: no prompt, no key."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) of proxies whose `X-Forwarded-For` is believed, for keys that may be used only from some addresses."""


class Database(_Section, frozen=True):
    """Where accounts, keys, usage and the ledger are."""

    url: str = "sqlite:///farebox.db"
    """SQLite paths are relative to the configuration file; or `postgresql://user@host/name`."""


class Journal(_Section, frozen=True):
    """The files into which workers write before they send or answer."""

    dir: str = "journal"
    """Relative to the configuration file. On a local disk: its slots are locked."""
    sync: Literal["always", "interval", "os"] = "interval"
    """When a record reaches the disk: before the call goes on, every 50 ms, or when the kernel likes. All three survive the death
    of a process; the choice is what a power loss may cost."""


class Billing(_Section, frozen=True):
    """What customers pay on top, and for calls that ended badly."""

    markup_percent: str = "0"
    """Added to the list price, at most two decimals: `"5.5"`."""
    markup: str | None = None
    """In place of `markup_percent`, the `[markup.NAME]` plan of accounts that have none of their own."""
    bill_partial: bool = False
    """Charge for what was delivered before a provider broke off."""
    drain_s: float = 60.0
    """How long a vanished client's stream is read on where hanging up does not stop the provider's billing."""
    drains_max: int = 64
    """Such streams at a time; beyond it they are cut and estimated."""


class Invoices(_Section, frozen=True):
    """How months are closed, and who issues the invoices. A document is frozen with what stands here when it is made."""

    close: bool = True
    """Whether the bookkeeper closes months by itself; `farebox invoices close` does it in any case."""
    seller: str = ""
    """The issuer's name."""
    address: tuple[str, ...] = ()
    """The lines of its address."""
    tax_id: str = ""
    """Its tax number, as it should stand on invoices."""
    tax_percent: str = "0"
    """On postpaid accounts' invoices: `"19"`."""
    tax_label: str = "VAT"
    """The tax's name."""
    prefix: str = "INV-"
    """What invoice numbers begin with; the numbers themselves have no gaps."""
    credit_note_prefix: str = "CN-"
    """The same for credit notes."""
    grace_hours: int = 24
    """How long after a month's end its usage may still come in."""
    due_days: int = 14
    """How long a postpaid account has to pay."""
    reminder_days: tuple[int, ...] = (3, 10)
    """Days after the due day on which a reminder is put into the outbox, ascending; the due day itself has one, too."""
    pause_after_days: int = 21
    """Days after the due day on which the account is suspended until it pays; 0: never."""


class VolumeSection(_Section, frozen=True):
    """A step of a plan: another percentage once the account was charged more than an amount in the UTC month."""

    above: str
    """USD, as posted: `"1000.00"`. Calls begun before the step keep their terms."""
    percent: str
    """In place of the plan's percentage from there on."""


class MarkupRuleSection(_Section, frozen=True):
    """Other terms for some models or providers; the first rule that matches counts, and nothing of the plan's own terms."""

    model: str = "*"
    """Slug, `*` standing for anything: `"openai/*"`."""
    provider: str = "*"
    """Name, likewise."""
    percent: str = "0"
    """On the list price."""
    per_call: str = "0"
    """USD for each charged call."""
    fee_min: str | None = None
    """USD: the fee of a charged call is at least this."""
    fee_max: str | None = None
    """USD: at most this."""
    volume: tuple[VolumeSection, ...] = ()
    """Steps by the month's volume."""


class OwnKeySection(_Section, frozen=True):
    """BYOK: what calls by a customer's own provider key cost here; the provider bills the customer itself."""

    free_calls: int = 1_000_000
    """An account's calls in a UTC month that cost nothing, as posted."""
    percent: str = "5"
    """Of the list price, from then on; not negative."""
    per_call: str = "0"
    """USD for each charged call, on top."""
    fee_min: str | None = None
    """USD: the fee of a charged call is at least this."""
    fee_max: str | None = None
    """USD: at most this."""


class MarkupSection(_Section, frozen=True):
    """What a group of customers pays on top of list prices. `farebox accounts markup ACCOUNT NAME` gives an account a plan."""

    percent: str = "0"
    """On the list price, at most two decimals; negative is a discount: `"5.5"`, `"-10"`."""
    per_call: str = "0"
    """USD for each charged call, on top of the percentage: `"0.0005"`."""
    fee_min: str | None = None
    """USD: the fee of a charged call (percentage and fixed part) is at least this."""
    fee_max: str | None = None
    """USD: the fee is at most this."""
    volume: tuple[VolumeSection, ...] = ()
    """Other percentages by what the account was charged in the UTC month: `[{ above = "1000", percent = "4" }]`."""
    rules: tuple[MarkupRuleSection, ...] = ()
    """Other terms by model or provider."""
    byok: OwnKeySection = OwnKeySection()
    """For calls by keys of the customers' own."""


class LocalModel(_Section, frozen=True):
    """The model that runs beside the gateway, without a key: SmolLM2-135M-Instruct in llama.cpp."""

    enabled: bool | None = None
    """Unset: on when its packages are installed."""
    port: int = 0
    """Loopback port; 0: any free one."""
    threads: int = 2
    """Of the processor."""
    context_window: int = 8192
    """Tokens, for each call in parallel."""
    parallel: int = 4
    """Calls answered at a time; further ones wait."""


class Config(_Section, frozen=True):
    """`farebox.toml`. Text may name environment variables as `"${NAME}"`; a missing one is an error."""

    server: Server = Server()
    database: Database = Database()
    journal: Journal = Journal()
    billing: Billing = Billing()
    invoices: Invoices = Invoices()
    signup: SignupSection = SignupSection()
    display: DisplaySection = DisplaySection()
    limits: RateLimits = RateLimits()
    tiers: dict[str, RateTierSection] = {}
    attempts: Attempts = Attempts()
    local_model: LocalModel = LocalModel()
    alerts: Alerts = Alerts()
    stripe: StripeSection | None = None
    providers: dict[str, ProviderSection] = {}
    markup: dict[str, MarkupSection] = {}
    models: tuple[ModelSection, ...] = ()
    routing: Routing = Routing()
    health: HealthSection = HealthSection()
    hedging: Hedging = Hedging()
    policies: dict[str, PolicySection] = {}
    aliases: dict[str, str] = {}
    """Other names for models: `"fast" = "openai/gpt-4o-mini"`."""


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
    def receipt_keys_file(self) -> Path:
        return self.folder / "receipt-keys.json"

    @property
    def byok_master_file(self) -> Path:
        return self.folder / "byok-master.json"

    @property
    def tax_bp(self) -> int:
        return _percent_bp(self.config.invoices.tax_percent)

    @property
    def markup_bp(self) -> int:
        return _percent_bp(self.config.billing.markup_percent)


def _percent_bp(text: str) -> int:
    """`5.5` percent → 550 basis points."""
    points = parse_percent(text)
    if points < 0:
        raise MoneyError(f"markup {text!r} is negative")
    return points


def load(path: Path, environment: Mapping[str, str] | None = None, *, over: Path | None = None) -> Loaded:
    """Read, fill in `${NAME}` from the environment, validate. Raises `ConfigError`. `over`: a file whose settings come before
    this one's."""
    environment = os.environ if environment is None else environment
    raw = _read(path)
    if over is not None:
        raw = laid_over(raw, _read(over))
    filled = _fill(raw, environment, str(path), "")
    for table, kind in (("providers", ProviderSection), ("policies", PolicySection)):
        sections = cast("dict[str, Any]", filled).get(table)
        for name, section in cast("dict[str, Any]", sections).items() if isinstance(sections, dict) else ():
            # One by one, since a path through a table of names would not say which.
            try:
                msgspec.convert(section, kind)
            except msgspec.ValidationError as error:
                raise ConfigError(_explain(path, error, within=f"{table}.{name}")) from None
    try:
        config = msgspec.convert(filled, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(path, error)) from None
    _check(config, path)
    return Loaded(config, path.resolve(), environment)


def _read(path: Path) -> dict[str, Any]:
    """A TOML file of bounded size."""
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
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


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
    found = _section_at(place)
    return () if found is None else found.__struct_fields__


def _section_at(place: str) -> type[msgspec.Struct] | None:
    """What describes the table at a path; None for one whose names are the operator's."""
    steps = [step for step in re.split(r"\.|\[\d+\]|\[\.\.\.\]", place) if step]
    if not steps:
        return Config
    section: dict[str, Any] = {
        "server": Server, "database": Database, "journal": Journal, "billing": Billing, "limits": RateLimits,
        "attempts": Attempts, "local_model": LocalModel, "providers": ProviderSection, "models": ModelSection,
        "markup": MarkupSection, "signup": SignupSection, "invoices": Invoices, "routing": Routing,
        "health": HealthSection, "policies": PolicySection, "alerts": Alerts, "display": DisplaySection,
        "stripe": StripeSection, "hedging": Hedging,
    }  # fmt: skip
    found: Any = section.get(steps[0])
    if steps[0] == "markup":
        found = VolumeSection if "volume" in steps else MarkupRuleSection if "rules" in steps else MarkupSection
    elif steps[0] == "alerts":
        found = ChannelSection if "channels" in steps else SmtpSection if "smtp" in steps else Alerts
    elif steps[0] == "tiers":
        found = ClassLimits if "classes" in steps else RateTierSection
    elif steps[0] == "attempts" and "models" in steps:
        found = ModelTimeouts
    elif "api_keys" in steps:
        found = KeySection
    elif "tiers" in steps:
        found = TierSection
    elif "offers" in steps:
        found = OfferSection
    elif steps[-1] == "examples":
        found = ExamplesSection
    elif steps[-1] == "escalation":
        found = EscalationSection
    elif steps[-1] == "hedge":
        found = HedgeSection
    elif steps[-1] == "max_price":
        found = PriceCapSection
    elif steps[-1].startswith("preferred_"):
        found = PercentilesSection
    return cast("type[msgspec.Struct] | None", found)


def _choices(place: str) -> list[str]:
    """The words that a setting can be, in quotes."""
    table, _, name = place.rpartition(".")
    section = _section_at(table)
    found: list[str] = []
    for field in () if section is None else msgspec.structs.fields(section):
        if field.name == name:
            for kind in (field.type, *get_args(field.type)):
                found += [f'"{word}"' for word in get_args(kind) if get_origin(kind) is Literal]
    return found


def _explain(path: Path, error: msgspec.ValidationError, *, within: str = "") -> str:
    """msgspec's message → file, path inside it, what is wrong, what to write."""
    text = str(error)
    place = ""
    if " - at `" in text:
        text, _, where = text.partition(" - at `")
        place = where.rstrip("`").removeprefix("$").lstrip(".")
    place = ".".join(filter(None, (within, place)))
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
    enum = re.fullmatch(r"Invalid enum value (.*)", text, re.DOTALL)
    if enum is not None and (choices := _choices(place)):
        return f"{path}: `{place}`: {enum[1]} is not known; write {', '.join(choices[:-1])} or {choices[-1]}"
    hint = ""
    if "Expected `str`, got `int`" in text or "Expected `str`, got `float`" in text:
        hint = "; put the value in quotes: prices and percentages are decimal strings, never floats"
    return f"{path}: `{place or 'the file'}`: {text[0].lower()}{text[1:]}{hint}"


MARKUP_BP_MAX = 100_000
_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "health": {
        "failures_in_a_row": (1, 1_000_000),
        "failed_percent": (1, 100),
        "window_s": (5, 3_600),
        "samples_min": (1, 1_000_000),
        "ejection_s": (1, 3_600),
        "ejection_max_s": (1, 86_400),
        "ejected_max_percent": (0, 100),
        "probe_s": (1, 3_600),
    },
    "server": {
        "keepalive_comment_s": (0.05, 3_600),
        "drain_s": (0, 3_600),
        "connections_max": (1, 1_000_000),
        "header_s": (0.1, 3_600),
    },
    "billing": {"drain_s": (0, 3_600), "drains_max": (0, 100_000)},
    "invoices": {"grace_hours": (0, 24 * 28), "due_days": (0, 365), "pause_after_days": (0, 3_650)},
    "attempts": {
        "backoff_ms": (0, 60_000),
        "backoff_max_ms": (0, 600_000),
        "connect_s": (0.01, 600),
        "headers_s": (0.01, 86_400),
        "first_token_s": (0.01, 86_400),
        "per_offer_max": (1, 6),
        "retries_percent": (0, 500),
        "retries_per_s": (0, 10_000),
        "chunk_s": (0.01, 86_400),
        "total_s": (0.01, 86_400),
    },
    "local_model": {"port": (0, 65_535), "threads": (1, 1_024), "context_window": (128, 8_192), "parallel": (1, 64)},
}
"""What a number may be, both ends included."""


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
    for index, text in enumerate(config.server.trusted_proxies):
        try:
            ip_network(text)
        except ValueError as error:
            refuse(f"server.trusted_proxies[{index}]", f"{error}; write a network such as `10.0.0.0/8`")
    if not 1 <= config.attempts.attempts_max <= 6:
        refuse("attempts.attempts_max", f"{config.attempts.attempts_max} is not from 1 to 6")
    check_tiers(config.limits, config.tiers, refuse)
    for section_name, ranges in _RANGES.items():
        section = getattr(config, section_name)
        for name, (lowest, highest) in ranges.items():
            value = getattr(section, name)
            if not lowest <= value <= highest:
                refuse(f"{section_name}.{name}", f"{value} is not from {lowest} to {highest}")
    try:
        if _percent_bp(config.billing.markup_percent) > MARKUP_BP_MAX:
            refuse("billing.markup_percent", f"{config.billing.markup_percent} is more than {MARKUP_BP_MAX // 100} percent")
    except MoneyError as error:
        refuse("billing.markup_percent", str(error))
    _check_markup(config, refuse)
    _check_invoices(config.invoices, refuse)
    check_alerts(config.alerts, refuse)
    check_signup(config.signup, refuse)
    check_display(config.display, refuse)
    check_hedging(config.hedging, refuse)
    check_stripe(config.stripe, refuse)
    for name, provider in config.providers.items():
        if provider.base_url is not None and not re.match(r"https?://[^\s/]+", provider.base_url):
            refuse(
                f"providers.{name}.base_url",
                f"{provider.base_url!r} is not an http or https URL such as `http://127.0.0.1:9400/v1`",
            )
        if provider.api_key is not None and provider.api_keys:
            refuse(f"providers.{name}", "has both `api_key` and `api_keys`; write one of them")
        for index, key in enumerate(provider.keys):
            if not 1 <= key.weight <= KEY_WEIGHT_MAX:
                refuse(f"providers.{name}.api_keys[{index}].weight", f"{key.weight} is not from 1 to {KEY_WEIGHT_MAX}")
            if not key.key:
                refuse(f"providers.{name}.api_keys[{index}]", "is empty; write the key, or `${NAME}` for one of the environment")
        if provider.retention_days is not None and provider.retention_days < 0:
            refuse(f"providers.{name}.retention_days", f"{provider.retention_days} is not a number of days")
        if provider.probe is not None and PROBE_PATH.fullmatch(provider.probe) is None:
            refuse(f"providers.{name}.probe", f"{provider.probe!r} is not a path such as `/models`")
        for index, tool in enumerate(provider.uncounted_tools):
            if not tool.strip():
                refuse(f"providers.{name}.uncounted_tools[{index}]", "is empty; name a tool or a field, such as `enable_search`")
        _check_patience(provider, f"providers.{name}", ("connect_s", "headers_s", "first_token_s", "chunk_s"), refuse)
    for index, some in enumerate(config.attempts.models):
        place = f"attempts.models[{index}]"
        if not some.models:
            refuse(f"{place}.models", "names no model; write slugs or patterns such as `openai/o*`")
        _check_patience(some, place, ("headers_s", "first_token_s", "chunk_s", "total_s"), refuse)
    for name, policy in config.policies.items():
        if policy.attempts_max is not None and not 1 <= policy.attempts_max <= 6:
            refuse(f"policies.{name}.attempts_max", f"{policy.attempts_max} is not from 1 to 6")
        _check_patience(policy, f"policies.{name}", ("headers_s", "first_token_s", "chunk_s", "total_s"), refuse)
    if config.routing.policy is not None and config.routing.policy not in config.policies:
        known = ", ".join(sorted(config.policies)) or "none"
        refuse("routing.policy", f"there is no policy {config.routing.policy!r}; known: {known}")
    for index, model in enumerate(config.models):
        if not model.offers:
            refuse(f"models[{index}].offers", f"model `{model.slug}` has no offer, so nobody could answer it; add one")
        if model.context_window < 1 or model.max_output_tokens < 1:
            refuse(f"models[{index}]", "`context_window` and `max_output_tokens` must be positive token counts")


def _check_patience(section: object, place: str, settings: tuple[str, ...], refuse: Callable[[str, str], None]) -> None:
    for setting in settings:
        value = getattr(section, setting)
        lowest, highest = _RANGES["attempts"][setting]
        if value is not None and not lowest <= value <= highest:
            refuse(f"{place}.{setting}", f"{value} is not from {lowest} to {highest}")


PROBE_PATH = re.compile(r"/[!-\"$-~]{0,255}")
PLAN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def _check_markup(config: Config, refuse: Callable[[str, str], None]) -> None:
    """Plans' names; their figures are read by `farebox.billing.markup`."""
    usual = config.billing.markup
    if usual is not None:
        if usual not in config.markup:
            refuse("billing.markup", f"there is no plan `{usual}`; {_known_plans(config)}")
        if config.billing.markup_percent != "0":
            refuse("billing.markup", "`markup_percent` is set, too; write one of them")
    for name in config.markup:
        if PLAN_NAME.fullmatch(name) is None:
            refuse(f"markup.{name}", "a plan's name has 1 to 64 letters, digits, dots, dashes and underscores")


def _known_plans(config: Config) -> str:
    return f"plans: {', '.join(sorted(config.markup))}" if config.markup else "add a `[markup.NAME]` table"


def _check_invoices(section: Invoices, refuse: Callable[[str, str], None]) -> None:
    try:
        if _percent_bp(section.tax_percent) > BASIS_POINTS:
            refuse("invoices.tax_percent", f"{section.tax_percent} is more than 100 percent")
    except MoneyError as error:
        refuse("invoices.tax_percent", str(error))
    if section.prefix == section.credit_note_prefix:
        refuse("invoices.credit_note_prefix", f"is `{section.prefix}` like `prefix`; then two documents would have one number")
    if list(section.reminder_days) != sorted(set(section.reminder_days)) or any(day < 1 for day in section.reminder_days):
        refuse("invoices.reminder_days", "must be days from 1 on, ascending, each once")
