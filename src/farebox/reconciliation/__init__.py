"""Reconciliation: a provider's own statement against our records.

Read it in this order: `statement` (what the provider says, and what a difference is), `judging` (what we say, the tolerances,
how a difference is classed), `comparison` (by request, or by day); `reading` (the forms in which statements come as files) and
`admin_apis` (the same, fetched).
"""
