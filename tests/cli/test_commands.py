"""What scripts rely on: names in `--json`, money as decimal strings, exit statuses; and what people read."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.shell import Shell

from farebox.money import parse_amount

WIDTH = 100

KEYS: dict[tuple[str, ...], Any] = {
    ("accounts", "create", "acme"): {"id", "name", "kind", "credit_limit"},
    ("accounts", "list"): {
        "accounts": {
            "id", "name", "kind", "status", "credit_limit", "markup", "policy", "tier", "remaining", "charged", "allotted",
            "display",
        },
    },
    ("topup", "default", "25"): {"account", "name", "amount", "remaining", "command_id"},
    ("keys", "create", "--account", "default"): {
        "id", "key", "account", "name", "project", "policy", "hint", "budget", "budget_window", "expires_at", "scopes",
        "allowed_models", "allowed_providers", "max_price", "allowed_ips",
    },
    ("keys", "list"): {
        "keys": {
            "id", "hint", "name", "account", "account_name", "project", "policy", "state", "budget", "budget_window",
            "created_at", "expires_at", "last_used_at", "scopes", "allowed_models", "allowed_providers", "max_price",
            "allowed_ips",
        },
    },
    ("byok", "list"): {
        "keys": {
            "id", "account", "account_name", "provider", "name", "hint", "state", "always_use", "position", "project", "keys",
            "created_at", "changed_at",
        },
    },
    ("projects", "create", "web", "--account", "default"): {"id", "name", "account"},
    ("projects", "list", "--account", "default"): {"projects": {"id", "name", "state", "created_at"}},
    ("budgets", "create", "50", "--account", "default", "--end-user", "*"): {"id", "account", "kind", "subject", "amount"},
    ("budgets", "list"): {
        "budgets": {
            "id", "account", "kind", "subject", "name", "amount", "spent", "window", "zone", "hard", "models", "providers",
        },
    },
    ("tiers",): {"first", "tiers"},
    ("usage",): {"by", "since", "rows", "total", "until"},
    ("route", "explain", "lab/echo", "--account", "default"): {
        "model", "policy", "offers", "excluded", "complexity", "input_tokens_estimate", "hold_usd", "attempts_max",
        "sticky", "hedge", "needs", "escalates_to", "output_tokens_max",
    },
    ("prices", "list"): {
        "models": {"slug", "name", "context_window", "max_output_tokens", "capabilities", "offers"},
    },
    ("prices", "show", "openai/gpt-4o"): {
        "slug", "name", "context_window", "max_output_tokens", "capabilities", "offers",
    },
    ("ledger", "check"): {"ok", "violations"},
    ("reconcile", "list"): {"runs"},
    ("receipt", "keys"): {"keys": {"kty", "crv", "use", "alg", "kid", "x"}},
    ("audit",): {"entries", "whole", "broken_at"},
    ("doctor",): {"ok", "findings"},
}  # fmt: skip
"""Names are only ever added, and then here."""


@pytest.mark.parametrize("words", KEYS, ids=" ".join)
def test_json_has_these_names_and_no_others(shell: Shell, words: tuple[str, ...]) -> None:
    shell("projects", "create", "shop", "--account", "default")
    shell("budgets", "create", "5", "--account", "default", "--project", "shop")
    if words[0] == "byok":
        secret = shell.folder / "secret"
        secret.write_text("sk-customer-secret-0001")
        shell("byok", "add", "default", "lab", "--secret-file", str(secret))
    said = shell.json(*words)
    wanted = KEYS[words]
    if isinstance(wanted, set):
        assert set(said) == wanted
        return
    assert set(said) == set(wanted)
    for name, members in wanted.items():
        assert said[name], f"`{name}` has something to look at"
        assert all(set(member) == members for member in said[name])


def strings(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from strings(member, f"{path}.{name}")
    elif isinstance(value, list):
        for member in value:
            yield from strings(member, path)
    else:
        yield path, value


MONEY = {
    "credit_limit", "remaining", "charged", "allotted", "amount", "budget", "charge", "cost", "input", "output", "cache_read",
    "cache_write_5m", "cache_write_1h", "reasoning", "audio_input", "audio_output", "image_input", "image_output", "request",
    "web_search",
}  # fmt: skip


@pytest.mark.parametrize("words", KEYS, ids=" ".join)
def test_money_is_a_decimal_string(shell: Shell, words: tuple[str, ...]) -> None:
    for path, value in strings(shell.json(*words)):
        assert not isinstance(value, float), path
        if path.rpartition(".")[2] in MONEY and value is not None:
            assert isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value), (path, value)


def test_an_offer_says_its_price_and_whether_it_can_be_called(shell: Shell) -> None:
    models = {model["slug"]: model for model in shell.json("prices", "list")["models"]}
    (offer,) = models["lab/echo"]["offers"]
    assert (offer["provider"], offer["id"], offer["wire"], offer["enabled"]) == ("lab", "echo", "openai_chat", True)
    price = offer["price"]
    assert (price["input"], price["cache_read"], price["output"]) == ("2.50", "1.25", "10.00")
    assert price["effective_from"] == "1970-01-01" and price["version"].startswith("lab/echo@config-")
    assert not any(offer["enabled"] for offer in models["openai/gpt-4o"]["offers"])


def test_prices_show_a_real_model(shell: Shell) -> None:
    said = shell("prices", "show", "openai/gpt-4o")
    assert said.status == 0 and said.out.startswith("openai/gpt-4o ") and "128000" in said.out
    assert re.search(r"^openai +gpt-4o +2\.50 +1\.25 +2\.50 +10\.00 +20\d\d-\d\d-\d\d", said.out, re.MULTILINE), said.out
    # Any name that a call may use works here, too.
    assert shell.json("prices", "show", "echo")["slug"] == "lab/echo"


@pytest.mark.parametrize(
    "words",
    [
        ("accounts", "list"), ("keys", "list"), ("usage",), ("usage", "--by", "day"), ("usage", "--by", "project,user,tag"),
        ("prices", "list"), ("projects", "list", "--account", "default"), ("budgets", "list"),
        ("prices", "list", "--all"), ("prices", "show", "anthropic/claude-sonnet-4.5"), ("doctor",), ("ledger", "check"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_tables_fit_100_columns(shell: Shell, words: tuple[str, ...]) -> None:
    shell("accounts", "create", "a customer with a rather long name, such as companies have")
    shell("keys", "create", "--account", "default", "--name", "what this key is for, at length", "--budget", "12345.678901234")
    shell("projects", "create", "the website, its search and everything about it", "--account", "default")
    made = ("--account", "default", "--project", "the website, its search and everything about it")
    shell("budgets", "create", "12345.678901234", *made, "--window", "week", "--zone", "America/Argentina/Buenos_Aires", "--soft")
    said = shell(*words)
    assert said.status == 0, said.err
    if words != ("doctor",):
        assert max(map(len, said.out.splitlines())) <= WIDTH


def test_the_list_of_prices_has_what_can_be_called_and_with_all_the_rest(shell: Shell) -> None:
    assert [line.split()[0] for line in shell("prices", "list").out.splitlines()] == ["model", "lab/echo"]
    assert "openai/gpt-4o " in shell("prices", "list", "--all").out


def test_names_are_text_and_never_markup(shell: Shell) -> None:
    for name in ("[/x]", "[red]loud"):
        assert shell("accounts", "create", name).status == 0
        assert name in shell("accounts", "list").out


# --- accounts and money ------------------------------------------------------------------------------------------------------


def test_accounts_are_also_shown_in_a_second_currency_by_the_rate_of_the_day(shell: Shell) -> None:
    shell.json("accounts", "create", "acme")
    shell.json("topup", "acme", "25")
    rates = '"2000-01-01" = "2"\n"2020-01-01" = "0.92"\n"2999-01-01" = "7"\n'
    shell.config.write_text(shell.config.read_text() + f'\n[display]\ncurrency = "EUR"\n[display.rates]\n{rates}')
    said = shell.json("accounts", "list")
    (acme,) = (account for account in said["accounts"] if account["name"] == "acme")
    assert acme["remaining"] == "25.00"
    assert acme["display"] == {
        "currency": "EUR", "rate": "0.92", "since": "2020-01-01", "remaining": "23.00", "charged": "0.00",
    }  # fmt: skip
    table = shell("accounts", "list").out
    assert "remaining EUR" in table and "23.00" in table and max(map(len, table.splitlines())) <= WIDTH


def test_no_second_currency_is_shown_before_its_first_rate(shell: Shell) -> None:
    shell.config.write_text(shell.config.read_text() + '\n[display]\ncurrency = "EUR"\nrates = { "2999-01-01" = "7" }\n')
    assert shell.json("accounts", "list")["accounts"][0]["display"] is None
    assert "EUR" not in shell("accounts", "list").out


def test_a_prepaid_account_has_what_was_topped_up(shell: Shell) -> None:
    shell.json("accounts", "create", "acme")
    assert shell.json("topup", "acme", "25")["remaining"] == "25.00"
    assert shell.json("topup", "acme", "0.000000001")["remaining"] == "25.000000001"
    (acme,) = (row for row in shell.json("accounts", "list")["accounts"] if row["name"] == "acme")
    assert (acme["kind"], acme["status"], acme["remaining"], acme["charged"]) == ("prepaid", "active", "25.000000001", "0.00")


def test_a_postpaid_account_has_its_credit_line_and_pays(shell: Shell) -> None:
    made = shell.json("accounts", "create", "later", "--postpaid", "--credit-limit", "100")
    assert (made["kind"], made["credit_limit"]) == ("postpaid", "100.00")
    assert shell.json("topup", "later", "40")["remaining"] == "140.00"
    assert shell.json("ledger", "check") == {"ok": True, "violations": []}


def test_a_top_up_with_a_command_id_happens_once(shell: Shell) -> None:
    first = shell.json("topup", "default", "5", "--command-id", "payment-1")
    assert shell.json("topup", "default", "5", "--command-id", "payment-1") == first
    said = shell("topup", "default", "6", "--command-id", "payment-1").refused()
    assert "payment-1" in said and "other particulars" in said
    assert shell.json("topup", "default", "5")["remaining"] != first["remaining"], "without an id it is another one"


def test_an_account_goes_by_its_name_or_its_id(shell: Shell) -> None:
    made = shell.json("accounts", "create", "acme")
    assert shell.json("topup", made["id"], "1")["name"] == "acme"


# --- keys --------------------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once(shell: Shell, first_secret: str) -> None:
    made = shell.json("keys", "create", "--account", "default", "--name", "ci", "--budget", "5", "--budget-window", "day")
    secret = made["key"]
    assert secret.startswith("fb-") and (made["budget"], made["budget_window"]) == ("5.00", "day")
    for words in (("keys", "list"), ("keys", "list", "--json"), ("accounts", "list", "--json"), ("doctor", "--json"), ("usage",)):
        said = shell(*words)
        assert secret not in said.out + said.err and first_secret not in said.out + said.err
    stored = (shell.folder / "farebox.db").read_bytes()
    assert secret.encode() not in stored and first_secret.encode() not in stored
    listed = {key["id"]: key for key in shell.json("keys", "list")["keys"]}[made["id"]]
    assert (listed["hint"], listed["state"]) == (f"{secret[:5]}…{secret[-4:]}", "active")


def test_the_key_alone_is_on_the_first_line(shell: Shell) -> None:
    said = shell("keys", "create", "--account", "default")
    first, second = said.out.splitlines()
    assert re.fullmatch(r"fb-[0-9A-Za-z]{49}", first) and "not shown again" in second


def test_a_revoked_key_stays_revoked(shell: Shell) -> None:
    (key,) = shell.json("keys", "list")["keys"]
    assert shell.json("keys", "revoke", key["id"]) == {"id": key["id"], "state": "revoked"}
    assert shell.json("keys", "revoke", key["id"])["state"] == "revoked"
    assert [row["state"] for row in shell.json("keys", "list", "--account", "default")["keys"]] == ["revoked"]


def test_a_rotated_key_has_a_new_secret_and_keeps_its_id(shell: Shell, first_secret: str) -> None:
    (key,) = shell.json("keys", "list")["keys"]
    made = shell.json("keys", "rotate", key["id"], "--overlap-hours", "2")
    assert made["id"] == key["id"] and made["key"] != first_secret and made["previous_until"]
    (after,) = shell.json("keys", "list")["keys"]
    assert after["hint"] == made["hint"] and after["state"] == "active"
    assert shell.json("keys", "rotate", key["id"], "--overlap-hours", "0")["previous_until"] is None
    assert "not shown again" in shell("keys", "rotate", key["id"]).out


def test_restrictions_are_set_kept_and_lifted(shell: Shell) -> None:
    words = ("--allow-model", "ECHO", "--allow-model", "openai/*", "--allow-provider", "lab", "--max-price", "10")
    made = shell.json("keys", "create", "--account", "default", *words, "--allow-ip", "::1", "--scope", "inference")
    assert made["allowed_models"] == ["lab/echo", "openai/*"], "names become slugs, patterns stay"
    assert made["max_price"] == {"prompt": "10.00", "completion": "10.00"} and made["allowed_ips"] == ["::1/128"]
    assert made["scopes"] == ["inference"]
    changed = shell.json("keys", "update", made["id"], "--allow-any", "ip", "--max-price", "prompt=2.50", "--name", "b")
    assert changed["allowed_models"] == made["allowed_models"] and changed["allowed_providers"] == ["lab"]
    assert (changed["max_price"], changed["allowed_ips"], changed["name"]) == ({"prompt": "2.50"}, [], "b")
    assert changed["scopes"] == ["inference"] and changed["expires_at"] is None
    later = shell.json("keys", "update", made["id"], "--expires-in-days", "3", "--scope", "read_usage")
    assert later["scopes"] == ["read_usage"] and later["expires_at"] and later["allowed_models"] == made["allowed_models"]
    assert shell.json("keys", "update", made["id"], "--expires-in-days", "0")["expires_at"] is None
    (listed,) = [key for key in shell.json("keys", "list")["keys"] if key["id"] == made["id"]]
    assert listed["allowed_providers"] == ["lab"] and listed["scopes"] == ["read_usage"]


def test_limits_of_keys_and_projects_are_set_kept_and_lifted(shell: Shell) -> None:
    (key,) = shell.json("keys", "list")["keys"]
    project = shell.json("projects", "create", "web", "--account", "default")
    of_project = ("projects", "limits", "web", "--account", "default")
    for words, id in ((("keys", "limits", key["id"]), key["id"]), (of_project, project["id"])):
        none = {"requests_per_minute": None, "concurrent_calls": None, "tokens_per_minute": None, "tokens_per_day": None}
        assert shell.json(*words) == {"id": id, **none}
        one = shell.json(*words, "--requests-per-minute", "60", "--concurrent-calls", "3")
        assert one == {"id": id, **none, "requests_per_minute": 60, "concurrent_calls": 3}
        two = shell.json(*words, "--tokens-per-day", "1000", "--lift", "concurrent_calls")
        assert two == {"id": id, **none, "requests_per_minute": 60, "tokens_per_day": 1000} == shell.json(*words)
        assert "60 requests per minute, 1,000 tokens per day" in shell(*words).out
        both = shell(*words, "--tokens-per-day", "5", "--lift", "tokens_per_day").refused()
        assert "--tokens-per-day is given and lifted" in both
        shell.json(*words, "--lift", "requests_per_minute", "--lift", "tokens_per_day")
        assert shell.json(*words) == {"id": id, **none}


def test_the_doctor_finds_accounts_in_tiers_that_are_gone(shell: Shell) -> None:
    shell.json("accounts", "tier", "default", "tier-2")
    shell.config.write_text(shell.config.read_text() + "\n[tiers.only]\nrequests_per_minute = 1\n")
    (found,) = [one for one in json.loads(shell("doctor", "--json").out)["findings"] if one["subject"] == "tiers"]
    assert found["level"] == "problem" and "`tier-2`" in found["text"] and "count as `only`" in found["text"]


def test_a_disabled_key_can_be_enabled_and_a_revoked_one_cannot(shell: Shell) -> None:
    (key,) = shell.json("keys", "list")["keys"]
    assert shell.json("keys", "disable", key["id"]) == {"id": key["id"], "state": "disabled"}
    assert [row["state"] for row in shell.json("keys", "list")["keys"]] == ["disabled"]
    assert shell.json("keys", "enable", key["id"]) == {"id": key["id"], "state": "active"}
    shell.json("keys", "revoke", key["id"])
    for words in (("disable",), ("enable",), ("rotate",)):
        assert "stays so" in shell("keys", *words, key["id"]).refused()


# --- refusals ----------------------------------------------------------------------------------------------------------------

REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("accounts", "create", "default"), "exists already"),
    (("accounts", "create", ""), "between 1 and 200 printable characters"),
    (("accounts", "create", "x", "--postpaid"), "--credit-limit 100"),
    (("accounts", "create", "x", "--credit-limit", "5"), "--postpaid"),
    (("accounts", "create", "x", "--postpaid", "--credit-limit", "lots"), "plain decimal"),
    (("topup", "nobody", "5"), "`farebox accounts list`"),
    (("topup", "default", "0"), "more than 0"),
    (("topup", "default", "1e3"), "plain decimal"),
    (("topup", "default", "0.0000000001"), "more than 9 decimals"),
    (("topup", "default", "99999999999999999999"), "decimal"),
    (("topup", "default", "5000000000"), "amount"),
    (("topup", "default", "5", "--command-id", ""), "leave it out"),
    (("keys", "create", "--account", "nobody"), "`farebox accounts create nobody`"),
    (("keys", "create", "--account", "default", "--budget-window", "day"), "--budget 5.00"),
    (("keys", "create", "--account", "default", "--budget", "-1"), "more than 0"),
    (("keys", "list", "--account", "nobody"), "`farebox accounts list`"),
    (("keys", "create", "--account", "default", "--allow-model", "lab/ecco"), "did you mean `lab/echo`"),
    (("keys", "create", "--account", "default", "--allow-model", "labb/*"), "no model is called 'labb/*'"),
    (("keys", "create", "--account", "default", "--allow-provider", "lap"), "there is no provider 'lap'; known: "),
    (("keys", "create", "--account", "default", "--allow-ip", "10.0.0.1/8"), "--allow-ip[0]"),
    (("keys", "create", "--account", "default", "--max-price", "cheap"), "dollars as a number"),
    (("keys", "create", "--account", "default", "--max-price", "prompts=1"), "CLASS=USD"),
    (("keys", "create", "--account", "default", "--scope", "manage", "--scope", "inference"), "make two keys"),
    (("keys", "update", "key-none", "--name", "x"), "`farebox keys list`"),
    (("keys", "revoke", "key-none"), "`farebox keys list`"),
    (("keys", "limits", "key-none", "--concurrent-calls", "1"), "`farebox keys list`"),
    (("projects", "limits", "x", "--account", "default"), "`farebox projects list"),
    (("accounts", "tier", "default", "gold"), "`farebox tiers` lists them"),
    (("projects", "create", "", "--account", "default"), "between 1 and 200 printable characters"),
    (("projects", "create", "x", "--account", "nobody"), "`farebox accounts list`"),
    (("projects", "disable", "x", "--account", "default"), "`farebox projects list"),
    (("keys", "create", "--account", "default", "--project", "x"), "`farebox projects list"),
    (("budgets", "create", "5", "--account", "default", "--project", "x"), "`farebox projects list"),
    (("budgets", "create", "5", "--account", "default", "--key", "key-none"), "the key `key-none` does not exist"),
    (("budgets", "create", "5", "--account", "default", "--tag", "a", "--end-user", "b"), "one budget for each"),
    (("budgets", "create", "5", "--account", "default", "--zone", "Europe/Atlantis"), "an IANA name such as `Europe/Berlin`"),
    (("budgets", "create", "5", "--account", "default", "--tag", ""), "says whom it limits"),
    (("budgets", "create", "5", "--account", "default", "--tag", "*"), "only end users have budgets each"),
    (("budgets", "create", "lots", "--account", "default"), "plain decimal"),
    (("budgets", "update", "bud-none", "5"), "`farebox budgets list`"),
    (("budgets", "update", "bud-none"), "nothing is to be changed; `farebox budgets update --help`"),
    (("budgets", "update", "bud-none", "--model", "a/*", "--every-model"), "--model and --every-model exclude each other"),
    (("budgets", "remove", "bud-none"), "`farebox budgets list`"),
    (("usage", "--project", "x"), "`farebox projects list"),
    (("usage", "--since", "yesterday"), "write 7d"),
    (("usage", "--account", "nobody"), "`farebox accounts list`"),
    (("route", "explain", "lab/echo", "--account", "nobody"), "`farebox accounts list`"),
    (("route", "explain", "lab/echo", "--account", "default", "--key", "none"), "`farebox keys list`"),
    (("route", "explain", "lab/echo", "--key", "none"), "say which with --account NAME"),
    (("prices", "show", "openai/gpt-99"), "`farebox prices list --all`"),
)


@pytest.mark.parametrize(("words", "hint"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_a_refusal_is_one_sentence_with_the_way_on(shell: Shell, words: tuple[str, ...], hint: str) -> None:
    before = shell.json("accounts", "list")
    assert hint in shell(*words).refused()
    assert shell.json("accounts", "list") == before, "nothing was changed"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("bogus",), "`farebox --help`"),
        (("keys", "create"), "`farebox keys create --help`"),
        (("keys", "bogus"), "`farebox keys --help`"),
        (("usage", "--colour"), "`farebox usage --help`"),
        (("serve", "--port", "99999"), "`farebox serve --help`"),
        (("topup", "default"), "`farebox topup --help`"),
    ],
)
def test_a_wrong_command_line_names_the_help(shell: Shell, words: tuple[str, ...], hint: str) -> None:
    assert hint in shell.plain(*words).refused(2)


def test_without_a_configuration_it_says_how_to_make_one(shell: Shell) -> None:
    shell.config.unlink()
    for words in (("keys", "list"), ("prices", "list"), ("serve",), ("ledger", "check")):
        assert "`farebox init --data " in shell(*words).refused()


def test_a_typing_error_in_the_configuration_is_named_with_its_cure(shell: Shell) -> None:
    shell.config.write_text("[server]\nprot = 1\n")
    said = shell("keys", "list").refused()
    assert "`server.prot`" in said and "did you mean `port`?" in said


def test_amounts_are_exact_in_the_json_of_a_key(shell: Shell) -> None:
    made = shell.json("keys", "create", "--account", "default", "--budget", "0.000000001")
    assert parse_amount(made["budget"]) == 1
