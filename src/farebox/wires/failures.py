"""Why a provider failed: one reading for every error body that a provider or something in front of it may send.

The shapes and the verdicts are the table of providers.md §1.4. The two wires share this module, because the body of a failure
seldom respects the wire: a proxy answers in HTML, Google in an array, Bedrock with a bare `message`. Reading never raises.

The order of judgement: what the provider's own code says, then what its words say, then the status.
"""

import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, cast

import msgspec

from farebox.wires.neutral import MESSAGE_BYTES_MAX, FailureKind, UpstreamError

Headers = Mapping[str, str] | Callable[[str], str | None]
"""Response headers by lower-case name, or a function that looks one up."""

RETRY_AFTER_S_MAX = 86_400.0
PARAM_CHARS_MAX = 256
"""A wait above a day is not an instruction but a mistake; it is not passed on."""

_BY_CODE: dict[str, FailureKind] = {
    "context_length_exceeded": "context_length", "exceed_context_size_error": "context_length",
    "too_many_prompt_tokens": "context_length", "model_max_prompt_tokens_exceeded": "context_length",
    "string_above_max_length": "context_length",
    "content_filter": "content_policy", "content_policy_violation": "content_policy",
    "data_inspection_failed": "content_policy", "DataInspectionFailed": "content_policy", "1301": "content_policy",
    "moderation_error": "content_policy", "ResponsibleAIPolicyViolation": "content_policy",
    "invalid_api_key": "credentials", "authentication_error": "credentials", "API_KEY_INVALID": "credentials",
    "invalid_authentication_error": "credentials", "UNAUTHENTICATED": "credentials", "permission_error": "credentials",
    "PERMISSION_DENIED": "credentials", "InvalidApiKey": "credentials", "unauthorized": "credentials",
    "account_deactivated": "credentials",
    "insufficient_quota": "provider_balance", "exceeded_current_quota_error": "provider_balance",
    "billing_error": "provider_balance", "billing_hard_limit_reached": "provider_balance", "Arrearage": "provider_balance",
    "insufficient_balance": "provider_balance", "1113": "provider_balance", "credit_balance_too_low": "provider_balance",
    "rate_limit_exceeded": "rate_limit", "rate_limit_error": "rate_limit", "rate_limit_reached_error": "rate_limit",
    "RateLimitReached": "rate_limit", "limit_requests": "rate_limit", "Throttling": "rate_limit",
    "Throttling.RateQuota": "rate_limit", "Throttling.AllocationQuota": "rate_limit", "RESOURCE_EXHAUSTED": "rate_limit",
    "ThrottlingException": "rate_limit", "token_quota_exceeded": "rate_limit", "1302": "rate_limit", "1303": "rate_limit",
    "1305": "rate_limit",
    "overloaded_error": "overloaded", "engine_overloaded_error": "overloaded", "engine_overloaded": "overloaded",
    "UNAVAILABLE": "overloaded", "unavailable_error": "overloaded", "queue_exceeded": "overloaded",
    "capacity_exceeded": "overloaded", "ServiceUnavailableException": "overloaded", "ModelNotReadyException": "overloaded",
    "timeout_error": "timeout", "DEADLINE_EXCEEDED": "timeout", "ModelTimeoutException": "timeout",
    "api_error": "server", "server_error": "server", "internal_error": "server", "internal_server_error": "server",
    "INTERNAL": "server", "InternalServerException": "server", "ModelStreamErrorException": "server",
    "ModelErrorException": "server", "network_error": "server",
    "not_found_error": "not_found", "model_not_found": "not_found", "invalid_model": "not_found", "NOT_FOUND": "not_found",
    "DeploymentNotFound": "not_found", "ResourceNotFoundException": "not_found",
    "tool_use_failed": "server",
}  # fmt: skip

_BY_STATUS: dict[int, FailureKind] = {
    400: "caller", 401: "credentials", 402: "provider_balance", 403: "credentials", 404: "not_found", 405: "caller",
    408: "timeout", 409: "server", 410: "not_found", 413: "caller", 415: "caller", 422: "caller", 424: "server",
    429: "rate_limit", 498: "overloaded", 500: "server", 501: "server", 502: "server", 503: "overloaded", 504: "timeout",
    520: "server", 522: "timeout", 524: "timeout", 529: "overloaded",
}  # fmt: skip

_STATUS_OF: dict[FailureKind, int] = {
    "caller": 400, "context_length": 400, "content_policy": 400, "credentials": 401, "provider_balance": 402,
    "rate_limit": 429, "overloaded": 529, "server": 500, "timeout": 504, "not_found": 404, "unknown": 500,
}  # fmt: skip

_CONTEXT = re.compile(
    r"prompt is too long|prompt too long|maximum context length|context[ _]length|context window|context size|context limit"
    r"|max(?:imum)? (?:number of )?(?:input |prompt )?tokens|too many (?:input |prompt )?tokens"
    r"|length of all messages is too long|range of input length|input is too long|reduce the length of the (?:messages|prompt)"
    r"|input token count|exceeds the (?:maximum|available) .{0,40}tokens",
    re.IGNORECASE,
)
_OUTPUT_CAP = re.compile(
    r"max_(?:completion_|output_)?tokens\b.{0,80}(?:must|range|too large|at most|maximum allowed)", re.IGNORECASE
)
_BALANCE = re.compile(
    r"credit balance is too low|insufficient (?:balance|credits?|funds)|exceeded your current quota|out of credits"
    r"|specified api usage limits|billing details|account .{0,30}(?:arrears|overdue)",
    re.IGNORECASE,
)
_POLICY = re.compile(
    r"content (?:filter|management) policy|content filtering policy|inappropriate content|flagged (?:by|as|for)"
    r"|usage policy|safety system|sensitive (?:content|information)",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"not a valid model|invalid model\b|no such model|unknown model"
    r"|model .{0,120}(?:does not exist|not found|is not found|decommissioned|has been deprecated)",
    re.IGNORECASE | re.DOTALL,
)
_BAD_KEY = re.compile(
    r"api key (?:not valid|is invalid|not found|expired)|(?:invalid|incorrect) api key|invalid x-api-key", re.IGNORECASE
)
_CANNOT = re.compile(r"not supported|not_supported|does(?: not|n't) support|is disabled|requires? --", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")

_BASE_RESP: dict[int, tuple[FailureKind, bool]] = {
    1000: ("server", True), 1001: ("timeout", True), 1002: ("rate_limit", True), 1004: ("credentials", False),
    1008: ("provider_balance", False), 1013: ("server", True), 1024: ("server", True), 1026: ("content_policy", False),
    1027: ("content_policy", False), 1033: ("server", True), 1039: ("rate_limit", True), 2013: ("caller", False),
    2049: ("credentials", False),
}  # fmt: skip
"""MiniMax's `base_resp.status_code`: kind, whether a retry can help. 1039 is its token rate limit."""


class _Facts(msgspec.Struct):
    """What a body told, whatever its shape."""

    message: str = ""
    codes: list[str] = []
    """Code, type, status name and reasons, most telling first."""
    status: int | None = None
    details: list[Any] = []
    body: dict[str, Any] = {}


def read(status: int, headers: Headers, body: bytes) -> UpstreamError:
    """An answer with an error status. `body` may be anything, also empty."""
    get = headers if callable(headers) else headers.get
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _plain(body)
    facts = _facts(value)
    kind_of_exception = get("x-amzn-errortype")
    if kind_of_exception:
        facts.codes.insert(0, kind_of_exception.split(":", 1)[0])
    return _verdict(status, facts, get)


def from_value(value: Any, status: int = 200) -> UpstreamError:
    """An error object met inside a 200 answer or stream; `value` is decoded JSON, with or without its envelope."""
    facts = _facts(value)
    if facts.status is not None:
        status = facts.status
    return _verdict(status, facts, lambda _: None)


def from_base_resp(value: dict[str, Any]) -> UpstreamError:
    """MiniMax's failure inside a 200: `base_resp` with a status code other than 0."""
    code = value.get("status_code")
    kind, retry = _BASE_RESP.get(code, ("unknown", False)) if isinstance(code, int) else ("unknown", False)
    message = value.get("status_msg")
    return UpstreamError(
        kind=kind,
        status=_STATUS_OF[kind],
        message=_bounded(message if isinstance(message, str) else "the provider gave no reason"),
        provider_code=str(code),
        should_retry=retry,
    )


def _plain(body: bytes) -> str:
    """Text of a body that is no JSON. An HTML page is reduced to its title: the rest is markup."""
    text = body[: 4 * MESSAGE_BYTES_MAX].decode("utf-8", "replace").strip()
    if text[:1] == "<":
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return " ".join(title[1].split()) if title else "an HTML page"
    return text


def _bounded(text: str) -> str:
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= MESSAGE_BYTES_MAX else raw[:MESSAGE_BYTES_MAX].decode("utf-8", "ignore")


def _code(value: Any) -> str | None:
    if isinstance(value, bool) or value is None:
        return None
    return str(value) if isinstance(value, (int, str)) and value != "" else None


def _facts(value: Any) -> _Facts:
    """The envelope is looked for in every known place: `error` object or string, array of one, bare `message` or `detail`."""
    if isinstance(value, list):
        items = cast("list[Any]", value)
        value = items[0] if items else {}
    if isinstance(value, str):
        return _Facts(message=value)
    if not isinstance(value, dict):
        return _Facts()
    outer = cast("dict[str, Any]", value)
    inner: Any = outer.get("error")
    if isinstance(inner, str):
        # xAI, Ollama, Hugging Face: the error is its own message, the code stands beside it.
        return _Facts(message=inner, codes=_codes(outer), body=outer, status=_status(outer))
    error = cast("dict[str, Any]", inner) if isinstance(inner, dict) else outer
    details: Any = error.get("details")
    facts = _Facts(message=_message(error), codes=_codes(error), status=_status(error), body=error)
    if isinstance(details, list):
        facts.details = cast("list[Any]", details)
        reasons = [cast("dict[str, Any]", d).get("reason") for d in facts.details if isinstance(d, dict)]
        facts.codes[:0] = [reason for reason in reasons if isinstance(reason, str)]
    elif isinstance(details, dict):
        code = _code(cast("dict[str, Any]", details).get("error_code"))
        facts.codes[:0] = [code] if code else []
    inner_error: Any = error.get("innererror")
    if isinstance(inner_error, dict):
        code = _code(cast("dict[str, Any]", inner_error).get("code"))
        facts.codes.extend([code] if code else [])
    metadata: Any = error.get("metadata")
    if isinstance(metadata, dict):
        raw: Any = cast("dict[str, Any]", metadata).get("raw")
        code = _code(cast("dict[str, Any]", metadata).get("error_type"))
        facts.codes[:0] = [code] if code else []
        if isinstance(raw, str) and raw and raw not in facts.message:
            facts.message = f"{facts.message}: {raw}" if facts.message else raw
    return facts


def _message(error: dict[str, Any]) -> str:
    for name in ("message", "Message", "detail", "error_message", "msg"):
        value = error.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, (list, dict)) and value:
            return msgspec.json.encode(value).decode()
    return ""


def _codes(error: dict[str, Any]) -> list[str]:
    codes = (_code(error.get(name)) for name in ("code", "type", "status", "error_type"))
    return [code for code in codes if code]


def _status(error: dict[str, Any]) -> int | None:
    for name in ("status_code", "code", "raw_status_code", "status"):
        value = error.get(name)
        if isinstance(value, str) and value.isdecimal() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return value
    return None


def _verdict(status: int, facts: _Facts, get: Callable[[str], str | None]) -> UpstreamError:
    kind = _kind(status, facts)
    named = [code for code in facts.codes if not (code.isdecimal() and len(code) == 3)]
    return UpstreamError(
        kind=kind,
        status=status if status >= 400 else _STATUS_OF[kind],
        message=_bounded(facts.message or "the provider gave no reason"),
        provider_code=(named or facts.codes or [None])[0],
        retry_after_s=_retry_after(get, facts.details),
        should_retry=_should_retry(status, kind, facts, get),
        param=_param(facts),
    )


def _param(facts: _Facts) -> str | None:
    param = facts.body.get("param")
    return param[:PARAM_CHARS_MAX] if isinstance(param, str) and param else None


def _kind(status: int, facts: _Facts) -> FailureKind:
    message = facts.message
    by_status = _BY_STATUS.get(status) or ("unknown" if status < 400 else "server" if status >= 500 else "caller")
    for code in facts.codes:
        kind = _BY_CODE.get(code)
        if kind is None or (kind == "server" and by_status not in ("server", "unknown") and code != "tool_use_failed"):
            continue
        if code == "string_above_max_length" and "messages" not in message:
            continue
        if kind == "rate_limit" and _BALANCE.search(message):
            return "provider_balance"
        if kind == "credentials" and status == 403 and _POLICY.search(message):
            return "content_policy"
        return kind
    if _BALANCE.search(message):
        return "provider_balance"
    if status < 500:
        if _CONTEXT.search(message) and not _OUTPUT_CAP.search(message) and by_status in ("caller", "unknown"):
            return "context_length"
        if _POLICY.search(message) and by_status in ("caller", "credentials", "unknown"):
            return "content_policy"
        if _BAD_KEY.search(message):
            return "credentials"
        if _NO_MODEL.search(message) and by_status in ("caller", "not_found", "unknown"):
            return "not_found"
    if by_status == "unknown" and "invalid_request_error" in facts.codes:
        return "caller"
    return by_status


def _should_retry(status: int, kind: FailureKind, facts: _Facts, get: Callable[[str], str | None]) -> bool | None:
    said = get("x-should-retry")
    if said in ("true", "false"):
        return said == "true"
    if "tool_use_failed" in facts.codes:
        return True  # Groq: the model wrote a bad call; the next sample is often good.
    if kind in ("caller", "context_length", "content_policy", "credentials", "provider_balance", "not_found"):
        return False
    if kind == "server" and (status == 501 or _CANNOT.search(facts.message)):
        return False  # llama.cpp: launched without the feature; it will not grow one.
    if kind == "rate_limit":
        if status == 413:
            return False  # Groq: this request is larger than the whole allowance of a minute.
        if any("PerDay" in msgspec.json.encode(detail).decode() for detail in facts.details):
            return False  # Gemini: a daily quota.
    return None


def _retry_after(get: Callable[[str], str | None], details: list[Any]) -> float | None:
    """Seconds to wait. The larger of all that is said: Azure sends `retry-after: 1` beside `retry-after-ms: 0`."""
    found: list[float] = []
    text = get("retry-after")
    if text:
        seconds = _number(text)
        if seconds is None:
            seconds = _until(text, get("date"))
        if seconds is not None:
            found.append(seconds)
    milliseconds = _number(get("retry-after-ms") or "")
    if milliseconds is not None:
        found.append(milliseconds / 1000)
    for detail in details:
        if isinstance(detail, dict):
            delay: Any = cast("dict[str, Any]", detail).get("retryDelay")
            match = _DURATION.fullmatch(delay) if isinstance(delay, str) else None
            if match:
                found.append(float(match[1]))
    found = [seconds for seconds in found if 0 <= seconds <= RETRY_AFTER_S_MAX]
    return max(found) if found else None


def _number(text: str) -> float | None:
    try:
        return float(text.strip())
    except ValueError:
        return None


def _until(text: str, date: str | None) -> float | None:
    """An HTTP date as a wait, measured on the provider's own clock: its `date` header."""
    if date is None:
        return None
    try:
        return max((parsedate_to_datetime(text) - parsedate_to_datetime(date)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
