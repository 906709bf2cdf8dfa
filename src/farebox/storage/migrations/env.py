"""Run by Alembic: applies the migrations on the connection and inside the transaction of `storage.migrate`."""

from alembic import context

from farebox.storage.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=False)
context.run_migrations()
