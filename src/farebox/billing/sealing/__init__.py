"""Receipts: what a customer can check of each charge, sealed in chains and signed."""
