"""What a process tells of itself: logs, metrics, traces, and whether it is well."""
