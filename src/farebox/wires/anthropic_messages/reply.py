"""A message for a client of the same wire: our id, the provider's name, usage with cost; the rest as it came."""

import msgspec

from farebox.wires.anthropic_messages import usage as usages
from farebox.wires.anthropic_messages.relay import merged_usage
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import UpstreamError
from farebox.wires.relay import Extra, NotACompletion
from farebox.wires.usage import Usage, UsageReport

_encode = msgspec.json.Encoder().encode
_decode_map = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_str = msgspec.json.Decoder(str).decode


class Reply:
    """One parsed answer."""

    def __init__(self, body: bytes, dialect: Dialect) -> None:
        """Raises `NotACompletion`; `failure` is set when the body is an error object in spite of its status."""
        try:
            fields = _decode_map(body)
            kind = _decode_str(fields["type"])
            self.failure: bytes | UpstreamError | None = body if kind == "error" else None
            if kind not in ("message", "error"):
                raise NotACompletion(f"type {kind[:64]!r}")
            reason = fields.get("stop_reason")
            self.finish_reason = "" if reason is None or bytes(reason) == b"null" else _decode_str(reason)
            self.upstream_id = _decode_str(fields["id"]) if "id" in fields else ""
        except (msgspec.DecodeError, KeyError, UnicodeDecodeError, RecursionError) as error:
            raise NotACompletion(str(error)) from error
        self.native_finish_reason = self.finish_reason
        self._fields = fields
        self._dialect = dialect

    def report(self) -> UsageReport | None:
        raw = self._fields.get("usage")
        if raw is None or bytes(raw) == b"null":
            return None
        seen = usages.Accumulator(self._dialect.usage)
        seen.merge(bytes(raw))
        return seen.report()

    def observed_output_tokens(self) -> int:
        """An estimate from the size of the content, for answers without usage."""
        raw = self._fields.get("content")
        return 0 if raw is None else -(-len(memoryview(raw)) // 4)

    def write(self, *, id: str, provider: str, usage: Usage, extra: Extra) -> bytes:
        fields = self._fields
        raw = fields.get("usage")
        fields["id"] = msgspec.Raw(_encode(id))
        fields["provider"] = msgspec.Raw(_encode(provider))
        fields["usage"] = msgspec.Raw(merged_usage(None if raw is None else bytes(raw), usage, extra))
        return _encode(fields)
