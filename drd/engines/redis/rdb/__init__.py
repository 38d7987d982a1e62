"""The RDB snapshot format of Redis and Valkey, read as a stream."""
