"""What a model is good for, without pictures."""
