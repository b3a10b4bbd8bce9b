"""Many engines at once: replicas on a Ray cluster, and one process that takes in and stores what they draw."""
