"""A database of its own on the tests' PostgreSQL, for a box that a whole module shares."""

from collections.abc import Generator
from contextlib import contextmanager

import psycopg


@contextmanager
def own_database(server: str, name: str) -> Generator[str]:
    """Its address. It is migrated and empty, and dropped whoever is still connected: end the box first."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE farebox_template".encode())
    try:
        yield server.replace("/postgres?", f"/{name}?")
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
