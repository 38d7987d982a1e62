"""What runs for years beside the databases: the scheduler, its jobs and history, metrics, health, the web page."""
