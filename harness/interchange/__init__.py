"""Recorded completions in the forms that other tools write, read as rows of our own form (DESIGN: interchange)."""
