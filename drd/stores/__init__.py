"""Where objects live: one module a kind of store."""
