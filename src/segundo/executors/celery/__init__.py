"""Who runs records on Celery workers: a relay publishes their ids, a worker claims what a message names."""
