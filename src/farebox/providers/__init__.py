"""Providers: where a vendor lives and what is odd about it. Mostly one row each."""
