"""drd: disaster recovery for PostgreSQL, Redis and ClickHouse, proven by restoring."""

__version__ = "0.1.0"
