"""Timers, as real Dagster schedules."""
