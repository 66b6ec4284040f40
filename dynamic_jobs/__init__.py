"""From graph version to Dagster run: compiler, run queue, warm worker, storage, event stream."""
