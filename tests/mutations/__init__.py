"""Mutations by hand: each takes one guard away, and a test has to notice.

A list of places in the sources (``durability``, ``images``, ...), with what to write there instead and the tests that turn red
then. ``python -m tests.mutations`` tries them all in a copy of the tree; one that survives is a test that is missing.
"""
