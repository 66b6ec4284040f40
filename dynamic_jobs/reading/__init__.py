"""Runs and their events as their owners see them: lists, pages and live streams."""
