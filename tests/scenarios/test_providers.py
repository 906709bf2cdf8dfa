"""Health made visible: by command, by endpoint, by metrics; what two workers know is shown as one."""

from collections.abc import Iterator

import pytest
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess


def configuration(base: str) -> str:
    text = '[routing]\npolicy = "cheapest"\n[policies.cheapest]\nsort = "price"\n'
    text += "[attempts]\nbackoff_ms = 10\nbackoff_max_ms = 20\n"
    text += provider("well", base) + provider("broken", base) + provider("refused", base) + provider("idle", base)
    text += model("p/fails", offer("broken", "sim+status=503", input="0.10"), offer("well", "sim+tokens=9+delay-first=20ms"))
    text += model("p/refused", offer("refused", "sim+status=401", input="0.10"), offer("well", "sim+tokens=5"))
    return text + model("p/unused", offer("idle", "sim+tokens=5"))


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    folder = tmp_path_factory.mktemp("providers") / "box"
    with SimulatorProcess() as simulator, Farebox(folder, config=configuration(simulator.base_url), workers=2) as running:
        for _ in range(24):
            assert running.chat("p/fails", max_tokens=20).status == 200
            assert running.chat("p/refused", max_tokens=20).status == 200
        wait_until(
            lambda: any(one["model"] == "p/fails" for one in running.cli("providers")["offers"]),
            "the workers have written what they know",
            timeout_s=5,
        )
        yield running


def test_the_command_shows_offers_and_keys(box: Farebox) -> None:
    def settled() -> bool:
        # Which of the two workers takes a connection is the kernel's to say: each has to see five.
        assert box.chat("p/fails", max_tokens=20).status == 200
        offers = {(one["provider"], one["model"]): one for one in box.cli("providers")["offers"]}
        return offers.get(("broken", "p/fails"), {}).get("state") == "ejected"

    wait_until(settled, "five failures in a row at each worker", timeout_s=20)
    told = box.cli("providers")
    offers = {(one["provider"], one["model"]): one for one in told["offers"]}
    assert offers["well", "p/fails"]["state"] == "healthy" and offers["well", "p/fails"]["uptime_last_30m"] == 100.0
    assert offers["broken", "p/fails"]["uptime_last_30m"] == 0.0
    assert ("idle", "p/unused") not in offers, "nobody has called it"
    keys = {one["key"]: one for one in told["keys"]}
    assert keys["refused#1"]["benched_s"] > 0 and keys["refused#1"]["reason"] == "credentials"
    assert keys["well#1"]["benched_s"] == 0
    assert "test-key" not in str(told), "a key's name is shown, never the key"
    status = {one["slug"]: one["status"] for one in told["providers"]}
    assert status == {"well": "healthy", "broken": "down", "refused": "down", "idle": "unknown"}


def test_providers_in_openrouters_shape_without_the_operators_keys(box: Farebox) -> None:
    reply = box.get("/api/v1/providers", key=box.key)
    assert reply.status == 200
    rows = {one["slug"]: one for one in reply.json()["data"]}
    assert set(rows["well"]) == {
        "name", "slug", "privacy_policy_url", "terms_of_service_url", "status_page_url", "models", "status", "uptime_last_30m",
    }  # fmt: skip
    assert rows["well"]["models"] == 2 and "refused#1" not in str(reply.json())
    assert box.get("/v1/providers", key="fb-nobody").status == 401


def test_a_models_endpoints_are_its_offers(box: Farebox) -> None:
    for _ in range(6):
        box.post("/v1/chat/completions", {"model": "p/fails", "messages": [{"role": "user", "content": "x"}], "stream": True})

    def measured() -> bool:
        data = box.get("/v1/models/p/fails/endpoints").json()["data"]
        return any(one["latency_last_30m"] for one in data["endpoints"])

    wait_until(measured, "streams are measured", timeout_s=5)
    data = box.get("/v1/models/p/fails/endpoints").json()["data"]
    assert (data["id"], data["name"]) == ("p/fails", "p/fails")
    by = {one["provider_name"]: one for one in data["endpoints"]}
    assert by["broken"]["status"] == -2 and by["well"]["status"] == 0
    assert by["well"]["latency_last_30m"]["p50"] >= 19, "20 ms, less what a bin of a histogram is off by"
    assert by["broken"]["pricing"]["prompt"] == "0.0000001" and by["well"]["context_length"] == 128_000
    unused = box.get("/v1/models/p/unused/endpoints").json()["data"]["endpoints"]
    assert [one["status"] for one in unused] == [None]
    assert box.get("/v1/models/p/nobody/endpoints").status == 404


def test_the_operators_page_is_the_commands(box: Farebox) -> None:
    page = box.get("/healthz/providers", key=None)
    assert page.status == 200 and "test-key" not in page.body.decode(), "a key's name is shown, never the key"
    keys = {one["key"]: one for one in page.json()["keys"]}
    assert keys["refused#1"]["benched_s"] > 0 and keys["refused#1"]["reason"] == "credentials"
    states = {(one["provider"], one["model"]): one["state"] for one in page.json()["offers"]}
    assert states["broken", "p/fails"] == "ejected" and states["well", "p/fails"] == "healthy"
    told = box.cli("providers")
    assert [set(one) for one in page.json()["keys"]] == [set(one) for one in told["keys"]]
    assert [set(one) for one in page.json()["offers"]] == [set(one) for one in told["offers"]]
    places = {(one["provider"], one["key"], one["model"]): one for one in page.json()["places"]}
    assert places["broken", "broken#1", "p/fails"]["circuit"] == "open"
    assert 0 < places["broken", "broken#1", "p/fails"]["open_s"] <= 30
    assert places["well", "well#1", "p/fails"]["circuit"] == "closed"
    assert places["well", "well#1", "p/fails"]["uptime_last_30m"] == 100.0
    assert [set(one) for one in page.json()["places"]] == [set(one) for one in told["places"]]


def test_metrics_have_it_too(box: Farebox) -> None:
    text = box.get("/metrics").body.decode()
    assert 'farebox_offer_usable{model="p/fails",provider="broken"} 0.0' in text
    assert 'farebox_offer_success_ratio{model="p/fails",provider="well"} 1.0' in text
    assert 'farebox_provider_key_benched_seconds{key="refused#1"}' in text
