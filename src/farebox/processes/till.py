"""The bookkeeper's till: payments by card, in a thread of its own, so that a Stripe that hangs delays nobody's bill."""

import threading
from collections.abc import Callable

from farebox.billing.invoicing.invoices import Terms
from farebox.config import Loaded
from farebox.config.payments import StripeSection
from farebox.control.stripe_api import Stripe
from farebox.control.till import Pages, Till
from farebox.outside import Outside
from farebox.ports import Clock, TimeOrderedIds
from farebox.storage.database import Database, StoreError
from farebox.terms import invoice_terms

IDLE_S = 0.25
RETRY_S = 2.0
"""After the database did not answer."""


def make_till(
    section: StripeSection, terms: Terms, database: Database, clock: Clock, fail_point: Callable[[str], None]
) -> Till:
    """With ids of its own: those of another thread are not to be shared."""
    api = Stripe(section.secret_key, api_base=section.api_base)
    pages = Pages(section.success_url, section.cancel_url, section.currency)
    return Till(database, api, clock, TimeOrderedIds(clock), pages=pages, terms=terms, fail_point=fail_point)


def start(
    loaded: Loaded, outside: Outside, database: Database, stop: threading.Event, tell: Callable[[object], None]
) -> threading.Thread | None:
    """Run the till until `stop` is set; None where nothing is paid by card."""
    section = loaded.config.stripe
    if section is None:
        return None

    def work() -> None:
        till = make_till(section, invoice_terms(loaded), database, outside.clock, outside.fail_point)
        while not stop.is_set():
            try:
                if till.round():
                    continue
            except StoreError as error:
                tell(error)
                stop.wait(RETRY_S)
                continue
            except Exception as error:
                # Calls are posted all the same; what was not done is done by a later round.
                tell(f"payments by card: {type(error).__name__}: {error}")
                stop.wait(RETRY_S)
                continue
            stop.wait(IDLE_S)

    thread = threading.Thread(target=work, name="till", daemon=True)
    thread.start()
    return thread
