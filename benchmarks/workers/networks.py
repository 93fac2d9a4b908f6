"""The paper's MNIST network in PyTorch: 784-500 tanh-(20, 20) and 20-500 tanh-784."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.workers.data import PIXELS

HIDDEN, LATENT = 500, 20
LEARNING_RATE = 1e-3


def encoder_layers() -> nn.Sequential:
    """x -> mean and log variance, side by side."""
    return nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2 * LATENT))


def decoder_layers() -> nn.Sequential:
    """z -> logits."""
    return nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, PIXELS))


def seeded_layers() -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder with the same initial weights in every worker."""
    torch.manual_seed(0)
    return encoder_layers(), decoder_layers()


def seeded_convolutions() -> tuple[nn.Sequential, nn.Sequential]:
    """A small convolutional encoder and decoder of 32 and 64 channels, with the same initial weights in every
    worker."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        *(nn.Conv2d(1, 32, 3, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.SiLU()),
        *(nn.Flatten(), nn.Linear(64 * 49, 2 * LATENT)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(LATENT, 64 * 49), nn.SiLU(), nn.Unflatten(1, (64, 7, 7))),
        *(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Flatten()),
    )
    return encoder, decoder


class NegativeElbo(nn.Module):
    """x (B, 784) -> one-sample estimate of -ELBO, KL in closed form, in nats per image."""

    def __init__(self, layers: tuple[nn.Module, nn.Module] | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder = layers or seeded_layers()

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        cross_entropy = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
        return (cross_entropy + kl) / len(x)
