"""Tools that a provider of chat completions runs on its side: kinds of `tools`, and fields of vendors."""

import msgspec

from farebox.wires import hosted
from farebox.wires.call import Fields
from farebox.wires.hosted import HostedTool

_CLIENTS = (b'"function"', b'"custom"')
"""Kinds of tools that the caller runs itself."""
_FUNCTION_FIELDS = frozenset({"function", "name", "parameters", "input_schema"})
"""Of a tool without a kind: it is meant as a function."""
_GOOGLE = frozenset({
    "google_search", "googleSearch", "google_search_retrieval", "googleSearchRetrieval", "enterprise_web_search",
    "enterpriseWebSearch", "google_maps", "googleMaps", "url_context", "urlContext", "code_execution", "codeExecution",
    "file_search", "fileSearch",
})  # fmt: skip
"""Google's tools are members, not kinds: https://ai.google.dev/api/caching#Tool, in both spellings of Google's JSON."""
_FIELDS = hosted.SWITCHES | {"tools", "web_search_options", "plugins", "extra_body", "google"}


def read(fields: Fields) -> tuple[HostedTool, ...]:
    """All that the request asks for, each once."""
    hosted.check_names(fields, _FIELDS)
    if _FIELDS.isdisjoint(fields):
        return ()
    found: list[HostedTool] = []
    if "tools" in fields:
        for place, tool in hosted.objects(fields["tools"]):
            found += _tool(f"tools[{place}]", tool)
    found += hosted.switched(fields)
    options = fields.get("web_search_options")
    if options is not None and bytes(options) not in (b"null", b"[]"):
        found.append(HostedTool("web_search_options", "web_search_options", hosted.value(options), search=True))
    found += hosted.plugins(fields)
    for path, inner in (
        ("google", fields.get("google")),
        ("extra_body.google", hosted.members(fields.get("extra_body")).get("google")),
    ):
        tools = hosted.members(inner).get("tools")
        for place, tool in hosted.objects(tools) if tools is not None else ():
            found += _members(f"{path}.tools[{place}]", tool, _GOOGLE)
    return hosted.different(found, param="tools")


def _tool(path: str, tool: dict[str, msgspec.Raw]) -> list[HostedTool]:
    hosted.check_names(tool, hosted.TYPE, inside=f"{path}.")
    found = [] if _GOOGLE.isdisjoint(tool) else _members(path, tool, _GOOGLE)
    raw = tool.get("type")
    if raw is None or bytes(raw) == b"null":
        if not found and _FUNCTION_FIELDS.isdisjoint(tool):
            return _members(path, tool, frozenset(tool) - {"type"})
        return found
    if bytes(raw) in _CLIENTS:
        return found
    kind = hosted.word(raw)
    if kind in ("", "function", "custom"):
        return found  # written with escapes, or no kind at all
    if kind == "builtin_function":
        # Moonshot's: https://platform.moonshot.ai/docs/guide/use-web-search
        name = hosted.word(hosted.members(tool.get("function")).get("name"))
        if name:
            return [HostedTool(f"{path}.function.name", name, hosted.shown(name)), *found]
    return [HostedTool(f"{path}.type", kind, hosted.shown(kind)), *found]


def _members(path: str, tool: dict[str, msgspec.Raw], names: frozenset[str]) -> list[HostedTool]:
    return [
        HostedTool(f"{path}.{hosted.shown(name)}", name, hosted.value(raw))
        for name, raw in tool.items()
        if name in names and bytes(raw) not in (b"null", b"false")
    ]
