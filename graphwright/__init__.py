"""The front door: command line, embedded local stack, Dagster definitions (composition root)."""
