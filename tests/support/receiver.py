"""Receivers on loopback for what is told to people: an HTTP server that answers as it is told, and a mail server."""

import base64
import hashlib
import hmac
import socketserver
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Request:
    """One request that arrived."""

    def __init__(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.path = path
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body


class Receiver:
    """`with Receiver() as receiver:`; `answers` are the statuses of the next requests, then 200. A status of 0 hangs up."""

    def __init__(self, *, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append(Request(self.path, dict(self.headers.items()), body))
                status = receiver.answers.pop(0) if receiver.answers else 200
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def verify(secret: str, request: Request) -> None:
    """What the specification tells receivers to do, step by step and with nothing of ours. Raises AssertionError."""
    assert secret.startswith("whsec_")
    key = base64.b64decode(secret[6:])
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    wanted = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    given = [part.partition(",") for part in request.headers["webhook-signature"].split(" ")]
    assert any(version == "v1" and hmac.compare_digest(signature, wanted) for version, _, signature in given), "a false signature"


class MailServer:
    """A mail server that takes everything; `mails` are (sender, recipient, text). `refuse` makes it answer 451."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, str, str]] = []
        self.refuse = False
        mails = self

        class Handler(socketserver.StreamRequestHandler):
            def say(self, line: str) -> None:
                self.wfile.write(line.encode() + b"\r\n")

            def handle(self) -> None:
                self.say("220 test")
                sender = recipient = ""
                while line := self.rfile.readline():
                    word = line.decode().strip()
                    verb = word.upper()
                    if verb.startswith("EHLO"):
                        self.say("250 test")
                    elif verb.startswith("MAIL"):
                        sender = word
                        self.say("451 later" if mails.refuse else "250 ok")
                    elif verb.startswith("RCPT"):
                        recipient = word
                        self.say("250 ok")
                    elif verb == "DATA":
                        self.say("354 go on")
                        text = b""
                        while (part := self.rfile.readline()) != b".\r\n":
                            text += part
                        mails.mails.append((sender, recipient, text.decode()))
                        self.say("250 ok")
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 ok")

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "MailServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
