"""One step of Algorithm 1 as a single compiled function: bound, gradient and update, with no Python in between.

PyTorch's fused optimizers are opaque to the compiler, and its others compute powers element by element. So the update
rules are written here as their papers' equations. They change the memory of the PyTorch optimizer itself, which keeps
the state and writes the checkpoints. A test compares each rule with PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from aevb.data.batch import Batch
from aevb.training.optimizers import LightAdagrad, LightAdam

Memory = dict[str, Tensor]
Scalars = tuple[Tensor, ...]
Rule = Callable[[Tensor, Tensor, Memory, Scalars], None]
Update = Callable[[Batch, int], Any]


class _Adam:
    """m ← m + (1 - β₁)(g - m);  v ← β₂ v + (1 - β₂) g²;  θ ← θ - α_t m / (√v c_t + ε)   (arXiv 1412.6980)."""

    memory = ("exp_avg", "exp_avg_sq")

    @staticmethod
    def supports(group: dict[str, Any]) -> bool:
        return not (group["amsgrad"] or group["maximize"])

    @staticmethod
    def scalars(group: dict[str, Any], t: int) -> list[float]:
        """β₁, β₂ and ε, the step size α_t = α / (1 - β₁ᵗ), and c_t = 1 / √(1 - β₂ᵗ)."""
        b1, b2 = group["betas"]
        return [b1, b2, group["eps"], group["lr"] / (1 - b1**t), (1 - b2**t) ** -0.5]

    @staticmethod
    def update(p: Tensor, g: Tensor, memory: Memory, scalars: Scalars) -> None:
        b1, b2, eps, rate, correction = scalars
        m, v = memory["exp_avg"], memory["exp_avg_sq"]
        m.add_((1 - b1) * (g - m))
        v.copy_(b2 * v + (1 - b2) * g * g)
        p.sub_(rate * m / (v.sqrt() * correction + eps))


class _Adagrad:
    """s ← s + g²;  θ ← θ - α g / (√s + ε)   (Duchi et al. 2011)."""

    memory = ("sum",)

    @staticmethod
    def supports(group: dict[str, Any]) -> bool:
        return not (group["maximize"] or group["lr_decay"])

    @staticmethod
    def scalars(group: dict[str, Any], t: int) -> list[float]:
        return [group["lr"], group["eps"]]

    @staticmethod
    def update(p: Tensor, g: Tensor, memory: Memory, scalars: Scalars) -> None:
        rate, eps = scalars
        s = memory["sum"]
        s.add_(g * g)
        p.sub_(rate * g / (s.sqrt() + eps))


RULES: dict[type[torch.optim.Optimizer], type[_Adam] | type[_Adagrad]] = {
    torch.optim.Adam: _Adam,
    torch.optim.Adagrad: _Adagrad,
    LightAdam: _Adam,
    LightAdagrad: _Adagrad,
}


class Group:
    """A parameter group of an optimizer, with the memory of its parameters by their names in the module."""

    def __init__(self, optimizer: torch.optim.Optimizer, settings: dict[str, Any], names: dict[Tensor, str]) -> None:
        self.rule, self.settings = RULES[type(optimizer)], settings
        self.parameters: dict[str, Tensor] = {names[p]: p for p in settings["params"]}
        self.memory = {name: begin(optimizer, self.rule, p) for name, p in self.parameters.items()}
        self.counts: list[Tensor] = [optimizer.state[p]["step"] for p in settings["params"]]

    def scalars(self, t: int) -> list[float]:
        return [*self.rule.scalars(self.settings, t), self.settings["weight_decay"]]

    def update(self, gradients: Memory, scalars: Tensor) -> None:
        *settings, decay = scalars.unbind()
        for name, p in self.parameters.items():
            self.rule.update(p, gradients[name] + decay * p, self.memory[name], tuple(settings))


def begin(optimizer: torch.optim.Optimizer, rule: Any, p: Tensor) -> Memory:
    """Give the optimizer its memory of p before the first step, as PyTorch would at that step."""
    state: Memory = optimizer.state[p]
    state.setdefault("step", torch.zeros((), device=p.device))
    return {name: state.setdefault(name, torch.zeros_like(p)) for name in rule.memory}


def compiled_update(
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    clip: float | None,
    wrap: Callable[..., Any] = torch.compile,
) -> Update | None:
    """(batch, number) → (loss, info) of `module(batch, number)`, with step `number` of all `optimizers`, from zero on.

    `wrap` is what becomes of the step, a function of tensors alone: it is compiled, or recorded.

    None where this is not supported: another optimizer, clipping, or buffers, such as those of batch normalisation.
    """
    if not fusible(module, optimizers, clip):
        return None
    names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
    groups = [Group(optimizer, settings, names) for optimizer in optimizers for settings in optimizer.param_groups]
    counts = [count for group in groups for count in group.counts]
    fused: Callable[..., Any] = wrap(fuse(module, groups))

    def update(batch: Batch, number: int) -> Any:
        scalars = [group.scalars(number + 1) for group in groups]
        torch._foreach_add_(counts, 1)
        flat = torch.tensor([s for row in scalars for s in row], dtype=batch.x.dtype, device=batch.x.device)
        return fused(batch, torch.tensor(number, device=batch.x.device), flat.split([len(row) for row in scalars]))

    return update


def fusible(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], clip: float | None) -> bool:
    """Whether a step is a function of tensors alone that changes nothing but weights and the optimizers' memory."""
    buffers = module.state_dict().keys() - dict(module.named_parameters()).keys()
    return clip is None and not buffers and all(map(supported, optimizers))


def supported(optimizer: torch.optim.Optimizer) -> bool:
    rule = RULES.get(type(optimizer))
    return rule is not None and all(map(rule.supports, optimizer.param_groups))


def fuse(module: nn.Module, groups: Sequence[Group]) -> Any:
    parameters = {name: p for group in groups for name, p in group.parameters.items()}

    def step_and_update(batch: Batch, step: Tensor, scalars: Scalars) -> Any:
        def loss(values: dict[str, Tensor]) -> tuple[Tensor, Any]:
            return functional_call(module, values, (batch, step))  # type: ignore[no-any-return]

        gradients, (value, info) = grad_and_value(loss, has_aux=True)(parameters)
        with torch.no_grad():
            for row, group in zip(scalars, groups, strict=True):
                group.update(gradients, row)
        return value.detach(), info

    return step_and_update
