"""Who is told of events: adapters of :class:`~drd.protocols.Notifier`."""
