"""`farebox reconcile`: what it prints, what scripts get, and the sentence for everything that cannot be."""

import json
import ssl
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trustme
from tests.support.admin_site import KEY, AdminSite, admin_site
from tests.support.shell import Shell

from farebox.billing.journal import Journal
from farebox.billing.records import Attempt, Settle
from farebox.config import load

CSV = """day,model,key,request_id,cost_usd,input,output
2026-11-01,echo,key_a,req-1,0.0125,1000,1000
2026-11-01,echo-2026-01-01,key_a,req-2,0.0025,1000,0
2026-11-02,other-1,key_a,req-3,1.00,5,5
"""
RUN = {
    "id", "provider", "source", "first_day", "last_day", "zone", "lines", "statement_cost", "created_at", "open", "approved",
    "rejected",
}  # fmt: skip
FINDING = {
    "number", "kind", "day", "model", "key", "request_id", "id", "attempt", "ours", "theirs", "difference", "ours_units",
    "theirs_units", "ours_requests", "theirs_requests", "place", "state", "adjusted", "decided_at",
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "usage.csv"
    path.write_text(CSV)
    return path


def said(shell: Shell, *words: str, status: int = 1):
    done = shell("reconcile", *words, "--json")
    assert done.status == status, (done.out, done.err)
    return json.loads(done.out)


def test_a_run_from_its_file_to_the_ledger(shell: Shell, file: Path) -> None:
    made = said(shell, "--provider", "lab", "--file", str(file), "--key", "key_a=lab#1")
    run = made["run"]["id"]
    assert set(made) == {"run", "seen_before", "kinds", "findings"} and set(made["run"]) == RUN
    assert all(set(one) == FINDING for one in made["findings"])
    assert made["kinds"] == {"missing_here": 2, "unknown_model": 1} and made["seen_before"] is False
    first = made["findings"][0]
    assert (first["theirs"], first["difference"], first["model"], first["key"], first["place"]) == (
        "0.0125", "0.0125", "echo", "lab#1", "usage.csv, line 2",
    )  # fmt: skip
    assert made["findings"][1]["model"] == "echo", "a dated snapshot is the model that we know"
    # The same bytes under another name are the same statement.
    other = file.rename(file.with_name("again.csv"))
    again = said(shell, "--provider", "lab", "--file", str(other))
    assert again["seen_before"] and again["run"]["id"] == run
    shown = shell("reconcile", "show", run)
    assert shown.status == 0 and "unknown_model" in shown.out and max(map(len, shown.out.splitlines())) <= 100
    assert shell.json("reconcile", "reject", run, "--finding", "3")["rejected"] == [3]
    done = shell.json("reconcile", "approve", run)
    assert (done["difference"], [one["number"] for one in done["approved"]], done["left"]) == ("0.015", [1, 2], 0)
    assert shell.json("reconcile", "approve", run)["approved"] == [], "once"
    (listed,) = shell.json("reconcile", "list")["runs"]
    assert (listed["open"], listed["approved"], listed["rejected"]) == (0, 2, 1)
    assert shell("reconcile", "list", "--provider", "lab").out.count("2026-11-01 to 2026-11-02") == 1
    compared = said(shell, "--provider", "lab", "--file", str(other), "--again")
    assert compared["kinds"] == {"unknown_model": 1}, "what was rejected still differs"
    assert shell("ledger", "check").status == 0


def test_a_table_for_people(shell: Shell, file: Path) -> None:
    done = shell("reconcile", "--provider", "lab", "--file", str(file))
    assert done.status == 1 and done.err == "" and max(map(len, done.out.splitlines())) <= 100
    assert "lab, 2026-11-01 to 2026-11-02 (UTC), 3 lines, 1.015 USD." in done.out
    assert "Next: farebox reconcile approve rec-" in done.out
    again = shell("reconcile", "--provider", "lab", "--file", str(file))
    assert again.out.startswith("This statement was compared before, on ")


def test_nothing_to_say_about_a_statement_that_agrees(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "nothing.csv"
    path.write_text("day,model,cost_usd,input,output\n2026-11-01,echo,0,0,0\n")
    done = shell("reconcile", "--provider", "lab", "--file", str(path))
    assert done.status == 0 and done.out.endswith("Everything agrees.\n")


def test_many_findings_are_cut_in_the_table(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    lines = [f"2026-11-01,echo,req-{number},0.5" for number in range(60)]
    path.write_text("\n".join(("day,model,request_id,cost_usd", *lines)))
    done = shell("reconcile", "--provider", "lab", "--file", str(path))
    assert "20 more: farebox reconcile show rec-" in done.out and done.out.count("req-") == 40
    run = said(shell, "--provider", "lab", "--file", str(path))["run"]["id"]
    assert shell("reconcile", "show", run, "--all").out.count("req-") == 60


def test_calls_that_are_not_posted_yet_are_not_missing(shell: Shell, file: Path) -> None:
    slot = load(shell.config).journal_dir / "w0"
    slot.mkdir(parents=True, exist_ok=True)
    began = 1_793_491_200_000_000
    attempt = Attempt(n=1, provider="lab", upstream_id="echo", started_us=began, ended_us=began + 1, outcome="http_error")
    call = Settle(
        id="gen-1", state="settled", at_us=began, account="acc-1", key="key-1", scopes=(), hold_nano=0, charge_nano=0,
        surface="openai_chat", model="lab/echo", attempts=(attempt,), created_us=began, life="life-1",
    )  # fmt: skip
    with closing(Journal(slot, sync="os", segment_bytes_max=64 * 1024)) as journal:
        journal.write(call, msgspec.structs.replace(call, id="gen-2", created_us=began + 2 * 86_400_000_000))
    said = shell("reconcile", "--provider", "lab", "--file", str(file)).refused()
    assert said == "1 calls of these days are in the journals and not posted yet; `farebox serve` posts them"


REFUSALS = {
    ("--file", "FILE"): "name the --provider whose statement it is; `farebox providers` shows yours",
    ("--provider", "lab"): "give the statement as --file, or ask for it with --api",
    ("--provider", "lab", "--file", "FILE", "--api"): "give the statement as --file, or ask for it with --api",
    ("--provider", "nobody", "--file", "FILE"): "there is no provider `nobody`; `farebox providers` shows yours",
    ("--provider", "lab", "--api", "--since", "2026-11-01"):
        "only openai, anthropic, openrouter have such an API; give `lab`'s statement as --file",
    ("--provider", "openai", "--api", "--since", "2026-11-01"): "--api needs an administrator's key in OPENAI_ADMIN_KEY; ",
    ("--provider", "lab", "--file", "FILE", "--key", "key_a"):
        "--key 'key_a': write THEIRS=OURS, such as key_abc=openai#1; `farebox providers` shows ours",
    ("--provider", "lab", "--file", "FILE", "--rounding", "x"): "--rounding: price per unit must be a plain decimal string",
    ("--provider", "lab", "--file", "FILE", "--zone", "Berlin"):
        "'Berlin' is not a time zone such as UTC or America/Los_Angeles; `farebox reconcile --help` shows the options",
    ("--provider", "lab", "--file", "FILE", "--since", "2026-11-2"): "--since: '2026-11-2' is not a day such as 2026-11-23",
    ("--provider", "lab", "--file", "FILE", "--since", "2026-11-03", "--until", "2026-11-03"): "--since is not before --until",
    ("--provider", "lab", "--file", "FILE", "--month", "2026-13"): "--month: '2026-13' is not a month such as 2026-11",
    ("--provider", "lab", "--file", "FILE", "--month", "2026-11", "--since", "2026-11-01"):
        "--month names all days; leave --since and --until out",
    ("--provider", "lab", "--file", "FILE", "--month", "2026-10"): "usage.csv: it says nothing about any day from 2026-10-01",
    ("--provider", "lab", "--file", "FILE", "--until", "2031-11-03"): "the day 2031-11-02 is not over yet (UTC); ",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSALS, ids=" ".join)
def test_refusals(shell: Shell, file: Path, words: tuple[str, ...]) -> None:
    wanted = REFUSALS[words]
    if "2031-11-03" in words:
        file.write_text(CSV + "2031-11-02,echo,key_a,req-9,1,1,1\n")
        words = (*words, "--since", "2031-11-02")
    sentence = shell("reconcile", *(str(file) if word == "FILE" else word for word in words)).refused()
    assert sentence.startswith(wanted), sentence


def test_runs_and_findings_that_are_not_there(shell: Shell, file: Path) -> None:
    for command in ("show", "approve", "reject"):
        assert shell("reconcile", command, "rec-0").refused() == (
            "there is no run `rec-0`; `farebox reconcile list` and `farebox reconcile show RUN` show what there is"
        )
    run = said(shell, "--provider", "lab", "--file", str(file))["run"]["id"]
    assert f"run `{run}` has no finding 9" in shell("reconcile", "approve", run, "--finding", "9").refused()


def one_call(site: AdminSite) -> None:
    """What OpenAI would say of one call of the day."""
    start = 1_793_491_200
    usage = {
        "object": "organization.usage.completions.result", "input_tokens": 10, "output_tokens": 4, "num_model_requests": 2,
        "model": "gpt-4o-2024-08-06", "api_key_id": "key_a",
    }  # fmt: skip
    cost = {
        "object": "organization.costs.result", "amount": {"value": 6.5e-05, "currency": "usd"}, "line_item": "gpt-4o, output",
    }  # fmt: skip
    for path, one in (("usage/completions", usage), ("costs", cost)):
        bucket = {"start_time": start, "end_time": start + 86_400, "results": [one]}
        site.pages[f"/v1/organization/{path}"] = [{"object": "page", "data": [bucket]}]


def test_the_providers_own_api(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with admin_site() as site:
        one_call(site)
        section = f'\n[providers.openai]\nbase_url = "{site.base_url}/v1"\napi_key = "x"\n'
        shell.config.write_text(shell.config.read_text() + section)
        monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
        words = ("--provider", "openai", "--api", "--since", "2026-11-01", "--until", "2026-11-02")
        made = said(shell, *words)
        assert made["run"]["source"] == "openai API" and made["kinds"] == {"missing_here": 1}
        assert (made["findings"][0]["model"], made["findings"][0]["difference"]) == ("gpt-4o", "0.000065")
        monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-wrong")
        assert "refused the key in OPENAI_ADMIN_KEY (401)" in shell("reconcile", *words).refused()


def test_a_provider_with_a_private_authority_is_asked_by_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls were checked against `ca_file`, the question for its statement against the system's authorities."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    client = authority.issue_cert("books@example.org")
    client.private_key_and_cert_chain_pem.write_to_path(str(shell.config.with_name("books.pem")))
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.cert_pem.write_to_path(str(shell.config.with_name("private.pem")))
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    words = ("--provider", "openai", "--api", "--since", "2026-11-01", "--until", "2026-11-02")
    before = shell.config.read_text()
    with admin_site(context) as site:
        one_call(site)
        section = f'\n[providers.openai]\nbase_url = "{site.base_url}/v1"\napi_key = "x"\n'
        shell.config.write_text(before + section)
        assert "certificate" in shell("reconcile", *words).refused() and site.asked == []
        files = 'ca_file = "private.pem"\nclient_cert_file = "books.pem"\n'
        for more in (files, files + "enabled = false\n"):
            shell.config.write_text(before + section + more)
            assert said(shell, *words)["kinds"] == {"missing_here": 1}
        shell.config.write_text(before + section + 'ca_file = "gone.pem"\n')
        assert "`providers.openai.ca_file`: there is no file" in shell("reconcile", *words).refused()
