"""A kill -9 soak: a real app under load is killed at random moments; what its tasks wrote down is judged."""
