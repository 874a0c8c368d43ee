"""Measurements. ``python -m bench`` compares saves in pairs; ``pytest bench --benchmark-only`` times the inner parts."""
