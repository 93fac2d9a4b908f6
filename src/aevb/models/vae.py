"""The variational autoencoder: a prior, an encoder, a decoder, and one Monte-Carlo pass through them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from aevb.data.batch import Batch, Data
from aevb.models.chain import Chain
from aevb.models.conditional import Conditional, frozen_log_prob, refuse_second_pass
from aevb.models.given import as_codes, call, given, of_model
from aevb.models.shares import shared
from aevb.models.trace import Trace, draw, sampled
from aevb.probability.joint import split_layers
from aevb.probability.shapes import side_by_side


class VAE(nn.Module):
    """p(x, z) = p(z) p(x|z) with the recognition model q(z|x) (Kingma & Welling 2013, arXiv 1312.6114, §2.1).

    Of a batch with a condition y all three read it: p(z|y), q(z|x, y) and p(x|z, y) (Sohn et al. 2015, conditional
    VAE).

    Args:
        prior: a module that maps nothing, or y, to the distribution p(z).
        encoder: a module that maps x (B, *X) to the distribution q(z|x), usually a `Conditional`; where it is a
            `Chain`, the prior is one too, and the decoder reads the first layer of z.
        decoder: a module that maps z (B, *Z) to the distribution p(x|z), usually a `Conditional`. One that is no
            `Conditional` is called with z (K, B, *Z) and must broadcast over both.
    """

    def __init__(self, prior: nn.Module, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.prior, self.encoder, self.decoder = prior, encoder, decoder
        self._latent_shape: torch.Size | None = None

    @property
    def latent_shape(self) -> torch.Size:
        """*Z, the event shape of z; (D,) in a hierarchy."""
        return self._shape()

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The parts whose weights have the prior p(θ) = N(0, I), where training asks for one."""
        return (self.encoder, self.decoder)

    def forward(self, data: Data, samples: int = 1) -> Trace:
        """As `trace`."""
        return self.trace(data, samples)

    def trace(self, data: Data, samples: int = 1, *, stick: bool = False) -> Trace:
        """One pass x → z_k ~ q(z|x) → p(x|z_k), k = 1..K, differentiable.

        Args:
            data: x (B, *X), or what `aevb.encode` takes, all rows at a time.
            samples: K.
            stick: hold q's parameters constant inside log q(z|x) (arXiv 1703.09194).

        Raises:
            DataError: NaN or infinity in the data, or no rows.
            ShapeError: the model reads data of another size.
        """
        if stick:
            refuse_second_pass(self.encoder)
        batch = given(self, data)
        q = self.posterior(batch)
        t = self.trace_at(batch, q, draw(q, samples))  # z = g_φ(ε, x), eq. 4
        return t.with_frozen(lambda: frozen_log_prob(self.encoder, t.z, batch.x, *batch.contexts)) if stick else t

    def trace_at(self, data: Data, q: Distribution, z: Tensor) -> Trace:
        """The trace of given draws z (K, B, *Z) of q = q(z|x)."""
        batch = given(self, data)
        p = self.prior(*batch.contexts)
        return Trace(batch, z, (q, p), lambda: self._log_px(batch, z), lambda: q.log_prob(z))

    def log_joint(self, data: Data, z: Tensor) -> Tensor:
        """log p(x, z) = log p(x|z) + log p(z), (K, B)."""
        batch = given(self, data)
        p: Distribution = self.prior(*batch.contexts)
        return self._log_px(batch, z) + p.log_prob(z)

    def _log_px(self, batch: Batch, z: Tensor) -> Tensor:
        """log p(x|z), (K, B); of B rows several processes compute a part each."""

        def log_px(z: Tensor, x: Tensor, *y: Tensor) -> Tensor:
            return self.decode(z, *y).log_prob(x)

        if z.ndim < 2 or not _by_rows(self.decoder):
            return log_px(z, batch.x, *batch.contexts)
        parts = (z, batch.x, *batch.contexts)
        return shared(self.decoder, log_px, *parts, dims=(1, 0, 0)[: len(parts)])  # type: ignore[no-any-return]

    def log_posterior(self, data: Data, z: Tensor) -> Tensor:
        """log q(z | x), (K, B)."""
        return self.posterior(data).log_prob(z)

    def posterior(self, data: Data) -> Distribution:
        """q(z | x), batch (B)."""
        batch = given(self, data)
        return call(self.encoder, "encoder x y", batch.x, *batch.contexts)  # type: ignore[no-any-return]

    def sample_latent(self, n: int, y: Tensor | None = None) -> Tensor:
        """n draws z ~ p(z), (n, *Z); z ~ p(z|y) with y (n, *C), or (1, *C) for all."""
        y = None if y is None else of_model(self, y)
        p = self.prior() if y is None else call(self.prior, "prior y", y.expand(n, *y.shape[1:]))
        return sampled(p, () if p.batch_shape else (n,))

    def encode(self, data: Data) -> Tensor:
        """E_q[z | x], (B, *Z), differentiable; `aevb.encode` is without a gradient, for any number of rows."""
        return self.posterior(data).mean

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """p(x | z) of z (*batch, *Z); p(x | z, y) with y (B, *C), which is the same for every k."""
        shape = self._shape(y)
        z, y = as_codes(self, z, shape), None if y is None else of_model(self, y)
        dims = z.ndim - len(shape)
        if isinstance(self.encoder, Chain):
            z = split_layers(z, self.encoder.shapes)[0]
        if y is None:
            return call(self.decoder, "decoder z", z, batch_dims=dims)  # type: ignore[no-any-return]
        batch = side_by_side(z.shape[:dims], y.shape[: min(dims, 1)])  # one z, or one y, may be for all of B
        z, y = z.expand(*batch, *z.shape[dims:]), y.expand(*batch, *y.shape[min(dims, 1) :])
        return call(self.decoder, "decoder z y", z, y, batch_dims=dims)  # type: ignore[no-any-return]

    def _shape(self, y: Tensor | None = None) -> torch.Size:
        if self._latent_shape is None:  # once: a prior may be as costly as an encoder
            self._latent_shape = latent_shape(self.prior, self.encoder, *(() if y is None else (y,)))
        return self._latent_shape


def _by_rows(decoder: nn.Module) -> bool:
    """Whether a decoder is known to say of one row nothing that depends on others."""
    if not isinstance(decoder, Conditional):
        return False
    return not getattr(getattr(decoder.family, "offers", None), "couples_batch", False)


def latent_shape(prior: nn.Module, encoder: nn.Module, *context: Tensor) -> torch.Size:
    """*Z: of the encoder's family, or of the prior's distribution where the encoder does not tell."""
    for part in (encoder, prior):
        if isinstance(part, Conditional):
            return part.family.shape
        if isinstance(part, Chain):
            return part.shape
    shape: torch.Size = prior(*context).event_shape
    return shape
