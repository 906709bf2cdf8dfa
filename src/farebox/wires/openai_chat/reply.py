"""A chat completion for a client of the same wire: our id, the provider's name, usage with cost; the rest as it came."""

from typing import Final

import msgspec

from farebox.wires.dialect import Dialect
from farebox.wires.neutral import UpstreamError
from farebox.wires.openai_chat import usage as usages
from farebox.wires.openai_chat.relay import merged_usage
from farebox.wires.openai_chat.shapes import AnswerBody
from farebox.wires.relay import Extra, NotACompletion, estimated_tokens
from farebox.wires.usage import Usage, UsageReport

_encode: Final = msgspec.json.Encoder().encode
_decode_map: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


_NO_ANSWER: Final = AnswerBody([])
_decode: Final = msgspec.json.Decoder(AnswerBody).decode
_decode_any: Final = msgspec.json.Decoder(dict[str, object]).decode


class Reply:
    """One parsed answer, by `read`; see `farebox.wires.relay` for its streaming counterpart."""

    __slots__ = ("_answer", "_as_it_came", "_body", "_dialect", "_usage", "failure", "finish_reason", "native_finish_reason")

    def __init__(
        self,
        body: bytes,
        dialect: Dialect,
        failure: bytes | UpstreamError | None = None,
        finish_reason: str = "",
        native_finish_reason: str = "",
        answer: AnswerBody = _NO_ANSWER,
        usage: bytes | None = None,
    ) -> None:
        self._body = body
        self._dialect = dialect
        self.failure = failure
        self.finish_reason = finish_reason
        self.native_finish_reason = native_finish_reason
        self._answer = answer
        self._usage = usage
        self._as_it_came: bool = False

    @staticmethod
    def read(body: bytes, dialect: Dialect) -> "Reply":
        """Raises `NotACompletion`; `failure` is set when the body is an error object in spite of its status."""
        if dialect.error_in_200 != "none":
            failure = _failure(body, dialect)
            if failure is not None:
                return Reply(body, dialect, failure)
        try:
            answer = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            failure = _failure(body, dialect) if b'"error"' in body else None
            if failure is None:
                raise NotACompletion(str(error)) from error
            return Reply(body, dialect, failure)
        finish_reason = native = ""
        if answer.choices:
            first = answer.choices[0]
            finish_reason = first.finish_reason or ""
            native = first.native_finish_reason or finish_reason
        usage = bytes(answer.usage)
        return Reply(body, dialect, None, finish_reason, native, answer, usage if usage and usage != b"null" else None)

    @property
    def upstream_id(self) -> str:
        return self._answer.id or ""

    def report(self) -> UsageReport | None:
        if self._usage is None:
            return None
        report = usages.read(self._usage, self._dialect.usage)
        self._as_it_came = report.openai_totals
        tier = self._answer.service_tier
        return msgspec.structs.replace(report, service_tier=tier) if tier and report.service_tier is None else report

    def observed_output_tokens(self) -> int:
        """An estimate from the answer's texts, for answers without usage."""
        return estimated_tokens(_decode_any(self._body).get("choices"))

    def write(self, *, id: str, provider: str, usage: Usage, extra: Extra) -> bytes:
        """The provider's bytes with the id, the usage and the provider's name put in; assembled anew where that is not safe."""
        body = self._body
        merged = merged_usage(self._usage, usage, extra, as_it_came=self._as_it_came)
        theirs, raw = self._answer.id, self._usage
        if theirs is not None and raw is not None and body.find(b'"provider"') < 0:
            old = b'"id":' + _encode(theirs)
            at, place = body.find(old), body.rfind(b'"usage":') + 8
            if body.startswith(b" ", place):
                place += 1
            # Both stand once, or the places cannot be told apart.
            if (
                0 <= at <= place - len(old)
                and body.startswith(raw, place)
                and body.find(old, at + 1) < 0
                and body.count(b'"usage"') == 1
            ):
                between, behind = body[at + len(old) : place], body[place + len(raw) :]
                return b"".join(
                    (body[:at], b'"id":', _encode(id), b',"provider":', _encode(provider), between, merged, behind)
                )
        fields = _decode_map(body)
        fields["id"] = msgspec.Raw(_encode(id))
        fields["provider"] = msgspec.Raw(_encode(provider))
        fields["usage"] = msgspec.Raw(merged)
        return _encode(fields)


def _failure(body: bytes, dialect: Dialect) -> bytes | None:
    """The body if it is an error object: `error` without choices, or a vendor's own sign."""
    try:
        fields = _decode_map(body)
        error = fields.get("error")
        if error is not None and bytes(error) != b"null" and "choices" not in fields:
            return body
        if dialect.error_in_200 == "base_resp" and "base_resp" in fields:
            status = _decode_map(fields["base_resp"]).get("status_code")
            if status is not None and bytes(status) != b"0":
                return body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None
