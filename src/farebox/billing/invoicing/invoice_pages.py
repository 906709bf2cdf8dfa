"""Invoices to look at and to send: HTML that prints well, and PDF through `typst`, if installed. Both from the frozen document.

Nothing is computed here, so every form says the same; and a form depends on the document alone: next year it is the same again.
"""

from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from farebox.billing.invoicing.invoices import FEES, Document, encode

TEMPLATE = Path(__file__).with_name("invoice.typ")
_TITLES = {"invoice": "Invoice", "credit_note": "Credit note"}
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 52rem; margin: 2.5rem auto; padding: 0 1.5rem }
h1 { font-size: 1.7rem; margin: 0 } header, .to { display: flex; justify-content: space-between; gap: 2rem }
.to { margin: 2rem 0 } address { font-style: normal } .right { text-align: right }
table { border-collapse: collapse; width: 100% } th, td { padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top }
th { border-bottom: 1px solid } tbody td { border-bottom: 1px solid #ddd } .number { text-align: right;
font-variant-numeric: tabular-nums } .totals { width: auto; margin: 1rem 0 0 auto } .totals td { border: 0 }
small { color: #555 } dl { display: grid; grid-template-columns: auto auto; gap: .1rem 1.2rem; margin: 0 } dd { margin: 0 }
@media print { @page { size: A4; margin: 20mm } body { margin: 0; padding: 0; max-width: none; font-size: 10pt }
thead { display: table-header-group } tr { break-inside: avoid } .totals { break-inside: avoid } }
@media (prefers-color-scheme: dark) { @media screen { body { background: #16181b; color: #e6e6e6 } small { color: #a5a5a5 }
tbody td { border-color: #3a3d42 } } }
"""


class PdfMissing(Exception):
    """A PDF needs a package that is not installed."""


def unit_name(unit: str) -> str:
    """`cache_write_5m` → `cache write 5m`."""
    return unit.replace("_", " ")


def rate_sentence(made: Document) -> str:
    """By which rate another currency is shown; empty without one."""
    shown = made.display
    if shown is None:
        return ""
    source = f" ({shown.source})" if shown.source else ""
    return f" {shown.currency} for information: 1 USD = {shown.rate} {shown.currency}, the rate from {shown.day} on{source}."


def html(made: Document) -> str:
    """One page without scripts, fonts or anything else from elsewhere."""
    title = f"{_TITLES[made.kind]} {made.number}"
    facts = [("Issued", made.issued), ("Month (UTC)", made.month)]
    if made.due_day is not None:
        facts.append(("Due", made.due_day))
    if made.corrects is not None:
        facts.append(("Corrects", made.corrects))
    lines = "".join(
        f"<tr><td>{escape(line.month)}<td>{escape(line.project)}<td>{escape(line.model)}<td>{escape(unit_name(line.unit))}"
        f'<td class="number">{"" if line.unit in FEES else line.quantity}<td class="number">{escape(line.amount)}</tr>\n'
        for line in made.lines
    )
    totals = (
        ("Net", made.net),
        (f"{made.tax.label} {made.tax.percent} %", made.tax.amount),
        ("Total USD", made.total),
        ("Paid from credit", made.credit),
        ("Due USD", made.due),
    )
    shown = made.display
    if shown is not None:
        totals = (*totals, (f"Total {shown.currency}", shown.total), (f"Due {shown.currency}", shown.due))
    address = "<br>".join(escape(line) for line in (*made.seller.address, made.seller.tax_id) if line)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style>\n'
        f"<header><address><strong>{escape(made.seller.name)}</strong><br>{address}</address>"
        f'<div class="right"><h1>{_TITLES[made.kind]}</h1>{escape(made.number)}</div></header>\n'
        f'<div class="to"><address><small>To</small><br><strong>{escape(made.customer.name)}</strong><br>'
        f"{escape(made.customer.id)}</address><dl>"
        + "".join(f"<dt>{name}<dd>{escape(value)}" for name, value in facts)
        + "</dl></div>\n"
        + (f"<p>Reason: {escape(made.reason)}</p>\n" if made.reason else "")
        + '<table><thead><tr><th scope="col">Month<th scope="col">Project<th scope="col">Model<th scope="col">Unit'
        '<th scope="col" class="number">Quantity<th scope="col" class="number">USD</tr></thead>\n<tbody>\n'
        f'{lines}</tbody></table>\n<table class="totals">'
        + "".join(f'<tr><td>{escape(name)}<td class="number">{escape(value)}</tr>' for name, value in totals)
        + f"</table>\n<p><small>Exact usage {escape(made.usage)} USD; each line is rounded to cents once, the rounding comes to "
        f"{escape(made.rounding)} USD.{escape(rate_sentence(made))}</small></p></html>\n"
    )


def pdf(made: Document) -> bytes:
    """An A4 document with text that can be selected. Raises `PdfMissing`."""
    try:
        typst: Any = import_module("typst")
    except ImportError:
        raise PdfMissing("a PDF needs the package typst: pip install 'farebox[pdf]'") from None
    inputs = {"document": encode(made), "rate": rate_sentence(made)}
    made_pdf: bytes = typst.compile(TEMPLATE.read_bytes(), format="pdf", ignore_system_fonts=True, sys_inputs=inputs)
    return made_pdf
