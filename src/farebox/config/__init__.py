"""`farebox.toml`: what it may say, and its reading (`file`)."""

from farebox.config.file import ConfigError, HealthSection, Loaded, ModelSection, OfferSection, ProviderSection, TierSection, load

__all__ = ["ConfigError", "HealthSection", "Loaded", "ModelSection", "OfferSection", "ProviderSection", "TierSection", "load"]
