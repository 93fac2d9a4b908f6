"""The explorer: a page that shows the latent space of a run, and the server that computes for it."""
