"""What owners and operators do to runs and graphs: cancel, pause, resume, run again."""
