"""Benchmarks that people can choose a backend by: ``eventstore bench URL [URL …]``.

``workloads.py`` says what is done to a store and ``measure.py`` how it is timed; the project's
own claims, in ``benchmarks/`` of the repository, use the same two.
"""
