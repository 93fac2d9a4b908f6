"""Mathematics: families of distributions. Knows no model."""
