"""Many models on many tasks from one file."""
