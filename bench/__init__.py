"""What a call costs in a gateway: `python -m bench`. The method is in docs/performance.md."""
