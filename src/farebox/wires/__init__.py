"""Wires: how an API is spoken, in both directions, without I/O."""
