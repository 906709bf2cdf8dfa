"""Reconciliation: a provider's own statement against our records, and what is done about the differences.

Read it in this order: `statement` (what the provider says, and what a difference is), `judging` (what we say, the tolerances,
how a difference is classed), `comparison` (by request, or by day), `records` (our side, from the books), `runs` (findings are
stored, approved, posted); `reading` (the forms in which statements come as files) and `admin_apis` (the same, fetched).
"""
