"""A head that a connection knows is not parsed again: it must mean exactly what the parser would say of it."""

import json

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support.http_site import Client, Site

HEAD = b"POST /echo?q=1 HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer fb-1\r\nContent-Length: %b\r\nX-Last: %b\r\n\r\n"
BODIES = st.sampled_from([b"", b"a", b"hello", b"x" * 99, b"y" * 100, b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"z" * 5000])
LENGTHS = st.sampled_from(["%d", "%d", "%d", "0%d", "+%d", "%d ", " %d", "\t%d", "%dx", "%d\r\nContent-Length: %d", "%d0"])
LAST = st.sampled_from([b"1", b"1", b"1", b"2", b"", b"1\r\nTransfer-Encoding: chunked", b"1\r\nConnection: close"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    body = draw(BODIES)
    length = draw(LENGTHS)
    said = (length % ((len(body),) * length.count("%d"))).encode()
    raw = HEAD % (said, draw(LAST)) + body
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(raw) - len(body) - 1))
        raw = raw[:place] + draw(st.sampled_from([b"\r", b"\n", b"\0", b":", b"A", b""])) + raw[place + 1 :]
    return raw


def reading(client: Client, raw: bytes) -> tuple[int, object] | None:
    """What the server makes of a request; None when it said nothing within a moment, or the connection is over."""
    client.socket.settimeout(0.25)
    try:
        client.send(raw)
        status, _, body = client.answer()
    except (OSError, EOFError, AssertionError, ValueError, IndexError):
        return None
    found = json.loads(body)
    return status, found if status == 200 else found.get("problem")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raws=st.lists(requests(), min_size=2, max_size=5))
@example(raws=[HEAD % (b"5", b"1") + b"first", HEAD % (b"6", b"1") + b"second", HEAD % (b"5", b"1") + b"third"])
@example(raws=[HEAD % (b"5", b"1") + b"first", HEAD % (b"05", b"1") + b"first", HEAD % (b"+5", b"1") + b"first"])
def test_a_known_head_means_what_a_new_one_does(site: Site, raws: list[bytes]) -> None:
    with Client(site.port) as old:
        for raw in raws:
            if not is_whole(raw):
                return  # what follows would be read as its rest
            with Client(site.port) as new:
                expected = reading(new, raw)
            assert reading(old, raw) == expected
            if expected is None or expected[0] != 200 or b"close" in raw:
                return


def is_whole(raw: bytes) -> bool:
    """The request says how long it is, and is so long: else the server rightly waits, or reads the next one early."""
    head, _, body = raw.partition(b"\r\n\r\n")
    said = [line.partition(b":")[2].strip() for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(said) and all(not word.isdigit() or int(word) == len(body) for word in said)


def test_many_in_a_row_on_one_connection(site: Site) -> None:
    with Client(site.port) as client:
        for n in range(200):
            body = b"b" * n
            found = reading(client, HEAD % (b"%d" % n, b"1") + body)
            assert found is not None and found[0] == 200
            told = found[1]
            assert isinstance(told, dict) and told["headers"]["content-length"] == [str(n)], told
