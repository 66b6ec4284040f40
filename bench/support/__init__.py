"""What the benchmarks share: services, processes, installing, figures, the report."""
