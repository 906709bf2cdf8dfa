"""Anthropic messages: the quick read of a request, and its body for a provider that speaks the same wire."""

from collections.abc import Collection, Sequence
from typing import Any, cast

import msgspec

from farebox.errors import invalid
from farebox.wires import call as calls
from farebox.wires.anthropic_messages import carriage
from farebox.wires.anthropic_messages import hosted as hosted_tools
from farebox.wires.call import Call, Fields, Media
from farebox.wires.complaints import ROUTING_FIELDS
from farebox.wires.hosted import NEED, HostedTool, check_names, search_like
from farebox.wires.media import survey
from farebox.wires.splicing import is_plain_text, splice

WIRE = "anthropic_messages"
OUTPUT_CAP_MAX = 2**31
WEB_SEARCHES_MAX = 10
"""Searches assumed for the hold when a search tool states no `max_uses`."""
WEB_SEARCHES_LIMIT = 1000

EXTENSIONS = ROUTING_FIELDS | {"session_id", "trace", "plugins", "transforms", "usage"}
"""Fields addressed to the gateway, not to the model."""

_decode_map = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ROUTINE = frozenset({"model", "messages", "stream", "max_tokens", "temperature", "top_p", "system"})
_WEIGHTY = _ROUTINE | {"service_tier", "speed", "inference_geo"}
"""What of a request decides what it costs."""


def read_call(body: bytes) -> Call:
    """The request as routing and money need it. `FareboxError` (400) names the field that is wrong."""
    fields, layout = calls.read_fields(body)
    model = calls.model_name(fields)
    messages = calls.required_array(fields, "messages")
    cap = calls.integer(fields, "max_tokens", minimum=1, maximum=OUTPUT_CAP_MAX)
    if cap is None:
        raise invalid("`max_tokens` is missing", param="max_tokens")
    if is_plain_text(messages):
        media = Media(len(body))
        needs: set[str] = set()
    else:
        media = survey(messages, body_bytes=len(body), param="messages")
        needs = {name for name, count in (("vision", media.images), ("pdf", media.documents)) if count}
    searches = 0
    hosted: tuple[HostedTool, ...] = ()
    tier = end_user = None
    to_balance = False
    tags: tuple[str, ...] = ()
    recovery: bool | None = None
    if not _ROUTINE.issuperset(fields):
        check_names(fields, _WEIGHTY)
        if "tools" in fields and bytes(fields["tools"]) not in (calls.NULL, b"[]"):
            needs.add("tools")
        hosted = hosted_tools.read(fields)
        if hosted:
            needs.add(NEED)
            if any(tool.search for tool in hosted):
                needs.add("web_search")
                searches = _searches(bytes(fields["tools"]))
            elif search_like(hosted):
                searches = WEB_SEARCHES_MAX
        if "output_config" in fields and b'"json_schema"' in bytes(fields["output_config"]):
            needs.add("json_schema")
        if "thinking" in fields and _thinks(bytes(fields["thinking"])):
            needs.add("reasoning")
        tier = calls.text(fields, "service_tier", length_max=32)
        if calls.text(fields, "speed") == "fast":
            tier = "fast"
        if calls.text(fields, "inference_geo") not in (None, "global"):
            # Costs a tenth more (providers.md §2.3); what is not in the price is not sent.
            raise invalid("`inference_geo` other than `global` has no price here; remove it", param="inference_geo")
        to_balance = calls.flag(fields, "max_output_to_balance")
        recovery = calls.switch(fields, "stream_recovery")
        end_user = _end_user(fields)
        tags = calls.metadata_tags(fields)
    return Call(
        wire=WIRE,
        body=body,
        read=fields,
        model=model,
        stream=calls.flag(fields, "stream"),
        include_usage=True,
        output_cap=cap,
        choices=1,
        media=media,
        needs=frozenset(needs),
        web_searches_max=searches,
        service_tier=tier if tier not in ("auto", "standard_only") else None,
        max_output_to_balance=to_balance,
        end_user=end_user or "",
        tags=tags,
        stream_recovery=recovery,
        layout=layout,
        hosted=hosted,
    )


def _thinks(thinking: bytes) -> bool:
    """Whether thinking is switched on. What is malformed is left for the provider to name."""
    try:
        return bytes(_decode_map(thinking).get("type", calls.NULL)) in (b'"enabled"', b'"adaptive"')
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _searches(data: bytes) -> int:
    """The most searches that the tools allow. Malformed tools are left for the provider to name."""
    try:
        tools: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    searches = 0
    for item in cast("list[Any]", tools) if isinstance(tools, list) else []:
        tool = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        if str(tool.get("type")).startswith(hosted_tools.SEARCH):
            stated: Any = tool.get("max_uses")
            searches += stated if type(stated) is int and stated > 0 else WEB_SEARCHES_MAX
    return min(searches, WEB_SEARCHES_LIMIT)


def _end_user(fields: Fields) -> str | None:
    raw = fields.get("metadata")
    if raw is None or bytes(raw) == calls.NULL:
        return None
    try:
        return calls.text(_decode_map(raw), "user_id", length_max=calls.END_USER_CHARS_MAX, inside="metadata.")
    except msgspec.DecodeError:
        raise invalid("`metadata` must be an object", param="metadata") from None


def forward_body(
    call: Call,
    *,
    model: bytes,
    output_cap: int | None,
    put: Sequence[tuple[str, bytes]] = (),
    lost: list[str] | None = None,
) -> bytes:
    """The client's bytes for a provider that speaks messages: only the model, a lowered cap and what routing `put`s change.

    Carriages are taken out, which only they who carry another vendor's signatures pay for. `lost` is told which
    fields the provider does not take without them; they are left out.
    """
    replace: dict[str, bytes] = {"model": model}
    if output_cap is not None:
        replace["max_tokens"] = b"%d" % output_cap
    fields = call.fields
    remove: Collection[str] = EXTENSIONS.intersection(fields) if not fields.keys().isdisjoint(EXTENSIONS) else ()
    if call.tags:
        left = calls.metadata_left(fields)
        if left is None:
            remove = [*remove, "metadata"]
        else:
            replace["metadata"] = left
    if call.media.carriages:
        messages = carriage.without(fields)
        replace["messages"] = messages
        if lost is not None and carriage.lost_thinking(fields, messages):
            lost.append("thinking")
            remove = [*remove, "thinking"]
    for name, value in put:
        replace[name] = value
        remove = [other for other in remove if other != name]
    return splice(call, replace, remove)
