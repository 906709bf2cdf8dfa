"""Bad input through one whole gateway, on both surfaces: a clear error of the right shape, nothing lost, never a traceback.

Errors are judged by what the vendors' own SDKs make of them.
"""

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
import zstandard
from tests.support import bad_bodies
from tests.support.bad_bodies import Case, body
from tests.support.running import Farebox, Reply, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
GOOD = {CHAT: "lab/chat", MESSAGES: "lab/messages"}
GARBAGE = (
    "html", "error-in-200", "status=500", "status=401", "status=404", "reset-at-byte=30", "cut-at-byte=30", "gzip",
    "truncated-chunked", "big-header=70000", "lying-length=9999", "malformed-event=1", "usage=negative", "usage=nan",
    "no-done", "silent-close",
)  # fmt: skip


class Lab:
    """A running gateway over a simulated provider, and keys of every kind."""

    def __init__(self, box: Farebox) -> None:
        self.box = box
        self.poor = self._key("poor", topup=None)
        self.revoked = self._key("revoked")
        self.box.do("keys", "revoke", self.revoked["id"])

    def _key(self, name: str, topup: str | None = "5") -> dict[str, str]:
        self.box.do("accounts", "create", name)
        if topup is not None:
            self.box.do("topup", name, topup)
        return self.box.do("keys", "create", "--account", name)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("bad-input")
    with SimulatorProcess() as simulator:
        config = "[attempts]\nattempts_max = 1\n"
        config += provider("chat", simulator.base_url) + provider("msg", simulator.base_url, wire="anthropic_messages")
        for wire, path in (("chat", CHAT), ("msg", MESSAGES)):
            config += model(GOOD[path], offer(wire, "sim"))
            config += "".join(model(garbage_model(path, what), offer(wire, f"sim+{what}")) for what in GARBAGE)
        with Farebox(folder / "data", config=config) as box:
            found = Lab(box)
            yield found
            wait_until(lambda: "farebox_hold_open 0.0" in box.get("/metrics", key=None).body.decode(), "no hold is left")
            box.wait_posted()
            box.check_books()
            assert "Traceback" not in box.errors.read_text() and "internal error" not in box.errors.read_text()


def garbage_model(path: str, what: str) -> str:
    return f"{GOOD[path]}-{what.replace('=', '-')}"


def error_of(path: str, reply: Reply) -> Any:
    """The exception that the surface's own SDK raises for an answer, with its shape looked at."""
    response = httpx2.Response(
        reply.status, headers=reply.headers, content=reply.body, request=httpx2.Request("POST", "http://test" + path)
    )
    assert reply.headers["content-type"] == "application/json" and reply.headers["x-request-id"].startswith("req-")
    if path == CHAT:
        error = openai.OpenAI(api_key="x")._make_status_error_from_response(response)
        assert isinstance(error, openai.APIStatusError) and isinstance(error.body, dict)
        assert {"message", "type", "param", "code"} <= error.body.keys() and error.body["type"] and error.code
    else:
        error = anthropic.Anthropic(api_key="x")._make_status_error_from_response(response)
        assert isinstance(error, anthropic.APIStatusError) and isinstance(error.body, dict)
        assert error.body["type"] == "error" and error.body["error"]["type"]
    assert error.request_id == reply.headers["x-request-id"]
    return error


def message_of(path: str, error: Any) -> str:
    return error.body["message"] if path == CHAT else error.body["error"]["message"]


def check(lab: Lab, path: str, case: Case, **options: Any) -> None:
    sent, status, words = case
    reply = lab.box.post(path, sent, **options)
    message = message_of(path, error_of(path, reply))
    assert (reply.status, words in message) == (status, True), (reply.status, message)
    assert len(message) < 500 and "Traceback" not in message


def both(make: Any) -> list[Any]:
    return [
        pytest.param(path, case, id=f"{path[4:8]}-{name}") for path in (CHAT, MESSAGES) for name, case in make(GOOD[path]).items()
    ]


@pytest.mark.parametrize(("path", "case"), both(bad_bodies.unreadable))
def test_a_body_that_cannot_be_read(lab: Lab, path: str, case: Case) -> None:
    check(lab, path, case)


@pytest.mark.parametrize(("path", "case"), both(bad_bodies.wrong_fields))
def test_a_field_of_the_wrong_type_or_size(lab: Lab, path: str, case: Case) -> None:
    check(lab, path, case)


@pytest.mark.parametrize("name", bad_bodies.wrong_chat_fields(""))
def test_a_field_of_chat_completions(lab: Lab, name: str) -> None:
    check(lab, CHAT, bad_bodies.wrong_chat_fields(GOOD[CHAT])[name])


@pytest.mark.parametrize("name", bad_bodies.wrong_messages_fields(""))
def test_a_field_of_messages(lab: Lab, name: str) -> None:
    check(lab, MESSAGES, bad_bodies.wrong_messages_fields(GOOD[MESSAGES])[name])


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_name_that_stands_twice_is_read_and_sent_once(lab: Lab, path: str) -> None:
    sent = b'{"model":"nonsense","max_tokens":999,' + body(GOOD[path])[1:]
    reply = lab.box.post(path, sent)
    assert reply.status == 200
    usage = reply.json()["usage"]
    assert usage.get("completion_tokens", usage.get("output_tokens")) == 5, "the cap that was held for"


ZSTD_BOMB = zstandard.ZstdCompressor().compress(b" " * 500_000_000)
ENCODED: dict[str, tuple[str, bytes, int, str]] = {
    "no_gzip": ("gzip", b"{}", 400, "not valid `gzip`"),
    "gzip_cut_short": ("gzip", gzip.compress(b"{}" * 100)[:-5], 400, "cut short"),
    "gzip_and_garbage": ("gzip", gzip.compress(b"{}") + b"x", 400, "bytes behind its end"),
    "gzip_bomb": ("gzip", gzip.compress(b" " * 50_000_000), 413, "unpacks to more than"),
    "no_deflate": ("deflate", b"{}", 400, "not valid `deflate`"),
    "no_zstd": ("zstd", b"{}", 400, "not valid `zstd`"),
    "zstd_cut_short": ("ZSTD", zstandard.ZstdCompressor().compress(b'{"a": 1}' * 9)[:-2], 400, "cut short"),
    "zstd_bomb": ("zstd", ZSTD_BOMB, 413, "unpacks to more than"),
    "brotli": ("br", b"{}", 415, "`content-encoding: br` is not understood; use gzip, zstd or none"),
    "twice": ("gzip, gzip", b"{}", 415, "use gzip, zstd or none"),
}


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("name", ENCODED)
def test_a_compressed_body(lab: Lab, path: str, name: str) -> None:
    encoding, sent, status, words = ENCODED[name]
    check(lab, path, (sent, status, words), headers={"content-encoding": encoding})


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x"])
def test_the_content_type_is_not_what_a_body_is_judged_by(lab: Lab, path: str, kind: str) -> None:
    assert lab.box.post(path, body(GOOD[path]), headers={"content-type": kind}).status == 200


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_bodies_of_nine_and_eleven_megabytes(lab: Lab, path: str) -> None:
    long = [{"role": "user", "content": "y" * 9_000_000}]
    check(lab, path, (body(GOOD[path], messages=long), 400, "tokens"))
    check(lab, path, (body(GOOD[path], messages=long * 2), 413, "larger than 10485760 bytes"))


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"authorization": "Basic YTpi"}, 401, "`Authorization` must be `Bearer`"),
        ({"authorization": "Bearer "}, 401, "no API key was sent; put it into `Authorization: Bearer"),
        ({"authorization": "Bearer fb-x"}, 401, "the API key is not valid"),
        ({"authorization": "Bearer " + "x" * 5000}, 401, "the API key is not valid"),
        ({"authorization": "Bearer sk-ant-api03-abc"}, 401, "the API key is not valid"),
        ({"x-api-key": "fb-other"}, 400, "two different credentials; send one of them"),
        ({"authorization": "Bearer \xff\xfe"}, 401, "the API key is not valid"),
    ],
)
def test_a_credential_that_is_none(lab: Lab, path: str, headers: dict[str, str], status: int, words: str) -> None:
    check(lab, path, (body(GOOD[path]), status, words), headers=headers)


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_no_key_a_revoked_key_and_no_money(lab: Lab, path: str) -> None:
    good = body(GOOD[path])
    check(lab, path, (good, 401, "no API key was sent"), key=None)
    check(lab, path, (good, 401, "was revoked; use another"), key=lab.revoked["key"])
    check(lab, path, (good, 402, "has $0.0"), key=lab.poor["key"])


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_the_wrong_method(lab: Lab, path: str) -> None:
    reply = lab.box.get(path)
    assert reply.status == 405 and "takes POST, not GET" in message_of(path, error_of(path, reply))
    assert reply.headers["allow"] == "POST"
    assert lab.box.post("/v1/models", b"{}").headers["allow"] == "GET"


def test_a_page_of_another_origin_may_send_its_key_and_read_what_is_said_in_headers(lab: Lab) -> None:
    with socket.create_connection(("127.0.0.1", lab.box.port)) as client:
        client.sendall(b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        told = b"".join(iter(lambda: client.recv(4096), b""))
    assert told.startswith(b"HTTP/1.1 204 ")
    assert b"\r\naccess-control-allow-headers: authorization, *\r\n" in told
    for path in (CHAT, MESSAGES):
        found = lab.box.post(path, body(GOOD[path])).headers
        assert found["access-control-allow-origin"] == found["access-control-expose-headers"] == "*"
        assert "x-farebox-cost-usd" in found


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_from_a_provider(lab: Lab, path: str, stream: bool, what: str) -> None:
    reply = lab.box.post(path, body(garbage_model(path, what), stream=stream))
    if reply.status == 200:
        if stream:
            assert all(isinstance(event, dict) for event in reply.events()) and reply.events()
        else:
            assert reply.json()["id"].startswith("gen-")
        return
    assert reply.status == 502
    assert message_of(path, error_of(path, reply)) and "Traceback" not in reply.body.decode()


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_client_may_vanish_at_any_byte_of_a_call(lab: Lab, path: str) -> None:
    sent = body(GOOD[path], stream=True)
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {lab.box.key}\r\nContent-Length: {len(sent)}\r\n\r\n"
    request = head.encode() + sent
    for length in [*range(0, len(request), 7), len(request)]:
        with socket.create_connection(("127.0.0.1", lab.box.port)) as client:
            client.sendall(request[:length])
    for length in range(1, 1500, 60):
        with socket.create_connection(("127.0.0.1", lab.box.port)) as client:
            client.sendall(request)
            client.recv(length, socket.MSG_WAITALL)
    assert lab.box.post(path, body(GOOD[path])).status == 200


def test_unknown_paths_are_named_in_the_surface_of_their_client(lab: Lab) -> None:
    assert "there is no `/v1/nothing` here" in message_of(CHAT, error_of(CHAT, lab.box.get("/v1/nothing")))
    reply = lab.box.get("/v1/nothing", headers={"anthropic-version": "2023-06-01"})
    assert json.loads(reply.body)["type"] == "error" and reply.status == 404
