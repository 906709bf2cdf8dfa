"""Receipts: one form of bytes, signatures that no change survives, chains in which nothing can be missing unnoticed."""

import json
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.billing import pricing
from farebox.billing.markup import Fees, Terms
from farebox.billing.records import Attempt, Settle
from farebox.billing.sealing import receipts, signatures
from farebox.billing.sealing.receipt_audit import audit, not_following
from farebox.billing.sealing.receipts import START, NotCanonical, Place, canonical, digest, parse, receipt
from farebox.billing.sealing.signatures import Signer, key_set, opened, read_key_set
from farebox.catalog.price import Price, Rates, Schedule
from farebox.storage.queries import UsageRow
from farebox.wires.usage import Usage

SIGNER = Signer(bytes(range(32)))
KEYS = read_key_set(msgspec.json.encode(key_set([SIGNER.public])))
RATES = Rates(input=2_500_000, cache_read=1_250_000, output=10_000_000, reasoning=10_000_000, request=1_500)
FEES = Fees(per_call_nano=1_000, min_nano=20, max_nano=5_000_000)


def row(number: int = 1, *, usage: Usage | None = None, bp: int = 550, fees: Fees | None = FEES, flags=(), **more) -> UsageRow:
    """A usage row as the poster writes it."""
    usage = usage or Usage(input=1_000, cache_read=200, output=300)
    price = Price("openai/gpt-4o@2026-11-23", "2026-11-23", Schedule(RATES))
    quoted = pricing.quote(price, terms=Terms("plan", bp, fees), service_tier=None, now_us=0)
    bill = pricing.bill(usage, quoted) if "continued" not in flags else pricing.rest_bill(usage, quoted, fees=fees)
    attempt = Attempt(
        n=1, provider="openai", upstream_id="gpt-4o", started_us=1, ended_us=2, outcome="ok", usage=usage, basis="reported",
        flags=flags, price_version=quoted.price_version, rates=RATES, markup_bp=bp, fees=fees, plan="plan",
        cost_nano=bill.cost_nano, charge_nano=bill.charge_nano,
    )  # fmt: skip
    call = Settle(
        id=f"gen-{number}", state="settled", at_us=2, account="acc-1", key="key-1", scopes=(), hold_nano=10**12,
        charge_nano=bill.charge_nano, surface="openai_chat", model="openai/gpt-4o", attempts=(attempt,), created_us=1, life="l",
        requested="gpt-4o é\u2028\x07\"",
    )  # fmt: skip
    values = dict(
        hold_id=call.id, attempt=1, revision=0, final=True, account_id="acc-1", key_id="key-1", project="", end_user="somebody",
        model=call.model, provider="openai", state="settled", outcome="ok", basis="reported", charge_nano=bill.charge_nano,
        loss_nano=0, cost_nano=bill.cost_nano, prompt_tokens=1_200, completion_tokens=300, cached_tokens=200,
        reasoning_tokens=0, record=msgspec.json.encode(call).decode(), transfer_id="t", cost_transfer_id="c", created_us=1,
        posted_us=1_795_392_000_000_000,
    )  # fmt: skip
    return UsageRow(**(values | more))


def day_of(count: int, day: str = "2026-11-23", opening: str = START) -> tuple[list[bytes], str]:
    """The signed lines of a day and its head; the last digest."""
    lines, previous = [], opening
    for number in range(1, count + 1):
        content = receipt(row(number), Place(day, number, previous))
        previous = digest(content)
        lines.append(canonical(SIGNER.signed("receipt", content)))
    head = receipts.head(account="acc-1", day=day, count=count, opening=opening, last=previous, final=True)
    return [*lines, canonical(SIGNER.signed("head", head))], previous


# --- bytes and signatures ------------------------------------------------------------------------------------------------------


def test_the_form_of_a_receipt_never_changes():
    """A golden one: who has an old receipt must be able to check it for ever. A new form is a new `format`."""
    content = receipt(row(), Place("2026-11-23", 1, START))
    assert canonical(content).decode() == (
        '{"account":"acc-1","amount_usd":"0.006067252","attempt":1,"attempts":[{"attempt":1,"outcome":"ok","provider":"openai",'
        '"upstream_model":"gpt-4o"}],"basis":"reported","call":"gen-1","chain":{"day":"2026-11-23","number":1,'
        f'"previous":"{START}"}},'
        '"created_at":"1970-01-01T00:00:00.000001Z","final":true,"flags":[],"format":"farebox-receipt-1","key":"key-1",'
        '"markup":{"max_usd":"0.005","min_usd":"0.00000002","per_call_usd":"0.000001","percent":"5.5","plan":"plan"},'
        '"model":"openai/gpt-4o","outcome":"ok","posted_at":"2026-11-23T00:00:00.000000Z",'
        '"price_version":"openai/gpt-4o@2026-11-23","project":"","provider":"openai",'
        '"rates_usd":{"cache_read":"0.00000125","input":"0.0000025","output":"0.00001","reasoning":"0.00001",'
        '"request":"0.0000000015"},"requested_model":"gpt-4o é\u2028\\u0007\\"","revision":0,"state":"settled",'
        '"total_usd":"0.006067252","uncharged_usd":"0.00","units":{"cache_read":200,"input":1000,"output":300},'
        '"upstream_model":"gpt-4o"}'
    )
    assert digest(content) == "b07a50575c79481983b6532622a0745a066d0117f31d7e2e95f6c3e017d9d692"
    assert SIGNER.signed("receipt", content)["signature"] == (
        "OCLdLUFMi5IALgc3gc31JMtrVtTPZA7jWZ7e_BHUtMFn93kISrCZ7Q_aRQV06wi3SADZpvbcbXyYQ3vMRMQmCQ"
    )


def test_signatures_and_key_ids_are_the_standards_own():
    """RFC 8032 §7.1 test 1 and RFC 8037 appendix A: their key, signature of nothing, and thumbprint."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    signer = Signer(private)
    assert signer.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert signer.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert Ed25519PrivateKey.from_private_bytes(private).sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    content = receipt(row(), Place("2026-11-23", 1, START))
    signed = signer.signed("receipt", content)
    public = Ed25519PrivateKey.from_private_bytes(private).public_key()
    public.verify(signatures.decode(signed["signature"], 64), json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode())  # fmt: skip
    (entry,) = key_set([signer.public])["keys"]
    assert entry == {
        "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": signer.kid,
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }  # fmt: skip


TEXTS = st.text('aZ0é\u2028"\\\x07\x7f\U0001f600\n/', max_size=8)
NAMES = st.text('aZ0é\u2028"\\\x07\n/', max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_the_canonical_form_is_json_sorted_and_reads_back(content):
    written = canonical(content)
    assert written == json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert parse(written) == content
    spaced = json.dumps(content, indent=3).encode()
    assert canonical(parse(spaced)) == written


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1.5}', b'{"a":1e3}', b'{"a":NaN}', b'{"a":1,"a":2}', b"[]", b"{", b"\xff", b'{"a":9007199254740992}',
        b'{"a":"\\ud800"}', b'{"a":' + b"[" * 100_000,
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_has_no_canonical_form_is_refused(text):
    with pytest.raises(NotCanonical):
        parse(text)


@pytest.mark.parametrize("kind", ["receipt", "head"])
def test_no_changed_byte_survives(kind):
    """Every byte of a signed document, each to three others: it is refused, or its signature does not fit."""
    lines, _ = day_of(1)
    line = lines[0 if kind == "receipt" else 1]
    assert opened(line, KEYS).problem == ""
    chance = random.Random(1)
    for index in range(len(line)):
        for other in {line[index] ^ 1, line[index] ^ 0x20, chance.randrange(256)} - {line[index]}:
            changed = line[:index] + bytes([other]) + line[index + 1 :]
            try:
                assert opened(changed, KEYS).problem, (index, line[index : index + 1], bytes([other]))
            except NotCanonical:
                pass


def test_one_kind_never_passes_for_another_nor_one_key():
    lines, _ = day_of(1)
    head = msgspec.json.decode(lines[1])
    assert opened(canonical({"receipt": head["head"], "kid": head["kid"], "signature": head["signature"]}), KEYS).problem
    other = Signer(bytes(32))
    found = opened(lines[0], read_key_set(msgspec.json.encode(key_set([other.public]))))
    assert "not among the public keys" in found.problem
    both = read_key_set(msgspec.json.encode(key_set([other.public, SIGNER.public])))
    assert opened(lines[0], both).problem == "", "old keys stay good"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"nonsense", "not JSON"), (b"[]", "JSON Web Key Set"), (b'{"keys":[1]}', "not an object"),
        (b'{"keys":[]}', "no Ed25519"), (b'{"keys":[{"kty":"RSA"}]}', "no Ed25519"),
        (b'{"kty":"OKP","crv":"Ed25519","x":"AA"}', "32 bytes"),
    ],
)  # fmt: skip
def test_keys_that_are_none_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        read_key_set(text)


# --- a day -------------------------------------------------------------------------------------------------------------------


def found(lines):
    report = audit(lines, KEYS)
    return [(one.line, one.number, one.problem) for one in report.findings]


def test_a_whole_day_is_whole():
    lines, _ = day_of(5)
    report = audit(lines, KEYS)
    assert report.ok and report.whole and report.receipts == 5 and report.days == ("2026-11-23",)
    assert report.amount_nano == 5 * row().charge_nano
    assert audit(lines[2:3], KEYS).ok, "one receipt stands alone"
    assert audit(lines[1:4], KEYS).ok and not audit(lines[1:4], KEYS).whole, "without its head, nobody knows what is missing"
    assert not audit([], KEYS).ok


def test_a_removed_row_is_named():
    lines, _ = day_of(6)
    for number in range(1, 7):
        rest = [line for index, line in enumerate(lines, 1) if index != number]
        assert found(rest) == [(0, number, f"receipt {number} is missing from the day")]
    assert found(lines[3:]) == [(0, 1, "receipts 1 to 3 are missing from the day")]


def test_a_swapped_row_is_named():
    lines, _ = day_of(6)
    lines[2], lines[3] = lines[3], lines[2]
    assert found(lines) == [(4, 3, "it stands after receipt 4; they were swapped")]
    assert found([*lines, lines[0]]) == [
        (4, 3, "it stands after receipt 4; they were swapped"), (8, 1, "it stands twice, first in line 1")
    ]  # fmt: skip


def test_an_altered_row_is_named_and_no_other():
    lines, _ = day_of(6)
    lines[2] = lines[2].replace(b'"input":1000', b'"input":1001')
    ((line, number, problem),) = found(lines)
    assert (line, number) == (3, 3) and "changed" in problem
    assert audit(lines, KEYS).amount_nano == 5 * row().charge_nano


def test_an_operator_who_signs_another_history_is_caught():
    """With the key itself: a row written anew does not fit to the one after it, nor a shorter day to the head it gave."""
    lines, _ = day_of(4)
    first = msgspec.json.decode(lines[0])["receipt"]
    other = receipt(row(2, usage=Usage(input=1)), Place("2026-11-23", 2, digest(first)))
    lines[1] = canonical(SIGNER.signed("receipt", other))
    assert found(lines) == [(3, 3, "it does not follow from the receipt before it")]
    lines, _ = day_of(4)
    shorter, _ = day_of(3)
    assert found([*lines[:4], shorter[3]]) == [(4, 4, "the day's head knows only 3 receipts")]


def test_days_follow_each_other():
    monday, last = day_of(2)
    tuesday, last = day_of(2, "2026-11-24", last)
    wednesday, _ = day_of(2, "2026-11-25", last)
    assert audit([*monday, *tuesday, *wednesday], KEYS).ok
    ((line, _, problem),) = found([*monday, *wednesday])
    assert line == 0 and "2026-11-23 and 2026-11-25 do not follow" in problem


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_any_file_is_answered(lines):
    report = audit(lines, KEYS)
    assert not report.ok and report.amount_nano == 0


# --- the amount --------------------------------------------------------------------------------------------------------------

COUNTS = st.integers(0, 2**30)


@given(
    st.builds(Usage, input=COUNTS, cache_read=COUNTS, output=COUNTS, reasoning=COUNTS, web_searches=st.integers(0, 9)),
    st.integers(-10_000, 100_000),
    st.none() | st.builds(Fees, st.integers(0, 10**9), st.none() | st.just(3), st.none() | st.integers(3, 10**9), st.booleans()),
    st.sampled_from([(), ("continued",)]),
)
def test_an_amount_follows_from_its_receipt(usage, bp, fees, flags):
    place = Place("2026-11-23", 1, START)
    bp = abs(bp) if fees is not None and fees.own_key else bp
    charged = row(usage=usage, bp=bp, fees=fees, flags=flags)
    assert list(not_following(receipt(charged, place))) == []
    dearer = msgspec.structs.replace(charged, charge_nano=charged.charge_nano + 1)
    assert list(not_following(receipt(dearer, place))), "a nano-dollar too much is seen"


def test_a_day_with_a_wrong_price_says_whose():
    content = receipt(row(charge_nano=row().charge_nano + 1), Place("2026-11-23", 1, START))
    ((line, number, problem),) = found([canonical(SIGNER.signed("receipt", content))])
    assert (line, number) == (1, 1) and "its units cost" in problem
