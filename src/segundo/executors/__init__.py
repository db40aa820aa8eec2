"""Who runs a queue's records: this process, or the workers of a Celery app, and all by the one runner."""
