"""Who pays for what: the table of billing.md §4, row by row."""

from farebox.billing.meter import Seen, judge
from farebox.wires.usage import Usage, UsageReport

REPORT = UsageReport(Usage(input=10, output=5))
MISSING = Seen(None, output_tokens=7, estimated_input=12)


def test_finished_with_usage_is_exact() -> None:
    verdict = judge("complete", Seen(REPORT))
    assert (verdict.usage, verdict.basis, verdict.flags, verdict.customer_pays) == (REPORT.usage, "reported", (), True)


def test_finished_without_usage_is_an_estimate_never_zero() -> None:
    verdict = judge("complete", MISSING)
    assert verdict.usage == Usage(input=12, output=7)
    assert verdict.basis == "estimated" and "usage_missing" in verdict.flags and verdict.customer_pays


def test_absurd_usage_takes_the_estimate_path_and_says_so() -> None:
    verdict = judge("complete", Seen(UsageReport(None, ("negative:prompt_tokens",)), 7, None, 12))
    assert verdict.usage == Usage(input=12, output=7) and "usage_anomaly" in verdict.flags


def test_refused_and_unsent_attempts_cost_nobody_anything() -> None:
    for ending in ("refused", "failed_unsent"):
        verdict = judge(ending, MISSING)
        assert verdict.usage == Usage() and verdict.cost_known and not verdict.customer_pays


def test_a_failure_before_content_has_an_unknown_cost_not_a_zero_one() -> None:
    verdict = judge("failed_before_content", MISSING)
    assert verdict.usage is None and not verdict.cost_known and not verdict.customer_pays
    assert judge("failed_before_content", Seen(REPORT)).usage == REPORT.usage


def test_a_broken_stream_is_our_cost_unless_partial_billing_is_on() -> None:
    assert not judge("truncated", MISSING).customer_pays
    assert judge("truncated", MISSING, bill_partial=True).customer_pays
    assert "upstream_truncated" in judge("truncated", MISSING).flags


def test_a_vanished_client_pays_exact_input_and_the_output_it_received() -> None:
    verdict = judge("client_gone", Seen(None, 7, Usage(input=3, cache_read=4), 12))
    assert verdict.usage == Usage(input=3, cache_read=4, output=7)
    assert verdict.customer_pays and "estimated_input" not in verdict.flags
    assert "estimated_input" in judge("client_gone", MISSING).flags


def test_a_drained_stream_is_exact() -> None:
    verdict = judge("drained", Seen(REPORT))
    assert verdict.basis == "reported" and verdict.flags == ("drained",) and verdict.customer_pays
