"""Hosted tools: what a request asks its provider to run beside the model. Both wires name it here; routing decides.

A vendor bills such a tool by the use, and its report of tokens seldom says how often it was used. So whatever is not certainly
run by the client is named, also what is newer than this list (`farebox.routing.hosted`).
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from farebox.errors import invalid

NEED = "hosted_tools"
"""Among a call's needs: no offer has it as a capability, so that each is looked at closely."""
TOOLS_MAX = 32
"""Different ones in a request."""
SHOWN_CHARS_MAX = 64
SWITCHES = frozenset({
    # https://www.alibabacloud.com/help/en/model-studio/web-search; `search_options` alone does nothing.
    "enable_search",
    # https://www.alibabacloud.com/help/en/model-studio/qwen-code-interpreter
    "enable_code_interpreter",
    # https://docs.x.ai/docs/guides/live-search
    "search_parameters",
    # Where vendors have a switch in place of a tool of this name.
    "web_search",
    # https://platform.claude.com/docs/en/agents-and-tools/mcp-connector
    "mcp_servers",
})  # fmt: skip
"""Fields of vendors that switch such a tool on, whatever the API."""
TYPE = frozenset({"type"})
_ID = frozenset({"id"})
_SEARCH_LIKE = frozenset({"openrouter:web_search", "openrouter:web_fetch", "web"})
_SECRET = frozenset({"mcp_servers"})
"""Their values hold credentials, and are never repeated."""
_OFF = (b"null", b"false", b"{}", b"[]")
_decode_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_decode_map = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_str = msgspec.json.Decoder(str).decode
_MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class HostedTool(msgspec.Struct, frozen=True):
    """One of them."""

    path: str
    """Where the request says it: `tools[0].type`."""
    name: str
    """What it is called by those who allow it: `browser_search`, `enable_search`."""
    shown: str = ""
    """The value, for the error."""
    search: bool = False
    """A search that a price per search, or per request, is for."""
    gateway: bool = False
    """Only a provider that is a gateway with our extensions is sent it, and on chat completions alone, from whichever API."""


def objects(raw: msgspec.Raw) -> list[tuple[int, dict[str, msgspec.Raw]]]:
    """The objects in a list with their places. What is no object, or no list, is left for the provider to name."""
    try:
        return list(enumerate(_decode_objects(raw)))
    except _MALFORMED:
        pass
    try:
        listed: Any = msgspec.json.decode(raw)
    except _MALFORMED:
        return []
    found: list[tuple[int, dict[str, msgspec.Raw]]] = []
    for place, item in enumerate(cast("list[Any]", listed) if isinstance(listed, list) else []):
        if isinstance(item, dict):
            members = cast("dict[str, Any]", item)
            found.append((place, {name: _written(value) for name, value in members.items()}))
    return found


def _written(value: Any) -> msgspec.Raw:
    """A member that is no kind of tool, since it is nested too deeply to be written again, is as good as none."""
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except _MALFORMED:
        return msgspec.Raw(b"null")


def check_names(found: Iterable[str], known: frozenset[str], *, inside: str = "") -> None:
    """Raises the 400 of a name that is a known one but for its case: some providers' parsers take it for that."""
    for name in found:
        if not (name.isascii() and name.islower()) and name.casefold() in known and name not in known:
            where = inside + shown(name)
            raise invalid(f"`{where}` is not a field; write `{name.casefold()}`", param=where)


def members(raw: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    """An object's members; none of what is no object."""
    try:
        return {} if raw is None else _decode_map(raw)
    except _MALFORMED:
        return {}


def word(raw: msgspec.Raw | None) -> str:
    """A string; empty for anything else."""
    try:
        return "" if raw is None else _decode_str(raw)
    except _MALFORMED:
        return ""


def switched(fields: Mapping[str, msgspec.Raw]) -> list[HostedTool]:
    """What vendors' own fields switch on, in the request's order."""
    found: list[HostedTool] = []
    if SWITCHES.isdisjoint(fields):
        return found
    for name, raw in fields.items():
        if name not in SWITCHES or bytes(raw) in _OFF:
            continue
        if name == "search_parameters" and word(members(raw).get("mode")) == "off":
            continue
        found.append(HostedTool(name, name, "" if name in _SECRET else value(raw)))
    return found


def plugins(fields: Mapping[str, msgspec.Raw]) -> list[HostedTool]:
    """What a gateway is asked to do around the model (https://openrouter.ai/docs/guides/features/plugins)."""
    raw = fields.get("plugins")
    found: list[HostedTool] = []
    for place, plugin in objects(raw) if raw is not None else ():
        check_names(plugin, _ID, inside=f"plugins[{place}].")
        name = word(plugin.get("id"))
        if name:
            found.append(HostedTool(f"plugins[{place}].id", name, shown(name), gateway=True))
    return found


def search_like(found: tuple[HostedTool, ...]) -> bool:
    """Whether a gateway may search or fetch for the call, which is held for like searches."""
    return any(tool.name in _SEARCH_LIKE for tool in found)


def reads_more(found: tuple[HostedTool, ...]) -> bool:
    """Whether the model may be given more to read than the request holds. Plugins only mend, unless they search."""
    return any(not tool.gateway or tool.name in _SEARCH_LIKE for tool in found)


def value(raw: msgspec.Raw) -> str:
    """A value as the request writes it, for a sentence."""
    return shown(bytes(raw).decode("utf-8", "replace"))


def shown(text: str) -> str:
    """A value for a sentence."""
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"


def different(found: list[HostedTool], *, param: str) -> tuple[HostedTool, ...]:
    """Each once, where it stands first. Raises the 400 of too many: none may hide behind others."""
    by_name: dict[tuple[str, bool], HostedTool] = {}
    for tool in found:
        by_name.setdefault((tool.name, tool.gateway), tool)
    if len(by_name) > TOOLS_MAX:
        raise invalid(
            f"`{param}` asks for more than {TOOLS_MAX} different tools that providers run; send fewer of them", param=param
        )
    return tuple(by_name.values())
