"""Dagster's storage, batched: the run's events, outputs and status commit together.

``dagster.yaml`` names :class:`GraphwrightStorage`, so the stock webserver and daemon use it too.
"""

from dynamic_jobs.storage.lease import EventRefused, Lease, LeaseLost
from dynamic_jobs.storage.storage import GraphwrightStorage, event_storage_of
from dynamic_jobs.storage.writer import EventWriter

__all__ = [
    "EventRefused",
    "EventWriter",
    "GraphwrightStorage",
    "Lease",
    "LeaseLost",
    "event_storage_of",
]
