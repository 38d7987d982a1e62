"""Redis and Valkey: backed up as a replica is fed, restored as a primary feeds one."""

from drd.engines.redis.engine import RedisEngine
from drd.engines.redis.format import RedisFormat
from drd.engines.redis.settings import RedisSettings

__all__ = ["RedisEngine", "RedisFormat", "RedisSettings"]
