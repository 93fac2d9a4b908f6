"""p(z), q(z|x), p(x|z), and the trace: one Monte-Carlo pass through them."""
