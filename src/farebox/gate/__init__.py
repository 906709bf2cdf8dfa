"""Gate: who calls, what they may do, and how fast. No I/O on the way of a call."""
