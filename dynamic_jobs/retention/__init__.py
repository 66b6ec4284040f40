"""Retention: what ended long ago goes, runs with all that was kept of them, a few at a time."""
