"""Declared experiments: which runs answer which question, and how they are run and scored."""
