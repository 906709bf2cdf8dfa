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
    bytes_max = min(body_bytes_max, max(len(body) * INFLATION_MAX, INFLATE_FLOOR_BYTES))
    try:
        if encoding in (b"gzip", b"deflate"):
            unpacker = zlib.decompressobj(wbits=47 if encoding == b"gzip" else 15)
            data = unpacker.decompress(body, bytes_max + 1)
            complete = unpacker.eof
        elif encoding == b"zstd":
            reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX).stream_reader(body)
            data = reader.read(bytes_max + 1)
            complete = True
        elif encoding == b"identity":
            return body
        else:
            shown = encoding[:32].decode("latin-1")
            raise FareboxError(
                Kind.UNSUPPORTED_MEDIA, f"`content-encoding: {shown}` is not understood; use gzip, zstd or none"
            )
    except (zlib.error, zstandard.ZstdError):
        raise invalid("the request body is not valid in its `content-encoding`") from None
    if len(data) > bytes_max:
        raise FareboxError(Kind.TOO_LARGE, f"the request body unpacks to more than {bytes_max} bytes")
    if not complete:
        raise invalid("the compressed request body is cut short")
    return data
