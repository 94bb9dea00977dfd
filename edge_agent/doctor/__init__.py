"""``edge-agent doctor``: everything that a support call would ask, looked at once, each with what to do.

Nothing is changed, except that test files are made and removed at once. What may crash or hang is tried in a process of its own. Facts
come from ``/proc`` and ``/sys``; no network is used.
"""
