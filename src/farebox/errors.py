"""One error tree: what happened, whether to retry, and what to do next, the same on every surface.

A `Kind` is a row: HTTP status, stable code, and the words each API surface uses for it. A `FareboxError` carries a kind and
the particulars: message, the field or limit concerned, when to retry. Wires write it in their own shape
(`wires.*.write_error`); nothing else invents an error body.

    FareboxError
      kind.caller     400 invalid_request, context_length_exceeded, model_not_priced, no_eligible_offer, unsupported …
      kind.identity   401 authentication, 403 permission
      kind.money      402 insufficient_quota, budget_exceeded
      kind.missing    404 not_found, model_not_found, 405
      kind.limits     413 too_large, 429 rate_limit_exceeded
      kind.upstream   502 provider_unavailable, 503 provider_overloaded, 504 timeout
      kind.own        500 internal, 503 unavailable
"""

from enum import Enum
from typing import Any


class Kind(Enum):
    """`status, code, type on the OpenAI surface, type on the Anthropic surface, retryable by the caller`."""

    INVALID_REQUEST = (400, "invalid_request", "invalid_request_error", "invalid_request_error", False)
    UNSUPPORTED = (400, "unsupported_parameter", "invalid_request_error", "invalid_request_error", False)
    NO_OFFER = (400, "no_eligible_offer", "invalid_request_error", "invalid_request_error", False)
    CONTEXT_LENGTH = (400, "context_length_exceeded", "invalid_request_error", "invalid_request_error", False)
    MODEL_NOT_PRICED = (400, "model_not_priced", "invalid_request_error", "invalid_request_error", False)
    CONTENT_POLICY = (400, "content_policy_violation", "invalid_request_error", "invalid_request_error", False)
    AUTHENTICATION = (401, "invalid_api_key", "authentication_error", "authentication_error", False)
    INSUFFICIENT_QUOTA = (402, "insufficient_quota", "insufficient_quota", "billing_error", False)
    BUDGET_EXCEEDED = (402, "budget_exceeded", "insufficient_quota", "billing_error", False)
    PERMISSION = (403, "permission_denied", "permission_error", "permission_error", False)
    NOT_FOUND = (404, "not_found", "invalid_request_error", "not_found_error", False)
    MODEL_NOT_FOUND = (404, "model_not_found", "invalid_request_error", "not_found_error", False)
    METHOD_NOT_ALLOWED = (405, "method_not_allowed", "invalid_request_error", "invalid_request_error", False)
    REQUEST_TIMEOUT = (408, "request_timeout", "invalid_request_error", "invalid_request_error", True)
    TOO_LARGE = (413, "request_too_large", "invalid_request_error", "request_too_large", False)
    UNSUPPORTED_MEDIA = (415, "unsupported_media_type", "invalid_request_error", "invalid_request_error", False)
    RATE_LIMIT = (429, "rate_limit_exceeded", "rate_limit_error", "rate_limit_error", True)
    UPSTREAM_RATE_LIMIT = (429, "provider_rate_limited", "rate_limit_error", "rate_limit_error", True)
    INTERNAL = (500, "internal_error", "server_error", "api_error", True)
    UPSTREAM_BAD = (502, "provider_unavailable", "server_error", "api_error", True)
    UPSTREAM_OVERLOADED = (503, "provider_overloaded", "server_error", "overloaded_error", True)
    UNAVAILABLE = (503, "unavailable", "server_error", "api_error", True)
    UPSTREAM_TIMEOUT = (504, "timeout", "server_error", "timeout_error", True)

    def __init__(self, status: int, code: str, openai_type: str, anthropic_type: str, retryable: bool) -> None:
        self.status = status
        self.code = code
        self.openai_type = openai_type
        self.anthropic_type = anthropic_type
        self.retryable = retryable


class FareboxError(Exception):
    """A refusal or failure that a caller is told about.

    `message` is one sentence on what happened and what to do next, identifiers in backticks. `param` names the field;
    `retry_after_s` says when a retry can succeed; `should_retry` overrides the kind for clients that retry by themselves
    (sent as `x-should-retry`); `details` are machine-readable fields put under `error.farebox`.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        should_retry: bool | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code or kind.code
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        self.details = details or {}

    @property
    def status(self) -> int:
        return self.kind.status

    @property
    def retryable(self) -> bool:
        return self.kind.retryable if self.should_retry is None else self.should_retry


def invalid(message: str, *, param: str | None = None, **details: Any) -> FareboxError:
    """A 400 about the caller's own request."""
    return FareboxError(Kind.INVALID_REQUEST, message, param=param, details=details)
