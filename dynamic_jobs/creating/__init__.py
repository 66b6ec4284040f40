"""From a trigger to a durable, queued run: templates by version, group commit."""
