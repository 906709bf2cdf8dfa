"""Errors on Anthropic messages: what a vendor sent, and what a client is told.

Client body: `{"type": "error", "error": {type, message, farebox: {kind, code, param, retryable, …}}, "request_id"}`.
"""

from typing import Any

import msgspec

from farebox.errors import FareboxError
from farebox.wires import failures
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import UpstreamError


class _Envelope(msgspec.Struct):
    request_id: Any = None


def read(status: int, headers: failures.Headers, body: bytes, dialect: Dialect) -> UpstreamError:
    """Never raises. `dialect` is not consulted: error bodies do not keep to dialects (see `failures`).

    Anthropic sends `retry-after` with every rate limit that passes; one without it is the spend limit, where waiting does
    not help (providers.md §1.4). That holds for Anthropic itself, whose request ids begin with `req_`.
    """
    del dialect
    error = failures.read(status, headers, body)
    if error.kind == "rate_limit" and error.retry_after_s is None and error.should_retry is None and _is_anthropic(headers, body):
        return msgspec.structs.replace(error, should_retry=False)
    return error


def _is_anthropic(headers: failures.Headers, body: bytes) -> bool:
    get = headers if callable(headers) else headers.get
    try:
        named = msgspec.json.decode(body, type=_Envelope).request_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        named = None
    return any(isinstance(id, str) and id.startswith("req_") for id in (named, get("request-id")))


def body_of(error: FareboxError) -> dict[str, Any]:
    particulars: dict[str, Any] = {"kind": error.kind.name.lower(), "code": error.code, "retryable": error.retryable}
    if error.param is not None:
        particulars["param"] = error.param
    if error.retry_after_s is not None:
        particulars["retry_after_s"] = error.retry_after_s
    return {"type": error.kind.anthropic_type, "message": error.message, "farebox": particulars | error.details}


def write(error: FareboxError, *, request_id: str) -> bytes:
    """The body of an error answer."""
    return msgspec.json.encode({"type": "error", "error": body_of(error), "request_id": request_id})
