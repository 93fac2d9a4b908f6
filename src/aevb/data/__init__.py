"""Data: tensors, their shape and what the numbers mean."""
