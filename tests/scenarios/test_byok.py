"""Customers' own keys at providers over HTTP, in OpenRouter's shape, and what a running gateway makes of them."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from tests.support.running import Farebox, Reply, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

SECRET = "sk-customer-own-secret-0001"
OTHER = "sk-customer-own-secret-0002"
SHAPE = {
    "id", "provider", "name", "label", "disabled", "is_fallback", "always_use", "sort_order", "broken", "allowed_models",
    "allowed_user_ids", "allowed_api_key_hashes", "workspace_id", "created_at", "updated_at",
}  # fmt: skip
HOUSE = "sk-house-Zx81kQpLw0aVnT3mYb6c"
CHAT = {"model": "k/one", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}


class Site:
    """A gateway, a management key of its first account and a usual one."""

    def __init__(self, box: Farebox) -> None:
        self.box = box
        self.boss = box.do("keys", "create", "--account", "default", "--name", "boss", "--scope", "manage")["key"]
        self.made = box.do("keys", "create", "--account", "default", "--name", "usual")
        self.said: list[str] = []

    def raw(self, method: str, path: str, body: Any = None) -> Reply:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = self.box.request(method, path, data, key=self.boss)
        self.said.append(reply.body.decode())
        return reply

    def send(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        reply = self.raw(method, path, body)
        assert reply.status == status, reply.body
        return reply.json()

    def considered(self, key: str | None = None) -> str:
        """What the router says of the call, all of it."""
        reply = self.box.post("/v1/route/explain", CHAT, key=key or self.made["key"])
        assert reply.status in (200, 400, 503), reply.body
        self.said.append(reply.body.decode())
        return reply.body.decode()

    def chat(self) -> Reply:
        reply = self.box.post("/v1/chat/completions", CHAT, key=self.made["key"])
        self.said.append(reply.body.decode())
        return reply


class Mirror(BaseHTTPRequestHandler):
    """A provider that repeats the key it was called with, in the way that the model's name says."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[set[str]] = set()
    """The keys that came."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        way, stream = body["model"], body.get("stream", False)
        key = self.headers["authorization"].removeprefix("Bearer ")
        self.seen.add(key)
        said = {"whole": key, "masked": f"{key[:8]}{'*' * 12}{key[-4:]}", "part": f"(ends in {key[9:]})"}[way.split("-")[1]]
        error = {"error": {"message": f"Key {said}?", "code": f"no_{said}", "param": said, "type": "invalid_request_error"}}
        status, kind, out = 200, "application/json", json.dumps(error).encode()
        if way.startswith("status"):
            status = int(way.split("-")[2])
        elif way.startswith("garbage"):
            out = json.dumps({"choices": said, "id": [said]}).encode()
        elif way.startswith("event") and stream:
            kind = "text/event-stream"
            piece = {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hello"}}]}
            out = b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in (piece, error))
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


FORMS = ("whole", "masked", "part")
WAYS = [f"status-{form}-{status}" for form in FORMS for status in (400, 401, 500)]
WAYS += [f"{way}-{form}" for form in FORMS for way in ("body", "garbage", "event")]


@pytest.fixture(scope="module")
def mirror() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, mirror: str) -> Iterator[Site]:
    with SimulatorProcess(bill_path=tmp_path_factory.mktemp("byok") / "bill.jsonl") as simulator:
        text = provider("lab", f"{simulator.origin}/v1") + model("k/one", offer("lab", "sim+tokens=5"))
        text += '[providers.ollama]\nbase_url = "http://127.0.0.1:9/v1"\n'
        text += model("k/local", offer("ollama", "x"))
        text += f'[providers.mirror]\nwire = "openai_chat"\nbase_url = "{mirror}"\napi_key = "{HOUSE}"\n'
        text += "".join(model(f"m/{way}", offer("mirror", way)) for way in WAYS)
        text += "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n[attempts]\nbackoff_ms = 1\n"
        with Farebox(tmp_path_factory.mktemp("byok") / "box", config=text) as box:
            found = Site(box)
            yield found
            everything = "".join(found.said) + box.log_text()
            for secret in (SECRET, OTHER):
                assert secret not in everything, "no answer and no log has ever a secret"


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
def test_the_life_of_a_customers_key(site: Site, base: str) -> None:
    asked = {"provider": "lab", "key": SECRET, "name": "Production"}
    made = site.send("POST", f"{base}/byok", asked, status=201)["data"]
    assert set(made) == SHAPE and (made["label"], made["name"], made["provider"]) == ("…0001", "Production", "lab")
    assert (made["disabled"], made["sort_order"], made["broken"]) == (False, 0, False) and made["allowed_api_key_hashes"] is None
    assert "Production" in site.considered(), "in force at once"
    path = f"{base}/byok/{made['id']}"
    assert site.send("GET", path)["data"] == made
    assert site.send("GET", f"{base}/byok?provider=lab&limit=1") == {"data": [made], "total_count": 1}
    assert site.send("GET", f"{base}/byok?provider=none") == {"data": [], "total_count": 0}
    changed = site.send("PATCH", path, {"key": OTHER, "allowed_api_key_hashes": [site.made["id"]], "name": None})["data"]
    assert (changed["label"], changed["allowed_api_key_hashes"], changed["name"]) == ("…0002", [site.made["id"]], None)
    assert made["id"] in site.considered() and made["id"] not in site.considered(site.box.key), "only the key that is named"
    second = site.send("POST", f"{base}/byok", {**asked, "sort_order": 0, "disabled": True}, status=201)["data"]
    assert [one["id"] for one in site.send("GET", f"{base}/byok")["data"]] == [second["id"], made["id"]]
    assert second["id"] not in site.considered(), "disabled"
    assert site.send("DELETE", path) == {"deleted": True} and made["id"] not in site.considered()
    for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
        assert "there is no provider key" in site.send(method, path, body, status=404)["error"]["message"]
    site.send("DELETE", f"{base}/byok/{second['id']}")


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"key": SECRET}, "provider", "is missing"),
        ({"provider": "opneai", "key": SECRET}, "provider", "cannot be called here; those that take a key of yours: lab"),
        ({"provider": "openai", "key": SECRET}, "provider", "cannot be called here"),
        ({"provider": "ollama", "key": SECRET}, "provider", "takes no key of yours"),
        ({"provider": "lab"}, "key", "is missing"),
        ({"provider": "lab", "key": [SECRET]}, "key", "is not a string"),
        ({"provider": "lab", "key": ""}, "key", "is empty"),
        ({"provider": "lab", "key": f"Bearer {SECRET}"}, "key", "begins with `Bearer`"),
        ({"provider": "lab", "key": f"{SECRET}\r\nx-evil: 1"}, "key", "characters that no key has"),
        ({"provider": "lab", "key": SECRET * 50}, "key", "longer than 1024"),
        ({"provider": "lab", "key": "ours"}, "key", "is a Farebox key"),
        ({"provider": "lab", "key": SECRET, "is_fallback": True}, "is_fallback", "never behind it"),
        ({"provider": "lab", "key": SECRET, "allowed_models": ["k/one"]}, "allowed_models", "for all models"),
        ({"provider": "lab", "key": SECRET, "allowed_user_ids": ["u"]}, "allowed_user_ids", "no users here"),
        ({"provider": "lab", "key": SECRET, "allowed_api_key_hashes": []}, "allowed_api_key_hashes", "is empty"),
        ({"provider": "lab", "key": SECRET, "sort_order": 10}, "sort_order", "from 0 to 9"),
        ({"provider": "lab", "key": SECRET, "sort_order": 2}, None, "from 0 to 0 here, not 2"),
        ({"provider": "lab", "key": SECRET, "always_use": 1}, "always_use", "true or false"),
        ({"provider": "lab", "key": SECRET, "name": "n" * 201}, "name", "longer than 200"),
        ({"provider": "lab", "key": SECRET, "name": "a\nb"}, None, "printable"),
        ({"provider": "lab", "api_key": SECRET}, "api_key", "did you mean `key`?"),
        (f'{{"provider": "lab", "key": "{SECRET}"'.encode(), None, "not valid JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_400_that_names_the_field_and_repeats_no_secret(
    site: Site, body: Any, param: str | None, said: str
) -> None:
    if isinstance(body, dict) and body.get("key") == "ours":
        body = {**body, "key": site.made["key"]}
    error = site.send("POST", "/v1/byok", body, status=400)["error"]
    assert said in error["message"] and error.get("param") == param, error
    assert "secret" not in error["message"] and site.made["key"] not in error["message"]


def test_ids_that_are_not_the_accounts_are_a_404_and_a_provider_stays(site: Site) -> None:
    body = {"provider": "lab", "key": SECRET}
    site.send("POST", "/v1/byok", {**body, "allowed_api_key_hashes": ["key-x"]}, status=404)
    site.send("POST", "/v1/byok", {**body, "workspace_id": "prj-x"}, status=404)
    made = site.send("POST", "/v1/byok", body, status=201)["data"]["id"]
    assert "cannot be changed" in site.send("PATCH", f"/v1/byok/{made}", {"provider": "lab"}, status=400)["error"]["message"]
    site.send("GET", "/v1/byok?limit=0", status=400)
    site.send("DELETE", f"/v1/byok/{made}")


def test_what_the_command_line_changes_a_running_gateway_sees_and_a_broken_key_stops_no_call_that_may_do_without(
    site: Site,
) -> None:
    file = site.box.folder / "secret"
    file.write_text(SECRET)
    made = site.box.cli("byok", "add", "default", "lab", "--name", "till", "--secret-file", str(file))["id"]
    wait_until(lambda: "`till`" in site.considered(), "the key is in use")
    master = site.box.folder / "byok-master.json"
    whole = master.read_bytes()
    master.write_bytes(whole.replace(b'"secret": "', b'"secret": "A'))
    site.box.cli("byok", "update", made, "--name", "drawer")
    wait_until(lambda: "`drawer` cannot be opened" in site.considered(), "it is known to be broken")
    assert site.chat().status == 200, "by the house's key"
    (seen,) = site.send("GET", "/v1/byok")["data"]
    assert seen["broken"] is True
    assert site.send("POST", "/v1/byok", {"provider": "lab", "key": SECRET}, status=503)["error"]["code"] == "unavailable"
    site.box.cli("byok", "update", made, "--always-use")
    wait_until(lambda: site.chat().status == 400, "nobody else may be asked")
    assert "your own key `drawer` cannot be opened; store it again" in site.said[-1]
    assert f"the provider key {made} of account" in site.box.log_text()
    master.write_bytes(whole)
    wait_until(lambda: "cannot be opened" not in site.considered(), "mended, without any other change")
    (seen,) = site.send("GET", "/v1/byok")["data"]
    assert seen["broken"] is False
    assert site.box.cli("byok", "rotate-master")["rewrapped"] == 1
    assert "cannot be opened" not in site.considered()
    site.box.cli("byok", "remove", made)
    wait_until(lambda: made not in site.considered(), "removed")


def test_what_a_provider_repeats_of_a_key_reaches_nobody(site: Site) -> None:
    """The house's key and the customer's, whole, masked and in part; in answers, in the log, in all that is kept."""
    own = "sk-mine-Hq7Rt2Wc9Lf4Xd5Kj8Bn"
    made = site.send("POST", "/v1/byok", {"provider": "mirror", "key": own, "disabled": True}, status=201)["data"]["id"]

    def ask() -> str:
        found: list[str] = []
        for way in WAYS:
            for stream in (False, True):
                body = {**CHAT, "model": f"m/{way}", "stream": stream}
                told = {"x-farebox-metadata": "enabled"}
                reply = site.box.post("/v1/chat/completions", body, key=site.made["key"], headers=told)
                found.append(f"{way} {stream} {reply.status} {reply.body.decode()}")
        return "\n".join(found)

    said = ask()
    assert Mirror.seen == {HOUSE}
    Mirror.seen.clear()
    assert said.count("[the key]") > 10 and said.count("Hello") == 3, said
    site.send("PATCH", f"/v1/byok/{made}", {"disabled": False, "always_use": True})
    said_own = ask()
    assert Mirror.seen == {own}, "the house's is never used instead"
    assert "refused your own key" in said_own and "Key [the key]?" in said_own
    site.send("DELETE", f"/v1/byok/{made}")
    site.box.wait_posted()
    files = [path for path in site.box.folder.rglob("*") if path.is_file() and path != site.box.config_path]
    kept = [path.read_bytes().decode("latin-1") for path in files]
    for key in (HOUSE, own):
        parts = [key[at : at + 8] for at in range(8, len(key) - 7)] + [f"*{key[-4:]}", f"{key[:8]}*"]
        for text in (said, said_own, site.box.log_text(), *kept):
            assert not [part for part in parts if part in text], text[-3000:]
