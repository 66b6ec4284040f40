"""What several node types share; not node types themselves."""
