"""Messages: a request that asks a model to go on with an answer. A last turn of the assistant is just that on this wire."""

from farebox.wires import prefill
from farebox.wires.dialect import Dialect


def continued(body: bytes, text: str, dialect: Dialect, *, thinks: bool) -> bytes:
    """The request with `text`, which must not end in white space, as the answer so far. Raises `CannotContinue`.

    Thinking is not asked for: it cannot be combined with a prefill
    (https://platform.claude.com/docs/en/build-with-claude/extended-thinking).
    """
    del dialect, thinks
    fields = prefill.with_last_turn(body, text, {})
    fields.pop("thinking", None)
    return prefill.encode(fields)
