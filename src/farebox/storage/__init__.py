"""Storage: one definition of the tables for SQLite and PostgreSQL, migrations, transactions and named queries.

`database` opens an engine and runs transactions, `tables` defines what is stored, `migrate` brings a database up to date,
`queries` answers the questions of the surfaces and the command line. Everything is synchronous and called from threads or
from the bookkeeper: the way of a call never waits for a database.
"""
