"""A run on disk: recipe, weights, metrics."""
