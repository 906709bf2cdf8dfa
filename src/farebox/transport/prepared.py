"""A request head, checked and encoded once.

Everything a caller can put into a request passes here, so that no value of a header can end the header, and no header can
change where the message ends (CWE-113, CWE-444). What remains per request is one length and, rarely, extra headers.
"""

import re
from collections.abc import Sequence
from typing import Final

from .origin import Origin
from .proxy import Proxy

HEADERS_SENT_MAX: Final = 128
"""Header fields a caller may set on one request."""

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 §5.5: no CR, LF, NUL or other control
_TARGET: Final = re.compile(rb"/[!-\"$-~]*")  # RFC 9112 §3.2.1 origin-form: visible ASCII, no blank, no fragment
_OURS: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})
_HOP_BY_HOP: Final = frozenset(
    # RFC 9110 §7.6.1. `expect` too: this client never waits for 100, so announcing it would only cost time.
    {b"connection", b"expect", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"upgrade"}
)
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110 §9.2.2
_IDENTITY: Final = b"accept-encoding: identity\r\n"


class Prepared:
    """An immutable request head for one origin; made by `prepare`, kept and reused by the caller.

    `head` writes it out. `idempotent` says whether the method may be repeated after a lost answer, `head_only` whether
    the response has no body whatever its headers say (HEAD).
    """

    __slots__ = ("_fields", "_has_coding", "_line", "_request", "_sends_length", "head_only", "idempotent", "origin", "pool_key")

    def __init__(self, origin: Origin, method: str, target: str, fields: bytes, *, has_coding: bool) -> None:
        """For `prepare`, which has checked every argument."""
        self.origin = origin
        self.pool_key = repr(origin)  # shows every field, and hashes once instead of field by field at each request
        self.idempotent = method in _IDEMPOTENT
        self.head_only = method == "HEAD"
        self._line = (method, target)
        self._fields = fields
        self._has_coding = has_coding
        self._sends_length = method in _WITH_BODY
        self._request = self._start(None, identity=not has_coding)

    def _start(self, proxy: Proxy | None, *, identity: bool) -> bytes:
        """Request line and prepared fields, each line ended; the head itself still open."""
        method, target = self._line
        if proxy is None:
            line = f"{method} {target} HTTP/1.1\r\nhost: {self.origin.host_header}\r\n"
        else:  # absolute-form, RFC 9112 §3.2.2
            line = f"{method} http://{self.origin.host_header}{target} HTTP/1.1\r\nhost: {self.origin.host_header}\r\n"
            if proxy.authorization is not None:
                line += f"proxy-authorization: {proxy.authorization}\r\n"
        return line.encode("ascii") + self._fields + (_IDENTITY if identity else b"")

    def head(
        self, body_bytes: int, extra: Sequence[tuple[bytes, bytes]] = (), proxy: Proxy | None = None, lines: bytes = b""
    ) -> bytes:
        """The complete head for a body of `body_bytes`, with `extra` fields, in absolute-form when `proxy` is given. `lines` are
        encoded fields, each ended by CR LF, which nobody else had a hand in: they are not checked.

        Raises `ValueError` for an extra field that breaks the rules of `prepare`.
        """
        if extra:
            names = _checked(extra)
            start = self._start(proxy, identity=not self._has_coding and b"accept-encoding" not in names)
            start += b"".join([b"%b: %b\r\n" % field for field in extra])
        else:
            start = self._request if proxy is None else self._start(proxy, identity=not self._has_coding)
        if body_bytes or self._sends_length:
            return b"%b%bcontent-length: %d\r\n\r\n" % (start, lines, body_bytes)
        return b"%b%b\r\n" % (start, lines)


def prepare(origin: Origin, method: str, target: str, headers: Sequence[tuple[str, str]] = ()) -> Prepared:
    """Check and encode a request head.

    `target` is a path with its query, as it goes on the wire (percent-encoded). `host`, the body's length and, unless
    given, `accept-encoding: identity` are added: a gateway that meters bodies wants them plain.

    Raises `ValueError`: for a method or header name that is no token, a target with blanks, a header value with control
    characters or beyond Latin-1, headers that belong to the connection or to this client, too many headers.
    """
    if not _TOKEN.fullmatch(method.encode("utf-8")):
        raise ValueError(f"method {method!r} is no token")
    if method == "CONNECT":
        raise ValueError("`CONNECT` is not a request for an origin; give the client a proxy instead")
    if not _TARGET.fullmatch(target.encode("utf-8")):
        raise ValueError(f"target {target!r} must start with `/` and have only visible ASCII characters, no `#`")
    try:
        fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    except UnicodeEncodeError as error:
        # The value stays out of the message: it may be a credential.
        raise ValueError("header names must be ASCII and values Latin-1") from error
    names = _checked(fields)
    encoded = b"".join([b"%b: %b\r\n" % field for field in fields])
    return Prepared(origin, method, target, encoded, has_coding=b"accept-encoding" in names)


def _checked(fields: Sequence[tuple[bytes, bytes]]) -> set[bytes]:
    """The names in lower case, once every field is known to be harmless. Raises `ValueError`, never quoting a value."""
    if len(fields) > HEADERS_SENT_MAX:
        raise ValueError(f"more than {HEADERS_SENT_MAX} headers")
    names: set[bytes] = set()
    for name, value in fields:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"header name {name!r} is no token")
        lower = name.lower()
        if lower in _OURS:
            raise ValueError(f"header `{lower.decode()}` is written by the client itself")
        if lower in _HOP_BY_HOP:
            raise ValueError(f"header `{lower.decode()}` belongs to a connection, not to a request")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"value of header `{lower.decode()}` contains a control character")
        names.add(lower)
    return names
