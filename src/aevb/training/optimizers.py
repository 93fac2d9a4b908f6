"""Optimisers as plain data: each is called with parameter groups and gives PyTorch's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from aevb.parts import OPTIMIZER

Groups = Iterable[dict[str, Any]]
MakeOptimizer = Callable[[Groups], torch.optim.Optimizer]
MOST_INPUTS = 4096  # of a layer whose weights move by the whole step size
GUARDED = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")  # methods that import the compiler


def light(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """A class of PyTorch's optimizers without the decorators of its methods, in place.

    These import PyTorch's compiler, `torch._dynamo`, which takes about two seconds, to tell it to leave them alone.
    Numbers and state are those of the class above it.
    """
    for name in GUARDED:
        setattr(kind, name, inspect.unwrap(getattr(kind, name)))
    kind.step = torch.no_grad()(inspect.unwrap(kind.step))  # type: ignore[method-assign]
    return kind


@light
class LightAdagrad(torch.optim.Adagrad):
    """`torch.optim.Adagrad`."""


@light
class LightAdam(torch.optim.Adam):
    """`torch.optim.Adam`."""


@light
class LightSGD(torch.optim.SGD):
    """`torch.optim.SGD`."""


@dataclass(frozen=True)
class Adagrad:
    """Adagrad (Duchi et al. 2011), the paper's optimiser, its step size one of 0.01, 0.02, 0.1."""

    word, roles, equation = "adagrad", (OPTIMIZER,), "Adagrad, θ ← θ + η ∇/√Σ∇²,  η = {lr}"

    lr: float = 0.02
    eps: float = 1e-10

    def __call__(self, groups: Groups) -> torch.optim.Optimizer:
        listed = list(groups)
        on_cpu = all(p.device.type == "cpu" for group in listed for p in group["params"])
        return LightAdagrad(listed, lr=self.lr, eps=self.eps, fused=on_cpu or None)  # on GPUs not in every torch


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2014, arXiv 1412.6980)."""

    word, roles = "adam", (OPTIMIZER,)
    equation = "Adam, θ ← θ + η m/√v,  m and v running means of ∇ and ∇², η = {lr}"

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __call__(self, groups: Groups) -> torch.optim.Optimizer:
        return LightAdam(groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), eps=self.eps, fused=True)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient ascent of the bound, with optional momentum."""

    word, roles, equation = "sgd", (OPTIMIZER,), "SGD, θ ← θ + η ∇,  η = {lr}, momentum {momentum}"

    lr: float = 1e-3
    momentum: float = 0.0

    def __call__(self, groups: Groups) -> torch.optim.Optimizer:
        return LightSGD(groups, lr=self.lr, momentum=self.momentum, fused=True)


def remember(optimizer: torch.optim.Optimizer, memory: Mapping[str, Any]) -> None:
    """Give an optimizer the memory of a `state_dict`, each tensor ordered as its parameter is."""
    optimizer.load_state_dict(dict(memory))
    for p in optimizer.state:
        change_memory(optimizer, p, partial(laid_like, weight=p))


def change_memory(optimizer: torch.optim.Optimizer, p: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Put other tensors in the place of an optimizer's memory of one parameter, where it has any."""
    memory = optimizer.state.get(p, {})
    memory.update({k: change(v) for k, v in memory.items() if isinstance(v, Tensor)})


def laid_like(part: Tensor, weight: Tensor) -> Tensor:
    """A gradient or a memory in the order in memory of its weight: fused optimizers walk through both side by side,
    whatever the strides."""
    if part.shape != weight.shape or part.stride() == weight.stride():
        return part
    return torch.empty_like(weight, dtype=part.dtype).copy_(part)


@runtime_checkable
class HasNetworks(Protocol):
    """A module that declares which of its parts are networks; the rest, such as a prior, has no weights in this
    sense."""

    @property
    def networks(self) -> Sequence[nn.Module]: ...


def parameter_groups(module: nn.Module, decay: float, but: Sequence[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """The weights of networks with `decay`, all other parameters without; `but` are those of other optimizers.

    The prior p(θ) = N(0, I) on weights adds 1/N log p(θ) = -|θ|²/2N to the bound per data point: a decay of 1/N that is
    part of the gradient, so Adagrad and Adam rescale it with the rest, as in the paper's own runs of Algorithm 1.

    Weights are the matrices and kernels of layers: parameters called `weight` of two dimensions or more. They count in
    the networks that a model declares (of a `VAE` encoder and decoder), or anywhere in a model that declares none.
    Biases, scales, pseudo-inputs and parameters of priors are none.
    An objective with p(θ) in its bound declares that it offers no `point_weights`.

    `lr_factor` of a group is what the step size is to be multiplied by, see `step_factor`.
    """
    left, weights = set(map(id, but)), set(map(id, network_weights(module)))
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(decay, 1.0): [], (0.0, 1.0): []}
    for p in module.parameters():
        if p.requires_grad and id(p) not in left:
            own = (decay, step_factor(p)) if id(p) in weights else (0.0, 1.0)
            groups.setdefault(own, []).append(p)
    return [
        {"params": found, "weight_decay": rate, "lr_factor": factor}
        for (rate, factor), found in groups.items()
        if found
    ]


def step_factor(weight: Tensor) -> float:
    """What the step size of a layer's weight (outputs, *inputs) is multiplied by: min(1, 4096 / inputs).

    A step of Adam or Adagrad moves each weight by about the step size, and so each output by inputs × step size × |h|;
    one of SGD moves it in proportion to |h|². A layer of 262,144 inputs, as an encoder of 256×256 pictures has, would
    leave the numbers that it can work with at the first step. So its weights move in proportion to 1 / inputs, as in
    μP (Yang & Hu 2021, arXiv 2203.03466, Table 8). Layers of up to 4,096 inputs, as for 32×32 pictures, are as ever.
    """
    return min(1.0, MOST_INPUTS / weight[0].numel())


def network_weights(module: nn.Module) -> Iterator[nn.Parameter]:
    """The weights of the networks that a module or a part of it declares; where none does, of all its layers."""
    if isinstance(module, HasNetworks):
        yield from (w for network in module.networks for layer in network.modules() for w in _weights(layer))
        return
    yield from _weights(module)
    for child in module.children():
        yield from network_weights(child)


def _weights(layer: nn.Module) -> Iterator[nn.Parameter]:
    """Those of a layer itself; that of a normalisation is a scale."""
    if not isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        yield from (p for name, p in layer.named_parameters(recurse=False) if "weight" in name and p.ndim >= 2)
