"""Benchmarks: Segundo beside FastAPI's own BackgroundTasks, in one run. `python -m bench --help`."""
