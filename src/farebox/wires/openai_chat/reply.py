"""A chat completion for a client of the same wire: our id, the provider's name, usage with cost; the rest as it came."""

import msgspec

from farebox.wires.dialect import Dialect
from farebox.wires.openai_chat import usage as usages
from farebox.wires.openai_chat.relay import merged_usage
from farebox.wires.relay import Extra, NotACompletion
from farebox.wires.usage import Usage, UsageReport

_encode = msgspec.json.Encoder().encode
_decode_map = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_str = msgspec.json.Decoder(str).decode


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    native_finish_reason: str | None = None


_decode_choices = msgspec.json.Decoder(list[_Choice]).decode


class Reply:
    """One parsed answer; see `farebox.wires.relay` for its streaming counterpart."""

    def __init__(self, body: bytes, dialect: Dialect) -> None:
        """Raises `NotACompletion`; `failure` is set when the body is an error object in spite of its status."""
        try:
            fields = _decode_map(body)
            self.failure = self._failure(fields, dialect)
            if self.failure is None:
                choices = _decode_choices(fields["choices"])
                self.finish_reason = (choices[0].finish_reason or "") if choices else ""
                self.native_finish_reason = (choices[0].native_finish_reason or self.finish_reason) if choices else ""
        except (msgspec.DecodeError, KeyError, UnicodeDecodeError, RecursionError) as error:
            raise NotACompletion(str(error)) from error
        self._fields = fields
        self._usage = self._raw_usage(fields)
        self._dialect = dialect
        self.upstream_id = self._text("id")

    @staticmethod
    def _failure(fields: dict[str, msgspec.Raw], dialect: Dialect) -> bytes | None:
        error = fields.get("error")
        if error is not None and bytes(error) != b"null" and "choices" not in fields:
            return _encode(fields)
        if dialect.error_in_200 == "base_resp" and "base_resp" in fields:
            status = msgspec.json.decode(fields["base_resp"], type=dict[str, msgspec.Raw]).get("status_code")
            if status is not None and bytes(status) != b"0":
                return _encode(fields)
        return None

    @staticmethod
    def _raw_usage(fields: dict[str, msgspec.Raw]) -> bytes | None:
        raw = fields.get("usage")
        value = None if raw is None else bytes(raw)
        return None if value == b"null" else value

    def _text(self, name: str) -> str:
        raw = self._fields.get(name)
        try:
            return "" if raw is None else _decode_str(raw)
        except msgspec.DecodeError:
            return ""

    def report(self) -> UsageReport | None:
        if self._usage is None:
            return None
        report = usages.read(self._usage, self._dialect.usage)
        tier = self._text("service_tier") if "service_tier" in self._fields else ""
        return msgspec.structs.replace(report, service_tier=tier) if tier and report.service_tier is None else report

    def observed_output_tokens(self) -> int:
        """An estimate from the size of the choices, for answers without usage."""
        raw = self._fields.get("choices")
        return 0 if raw is None else -(-len(memoryview(raw)) // 4)

    def write(self, *, id: str, provider: str, usage: Usage, extra: Extra) -> bytes:
        fields = self._fields
        fields["id"] = msgspec.Raw(_encode(id))
        fields["provider"] = msgspec.Raw(_encode(provider))
        fields["usage"] = msgspec.Raw(merged_usage(self._usage, usage, extra))
        return _encode(fields)
