"""Statements in the forms that providers give: what is read, and the sentence for what is not understood."""

import json
import random

import msgspec
import pytest

from farebox.reconciliation.figures import StatementError, amount_nano
from farebox.reconciliation.reading import read_files
from farebox.reconciliation.reports import File, Wanted
from farebox.reconciliation.statement import Line

DAY_S = 86_400
NOV_1 = 1_793_491_200
OPENAI, ANTHROPIC, OPENROUTER, LAB = (Wanted(provider=name) for name in ("openai", "anthropic", "openrouter", "lab"))


def openai_page(*buckets, more=False):
    data = [
        {"object": "bucket", "start_time": NOV_1 + day * DAY_S, "end_time": NOV_1 + (day + 1) * DAY_S, "results": list(results)}
        for day, results in enumerate(buckets)
    ]
    return {"object": "page", "data": data, "has_more": more, "next_page": "next" if more else None}


def openai_usage(model, key, total, cached, output, requests=1):
    return {
        "object": "organization.usage.completions.result", "input_tokens": total, "output_tokens": output,
        "input_cached_tokens": cached, "input_audio_tokens": 0, "output_audio_tokens": 0, "num_model_requests": requests,
        "project_id": None, "user_id": None, "api_key_id": key, "model": model, "batch": None,
    }  # fmt: skip


def openai_cost(value, item):
    amount = {"value": value, "currency": "usd"}
    return {"object": "organization.costs.result", "amount": amount, "line_item": item, "project_id": None}


def file(name, value):
    return File(name, value.encode() if isinstance(value, str) else json.dumps(value).encode())


def plain(lines):
    return [msgspec.structs.replace(line, place="") for line in lines]


def test_openais_usage_and_costs_are_one_statement():
    usage = openai_page([openai_usage("gpt-4o-2024-08-06", "key_a", 1_000, 800, 500, 5)], [])
    items = openai_cost(0.06, "gpt-4o-2024-08-06, input"), openai_cost(6.5e-05, "gpt-4o-2024-08-06, cached input")
    costs = openai_page(items, [])
    found = read_files([file("usage.json", usage), file("costs.json", costs)], OPENAI)
    assert (found.first_day, found.last_day, found.step_pico) == ("2026-11-01", "2026-11-02", 0)
    assert plain(found.lines) == [
        Line(
            day="2026-11-01", model="gpt-4o-2024-08-06", key="key_a", requests=5,
            units={"input": 200, "cache_read": 800, "output": 500},
        ),
        Line(day="2026-11-01", model="gpt-4o-2024-08-06", cost_nano=60_000_000),
        Line(day="2026-11-01", model="gpt-4o-2024-08-06", cost_nano=65_000),
    ]  # fmt: skip
    assert found.lines[2].place == "costs.json: `data[0].results[1]`"
    ours = {"input": 3, "audio_input": 2, "reasoning": 7, "output": 1, "web_searches": 4}
    assert found.folded(ours) == {"input": 5, "output": 8}


def test_sums_of_floats_are_rounded_once_and_said_to_be():
    costs = openai_page([openai_cost(0.30000000000000004, None)])
    found = read_files([file("costs.json", costs)], OPENAI)
    assert [line.cost_nano for line in found.lines] == [300_000_000] and found.step_pico == 1_000
    assert amount_nano("12.5", "x", per_usd=100) == (125_000_000, False), "cents"
    assert amount_nano("-0.0000000015", "x") == (-2, True) and amount_nano("0.0000000025", "x") == (2, True), "half to even"
    assert amount_nano("1e-9", "x") == (1, False) and amount_nano("3E2", "x") == (300_000_000_000, False)


OPENAI_CSV = (
    "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,api_key_id,model,batch,service_tier,"
    "input_tokens,output_tokens,input_cached_tokens\n"
    "1793491200,1793577600,2026-11-01T00:00:00+00:00,2026-11-02T00:00:00+00:00,,2,,key_a,gpt-4o,,,10,4,3\n"
    "1793577600,1793664000,2026-11-02T00:00:00+00:00,2026-11-03T00:00:00+00:00,,,,,,,,,,\n"
)
OPENAI_COSTS_CSV = (
    "start_time\tend_time\tstart_time_iso\tend_time_iso\tamount_value\tamount_currency\tline_item\tproject_id\n"
    "1793491200\t1793577600\t\t\t0.8958740000000000\tusd\tgpt-4o, output\t\n"
    "1793577600\t1793664000\t\t\t\t\t\t\n"
)


def test_openais_exports():
    found = read_files([file("usage.csv", OPENAI_CSV), file("costs.tsv", OPENAI_COSTS_CSV)], OPENAI)
    assert (found.first_day, found.last_day) == ("2026-11-01", "2026-11-02")
    assert plain(found.lines) == [
        Line(day="2026-11-01", model="gpt-4o", key="key_a", requests=2, units={"input": 7, "cache_read": 3, "output": 4}),
        Line(day="2026-11-01", model="gpt-4o", cost_nano=895_874_000),
    ]
    assert found.lines[0].place == "usage.csv, line 2"


def test_anthropics_reports():
    def page(*results):
        return {
            "data": [{"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z", "results": list(results)}],
            "has_more": False, "next_page": None,
        }  # fmt: skip

    usage = {
        "uncached_input_tokens": 1_500, "cache_creation": {"ephemeral_1h_input_tokens": 1_000, "ephemeral_5m_input_tokens": 500},
        "cache_read_input_tokens": 200, "output_tokens": 500, "server_tool_use": {"web_search_requests": 10},
        "api_key_id": "apikey_01", "workspace_id": None, "model": "claude-sonnet-4-5-20250929", "service_tier": "standard",
        "context_window": "0-200k",
    }  # fmt: skip
    cost = {
        "currency": "USD", "amount": "123.78912", "workspace_id": None, "description": "Claude Sonnet 4.5 Usage - Input Tokens",
        "cost_type": "tokens", "context_window": "0-200k", "model": "claude-sonnet-4-5-20250929", "service_tier": "standard",
        "token_type": "uncached_input_tokens",
    }  # fmt: skip
    searches = {**cost, "cost_type": "web_search", "model": None, "description": "Web Search Usage", "amount": "10"}
    code = {**cost, "cost_type": "code_execution", "model": None, "description": "Code Execution Usage", "amount": "5"}
    found = read_files([file("usage.json", page(usage)), file("costs.json", page(cost, searches, code))], ANTHROPIC)
    assert plain(found.lines) == [
        Line(
            day="2026-11-01", model="claude-sonnet-4-5-20250929", key="apikey_01",
            units={
                "input": 1_500, "cache_read": 200, "output": 500, "cache_write_5m": 500, "cache_write_1h": 1_000,
                "web_searches": 10,
            },
        ),
        Line(day="2026-11-01", model="claude-sonnet-4-5-20250929", cost_nano=1_237_891_200),
        Line(day="2026-11-01", model="", cost_nano=100_000_000),
        Line(day="2026-11-01", model="Code Execution Usage", cost_nano=50_000_000),
    ]  # fmt: skip


def test_openrouters_activity():
    item = {
        "date": "2026-11-01", "model": "openai/gpt-4.1", "model_permaslug": "openai/gpt-4.1-2025-04-14", "endpoint_id": "55",
        "provider_name": "OpenAI", "usage": 0.015, "byok_usage_inference": 0.012, "requests": 5, "prompt_tokens": 50,
        "completion_tokens": 125, "reasoning_tokens": 25,
    }  # fmt: skip
    found = read_files([file("activity.json", {"data": [item, {**item, "date": "2026-11-03"}]})], OPENROUTER)
    assert (found.first_day, found.last_day) == ("2026-11-01", "2026-11-03"), "a day without use has no item"
    assert plain(found.lines)[0] == Line(
        day="2026-11-01", model="openai/gpt-4.1", requests=5, units={"input": 50, "output": 125}, cost_nano=15_000_000
    )


def test_our_own_form():
    text = "time,model,request_id,cost_usd,input,cache_read,output\n2026-11-01T23:30:00Z,large,req-1,0.0125,100,5,7\n"
    found = read_files([file("x.csv", text)], msgspec.structs.replace(LAB, zone="Europe/Berlin"))
    units = {"input": 100, "cache_read": 5, "output": 7}
    line = Line(day="2026-11-02", model="large", request_id="req-1", cost_nano=12_500_000, units=units)
    assert plain(found.lines) == [line] and found.by_request
    assert found.inside["reasoning"] == "output" and found.inside["cache_write_5m"] == "input"
    assert "cache_read" not in found.inside


def test_days_may_be_chosen_and_have_to_be_there():
    text = "day,model,cost_usd\n2026-11-01,a,1\n2026-11-02,a,2\n2026-11-03,a,3\n"
    chosen = msgspec.structs.replace(LAB, first_day="2026-11-02", last_day="2026-11-02")
    assert [line.cost_nano for line in read_files([file("x.csv", text)], chosen).lines] == [2_000_000_000]
    usage, costs = openai_page([openai_usage("m", "k", 1, 0, 1)], []), openai_page([openai_cost(1, "m, input")])
    with pytest.raises(StatementError, match=r"is about 2026-11-01 to 2026-11-02, costs.json about 2026-11-01 to 2026-11-01"):
        read_files([file("usage.json", usage), file("costs.json", costs)], OPENAI)
    gap = openai_page([openai_cost(1, "m, input")], [], [])
    del gap["data"][1]
    with pytest.raises(StatementError, match="no bucket for 2026-11-02"):
        read_files([file("costs.json", gap)], OPENAI)


OWN = "day,model,cost_usd,input,output\n"
BAD = {
    "day,modle,cost_usd\n": "x, line 1: column 'modle' is not known; did you mean model?",
    "day,day,cost_usd\n": "x, line 1: a column is named twice",
    "model,cost_usd\n": "x, line 1: it needs one of the columns day and time",
    "day,model\n": "x, line 1: it needs cost_usd, or counts such as input and output",
    "day,model,input\n": "x, line 1: counts need the columns input and output",
    OWN: "x: it has no line",
    OWN + "2026-11-01,a,1\n": "x, line 2: 3 fields, the header has 5",
    OWN + "2026-11-31,a,1,2,3\n": "x, line 2, column day: '2026-11-31' is not a day such as 2026-11-23",
    OWN + "2026-11-01,a,1.5.0,2,3\n": "x, line 2, column cost_usd: '1.5.0' is not an amount such as 0.0125",
    OWN + "2026-11-01,a,1,2,\n": "x, line 2, column output: empty, while input has a count; write 0 where there were none",
    OWN + "2026-11-01,a,1,-2,3\n": "x, line 2, column input: '-2' is not a count",
    OWN + "2026-11-01,a,1,2.5,3\n": "x, line 2, column input: '2.5' is not a count",
    OWN + "2026-11-01,a,,,\n": "x, line 2: it has neither a cost nor counts",
    OWN + '2026-11-01,"a,1,2,3\n': "x, line 2: unexpected end of data",
    "day,model,request_id,cost_usd\n2026-11-01,a,r,1\n2026-11-01,a,,1\n":
        "x, line 3, column request_id: some lines have one, some have none; compare them apart",
    "time,model,cost_usd\n2026-11-01T00:00:00,a,1\n":
        "x, line 2, column time: '2026-11-01T00:00:00' is not a time with its offset, such as 2026-11-23T07:30:00Z",
    json.dumps(openai_page([openai_usage("m", "k", 5, 6, 1)])): "x: `data[0].results[0]`: 6 cached of 5 input tokens cannot be",
    json.dumps(openai_page([openai_usage("m", "k", -5, 0, 1)])): "x: `data[0].results[0]`.input_tokens: '-5' is not a count",
    json.dumps(openai_page([openai_cost("1", "m")], more=True)):
        "x: more pages follow (`has_more`); give all of them, as a list, or read them with --api",
    json.dumps(openai_page([{**openai_cost(1, "m"), "amount": {"value": 1, "currency": "eur"}}])):
        "x: `data[0].results[0]`.amount.currency: 'eur'; only statements in US dollars can be compared",
    json.dumps(openai_page([{"object": "organization.usage.embeddings.result"}])):
        "x: `data[0].results[0]`: `object` 'organization.usage.embeddings.result' is neither usage of completions nor costs",
    json.dumps(openai_page([openai_usage("m", "k", 5, 0, "1")])):
        "x: `data[0].results[0]`: Expected `int`, got `str` - at `$.output_tokens`",
    json.dumps({"data": [{"x": 1}]}):
        "x: `data[0]` has neither start_time, starting_at nor date; it is not one of OpenAI's usage and costs, "
        "Anthropic's usage and cost reports, OpenRouter's activity, or CSV",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_not_understood_is_said_with_its_place(text):
    with pytest.raises(StatementError) as caught:
        read_files([file("x", text)], LAB)
    assert str(caught.value) == BAD[text]


def test_a_bucket_is_within_a_day():
    page = openai_page([openai_cost(1, "m")])
    page["data"][0]["end_time"] += 1
    with pytest.raises(StatementError, match="not within one UTC day; ask for buckets of a day"):
        read_files([file("x", page)], OPENAI)
    hours = openai_page([openai_cost(1, "m")], [openai_cost(2, "m")])
    for number, bucket in enumerate(hours["data"]):
        bucket["start_time"], bucket["end_time"] = NOV_1 + number * 3_600, NOV_1 + (number + 1) * 3_600
    assert read_files([file("x", hours)], OPENAI).last_day == "2026-11-01"


def test_files_are_bounded(monkeypatch):
    monkeypatch.setattr("farebox.reconciliation.reading.FILE_BYTES_MAX", 10)
    with pytest.raises(StatementError, match="larger than 10 bytes"):
        read_files([file("x", "day,model,cost_usd\n")], LAB)


def test_times_and_spans_are_bounded():
    page = openai_page([openai_cost(1, "m")])
    page["data"][0] |= {"start_time": 2**60, "end_time": 2**60 + 1}
    with pytest.raises(StatementError, match="not within one UTC day"):
        read_files([file("x", page)], OPENAI)
    text = "day,model,cost_usd\n1970-01-01,a,1\n9998-12-31,a,1\n"
    with pytest.raises(StatementError, match=r"x: 1970-01-01 to 9998-12-31 are more than 400 days; --since and --until choose"):
        read_files([file("x", text)], LAB)
    one = msgspec.structs.replace(LAB, first_day="9998-12-31", last_day="9998-12-31")
    assert len(read_files([file("x", text)], one).lines) == 1
    for day in ("0001-01-01", "1969-12-31", "9999-12-31"):
        with pytest.raises(StatementError, match="x, line 2, column day: '.*' is not a day such as"):
            read_files([file("x", f"day,model,cost_usd\n{day},a,1\n")], LAB)
    for moment in ("0001-01-01T00:00:00+12:00", "9999-12-31T23:00:00-12:00"):
        with pytest.raises(StatementError, match="x, line 2, column time: '.*' is out of all time"):
            read_files([file("x", f"time,model,cost_usd\n{moment},a,1\n")], LAB)


def forms():
    """A whole file of each form."""
    usage = openai_page([openai_usage("gpt-4o", "key_a", 10, 3, 4)], [])
    costs = openai_page([openai_cost(0.5, "gpt-4o, input")], [])
    tokens = {"uncached_input_tokens": 5, "cache_read_input_tokens": 0, "output_tokens": 7, "model": "claude"}
    bucket = {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z", "results": [tokens]}
    item = {"date": "2026-11-01", "model": "a/b", "usage": 0.25, "requests": 1, "prompt_tokens": 2, "completion_tokens": 3}
    own = "day,model,key,request_id,cost_usd,input,output\n2026-11-01,a,k,r,0.5,1,2\n"
    moments = "time,model,cost_usd\n2026-11-01T00:00:00Z,a,0.5\n"
    values = [usage, costs, [costs], {"data": [bucket], "has_more": False}, {"data": [item]}]
    return [*(json.dumps(value) for value in values), OPENAI_CSV, OPENAI_COSTS_CSV, own, moments]


WORDS = (
    "-1", "0", "1e99", "1e-99", "99999999999999999999", "9223372036854775807", "NaN", "null", "true", '""', "[]", "{}", "[[", ",",
    "\n", '"', "2026-13-01", "9999-12-31", "0001-01-01", "\x00", "é", "\t", "has_more", "day", "input",
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(forms())))
def test_a_damaged_file_is_refused_in_a_sentence_or_read(number):
    """Whatever is put into a file, or missing in it, is never an error of another kind."""
    text, chance = forms()[number], random.Random(number)
    read_files([file("x", text)], LAB)
    for _ in range(400):
        damaged = text
        for _ in range(chance.randrange(1, 3)):
            at, until = sorted((chance.randrange(len(damaged) + 1), chance.randrange(len(damaged) + 1)))
            until = min(until, at + chance.choice((0, 1, 4, 400)))
            damaged = damaged[:at] + chance.choice(("", *WORDS)) + damaged[until:]
        for one in (damaged.encode(), damaged.encode()[: chance.randrange(len(damaged) + 1)]):
            try:
                read_files([File("x", one)], LAB)
            except StatementError as error:
                assert str(error).startswith(("x", "'")) and len(str(error)) < 600
