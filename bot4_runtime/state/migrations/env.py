"""What Alembic runs: the revisions, on the connection it is handed. Not a program of its own."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], transaction_per_migration=True
)
context.run_migrations()
