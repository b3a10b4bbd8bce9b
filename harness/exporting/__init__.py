"""A stored run in the forms that other tools open. Nothing of those tools is imported."""
