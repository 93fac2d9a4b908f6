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
Number = float | Tensor
Scalars = Sequence[Number]
Fused = Callable[[Batch, Tensor, Tensor], Any]  # (batch, step, rates) → (loss, info), with an update of the weights
Update = Callable[[Batch, int], Any]


class _Adam:
    """m ← m + (1 - β₁)(g - m);  v ← β₂ v + (1 - β₂) g²;  θ ← θ - α_t m / (√v c_t + ε)   (arXiv 1412.6980)."""

    memory = ("exp_avg", "exp_avg_sq")

    @staticmethod
    def supports(group: dict[str, Any]) -> bool:
        return not (group["amsgrad"] or group["maximize"])

    @staticmethod
    def scalars(group: dict[str, Any], rate: Number, t: Number) -> Scalars:
        """β₁, β₂ and ε, the step size α_t = α / (1 - β₁ᵗ), and c_t = 1 / √(1 - β₂ᵗ), at step t = 1, 2, ..."""
        b1, b2 = group["betas"]
        return [b1, b2, group["eps"], rate / (1 - b1**t), (1 - b2**t) ** -0.5]

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
    def scalars(group: dict[str, Any], rate: Number, t: Number) -> Scalars:
        return [rate, group["eps"]]

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

    @property
    def rate(self) -> float:
        """The step size α of the step in hand."""
        return float(self.settings["lr"])

    def update(self, gradients: Memory, rate: Tensor, t: Tensor) -> None:
        """Step t = 1, 2, ... of all parameters; α and t are float64, as powers of β need it."""
        decay = self.settings["weight_decay"]
        for name, p in self.parameters.items():
            numbers = self.rule.scalars(self.settings, rate, t)
            scalars = [n.to(p.dtype) if isinstance(n, Tensor) else n for n in numbers]
            gradient = gradients[name] + decay * p if decay else gradients[name]
            self.rule.update(p, gradient, self.memory[name], scalars)


def begin(optimizer: torch.optim.Optimizer, rule: Any, p: Tensor) -> Memory:
    """Give the optimizer its memory of p before the first step, as PyTorch would at that step."""
    state: Memory = optimizer.state[p]
    state.setdefault("step", torch.zeros((), device=p.device))
    return {name: state.setdefault(name, torch.zeros_like(p)) for name in rule.memory}


def compiled_update(
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    clip: float | None,
    wrap: Callable[[Fused, list[Tensor]], Callable[..., Any]] | None = None,
    traced: bool = True,
) -> Update | None:
    """(batch, number) → (loss, info) of `module(batch, number)`, with step `number` of all `optimizers`, from zero on.

    `wrap` is what becomes of the step, a function of tensors, and of PyTorch's own counts of steps. By default the step
    is compiled. `traced`: whether a compiler reads it, which knows gradients of functions; else autograd takes them.

    None where this is not supported: another optimizer, clipping, or buffers, such as those of batch normalisation.
    """
    if not fusible(module, optimizers, clip):
        return None
    names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
    groups = [Group(optimizer, settings, names) for optimizer in optimizers for settings in optimizer.param_groups]
    counts = [count for group in groups for count in group.counts]
    taken = (wrap or Called.compiled)(fuse(module, groups, traced=traced), counts)

    def update(batch: Batch, number: int) -> Any:
        return taken(batch, number, [group.rate for group in groups])

    return update


class Called:
    """A step as a function of a minibatch and Python's numbers: the number of the step, and α of each group."""

    def __init__(self, step: Fused, counts: list[Tensor]) -> None:
        self.step, self.counts = step, counts
        self.rates: tuple[list[float], Tensor] | None = None

    @classmethod
    def compiled(cls, step: Fused, counts: list[Tensor]) -> Called:
        return cls(torch.compile(step), counts)

    def __call__(self, batch: Batch, number: int, rates: list[float]) -> Any:
        device = batch.x.device
        if self.rates is None or self.rates[0] != rates:
            self.rates = rates, rates_on(rates, device)
        torch._foreach_add_(self.counts, 1)
        return self.step(batch, step_on(number, device), self.rates[1])


def step_on(number: int, device: torch.device) -> Tensor:
    """The number of a step on a device, which is filled in there: a copy of it would wait for a GPU."""
    return torch.full((), number, dtype=torch.int64, device=device)


def rates_on(rates: list[float], device: torch.device) -> Tensor:
    """α of each group, (G,), in float64 where the device has it; a GPU copies them while Python goes on."""
    exact, on_gpu = torch.float32 if device.type == "mps" else torch.float64, device.type == "cuda"
    return torch.tensor(rates, dtype=exact, pin_memory=on_gpu).to(device, non_blocking=True)


def fusible(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer], clip: float | None) -> bool:
    """Whether a step is a function of tensors alone that changes nothing but weights and the optimizers' memory."""
    buffers = module.state_dict().keys() - dict(module.named_parameters()).keys()
    return clip is None and not buffers and all(map(supported, optimizers))


def supported(optimizer: torch.optim.Optimizer) -> bool:
    rule = RULES.get(type(optimizer))
    return rule is not None and all(map(rule.supports, optimizer.param_groups))


def fuse(module: nn.Module, groups: Sequence[Group], traced: bool = True) -> Fused:
    """A step as a function of tensors: the bound of a minibatch, its gradient, and the update of all parameters."""
    parameters = {name: p for group in groups for name, p in group.parameters.items()}

    def differentiated(batch: Batch, step: Tensor) -> tuple[Memory, tuple[Tensor, Any]]:
        def loss(values: dict[str, Tensor]) -> tuple[Tensor, Any]:
            return functional_call(module, values, (batch, step))  # type: ignore[no-any-return]

        return grad_and_value(loss, has_aux=True)(parameters)

    def recorded(batch: Batch, step: Tensor) -> tuple[Memory, tuple[Tensor, Any]]:
        value, info = module(batch, step)
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(parameters, gradients, strict=True)), (value, info)

    gradient = differentiated if traced else recorded

    def step_and_update(batch: Batch, step: Tensor, rates: Tensor) -> Any:
        gradients, (value, info) = gradient(batch, step)
        with torch.no_grad():
            for rate, group in zip(rates, groups, strict=True):
                group.update(gradients, rate, (step + 1).to(rate.dtype))
        return value.detach(), info

    return step_and_update
