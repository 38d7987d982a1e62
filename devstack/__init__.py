"""Real servers on loopback for the demo, the tests and the benchmarks: PostgreSQL, Redis, ClickHouse, S3.

Each service is a class with ``start()``, ``stop()``, ``kill()``, ``pause()`` and ``resume()``, its ports, URLs,
credentials and log. They live in a :class:`~devstack.workspace.Workspace`, which leaves nothing behind when its
maker dies. ``python -m devstack up`` starts them all and writes a ``drd.yaml``. Nothing here is for production:
fsync is off and passwords are throw-away.
"""
