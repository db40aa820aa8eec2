"""Chaos: an app, its broker and its Celery workers on hosts of their own, that are struck."""
