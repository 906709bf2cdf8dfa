"""Wires: how an API is spoken, in both directions, without I/O."""

NAMES = ("openai_chat", "anthropic_messages")
"""What there is, for those who only need the names."""
