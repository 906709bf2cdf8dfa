"""Routing: from a call to an ordered list of attempts, and when to try again. Pure."""
