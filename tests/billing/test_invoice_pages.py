"""Invoices as HTML and PDF: the document's figures and nothing else, escaped, the same every time."""

import io
from fractions import Fraction

import msgspec
import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox import display
from farebox.billing.invoicing import invoice_pages
from farebox.billing.invoicing.invoices import (
    Customer,
    Document,
    InCurrency,
    Line,
    Tally,
    Terms,
    Totals,
    by_rate_of,
    decode,
    document,
    encode,
    in_currency,
    tax_nano,
)

LINES = (
    Line("2026-11", "alpha", "openai/gpt-4o", "input", 100_000, "0.25", "0.25"),
    Line("2026-11", "alpha", "openai/gpt-4o", "cache_write_5m", 30_000, "0.30", "0.300000001"),
    Line("2026-11", "", "openai/gpt-4o", "gateway_fee", 0, "0.06", "0.055000001"),
)


@pytest.fixture(scope="module")
def made() -> Document:
    return document(
        number="INV-000042", kind="invoice", month="2026-11", lines=LINES,
        totals=Totals(605_000_002, 610_000_000, 120_000_000, 50_000_000),
        terms=Terms(seller="Example & Sons", address=("1 Some Street", "12345 Town"), tax_id="DE123", tax_bp=1_950),
        customer=Customer("acc-1", "<b>Acme</b>", "postpaid"), issued_us=1_796_169_600_000_000, due_us=1_797_379_200_000_000,
    )  # fmt: skip


FIGURES = ("INV-000042", "2026-12-02", "2026-12-16", "100000", "0.25", "0.30", "0.06", "0.61", "19.50 %", "0.12", "0.73", "0.68")


def test_the_page_has_every_figure_and_escapes_what_it_shows(made: Document) -> None:
    page = invoice_pages.html(made)
    for figure in (*FIGURES, "&lt;b&gt;Acme&lt;/b&gt;", "Example &amp; Sons", "@media print", "cache write 5m", "-0.004999998"):
        assert figure in page, figure
    assert "<b>" not in page and "<script" not in page and "http" not in page
    assert page == invoice_pages.html(decode(encode(made)))


def test_the_pdf_has_the_same_figures_as_text(made: Document) -> None:
    data = invoice_pages.pdf(made)
    reader = pypdf.PdfReader(io.BytesIO(data))
    words = "\n".join(page.extract_text() for page in reader.pages)
    for figure in (*FIGURES, "<b>Acme</b>", "Example & Sons", "1 Some Street", "DE123", "cache write 5m", "gateway fee"):
        assert figure in words, (figure, words)
    assert reader.metadata is not None and reader.metadata.title == "Invoice INV-000042"
    assert data == invoice_pages.pdf(made), "the same document is the same file"


def test_a_credit_note_names_what_it_corrects(made: Document) -> None:
    note = msgspec.structs.replace(made, kind="credit_note", number="CN-000001", corrects="INV-000042", reason="#sent $twice *")
    text = pypdf.PdfReader(io.BytesIO(invoice_pages.pdf(note))).pages[0].extract_text()
    for form in (invoice_pages.html(note), text):
        assert "Credit note" in form and "CN-000001" in form and "INV-000042" in form and "#sent $twice *" in form


def test_another_currency_is_shown_with_its_rate_and_where_that_is_from(made: Document) -> None:
    shown = InCurrency("JPY", "149.5", "2026-12-01", "Bank of Nowhere & Co", "109", "102")
    told = msgspec.structs.replace(made, display=shown)
    text = " ".join(pypdf.PdfReader(io.BytesIO(invoice_pages.pdf(told))).pages[0].extract_text().split())
    page = invoice_pages.html(told).replace("&amp;", "&")
    for form in (page, text):
        for words in ("Total JPY", "109", "Due JPY", "102", "1 USD = 149.5 JPY", "2026-12-01", "(Bank of Nowhere & Co)"):
            assert words in form, (words, form)
    assert b"display" not in encode(made).encode() and "JPY" not in invoice_pages.html(made), "older bytes stay as they are"


@pytest.mark.parametrize(("currency", "decimals"), [("EUR", 2), ("JPY", 0), ("KWD", 3)])
@given(net=st.integers(-(10**9), 10**9), credit=st.integers(-(10**9), 10**9), rate=st.integers(1, 10**12))
def test_totals_in_another_currency_equal_the_fraction_oracle(
    currency: str, decimals: int, net: int, credit: int, rate: int
) -> None:
    text = f"{rate // 10**9}.{rate % 10**9:09d}"
    totals = Totals(net, net * 10**7, 0, credit * 10**7)
    shown = display.read(currency, {"2026-12-01": text, "2026-12-03": "7"}, "X")
    found = in_currency(totals, shown, 1_796_169_600_000_000)
    assert found is not None and (found.rate, found.day, found.source) == (text, "2026-12-01", "X")
    for told, nano in ((found.total, totals.total_nano), (found.due, totals.due_nano)):
        exact = Fraction(nano, 10**9) * Fraction(text) * 10**decimals
        assert Fraction(told) * 10**decimals == round(exact)
        assert len(told.partition(".")[2]) == decimals
    assert by_rate_of(totals, found) == found, "a credit note goes by the words of its invoice"
    assert in_currency(totals, shown, 1_700_000_000_000_000) is None, "before the first rate"
    assert by_rate_of(totals, None) is None


def test_an_invoice_of_many_lines_has_several_pages(made: Document) -> None:
    long = msgspec.structs.replace(made, lines=LINES * 60)
    pages = pypdf.PdfReader(io.BytesIO(invoice_pages.pdf(long))).pages
    assert len(pages) > 2 and "Quantity" in pages[1].extract_text(), "the head of the table is on each page"


@pytest.mark.parametrize(
    ("net", "bp", "tax"),
    [(100_000_000, 1_900, 20_000_000), (610_000_000, 1_900, 120_000_000), (-610_000_000, 1_900, -120_000_000)],
)
def test_tax_is_rounded_to_cents_once(net: int, bp: int, tax: int) -> None:
    assert tax_nano(net, bp) == tax


def test_an_empty_tally_has_no_lines() -> None:
    assert Tally().lines() == ((), 0)
