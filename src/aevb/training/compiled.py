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
}


def compiled_update(
    module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], clip: float | None
) -> Update | None:
    """(batch, number) → (loss, info) of `module(batch, number)`, with step `number` of all `optimizers`, from zero on.

    None where this is not supported: another optimizer, clipping, or buffers, such as those of batch normalisation.
    """
    changing = module.state_dict().keys() - dict(module.named_parameters()).keys()
    known = [(o, RULES[type(o)]) for o in optimizers if type(o) in RULES]
    groups = [(rule, group) for o, rule in known for group in o.param_groups]
    supported = len(known) == len(optimizers) and all(rule.supports(group) for rule, group in groups)
    if clip is not None or changing or not supported:
        return None
    fused: Callable[..., Any] = torch.compile(_fuse(module, known))
    counts = [o.state[p]["step"] for o in optimizers for group in o.param_groups for p in group["params"]]

    def update(batch: Batch, number: int) -> Any:
        scalars = [[*rule.scalars(group, number + 1), group["weight_decay"]] for rule, group in groups]
        torch._foreach_add_(counts, 1)
        flat = torch.tensor([s for row in scalars for s in row], dtype=batch.x.dtype, device=batch.x.device)
        return fused(batch, torch.tensor(number, device=batch.x.device), flat.split([len(row) for row in scalars]))

    return update


def _fuse(module: nn.Module, known: Sequence[tuple[torch.optim.Optimizer, Any]]) -> Any:
    for optimizer, rule in known:
        begin(optimizer, rule)
    names = {p: name for name, p in module.named_parameters()}
    groups = [
        (rule, o.state, [(names[p], p) for p in group["params"]]) for o, rule in known for group in o.param_groups
    ]
    parameters: dict[str, Tensor] = {name: p for _, _, group in groups for name, p in group}
    memory = {name: {k: state[p][k] for k in rule.memory} for rule, state, group in groups for name, p in group}
    updates = [(rule, group) for rule, _, group in groups]

    def step_and_update(batch: Batch, step: Tensor, scalars: Scalars) -> Any:
        def loss(values: dict[str, Tensor]) -> tuple[Tensor, Any]:
            return functional_call(module, values, (batch, step))  # type: ignore[no-any-return]

        gradients, (value, info) = grad_and_value(loss, has_aux=True)(parameters)
        with torch.no_grad():
            for row, (rule, group) in zip(scalars, updates, strict=True):
                *settings, decay = row.unbind()
                for name, p in group:
                    rule.update(p, gradients[name] + decay * p, memory[name], tuple(settings))
        return value.detach(), info

    return step_and_update


def begin(optimizer: torch.optim.Optimizer, rule: Any) -> None:
    """Give the optimizer its memory before the first step, as PyTorch would at that step."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            state = optimizer.state[p]
            state.setdefault("step", torch.zeros((), device=p.device))
            for name in rule.memory:
                state.setdefault(name, torch.zeros_like(p))
