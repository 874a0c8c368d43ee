"""Measurements: docs/benchmarks.md. ``make bench`` compares saves and restores; ``pytest bench`` times the inner parts."""
