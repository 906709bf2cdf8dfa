"""Farebox: a pay-as-you-go gateway for AI models. `farebox.pipeline` tells the life of a request."""

__version__ = "0.1.0"
