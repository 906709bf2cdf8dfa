"""Money that comes in by card, and goes back."""
