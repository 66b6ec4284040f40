"""What every part stands on: settings, errors, ids, PostgreSQL, Redis. Imports nothing of ours."""
