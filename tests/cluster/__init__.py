"""Runs in pods, from REST to their end: against the fake API server, or a real cluster.

``make test`` has the fake; ``make test-cluster`` a real one (docs/kubernetes.md says how).
"""
