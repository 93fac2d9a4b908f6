"""Optimisers as plain data: each is called with parameter groups and gives PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Groups = Iterable[dict[str, Any]]
MakeOptimizer = Callable[[Groups], torch.optim.Optimizer]


@dataclass(frozen=True)
class Adagrad:
    """Adagrad (Duchi et al. 2011), the paper's optimiser, its step size one of 0.01, 0.02, 0.1."""

    lr: float = 0.02
    eps: float = 1e-10

    def __call__(self, groups: Groups) -> torch.optim.Optimizer:
        listed = list(groups)
        on_cpu = all(p.device.type == "cpu" for group in listed for p in group["params"])
        return torch.optim.Adagrad(listed, lr=self.lr, eps=self.eps, fused=on_cpu or None)  # on GPUs not in every torch


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2014, arXiv 1412.6980)."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __call__(self, groups: Groups) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), eps=self.eps, fused=True)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient ascent of the bound, with optional momentum."""

    lr: float = 1e-3
    momentum: float = 0.0

    def __call__(self, groups: Groups) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=True)


def parameter_groups(module: nn.Module, decay: float, but: Sequence[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Weights (two dimensions or more) with `decay`, biases and other vectors without; `but` are those of other optimisers.

    The prior p(θ) = N(0, I) on weights adds 1/N log p(θ) = -|θ|²/2N to the bound per data point: a decay of 1/N that is
    part of the gradient, so that Adagrad and Adam rescale it with the rest (Algorithm 1 as the paper's authors ran it).
    A part of `module` that is an objective with p(θ) in its bound says so by an attribute `has_weight_prior`.
    """
    for part in module.modules() if decay else ():
        if getattr(part, "has_weight_prior", False):
            raise ValueError(f"{type(part).__name__} has p(θ) = N(0, I) in its bound already: leave out weight_prior.")
    left = {id(p) for p in but}
    free = [p for p in module.parameters() if p.requires_grad and id(p) not in left]
    weights, others = [p for p in free if p.ndim >= 2], [p for p in free if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]
