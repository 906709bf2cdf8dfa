"""Billing: what a call costs, what is held for it, what is settled, and where it is written down.

What a call touches lies here, and asks no database on its way: `pricing`, `bounds`, `holds`, `journal`, `settlement`. What
becomes of it lies below, each folder knowing only those before it: `books`, `sealing`, `posting`, `accounts`, `invoicing`,
`payments`, `invariants`.
"""
