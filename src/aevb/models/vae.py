"""The variational auto-encoder: a prior, an encoder, a decoder, and one Monte-Carlo pass through them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from aevb.models.conditional import condition, frozen_log_prob, refuse_second_pass
from aevb.models.latents import Latent, drawn, log_prob
from aevb.models.trace import Trace


class VAE(nn.Module):
    """p(x, z) = p(z) p(x|z) with the recognition model q(z|x) (Kingma & Welling 2013, arXiv 1312.6114, §2.1).

    Args:
        prior: a module that maps nothing to the distribution p(z).
        encoder: a module that maps x (B, *X) to the distribution q(z|x), usually a `Conditional`; where it is a `Chain`, the
            prior is one too, and z a tuple, whose first layer is decoded.
        decoder: a module that maps z (B, *Z) to the distribution p(x|z), usually a `Conditional`. One that is no
            `Conditional` is called with z (K, B, *Z) and must broadcast over both.
    """

    def __init__(self, prior: nn.Module, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.prior, self.encoder, self.decoder = prior, encoder, decoder
        self._latent_dims: int | None = None  # len(*Z), known once the prior was called

    def forward(self, x: Tensor, samples: int = 1) -> Trace:
        return self.trace(x, samples)

    def trace(self, x: Tensor, samples: int = 1, *, stick: bool = False, given: Tensor | None = None) -> Trace:
        if stick:
            refuse_second_pass(self.encoder)
        q, p = self.posterior(x, given), self.prior(*_contexts(given))
        z = drawn(q, samples)  # z = g_φ(ε, x), eq. 4

        def log_qz() -> Tensor:
            return frozen_log_prob(self.encoder, z, x, *_contexts(given)) if stick else log_prob(q, z)

        return Trace(x, z, (q, p), lambda: self.decode(z, given).log_prob(x), log_qz)

    def log_joint(self, x: Tensor, z: Latent, given: Tensor | None = None) -> Tensor:
        """log p(x, z) = log p(x|z) + log p(z), (K, B)."""
        p: Distribution = self.prior(*_contexts(given))
        return self.decode(z, given).log_prob(x) + log_prob(p, z)

    def log_posterior(self, x: Tensor, z: Latent, given: Tensor | None = None) -> Tensor:
        """log q(z | x), (K, B)."""
        return log_prob(self.posterior(x, given), z)

    def posterior(self, x: Tensor, given: Tensor | None = None) -> Distribution:
        return self.encoder(x, *_contexts(given))  # type: ignore[no-any-return]

    def sample_latent(self, n: int, given: Tensor | None = None) -> Latent:
        given = None if given is None else given.expand(n, *given.shape[1:])  # one may be for all
        p = self.prior(*_contexts(given))
        return p.sample(() if p.batch_shape else (n,))  # type: ignore[no-any-return]

    def encode(self, x: Tensor, given: Tensor | None = None) -> Latent:
        return self.posterior(x, given).mean

    def decode(self, z: Latent, given: Tensor | None = None) -> Distribution:
        if self._latent_dims is None:  # once: a prior may be as costly as an encoder
            self._latent_dims = len(self.prior(*_contexts(given)).event_shape)
        z = z if isinstance(z, Tensor) else z[0]
        dims = z.ndim - self._latent_dims
        if given is not None:  # (B, *C), the same for every k; one z, or one context, may be for all of B
            batch = torch.broadcast_shapes(z.shape[:dims], given.shape[: min(dims, 1)])
            z, given = z.expand(*batch, *z.shape[dims:]), given.expand(*batch, *given.shape[min(dims, 1) :])
        return condition(self.decoder, z, *_contexts(given), batch_dims=dims)


def _contexts(given: Tensor | None) -> tuple[Tensor, ...]:
    return () if given is None else (given,)
