"""Webhooks and run-status sensors, as real Dagster sensors."""
