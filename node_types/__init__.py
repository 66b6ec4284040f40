"""The node library: one file per node type. Adding a type is adding a file here."""
