"""The seam between a question and what is measured: ``base`` says what an engine can be asked."""
