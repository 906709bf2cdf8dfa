"""Records that are made without names: what is given for each field is named as the field is, or as stands here."""

import ast
from pathlib import Path

import msgspec
import pytest

from farebox.billing.records import Attempt, Hold, Settle

SOURCE = Path(__file__).parents[2] / "src" / "farebox"
OTHER_NAMES: dict[type[msgspec.Struct], dict[str, str]] = {
    Hold: {
        "id": "'gen' + exchange.request_id[3:]", "at_us": "start.started_us", "scopes": "tuple(map(_scope_id, scopes))",
        "surface": "exchange.surface.name", "model": "target.model.slug", "provider": "target.provider.name",
        "rates": "first.quoted.rates_for(found.input_estimate)", "requested": "call.model", "streamed": "call.stream",
        "input_bound": "first.bound.input_tokens",
    },
    Attempt: {
        "cost_nano": "cost", "charge_nano": "charge", "loss_nano": "loss", "error": "error[:ERROR_TEXT_MAX]",
        "model": "self._other_model(current)",
    },
    Settle: {"hold_nano": "hold.amount_nano", "attempts": "tuple(self.attempts)", "created_us": "hold.at_us"},
}  # fmt: skip


def made(record: type[msgspec.Struct]) -> list[ast.Call]:
    """Where the gateway makes such a record with fields that have no names."""
    found: list[ast.Call] = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == record.__name__ and node.args:
                found.append(node)
    return found


@pytest.mark.parametrize("record", [Hold, Attempt, Settle])
def test_every_value_is_at_its_fields_place(record: type[msgspec.Struct]) -> None:
    (call,) = made(record)
    assert not call.keywords and len(call.args) == len(record.__struct_fields__)
    names = OTHER_NAMES[record]
    for field, value in zip(record.__struct_fields__, call.args, strict=True):
        text = ast.unparse(value)
        expected = (names[field],) if field in names else (field, f".{field}")
        assert text == expected[0] or (field not in names and text.endswith(expected[-1])), f"{field}: {text}"
