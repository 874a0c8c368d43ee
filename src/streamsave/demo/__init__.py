"""The demo: a tiny guest that ships with the package and checks its own memory, carried through every format.

It stands on top of the API and uses nothing that a caller could not.
"""
