"""A run on disk: folders, parts, locks, manifests, what holds them together and what mends them."""
