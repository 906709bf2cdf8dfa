"""What is left of the month to look at: its invoice and credit note, as files beside the configuration."""

from pathlib import Path

from farebox.billing.invoicing import invoice_pages, invoices
from farebox.billing.invoicing.invoice_pages import PdfMissing
from farebox.billing.invoicing.invoices import Document
from farebox.demo.month import Played


def write(played: Played) -> tuple[list[Path], str | None]:
    """`invoice.pdf`, `.html`, `.json`, the credit note's likewise; why there is no PDF, if so."""
    folder = played.loaded.folder
    made: list[Path] = []
    missing: str | None = None
    for name, document in (("invoice", played.invoice), ("credit-note", played.credit_note)):
        forms = {"html": invoice_pages.html(document).encode(), "json": invoices.encode(document).encode() + b"\n"}
        pdf = _pdf(document)
        if isinstance(pdf, str):
            missing = pdf
        else:
            forms["pdf"] = pdf
        for form in sorted(forms, reverse=True):
            made.append(folder / f"{name}.{form}")
            made[-1].write_bytes(forms[form])
    return made, missing


def _pdf(document: Document) -> bytes | str:
    """The PDF, or why there is none."""
    try:
        return invoice_pages.pdf(document)
    except PdfMissing as error:
        return str(error)
