"""Billing: what a call costs, what is held for it, what is settled, and where it is written down.

Gateway side (no database on the way of a call): `pricing`, `bounds`, `holds`, `journal`, `budgets`.
Bookkeeper side: `poster`, `ledger`, `checks`, `recovery`.
"""
