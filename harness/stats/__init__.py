"""Statistics over numpy arrays: every function is pure, knows nothing of runs, selectors or files, and is seeded.

Accuracies are fractions in 0..1. An array called `values` holds one row per problem: the samples of a problem are one
cluster, so a problem is what is resampled, flipped and counted. `docs/statistics.md` gives every formula and source.
"""
