"""The warm workers: a pool of processes that claim queued runs and hold their leases."""
