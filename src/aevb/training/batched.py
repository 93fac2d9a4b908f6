"""The weights of a stack of models in memory, and one optimizer that moves those of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aevb.training.optimizers import LightAdagrad, LightAdam, LightSGD, laid_like

THEIRS = (torch.optim.Adam, torch.optim.Adagrad, torch.optim.SGD)
ELEMENTWISE = (*THEIRS, LightAdam, LightAdagrad, LightSGD)  # each number moves by its own gradient alone
Gradient = Sequence[Tensor | None]


def laid_out(weight: Tensor) -> Tensor:
    """Stacked weights, (M, *shape), in the order in memory in which their gradients come.

    `vmap` gives the gradient of linear layers, (M, out, in), as it lies in (M, in, out). A copy of it costs up to a
    sixth of a step.
    """
    return weight.mT.contiguous().mT if weight.ndim == 3 else weight.contiguous()


def own_copy(part: Tensor) -> Tensor:
    """What was a slice of a stack, by itself."""
    return part.clone(memory_format=torch.contiguous_format)


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
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
        stacked = {k: laid_like(torch.stack([state[k] for state in own]), weight) for k in tensors}
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
        self._move(gradients)
        return True

    def _move(self, gradients: Mapping[str, Tensor | None]) -> None:
        """One step of PyTorch's optimizer on the stacked weights, counted in each model's memory too."""
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
