"""Benchmarks: how fast is blockflow beside its peers, on the same machine, in the same minutes?

``python -m benchmarks`` runs every question; see ``docs/design/performance.md`` for what is measured and how.
"""
