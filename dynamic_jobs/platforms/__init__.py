"""Steps whose work is done elsewhere, through Dagster Pipes: a file for each platform."""
