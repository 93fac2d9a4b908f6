"""Algorithm 1: how parameters move."""
