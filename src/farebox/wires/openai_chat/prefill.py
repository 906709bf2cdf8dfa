"""Chat completions: a request that asks a model to go on with an answer. The wire has no word for it; vendors have several."""

import msgspec

from farebox.wires import prefill
from farebox.wires.dialect import Dialect

_TRUE, _FALSE = msgspec.Raw(b"true"), msgspec.Raw(b"false")


def continued(body: bytes, text: str, dialect: Dialect, *, thinks: bool) -> bytes:
    """The request with `text` as the answer so far. Raises `CannotContinue`.

    `thinks`: the model can think. It is asked not to, where it can be asked: its thinking would come behind text that is
    already there, and vendors that document the field continue without thinking only.
    """
    marks = {dialect.prefill: True} if dialect.prefill in ("prefix", "partial") else {}
    fields = prefill.with_last_turn(body, text, marks)
    if dialect.prefill == "continue_final_message":
        fields["continue_final_message"] = _TRUE
        fields["add_generation_prompt"] = _FALSE
    if thinks and dialect.reasoning_request == "thinking_type":
        fields.pop("reasoning_effort", None)
        fields["thinking"] = msgspec.Raw(b'{"type":"disabled"}')
    elif thinks and dialect.reasoning_request == "enable_thinking":
        fields.pop("thinking_budget", None)
        fields["enable_thinking"] = _FALSE
    return prefill.encode(fields)
