"""What this host does with the user's own data: a sample, measurements of it, and what follows from them for a wish.

``sample`` takes pieces of a stream, ``measure`` runs them through the real pipelines, ``recommend`` is pure arithmetic.
"""
