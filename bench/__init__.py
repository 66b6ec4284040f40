"""Benchmarks: one module per question, ours and the peers on the same work in the same run."""
