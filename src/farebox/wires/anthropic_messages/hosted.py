"""Tools that a provider of messages runs on its side: every kind that Anthropic does not leave to the client."""

import msgspec

from farebox.wires import hosted
from farebox.wires.call import Fields
from farebox.wires.hosted import HostedTool

_FIELDS = hosted.SWITCHES | {"tools", "plugins", "context_management"}
SEARCH = "web_search_"
_HERE = ("bash_", "text_editor_", "computer_", "memory_", "tool_search_tool_")
"""Kinds that only describe a tool of the client's (https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview), and
the search among the tools that stand in the request."""
_SUMMARY = "compact_"
"""An edit of the context that the model writes: its tokens stand in `usage.iterations`, and in no total
(https://platform.claude.com/docs/en/build-with-claude/compaction). Edits that only clear something cost nothing."""
_CODE = "code_execution_"
_WEB = ("web_search_", "web_fetch_")
_CODE_IS_FREE_SINCE = "20260209"
"""Beside web tools of that version or a later one, running code costs nothing beside its tokens:
https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool#usage-and-pricing."""


def read(fields: Fields) -> tuple[HostedTool, ...]:
    """All that the request asks for, each once."""
    hosted.check_names(fields, _FIELDS)
    found: list[HostedTool] = []
    if "tools" in fields:
        for place, tool in hosted.objects(fields["tools"]):
            hosted.check_names(tool, hosted.TYPE, inside=f"tools[{place}].")
            kind = hosted.word(tool.get("type"))
            if kind and kind != "custom" and not kind.startswith(_HERE):
                found.append(HostedTool(f"tools[{place}].type", kind, hosted.shown(kind), search=kind.startswith(SEARCH)))
        if found:
            found = _with_company(found)
    edits = hosted.members(fields.get("context_management")).get("edits")
    for place, edit in hosted.objects(edits) if edits is not None else ():
        kind = hosted.word(edit.get("type"))
        if kind.startswith(_SUMMARY):
            found.append(HostedTool(f"context_management.edits[{place}].type", kind, hosted.shown(kind)))
    found += hosted.plugins(fields)
    found += hosted.switched(fields)
    return hosted.different(found, param="tools")


def _with_company(found: list[HostedTool]) -> list[HostedTool]:
    """Running code named together with the web tool that makes it free, if there is one."""
    company = next((tool.name for tool in found if tool.name.startswith(_WEB) and _version(tool.name) >= _CODE_IS_FREE_SINCE), "")
    if not company:
        return found
    return [
        msgspec.structs.replace(tool, name=f"{tool.name} with {company}") if tool.name.startswith(_CODE) else tool
        for tool in found
    ]


def _version(kind: str) -> str:
    """The day at the end of a kind, such as `20260209`; empty for one without."""
    day = kind.rpartition("_")[2]
    return day if len(day) == len(_CODE_IS_FREE_SINCE) and day.isascii() and day.isdigit() else ""
