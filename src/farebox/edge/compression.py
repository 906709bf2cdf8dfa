"""Compressed request bodies: gzip, deflate and zstd, with a bound on how much they may grow (security.md §3)."""

import zlib

import zstandard

from farebox.errors import FareboxError, Kind, invalid

INFLATION_MAX = 20
"""A compressed body may grow by this factor at most."""
INFLATE_FLOOR_BYTES = 64 * 1024
"""Small bodies may grow to this size whatever their factor."""
ZSTD_WINDOW_BYTES_MAX = 2**23


def decompress(body: bytes, encoding: bytes, body_bytes_max: int) -> bytes:
    """The body as it was before its `content-encoding`. Raises 400, 413 or 415."""
    name = encoding.strip(b" \t").lower()
    if name in (b"", b"identity"):
        return body
    bytes_max = min(body_bytes_max, max(len(body) * INFLATION_MAX, INFLATE_FLOOR_BYTES))
    try:
        if name in (b"gzip", b"x-gzip", b"deflate"):
            data, rest, complete = _inflate(body, bytes_max, wbits=15 if name == b"deflate" else 31)
        elif name == b"zstd":
            data, rest, complete = _unpack_zstd(body, bytes_max)
        else:
            shown = name[:32].decode("latin-1")
            raise FareboxError(Kind.UNSUPPORTED_MEDIA, f"`content-encoding: {shown}` is not understood; use gzip, zstd or none")
    except (zlib.error, zstandard.ZstdError):
        raise invalid(f"the request body is not valid `{name.decode('latin-1')}`, as its `content-encoding` says") from None
    if len(data) > bytes_max:
        raise FareboxError(Kind.TOO_LARGE, f"the request body unpacks to more than {bytes_max} bytes; send it uncompressed")
    if not complete:
        raise invalid("the compressed request body is cut short")
    if rest:
        raise invalid("the compressed request body has bytes behind its end")
    return data


def _inflate(body: bytes, bytes_max: int, *, wbits: int) -> tuple[bytes, bytes, bool]:
    """At most one byte more than the bound; what is behind the end; whether the end was there."""
    unpacker = zlib.decompressobj(wbits=wbits)
    data = unpacker.decompress(body, bytes_max + 1)
    return data, unpacker.unused_data, unpacker.eof


def _unpack_zstd(body: bytes, bytes_max: int) -> tuple[bytes, bytes, bool]:
    """As `_inflate`. The reader that can be bounded cannot say whether the end was there: what fits is unpacked again."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    data = unpacker.stream_reader(body).read(bytes_max + 1)
    if len(data) > bytes_max:
        return data, b"", False
    judge = unpacker.decompressobj()
    judge.decompress(body)
    return data, judge.unused_data, judge.eof
