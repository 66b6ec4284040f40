"""The run queue: claims in turn, places in limited slots, leases and what becomes of lost ones."""
