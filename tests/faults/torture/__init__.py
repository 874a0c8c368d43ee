"""A campaign of faults: random saves and restores of a real guest, each with one thing that goes wrong.

``plan`` draws a trial from the campaign's seed and the trial's number, and from nothing else. ``client`` is the process that
saves or restores: the command line itself, with what goes wrong inside of it (``inner``), and stopped at the chosen instant
(``faults.instants``) for what goes wrong around it (``outer``, in ``faults``). ``world`` is what it happens in: a guest that
is kept from trial to trial. ``scene`` and ``trial`` bring them together, ``checker`` looks at what is left, knowing nothing
of how it came about, and ``report`` counts.
"""
