"""The response parser against h11 as the oracle: the same bytes, split anywhere, mean the same to both, or are refused.

Where this client is stricter than h11, `STRICTER` says how, by our own message; where h11 is, `LAXER` says why that is harmless.
Both lists have an example each, so that neither can grow unnoticed.
"""

import re

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from farebox.transport.errors import HeadersTooLarge, ProtocolError, TransportError, Truncated
from farebox.transport.limits import HEADER_BYTES_MAX, HEADERS_MAX, INTERIM_MAX
from farebox.transport.reader import ResponseReader

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

STRICTER = {
    "a line ends in LF alone": (r"does not end in CRLF|Missing expected CR|Invalid header field char", OK + b"a: b\n\r\n"),
    "a folded header": (r"Unexpected whitespace after header value", OK + b"a: b\r\n c\r\ncontent-length: 0\r\n\r\n"),
    "a control character in a header": (r"Invalid header value char", OK + b"a: \x01\r\ncontent-length: 0\r\n\r\n"),
    "content-length twice": (r"several `content-length`|Duplicate Content-Length", OK + b"Content-Length: 0\r\n" * 2 + b"\r\n"),
    "content-length as a list": (r"Invalid character in Content-Length", OK + b"Content-Length: 0, 0\r\n\r\n"),
    "content-length beside transfer-encoding": (
        r"`content-length` beside|can't be present with",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "a transfer coding in HTTP/1.0": (
        r"unknown transfer coding b'chunked'",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "another version": (r"status line|does not start with", b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n"),
    "chunk extensions outside the grammar": (r"chunk extension|chunk size", CHUNKED + b"2; x=\x01\r\nok\r\n0\r\n\r\n"),
}
LAXER = {
    "a chunk size with more than 20 digits, mostly zeros": CHUNKED + b"0" * 30 + b"2\r\nok\r\n0\r\n\r\n",
}


def ours(pieces, head_only=False):
    """Status, headers and body, or None when refused; then the error, and the reader."""
    reader = ResponseReader(head_only=head_only)
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.feed_eof()
    except TransportError as error:
        reader.drop_parser()
        return None, error, reader
    reader.drop_parser()
    coding = b"transfer-encoding"  # h11 rewrites its value in lower case
    headers = [(name, value.lower() if name == coding else value) for name, value in reader.head.fields()]
    return (reader.head.status, headers, b"".join(reader.body)), None, reader


def oracle(data, head_only=False):
    """The same by h11, and whether the connection is left at the start of the next response."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="HEAD" if head_only else "POST", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    status, headers, body = None, [], []
    fed_eof = False
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if fed_eof:
                    return None, False
                connection.receive_data(b"")
                fed_eof = True
            elif isinstance(event, h11.Response):
                status, headers = event.status_code, list(event.headers)
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                clean = connection.their_state is h11.DONE and connection.trailing_data == (b"", False) and not fed_eof
                return (status, headers, b"".join(body)), clean
            elif not isinstance(event, h11.InformationalResponse):
                return None, False
    except h11.RemoteProtocolError:
        return None, False


TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(str.encode)
VALUE = st.binary(max_size=30).map(lambda raw: bytes(byte for byte in raw if byte == 9 or 32 <= byte < 127 or byte > 127))
FRAMING = {b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"proxy-connection"}
FIELD = st.tuples(TOKEN, VALUE).filter(lambda field: field[0].lower() not in FRAMING)
BLANKS = st.sampled_from([b"", b" ", b"\t", b"  \t "])


@st.composite
def fields(draw):
    lines = [name + b":" + draw(BLANKS) + value + draw(BLANKS) + b"\r\n" for name, value in draw(st.lists(FIELD, max_size=8))]
    lines.extend(draw(st.sampled_from([[], [b"Connection: close\r\n"], [b"connection: Keep-Alive\r\n"]])))
    return draw(st.permutations(lines))


@st.composite
def responses(draw):
    """A valid response, maybe with interim ones before it and bytes behind it."""
    out = []
    for _ in range(draw(st.integers(0, 2))):
        out += [draw(st.sampled_from([b"HTTP/1.1 100 Continue\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n"])), b"\r\n"]
    status = draw(st.sampled_from([200, 200, 201, 204, 304, 400, 404, 429, 500, 529, 599, 999]))
    reason = draw(st.sampled_from([b" OK", b" ", b"", b" Not \xe9t\xe9 found"]))
    body = draw(st.binary(max_size=60))
    lines = draw(fields())
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if framing == "length":
        lines.append(draw(st.sampled_from([b"Content-Length: %d\r\n", b"content-length:%d \r\n"])) % len(body))
        payload = body
    elif framing == "chunked":
        lines.append(draw(st.sampled_from([b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:Chunked \r\n"])))
        payload = b""
        while body:
            size = draw(st.integers(1, len(body)))
            extension = draw(st.sampled_from([b"", b"", b";a", b";a=b", b';a="b c"']))
            payload += draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % size + extension + b"\r\n" + body[:size] + b"\r\n"
            body = body[size:]
        payload += b"0\r\n" + draw(st.sampled_from([b"", b"", b"x-sum: 1\r\n", b"a: b\r\nc:\r\n"])) + b"\r\n"
    else:
        payload = body
    out += [b"HTTP/1.1 %d" % status + reason + b"\r\n", *draw(st.permutations(lines)), b"\r\n", payload]
    out.append(draw(st.sampled_from([b"", b"", b"", b"\r\n", b"\r", b"HTTP/1.1 200 OK\r\n\r\n", b"x"])))
    return b"".join(out)


@st.composite
def mutated(draw):
    """A valid response with a few bytes changed, dropped, doubled or put in."""
    data = bytearray(draw(responses()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["put", "drop", "change", "double"]))
        if kind == "put":
            data[at:at] = draw(
                st.sampled_from(
                    [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b",", b"0", b"-", b"+", b";", b"\x7f", b"\x0b", b"\xff"]
                    + [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\nTransfer-Encoding: gzip", b"HTTP/1.1 "]
                )
            )
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 3))]
        elif kind == "change" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 20))]
    return bytes(data)


def split(data, cuts):
    cuts = sorted({cut for cut in cuts if 0 < cut < len(data)})
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]


CUTS = st.lists(st.integers(0, 400), max_size=12)


@settings(max_examples=250, deadline=None)
@given(responses(), CUTS, st.booleans())
def test_valid_responses_mean_what_h11_reads(data, cuts, head_only):
    expected, clean = oracle(data, head_only)
    assert expected is not None, "the strategy makes valid responses"
    got, error, reader = ours(split(data, cuts), head_only)
    assert error is None
    assert got == expected
    one_piece = ours([data], head_only)
    assert one_piece[0] == got
    if one_piece[2].reusable:
        assert clean


@settings(max_examples=400, deadline=None)
@given(mutated(), CUTS, st.booleans())
def test_mutated_responses_mean_what_h11_reads_or_are_refused(data, cuts, head_only):
    expected, _ = oracle(data, head_only)
    got, error, _ = ours(split(data, cuts), head_only)
    if got is not None:
        assert got == expected
    elif expected is not None:
        assert any(re.search(pattern, str(error)) for pattern, _ in STRICTER.values()), error
    assert ours([data], head_only)[0] == got


@settings(max_examples=200, deadline=None)
@given(st.one_of(responses(), mutated()))
def test_single_bytes_mean_the_same_as_one_piece(data):
    assert ours([bytes([byte]) for byte in data])[0] == ours([data])[0]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
@example(b"HTTP/1.1 200 OK\r\n\r\n\x00\xff")
def test_any_bytes_end_in_a_response_or_a_transport_error(data):
    got, error, _ = ours([data])
    assert (got is None) != (error is None)


@pytest.mark.parametrize("name", STRICTER)
def test_stricter_than_h11(name):
    pattern, data = STRICTER[name]
    assert oracle(data)[0] is not None
    got, error, _ = ours([data])
    assert got is None
    assert re.search(pattern, str(error))


@pytest.mark.parametrize("name", LAXER)
def test_laxer_than_h11(name):
    assert oracle(LAXER[name])[0] is None
    assert ours([LAXER[name]])[0] is not None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(OK + b"transfer-encoding: gzip\r\n\r\n", id="unknown coding"),
        pytest.param(OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="coding under chunked"),
        pytest.param(OK + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", id="chunked twice in one field"),
        pytest.param(OK + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", id="chunked in two fields"),
        pytest.param(OK + b"transfer-encoding:\r\n\r\n", id="empty coding"),
        pytest.param(OK + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", id="coding that ends in chunked"),
        pytest.param(OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab", id="two lengths"),
        pytest.param(OK + b"content-length: +2\r\n\r\nab", id="signed length"),
        pytest.param(OK + b"content-length: 0x2\r\n\r\nab", id="hexadecimal length"),
        pytest.param(OK + b"content-length: 2_0\r\n\r\nab", id="length with an underscore"),
        pytest.param(OK + b"content-length:\r\n\r\n", id="empty length"),
        pytest.param(OK + b"content-length: 1000000000000000000\r\n\r\n", id="length beyond 63 bits"),
        pytest.param(OK + b"content-length : 2\r\n\r\nab", id="blank before the colon"),
        pytest.param(OK + b"x\r\n\r\n", id="line without a colon"),
        pytest.param(OK + b"a: b\rc: d\r\n\r\n", id="bare CR"),
        pytest.param(OK + b"a: b\0\r\n\r\n", id="NUL"),
        pytest.param(b"\r\n" + OK + b"\r\n", id="empty line before the response"),
        pytest.param(b"HTTP/2.0 200 OK\r\n\r\n", id="HTTP/2.0"),
        pytest.param(b"ICE/1.1 200 OK\r\n\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 099 OK\r\n\r\n", id="status below 100"),
        pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", id="status of two digits"),
        pytest.param(b"HTTP/1.1  200 OK\r\n\r\n", id="two blanks before the status"),
        pytest.param(b"HTTP/1.1 200 O\0K\r\n\r\n", id="NUL in the reason"),
        pytest.param(b"HTTP/1.1 101 Switching\r\n\r\n", id="101"),
        pytest.param(CHUNKED + b"2\nok\r\n0\r\n\r\n", id="chunk size ends in LF"),
        pytest.param(CHUNKED + b"2\r\nok0\r\n\r\n", id="chunk without its end"),
        pytest.param(CHUNKED + b"-2\r\nok\r\n0\r\n\r\n", id="negative chunk"),
        pytest.param(CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n", id="chunk size with 0x"),
        pytest.param(CHUNKED + b"10000000000000002\r\nok\r\n0\r\n\r\n", id="chunk size beyond 64 bits"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n", id="length in the trailers"),
    ],
)
def test_refused(data):
    with pytest.raises(ProtocolError):
        ResponseReader().feed(data)


def test_trailers_are_dropped():
    got, error, reader = ours([CHUNKED + b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"])
    assert error is None
    assert got == (200, [(b"transfer-encoding", b"chunked")], b"ok")


def test_bytes_behind_the_end_do_not_join_the_body():
    reader = ResponseReader()
    reader.feed(CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + OK + b"content-length: 4\r\n\r\nevil")
    assert (reader.complete, reader.reusable, reader.body) == (True, False, [b"ok"])


def test_reusable_after_the_usual_endings():
    for data in (OK + b"content-length: 2\r\n\r\nok", CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"):
        reader = ResponseReader()
        reader.feed(data)
        assert (reader.complete, reader.reusable) == (True, True)


@pytest.mark.parametrize("size", [HEADER_BYTES_MAX, HEADER_BYTES_MAX + 1])
@pytest.mark.parametrize("step", [1000, HEADER_BYTES_MAX * 2])
def test_head_is_bounded_in_bytes(size, step):
    start, end = OK + b"x: ", b"\r\ncontent-length: 0\r\n\r\n"
    data = start + b"y" * (size - len(start) - len(end)) + end
    reader = ResponseReader()
    pieces = split(data, range(0, len(data), step))
    if size <= HEADER_BYTES_MAX:
        for piece in pieces:
            reader.feed(piece)
        assert reader.complete
    else:
        with pytest.raises(HeadersTooLarge):
            for piece in pieces:
                reader.feed(piece)


def test_head_is_bounded_in_fields():
    ResponseReader().feed(OK + b"a: b\r\n" * HEADERS_MAX + b"\r\n")
    with pytest.raises(HeadersTooLarge):
        ResponseReader().feed(OK + b"a:\r\n" * (HEADERS_MAX + 1) + b"\r\n")


def test_interim_responses_are_bounded():
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    reader = ResponseReader()
    reader.feed(interim * INTERIM_MAX + OK + b"\r\n")
    assert reader.head is not None
    with pytest.raises(ProtocolError):
        ResponseReader().feed(interim * (INTERIM_MAX + 1))


@pytest.mark.parametrize("start", [b"2;", b"0\r\nx: "])
def test_framing_without_body_is_bounded(start):
    """Endless extensions or trailers hold no memory, but neither may they hold the exchange for ever."""
    reader = ResponseReader()
    reader.feed(CHUNKED + start)
    with pytest.raises(ProtocolError, match="chunk framing"):
        for _ in range(HEADER_BYTES_MAX // 1000 + 1):
            reader.feed(b"a" * 1000)


def test_truncation_says_where():
    for data, phase in (
        (b"", "headers"),
        (OK, "headers"),
        (OK + b"content-length: 9\r\n\r\nx", "body"),
        (CHUNKED + b"2\r\n", "body"),
    ):
        reader = ResponseReader()
        if data:
            reader.feed(data)
        with pytest.raises(Truncated) as caught:
            reader.feed_eof()
        assert caught.value.phase == phase


def test_header_is_found_by_its_whole_name():
    _, _, reader = ours([OK + b"x-content-type: a\r\nContent-Type:\tb \r\ncontent-type: c\r\n\r\n"])
    assert reader.head.get(b"content-type") == b"b"
    assert reader.head.get(b"content") is None
    assert reader.head.get(b"http/1.1 200 ok") is None
