"""Wake-sleep: which gradient goes where, and the fixed point that both phases share."""

from __future__ import annotations

import torch
from oracle import DTYPE, oracle
from torch import Tensor

from aevb.models.vae import VAE
from aevb.objectives.wake_sleep import WakeSleep


def gradients(model: VAE, x: Tensor, seed: int, dreams: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model.zero_grad()
    loss, _ = WakeSleep(dreams)(model, x, 0)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_wake_trains_the_decoder_and_sleep_the_encoder() -> None:
    """The same draws, written out by hand: θ gets ∇ log p(x, z) alone, φ gets ∇ log q(z|x̃) alone."""
    o = oracle()
    model, x = o.vae(shift=0.4, widen=1.7), o.data(32)
    found = gradients(model, x, seed=3)
    torch.manual_seed(3)
    with torch.no_grad():
        z = model.posterior(x).sample(torch.Size((1,)))
        dreamt = model.sample_latent(len(x))
        dream = model.decode(dreamt).sample()
    theta = torch.autograd.grad(-model.log_joint(x, z).mean(), list(model.decoder.parameters()))
    phi = torch.autograd.grad(-model.posterior(dream).log_prob(dreamt).mean(), list(model.encoder.parameters()))
    for name, expected in zip([n for n in found if n.startswith("decoder")], theta, strict=True):
        torch.testing.assert_close(found[name], expected)
    for name, expected in zip([n for n in found if n.startswith("encoder")], phi, strict=True):
        torch.testing.assert_close(found[name], expected)


def test_at_the_exact_posterior_the_sleep_gradient_has_mean_zero() -> None:
    """E_p(x,z)[∇_φ log q(z|x)] = 0 where q is the exact posterior; away from it, it is not."""
    o = oracle()
    for shift, still in ((0.0, True), (0.3, False)):
        model, x = o.vae(shift=shift), o.data(64)
        draws = torch.stack([gradients(model, x, s, dreams=20)["encoder.net.bias"] for s in range(60)])
        z = draws.mean(0).abs() / (draws.std(0) / 60**0.5)
        assert bool((z < 4.5).all()) == still, z


def test_logged_elbo_is_the_bound() -> None:
    o = oracle()
    x = o.data(4000)
    torch.manual_seed(0)
    _, info = WakeSleep()(o.vae(), x, 0)
    torch.testing.assert_close(info["elbo"], o.evidence.log_prob(x).mean().to(DTYPE))


def test_wake_sleep_learns_the_oracle() -> None:
    """From a wrong encoder, the sleep phase alone recovers the exact posterior of a fixed decoder."""
    o = oracle()
    model, x = o.vae(shift=0.5, widen=3.0), o.data(500)
    for p in model.decoder.parameters():
        p.requires_grad_(False)
    optimizer = torch.optim.Adam(model.encoder.parameters(), lr=0.02)
    before = float(o.gap(model, x).mean().detach())
    torch.manual_seed(1)
    for step in range(400):
        optimizer.zero_grad()
        WakeSleep()(model, x, step)[0].backward()
        optimizer.step()
    assert before > 1
    assert float(o.gap(model, x).mean()) < 0.02
