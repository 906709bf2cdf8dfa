"""One request as the server hands it on, and the judgement of its head: what could be read in two ways is refused.

llhttp 9 refuses most of what smuggles requests (RFC 9112 §11.2): bare CR or LF, folded lines, space before a colon, control
characters, repeated or odd lengths, a length beside a transfer coding, bad chunk sizes. Refused here although it accepts them:
versions other than 1.0 and 1.1, any transfer coding but a single `chunked` and any at all in HTTP/1.0, a `host` that is
missing, repeated or no host, fragments and authorities that are not the `host` in a target. The checks that decide where a
message ends are made again, so that an older or laxer llhttp would not matter.
"""

import re
from urllib.parse import unquote_to_bytes

import msgspec

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]*)(/[^?#]*|(?=[?]|$))", re.IGNORECASE)
_UPGRADE_FIELDS = frozenset({b"connection", b"upgrade", b"http2-settings"})
LENGTH_DIGITS_MAX = 18  # below 2**63

Problem = tuple[int, str]
"""Why a request can only be refused: status and sentence."""


class Request(msgspec.Struct, eq=False):
    """One request; complete when the handler sees it."""

    method: bytes = b""
    target: bytes = b""
    """As it came, query and all."""
    path: str = ""
    query: bytes = b""
    headers: dict[bytes, bytes] = {}
    notes: dict[str, object] = {}
    """What others have worked out of the head; requests with the same head share it."""
    body: bytes = b""
    repeated: int = 0
    """Field lines whose name had been there before."""
    keep_alive: bool = True
    chunks_understood: bool = True
    """Not in HTTP/1.0, where the end of the connection is the end of a streamed answer."""
    problem: Problem | None = None
    """The connection ends with the refusal."""


def judge(request: Request, version: str) -> Problem | None:
    """Read target and version of a request whose head is complete; what is wrong with the head, if anything."""
    headers = request.headers
    if version != "1.1":
        if version != "1.0":
            return 400, "the request is not HTTP/1.1"
        # Persistence was an afterthought of HTTP/1.0, and differs from client to client: such connections end.
        request.keep_alive = request.chunks_understood = False
    host = headers.get(b"host")
    if host is None:
        if version == "1.1":
            return 400, "the `host` field is missing"
    elif _HOST.fullmatch(host := host.rstrip(b" \t")) is None:
        return 400, "the `host` field is no host"
    path = _path(request, host)
    if path is None:
        return 400, "the request target must be a path"
    request.query = request.target.partition(b"?")[2]
    if b"%" in path:
        path = unquote_to_bytes(path)
    request.path = path.decode("utf-8", "replace")
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if b"content-length" in headers:
            return 400, "`content-length` and `transfer-encoding` exclude each other"
        if version != "1.1" or coding.strip(b" \t").lower() != b"chunked":
            return 400, "`transfer-encoding` other than `chunked`, or in HTTP/1.0, is not understood"
    return None


def _path(request: Request, host: bytes | None) -> bytes | None:
    """The path of the target. Besides plain ones, absolute-form and `*` are legal (RFC 9112 §3.2). None = refuse."""
    target = request.target
    if b"#" in target:
        return None
    if target.startswith(b"/"):
        return target.partition(b"?")[0]
    if target == b"*" and request.method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE.match(target)
    # A server that does not know its own names takes them from `host`; anything else would make it an open proxy.
    if absolute is None or (host is not None and absolute[1].lower() != host.lower()):
        return None
    return absolute[2] or b"/"


def head_without_upgrade(request: Request) -> bytes:
    """The head as it would have come without a wish to upgrade."""
    kept = [b"%b: %b\r\n" % field for field in request.headers.items() if field[0] not in _UPGRADE_FIELDS]
    close = b"" if request.keep_alive else b"connection: close\r\n"
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (request.method, request.target, b"".join(kept), close)
