"""The repository: how backups lie in a store, and what may be concluded from that."""
