"""Apps to read, run and copy: two small tutorials, one real app, and a demo that tries to break it."""
