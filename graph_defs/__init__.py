"""The graph document: model, validation, fingerprint, versions and store. Never imports Dagster."""
