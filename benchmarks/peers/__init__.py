"""Other event stores for Python, each run in an environment of its own."""
