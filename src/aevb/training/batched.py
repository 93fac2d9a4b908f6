"""What the models of a stack do at once beside `vmap`: the products of linear layers, and updates of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from aevb.training.draws import Given

ELEMENTWISE = (torch.optim.Adam, torch.optim.Adagrad, torch.optim.SGD)  # each number moves by its own gradient alone
Gradient = Sequence[Tensor | None]


class Linear(torch.autograd.Function):
    """y = x Wᵀ + b of M models: x (M, B, in), W (M, out, in), b (M, out) → y (M, B, out).

    The gradient of W lies in memory as W does, so that an optimizer reads both in order. That of `vmap` by itself lies
    across, and its copy costs up to a third of the products.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        of_x = gradient @ weight if ctx.needs_input_grad[0] else None
        return of_x, gradient.mT @ x, gradient.sum(1)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *parts: Tensor) -> tuple[Tensor, int]:
        """Of one model: x (*, in), W (out, in), b (out,)."""
        x, weight, bias = (_by_model(part, dim, info.batch_size) for part, dim in zip(parts, in_dims, strict=True))
        found = Linear.apply(x.flatten(1, -2), weight, bias)
        return found.unflatten(1, x.shape[1:-1]), 0  # type: ignore[no-untyped-call]


def _by_model(part: Tensor, dim: int | None, models: int) -> Tensor:
    """With models along the first dimension."""
    return part.expand(models, *part.shape) if dim is None else part.movedim(dim, 0)


class OfAll(Given):
    """As `Given`; and linear layers compute the products of all models by `Linear`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear and len(args) == 3 and args[2] is not None and args[0].ndim > 1:
            return Linear.apply(*args)  # type: ignore[no-untyped-call]
        return super().__torch_function__(func, types, args, kwargs)


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def settings_of(optimizer: Optimizer) -> object:
    """What two optimizers share of which one can do the work of both; nothing is equal to those that work alone."""
    if type(optimizer) not in ELEMENTWISE:
        return object()
    groups = [{**group, "params": len(group["params"]), "lr": None} for group in optimizer.param_groups]
    memory = [sorted(optimizer.state.get(p, {})) for p in parameters_of(optimizer)]
    return type(optimizer), groups, memory


class Joint:
    """One optimizer that does the work of those of some models with the same settings.

    It moves their stacked weights by PyTorch's own rule, number by number. Each model's optimizer keeps its memory, as
    a slice of the stacked one, so that it can take a step by itself at any time.

    Args:
        places: of the models in the stack.
        optimizers: of all models of the stack, after their first step.
        weights: of all models of the stack, by name, (M, *shape), in the order of the optimizers.
    """

    def __init__(self, places: range, optimizers: Sequence[Optimizer], weights: Mapping[str, Tensor]) -> None:
        self.places, self.span = places, slice(places.start, places.stop)
        self.optimizers = optimizers[self.span]
        self.weights = {name: weight[self.span] for name, weight in weights.items()}
        self.optimizer = copy(self.optimizers[0])
        self.optimizer.state, left = type(self.optimizer.state)(dict), iter(self.weights.values())
        self.optimizer.param_groups = [
            {**group, "params": [next(left) for _ in group["params"]]} for group in self.optimizers[0].param_groups
        ]
        self.counts: list[tuple[Tensor, Tensor]] = []  # of steps: of this optimizer (), and of the models' (m,)
        for weight, *own in zip(self.weights.values(), *map(parameters_of, self.optimizers), strict=True):
            self._share_memory(weight, [o.state[p] for o, p in zip(self.optimizers, own, strict=True) if p in o.state])

    def _share_memory(self, weight: Tensor, own: Sequence[dict[str, Any]]) -> None:
        """Stack the memory of one parameter, and let that of each model be a slice of it."""
        if not own:
            return
        tensors = [k for k, v in own[0].items() if isinstance(v, Tensor)]
        stacked = {k: torch.stack([state[k] for state in own]) for k in tensors}
        for i, state in enumerate(own):
            state.update({k: v[i] for k, v in stacked.items()})
        self.optimizer.state[weight] = {**own[0], **stacked}
        if "step" in stacked:
            self.optimizer.state[weight]["step"] = stacked["step"][0].clone()
            self.counts.append((self.optimizer.state[weight]["step"], stacked["step"]))

    def step(self, gradients: Mapping[str, Tensor | None]) -> bool:
        """Move all weights; False, and nothing is done, where the step sizes of this moment differ.

        Args:
            gradients: of all models of the stack, by name of the weight, (M, *shape).
        """
        rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        if any(other != rates[0] for other in rates):
            return False
        for group, rate in zip(self.optimizer.param_groups, rates[0], strict=True):
            group["lr"] = rate
        for name, weight in self.weights.items():
            gradient = gradients[name]
            weight.grad = None if gradient is None else gradient[self.span]
        for count, each in self.counts:
            count.copy_(each[0])
        self.optimizer.step()
        for count, each in self.counts:
            each.copy_(count)
        for weight in self.weights.values():
            weight.grad = None
        return True
