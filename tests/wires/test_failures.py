# ruff: noqa: E501  (tables read best with one case per line)
"""Why a provider failed: at least one case per row of providers.md §1.4, plus what stands in front of providers."""

import json
from typing import Any

import pytest

from farebox.errors import FareboxError, Kind, invalid
from farebox.wires import anthropic_messages, failures, openai_chat
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import MESSAGE_BYTES_MAX, UpstreamError

D = Dialect()


def openai(message: str, type: str | None = None, code: Any = None, **more: Any) -> Any:
    return {"error": {"message": message, "type": type, "param": None, "code": code, **more}}


def anthropic(type: str, message: str = "no", **more: Any) -> Any:
    return {"type": "error", "error": {"type": type, "message": message, **more}, "request_id": "req_1"}


def google(code: int, status: str, message: str = "no", details: list[Any] | None = None) -> Any:
    return {"error": {"code": code, "message": message, "status": status, "details": details or []}}


TABLE: list[tuple[str, int, Any, str, bool | None]] = [
    ("openai rate", 429, openai("Rate limit reached", "requests", "rate_limit_exceeded"), "rate_limit", None),
    ("openai quota", 429, openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), "provider_balance", False),
    ("openai context", 400, openai("maximum context length is 8192", "invalid_request_error", "context_length_exceeded"),
     "context_length", False),
    ("openai 500", 500, openai("The server had an error", "server_error"), "server", None),
    ("openai 503", 503, openai("The engine is currently overloaded"), "overloaded", None),
    ("openai cap", 400, openai("max_tokens is too large: 99999. This model supports at most 4096 completion tokens",
     "invalid_request_error"), "caller", False),
    ("azure key", 401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}}, "credentials", False),
    ("azure deployment", 404, {"error": {"code": "DeploymentNotFound", "message": "no"}}, "not_found", False),
    ("azure filter", 400, {"error": {"code": "content_filter", "message": "no", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
     "content_policy", False),
    ("azure rate", 429, {"error": {"code": "RateLimitReached", "message": "no"}}, "rate_limit", None),
    ("anthropic overloaded", 529, anthropic("overloaded_error", "Overloaded"), "overloaded", None),
    ("anthropic balance", 400, anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
     "provider_balance", False),
    ("anthropic context", 400, anthropic("invalid_request_error", "prompt is too long: 3333404 tokens > 200000 maximum"),
     "context_length", False),
    ("anthropic filter", 400, anthropic("invalid_request_error", "Output blocked by content filtering policy"), "content_policy", False),
    ("anthropic timeout", 504, anthropic("timeout_error"), "timeout", None),
    ("anthropic key", 401, anthropic("authentication_error", "invalid x-api-key"), "credentials", False),
    ("anthropic permission", 403, anthropic("permission_error"), "credentials", False),
    ("anthropic size", 413, anthropic("request_too_large"), "caller", False),
    ("gemini key is a 400", 400, google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.",
     [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]), "credentials", False),
    ("gemini array", 429, [google(429, "RESOURCE_EXHAUSTED")], "rate_limit", None),
    ("gemini daily quota", 429, google(429, "RESOURCE_EXHAUSTED", details=[
     {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "RequestsPerDayPerProject"}]}]), "rate_limit", False),
    ("gemini unavailable", 503, google(503, "UNAVAILABLE"), "overloaded", None),
    ("gemini deadline", 504, google(504, "DEADLINE_EXCEEDED"), "timeout", None),
    ("bedrock bare message", 400, {"message": "The provided model doesn't support counting tokens."}, "caller", False),
    ("mistral model", 400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "param": None, "code": "1500",
     "raw_status_code": 400}, "not_found", False),
    ("mistral key", 401, {"detail": "Invalid API Key"}, "credentials", False),
    ("mistral validation", 422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, "caller", False),
    ("cohere", 429, {"id": "1", "message": "too many requests"}, "rate_limit", None),
    ("cohere tokens", 400, {"id": "1", "message": "too many tokens: 9", "error_type": "TOO_MANY_TOKENS"}, "context_length", False),
    ("deepseek balance", 402, openai("Insufficient Balance", "unknown_error", "invalid_request_error"), "provider_balance", False),
    ("deepseek key", 401, openai("Authentication Fails", "authentication_error", "invalid_request_error"), "credentials", False),
    ("xai strings", 400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***"},
     "credentials", False),
    ("groq tool call", 400, openai("Failed to call a function", "invalid_request_error", "tool_use_failed", failed_generation="{"),
     "server", True),
    ("groq flex", 498, openai("capacity exceeded"), "overloaded", None),
    ("groq too large", 413, openai("Request too large for model, Limit 6000", "tokens", "rate_limit_exceeded"), "rate_limit", False),
    ("together 524", 524, openai("timeout"), "timeout", None),
    ("together 529", 529, openai("busy"), "overloaded", None),
    ("fireworks", 404, {"error": {"object": "error", "type": "invalid_request_error", "code": "NOT_FOUND", "message": "no"}},
     "not_found", False),
    ("perplexity length", 400, {"error": {"message": "The total length of all messages is too long.",
     "type": "too_many_prompt_tokens", "code": 400}}, "context_length", False),
    ("alibaba inspection", 400, openai("Input data may contain inappropriate content.", None, "data_inspection_failed"),
     "content_policy", False),
    ("alibaba arrears", 403, openai("Access denied, please make sure your account is in good standing.", None, "Arrearage"),
     "provider_balance", False),
    ("alibaba rate", 429, openai("no", None, "Throttling.RateQuota"), "rate_limit", None),
    ("moonshot overloaded", 429, {"error": {"type": "engine_overloaded_error", "message": "no"}}, "overloaded", None),
    ("moonshot quota", 429, {"error": {"type": "exceeded_current_quota_error", "message": "no"}}, "provider_balance", False),
    ("zai balance", 429, {"error": {"code": "1113", "message": "no"}}, "provider_balance", False),
    ("zai rate", 429, {"error": {"code": "1302", "message": "no"}}, "rate_limit", None),
    ("zai content", 400, {"error": {"code": "1301", "message": "no"}}, "content_policy", False),
    ("cerebras flat", 429, {"message": "We're experiencing high traffic", "type": "too_many_requests_error", "code": "queue_exceeded"},
     "overloaded", None),
    ("openrouter model", 400, {"error": {"code": 400, "message": "x is not a valid model ID"}, "user_id": "u"}, "not_found", False),
    ("openrouter credits", 402, {"error": {"code": 402, "message": "This request requires more credits"}}, "provider_balance", False),
    ("openrouter typed", 400, {"error": {"code": 400, "message": "no", "metadata": {"error_type": "context_length_exceeded"}}},
     "context_length", False),
    ("huggingface string", 402, {"error": "You have exceeded your monthly included credits"}, "provider_balance", False),
    ("ollama model", 404, {"error": "model 'x' not found"}, "not_found", False),
    ("ollama context", 400, openai("prompt too long; exceeded max context length by 1119046 tokens", "invalid_request_error"),
     "context_length", False),
    ("llamacpp loading", 503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, "overloaded", None),
    ("llamacpp feature", 501, {"error": {"code": 501, "message": "no", "type": "not_supported_error"}}, "server", False),
    ("llamacpp flags", 500, {"error": {"code": 500, "message": "image input is not supported - hint: mmproj", "type": "server_error"}},
     "server", False),
    ("llamacpp context", 400, {"error": {"code": 400, "message": "no", "type": "exceed_context_size_error"}}, "context_length", False),
    ("vllm old", 400, {"object": "error", "message": "This model's maximum context length is 4096 tokens", "type": "BadRequestError",
     "code": 400}, "context_length", False),
    ("empty", 502, None, "server", None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "retry"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_a_providers_failure(status: int, body: Any, kind: str, retry: bool | None) -> None:
    raw = b"" if body is None else json.dumps(body).encode()
    for wire in (openai_chat, anthropic_messages):
        error = wire.errors.read(status, {}, raw, D)
        assert (error.kind, error.status, error.should_retry) == (kind, status, retry)
        assert error.message


def test_bedrock_names_the_failure_in_a_header() -> None:
    error = failures.read(400, {"x-amzn-errortype": "ThrottlingException:http://internal"}, b'{"message":"slow down"}')
    assert (error.kind, error.provider_code) == ("rate_limit", "ThrottlingException")


def test_html_from_a_proxy_is_reduced_to_its_title() -> None:
    error = failures.read(502, {}, b"<html><head><title>502 Bad\n Gateway</title></head><body>...</body></html>")
    assert (error.kind, error.message) == ("server", "502 Bad Gateway")
    assert failures.read(503, {}, b"upstream connect error").kind == "overloaded"


def test_anthropic_rate_limit_without_a_wait_is_the_spend_limit() -> None:
    body = json.dumps(anthropic("rate_limit_error")).encode()
    assert anthropic_messages.errors.read(429, {}, body, D).should_retry is False
    assert anthropic_messages.errors.read(429, {"retry-after": "7"}, body, D).should_retry is None
    clone = json.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}).encode()
    assert anthropic_messages.errors.read(429, {}, clone, D).should_retry is None


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "1", "retry-after-ms": "0"}, {}, 1.0),  # recorded on Azure
        ({"retry-after-ms": "2500"}, {}, 2.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT"}, {}, None),
        ({}, google(429, "RESOURCE_EXHAUSTED", details=[{"@type": "…RetryInfo", "retryDelay": "34.4s"}]), 34.4),
        ({"retry-after": "5"}, google(429, "RESOURCE_EXHAUSTED", details=[{"retryDelay": "48s"}]), 48.0),
        ({"retry-after": "-3"}, {}, None),
        ({"retry-after": "nan"}, {}, None),
        ({"retry-after": "1e99"}, {}, None),
        ({}, {}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], body: Any, seconds: float | None) -> None:
    assert failures.read(429, headers, json.dumps(body).encode()).retry_after_s == seconds
    assert failures.read(429, headers.get, json.dumps(body).encode()).retry_after_s == seconds


def test_the_provider_has_the_last_word_on_retries() -> None:
    assert failures.read(500, {"x-should-retry": "false"}, b"{}").should_retry is False
    assert failures.read(400, {"x-should-retry": "true"}, b"{}").should_retry is True


def test_a_message_is_bounded() -> None:
    error = failures.read(400, {}, json.dumps(openai("é" * 5000)).encode())
    assert len(error.message.encode()) <= MESSAGE_BYTES_MAX


@pytest.mark.parametrize(
    "body", [b"[]", b"[1]", b"1", b"{}", b'{"error":[]}', b'{"error":{"message":{"a":1}}}', b"\xff\xfe", b"[" * 5000]
)
def test_odd_bodies_are_read(body: bytes) -> None:
    assert failures.read(418, {}, body).kind == "caller"


@pytest.mark.parametrize(
    ("code", "kind", "retry"),
    [(1002, "rate_limit", True), (1004, "credentials", False), (1008, "provider_balance", False), (1026, "content_policy", False),
     (2013, "caller", False), (9999, "unknown", False)],
)  # fmt: skip
def test_minimax_fails_with_status_200(code: int, kind: str, retry: bool) -> None:
    body = json.dumps({"choices": None, "base_resp": {"status_code": code, "status_msg": "no"}}).encode()
    for wire in (openai_chat, anthropic_messages):
        with pytest.raises(Exception) as caught:
            wire.response.read(body, Dialect(error_in_200="base_resp"))
        error: UpstreamError = caught.value.error
        assert (error.kind, error.should_retry, error.provider_code) == (kind, retry, str(code))


def test_an_error_inside_an_openrouter_answer() -> None:
    body = json.dumps({"error": {"code": 502, "message": "Provider returned error", "metadata": {"raw": "overheated"}}}).encode()
    with pytest.raises(Exception) as caught:
        openai_chat.response.read(body, Dialect(error_in_200="error_object"))
    assert (caught.value.error.status, caught.value.error.kind) == (502, "server")
    assert "overheated" in caught.value.error.message


def test_every_recorded_error_has_a_kind_and_a_message(recorded_error: Any) -> None:
    wire = openai_chat if recorded_error.chat else anthropic_messages
    error = wire.errors.read(recorded_error.status, recorded_error.headers, recorded_error.body, recorded_error.dialect)
    expected = {
        401: {"credentials"}, 403: {"credentials"}, 404: {"not_found"}, 429: {"rate_limit"}, 500: {"server"}, 501: {"server"},
        400: {"caller", "context_length", "not_found", "server"},
    }  # fmt: skip
    assert error.kind in expected[recorded_error.status]
    assert len(error.message) > 3


# What clients are told


def test_openai_error_body() -> None:
    error = FareboxError(Kind.RATE_LIMIT, "Slow down.", param="model", retry_after_s=3, details={"limit": "rpm"})
    assert json.loads(openai_chat.errors.write(error, request_id="r1")) == {
        "error": {
            "message": "Slow down.",
            "type": "rate_limit_error",
            "param": "model",
            "code": "rate_limit_exceeded",
            "farebox": {"kind": "rate_limit", "retryable": True, "retry_after_s": 3, "limit": "rpm", "request_id": "r1"},
        }
    }


def test_anthropic_error_body() -> None:
    assert json.loads(anthropic_messages.errors.write(invalid("Bad.", param="messages[0]"), request_id="r1")) == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "Bad.",
            "farebox": {"kind": "invalid_request", "code": "invalid_request", "retryable": False, "param": "messages[0]"},
        },
        "request_id": "r1",
    }
