"""How good a model is: bounds, log p(x), what its latent space holds."""
