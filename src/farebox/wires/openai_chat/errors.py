"""Errors on OpenAI chat: what a vendor sent, and what a client is told.

Client body: `{"error": {message, type, param, code, farebox: {kind, retryable, …}}}`. `code` is stable per kind
(`farebox.errors`); `farebox` holds the machine-readable rest.
"""

from typing import Any

import msgspec

from farebox.errors import FareboxError
from farebox.wires import failures
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import UpstreamError


def read(status: int, headers: failures.Headers, body: bytes, dialect: Dialect) -> UpstreamError:
    """Never raises. `dialect` is not consulted: error bodies do not keep to dialects (see `failures`)."""
    del dialect
    return failures.read(status, headers, body)


def particulars(error: FareboxError) -> dict[str, Any]:
    """The machine-readable fields, the same on every surface."""
    found: dict[str, Any] = {"kind": error.kind.name.lower(), "retryable": error.retryable}
    if error.retry_after_s is not None:
        found["retry_after_s"] = error.retry_after_s
    return found | error.details


def body_of(error: FareboxError) -> dict[str, Any]:
    return {
        "message": error.message,
        "type": error.kind.openai_type,
        "param": error.param,
        "code": error.code,
        "farebox": particulars(error),
    }


def write(error: FareboxError, *, request_id: str) -> bytes:
    """The body of an error answer. OpenAI carries the request id in the `x-request-id` header; it is repeated for logs."""
    body = body_of(error)
    body["farebox"] = body["farebox"] | {"request_id": request_id}
    return msgspec.json.encode({"error": body})
