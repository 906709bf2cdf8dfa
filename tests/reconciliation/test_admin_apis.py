"""The administrators' APIs, over real sockets: pages, keys, being told to wait."""

import asyncio

import pytest
from tests.support.admin_site import KEY, AdminSite, admin_site

from farebox.reconciliation.admin_apis import APIS, PAGES_MAX, Fetcher
from farebox.reconciliation.figures import StatementError
from farebox.reconciliation.reports import Wanted
from farebox.transport import Client

DAY_S = 86_400
NOV_1 = 1_793_491_200


@pytest.fixture
def site():
    with admin_site() as one:
        yield one


def read(site: AdminSite, provider: str, first: str = "2026-11-01", last: str = "2026-11-03", key: str = KEY, base: str = "/v1"):
    """The statement, the pauses, and how many pages were read."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def work():
        client = Client()
        try:
            fetcher = Fetcher(client, site.base_url + base, APIS[provider], key, pause)
            return await fetcher.statement(Wanted(provider=provider, first_day=first, last_day=last)), pauses, len(fetcher.pages)
        finally:
            await client.aclose()

    return asyncio.run(work())


def openai_bucket(day, *results):
    start = NOV_1 + day * DAY_S
    return {"object": "bucket", "start_time": start, "end_time": start + DAY_S, "results": list(results)}


def openai_pages(site: AdminSite) -> None:
    usage = {
        "object": "organization.usage.completions.result", "input_tokens": 10, "output_tokens": 4, "input_cached_tokens": 3,
        "num_model_requests": 2, "api_key_id": "key_a", "model": "gpt-4o",
    }  # fmt: skip
    cost = {"object": "organization.costs.result", "amount": {"value": 0.5, "currency": "usd"}, "line_item": "gpt-4o, output"}
    site.pages["/v1/organization/usage/completions"] = [
        {"object": "page", "data": [openai_bucket(0, usage), openai_bucket(1)]},
        {"object": "page", "data": [openai_bucket(2, usage)]},
    ]
    site.pages["/v1/organization/costs"] = [
        {"object": "page", "data": [openai_bucket(day)]} if day < 2 else {"object": "page", "data": [openai_bucket(2, cost)]}
        for day in range(3)
    ]


def test_all_pages_of_openai_are_read(site):
    openai_pages(site)
    found, pauses, pages = read(site, "openai")
    assert [(line.day, line.cost_nano) for line in found.lines] == [
        ("2026-11-01", None), ("2026-11-03", None), ("2026-11-03", 500_000_000),
    ]  # fmt: skip
    assert (found.first_day, found.last_day, pauses, pages) == ("2026-11-01", "2026-11-03", [], 5)
    path, query = site.asked[0]
    assert query["start_time"] == [str(NOV_1)] and query["end_time"] == [str(NOV_1 + 3 * DAY_S)] and "page" not in query
    assert [query.get("page") for path, query in site.asked] == [None, ["page-1"], None, ["page-1"], ["page-2"]]


@pytest.mark.parametrize("base", ["", "/v1"])
def test_anthropics_reports(site, base):
    def bucket(*results):
        return {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z", "results": list(results)}

    usage = {
        "uncached_input_tokens": 5, "cache_read_input_tokens": 0, "output_tokens": 7, "model": "claude", "api_key_id": "apikey_1",
    }  # fmt: skip
    cost = {"amount": "12.5", "currency": "USD", "model": "claude", "cost_type": "tokens", "description": "x"}
    site.pages["/v1/organizations/usage_report/messages"] = [{"data": [bucket(usage)]}]
    site.pages["/v1/organizations/cost_report"] = [{"data": [bucket(cost)]}]
    found, _, _ = read(site, "anthropic", last="2026-11-01", base=base)
    assert [(line.key, line.cost_nano) for line in found.lines] == [("apikey_1", None), ("", 125_000_000)]
    query = site.asked[0][1]
    assert query["starting_at"] == ["2026-11-01T00:00:00Z"] and query["ending_at"] == ["2026-11-02T00:00:00Z"]


def test_openrouters_activity_is_asked_day_by_day(site):
    item = {"date": "2026-11-02", "model": "a/b", "usage": 0.25, "requests": 1, "prompt_tokens": 2, "completion_tokens": 3}
    site.pages["/api/v1/activity"] = [{"data": [item]}]
    found, _, pages = read(site, "openrouter", base="/api/v1")
    assert [line.cost_nano for line in found.lines] == [250_000_000] and pages == 3
    with pytest.raises(StatementError, match="the last 30 whole days only"):
        read(site, "openrouter", first="2026-09-01", base="/api/v1")


def test_it_waits_as_long_as_it_is_told(site):
    openai_pages(site)
    site.failures = [(429, {"retry-after": "7"}), (503, {}), (500, {})]
    _, pauses, pages = read(site, "openai")
    assert pauses == [7, 2, 4] and pages == 5, "the second and third pause are the doubled own one"


def test_it_does_not_wait_for_hours_and_not_for_ever(site):
    openai_pages(site)
    site.failures = [(429, {"retry-after": "3600"})]
    with pytest.raises(StatementError, match=r"asks to wait 3600 seconds \(429\); run it again then"):
        read(site, "openai")
    site.failures = [(429, {})] * 5
    with pytest.raises(StatementError, match="the provider answered 429"):
        read(site, "openai")
    assert len(site.asked) == 6


def test_a_key_that_is_refused_is_named_and_not_shown(site):
    openai_pages(site)
    with pytest.raises(StatementError) as caught:
        read(site, "openai", key="sk-proj-ordinary")
    assert "refused the key in OPENAI_ADMIN_KEY (401)" in str(caught.value) and "ordinary" not in str(caught.value)


def test_a_cursor_that_leads_nowhere_ends_it(site, monkeypatch):
    openai_pages(site)
    monkeypatch.setattr(site, "answer", lambda _target, _headers: (200, {}, {"data": [], "has_more": True, "next_page": "same"}))
    with pytest.raises(StatementError, match="`next_page` 'same' does not lead to them"):
        read(site, "openai")
    numbers = iter(range(PAGES_MAX * 2))
    monkeypatch.setattr("farebox.reconciliation.admin_apis.PAGES_MAX", 5)
    endless = {"data": [], "has_more": True}
    monkeypatch.setattr(site, "answer", lambda _target, _headers: (200, {}, {**endless, "next_page": str(next(numbers))}))
    with pytest.raises(StatementError, match="more than 5 pages"):
        read(site, "openai")


def test_nothing_there_and_nonsense(site):
    openai_pages(site)
    with pytest.raises(StatementError, match="the provider answered 404: "):
        read(site, "openai", base="/v2")
    site.pages["/v1/organization/usage/completions"] = [{"data": 3}]
    with pytest.raises(StatementError, match=r"/organization/usage/completions, page 1: Expected `array`, got `int`"):
        read(site, "openai")
