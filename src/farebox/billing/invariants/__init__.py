"""The checks of `farebox ledger check`: what must hold between all of these tables."""
