"""A plain autoencoder against a VAE: the same networks, once with a point for a posterior and no KL."""

from __future__ import annotations

from aevb.apps.paper.curves import Curve, Row
from aevb.apps.paper.figure2 import mnist
from aevb.data.dataset import Split
from aevb.evaluation.elbo import elbo
from aevb.models.vae import VAE
from aevb.training.train import Learner

LATENTS = (2, 20)
STEP = 0.1  # Adagrad's step, the one that the pilot of both VAEs chooses; an autoencoder has no bound to choose by


def reconstruction(learner: Learner, train: Split, test: Split, most: int = 10_000) -> Row:
    """E_q[log p(x|z)] in nats per data point, over (the first `most`) train rows and over test rows."""
    model = learner.best_known
    assert isinstance(model, VAE)
    return {
        name: float(elbo(model, rows.take(most)).reconstruction.mean()) for name, rows in (("train", train), ("test", test))
    }


def autoencoder(latents: int, source: str = "mnist") -> Curve:
    """The curve of an autoencoder: networks, data, optimiser, step and weight prior of figure 2's VAE, without its noise."""
    changes = {"latent": latents, "training__optimizer__lr": STEP}
    return Curve(f"{source}-z{latents}-autoencoder", "autoencoder", source, reconstruction, changes, steps=())


CURVES = (*map(autoencoder, LATENTS), *map(mnist, LATENTS))
