"""How the two wires say no: real providers' words and shapes, from a validation error or from an order. Pure."""

import re
from typing import Any, Literal

import msgspec

Wire = Literal["chat", "messages"]

_encode = msgspec.json.Encoder().encode

_CHAT_KINDS: dict[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    408: ("invalid_request_error", "request_timeout"),
    409: ("invalid_request_error", "conflict"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("requests", "rate_limit_exceeded"),
    503: ("server_error", "service_unavailable"),
}
_MESSAGES_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Refusal(Exception):
    """A request that is answered with an error object instead of tokens."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, type: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.type = type

    def error(self, wire: Wire) -> dict[str, Any]:
        """The error object by itself, as it also stands in a stream."""
        if wire == "chat":
            fallback_type, fallback_code = _CHAT_KINDS.get(
                self.status, ("server_error" if self.status >= 500 else "invalid_request_error", None)
            )
            kind = self.type or ("insufficient_quota" if self.code == "insufficient_quota" else fallback_type)
            return {"message": self.message, "type": kind, "param": self.param, "code": self.code or fallback_code}
        fallback = _MESSAGES_KINDS.get(self.status, "api_error" if self.status >= 500 else "invalid_request_error")
        return {"type": self.type or self.code or fallback, "message": self.message}

    def body(self, wire: Wire, request_id: str) -> bytes:
        if wire == "chat":
            return _encode({"error": self.error(wire)})
        return _encode({"type": "error", "error": self.error(wire), "request_id": request_id})


_WHERE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`")
_TYPE = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`")
_VALUE = re.compile(r"Invalid (?:enum )?value (?P<value>.*)", re.DOTALL)
_RANGE = re.compile(r"Expected `(?P<expected>[^`]*)` (?:of length )?(?P<bound>[<>]=? .*)")

_NOUNS = {
    "int": "an integer", "float": "a number", "str": "a string", "bool": "a boolean", "object": "an object",
    "array": "an array", "null": "null", "int | float": "a number",
}  # fmt: skip
_INPUTS = {
    "int": "a valid integer", "float": "a valid number", "str": "a valid string", "bool": "a valid boolean",
    "object": "a valid dictionary", "array": "a valid list",
}  # fmt: skip


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _noun(types: str) -> str:
    names = [part for part in types.split(" | ") if part != "null"]
    return " or ".join(dict.fromkeys(_NOUNS.get(name, name) for name in names))


def _dotted(path: str) -> str:
    return re.sub(r"\[(\d+|\.\.\.)\]", r".\1", path).strip(".")


def complaint(error: msgspec.ValidationError, wire: Wire) -> Refusal:
    """A validation error in the words of the wire's author."""
    match = _WHERE.fullmatch(str(error))
    what, path = (match["what"], match["path"] or "") if match else (str(error), "")
    return _chat_complaint(what, path) if wire == "chat" else _messages_complaint(what, _dotted(path))


def _chat_complaint(what: str, path: str) -> Refusal:
    if found := _MISSING.fullmatch(what):
        name = _joined(path, found["name"])
        return Refusal(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if found := _UNKNOWN.fullmatch(what):
        name = _joined(path, found["name"])
        return Refusal(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if found := _TYPE.fullmatch(what):
        message = f"Invalid type for '{path}': expected {_noun(found['expected'])}, but got {_noun(found['got'])} instead."
        return Refusal(400, message, param=path, code="invalid_type")
    if found := _VALUE.fullmatch(what):
        return Refusal(400, f"Invalid value: {found['value']}.", param=path, code="invalid_value")
    if found := _RANGE.fullmatch(what):
        message = f"Invalid '{path}': expected {_noun(found['expected'])} {found['bound']}."
        return Refusal(400, message, param=path, code="invalid_value")
    return Refusal(400, f"Invalid value for '{path}': {what}", param=path or None, code="invalid_value")


def _messages_complaint(what: str, path: str) -> Refusal:
    if found := _MISSING.fullmatch(what):
        return Refusal(400, f"{_joined(path, found['name'])}: Field required")
    if found := _UNKNOWN.fullmatch(what):
        return Refusal(400, f"{_joined(path, found['name'])}: Extra inputs are not permitted")
    if found := _TYPE.fullmatch(what):
        expected = [part for part in found["expected"].split(" | ") if part != "null"]
        return Refusal(400, f"{path}: Input should be {' or '.join(_INPUTS.get(part, part) for part in expected)}")
    if found := _VALUE.fullmatch(what):
        return Refusal(400, f"{path}: Input should be one of the supported values, not {found['value']}")
    if found := _RANGE.fullmatch(what):
        words = found["bound"].replace(">=", "greater than or equal to").replace("<=", "less than or equal to")
        return Refusal(400, f"{path}: Input should be {words}")
    return Refusal(400, f"{path}: {what}" if path else what)
