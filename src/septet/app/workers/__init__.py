"""Several processes that serve calls, and the one that they obey (docs/adr/0006-workers.md)."""
