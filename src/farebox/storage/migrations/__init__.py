"""Alembic's folder: `env.py` runs what stands in `versions`."""
