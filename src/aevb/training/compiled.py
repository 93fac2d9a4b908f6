"""One step of Algorithm 1 as a single compiled function: bound, gradient and update, with no Python in between.

PyTorch's fused optimizers are opaque to the compiler, and its others compute powers element by element. So the update
rules are written here as their papers' equations. They change the memory of the PyTorch optimizer itself, which keeps
the state and writes the checkpoints. A test compares each rule with PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from aevb.data.batch import Batch
from aevb.training.optimizers import LightAdagrad, LightAdam

Memory = dict[str, Tensor]
Number = float | Tensor
Update = Callable[[Batch, int], Any]


class _Adam:
    """m ← m + (1 - β₁)(g - m);  v ← β₂ v + (1 - β₂) g²;  θ ← θ - α_t m / (√v c_t + ε)   (arXiv 1412.6980)."""

    memory = ("exp_avg", "exp_avg_sq")

    @staticmethod
    def supports(group: dict[str, Any]) -> bool:
        return not (group["amsgrad"] or group["maximize"])

    @staticmethod
    def numbers(group: dict[str, Any], rate: Number, t: Number) -> list[Number]:
        """The step size α_t = α / (1 - β₁ᵗ), and c_t = 1 / √(1 - β₂ᵗ), of step t = 1, 2, ..."""
        b1, b2 = group["betas"]
        return [rate / (1 - b1**t), (1 - b2**t) ** -0.5]

    @staticmethod
    def update(p: Tensor, g: Tensor, memory: Memory, group: dict[str, Any], numbers: Sequence[Number]) -> None:
        (b1, b2), eps, (rate, correction) = group["betas"], group["eps"], numbers
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
    def numbers(group: dict[str, Any], rate: Number, t: Number) -> list[Number]:
        return [rate]

    @staticmethod
    def update(p: Tensor, g: Tensor, memory: Memory, group: dict[str, Any], numbers: Sequence[Number]) -> None:
        (rate,), eps = numbers, group["eps"]
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

    def numbers(self, rate: Number, t: Number) -> list[Number]:
        """What depends on α and on the step t = 1, 2, ...; as tensors these are float64, which powers of β need."""
        return self.rule.numbers(self.settings, rate, t)

    def update(self, gradients: Memory, numbers: Sequence[Number]) -> None:
        """A step of all parameters."""
        decay = self.settings["weight_decay"]
        for name, p in self.parameters.items():
            gradient = gradients[name] + decay * p if decay else gradients[name]
            self.rule.update(p, gradient, self.memory[name], self.settings, numbers)


@dataclass(frozen=True)
class Fused:
    """A step as a function of tensors: (batch, step, numbers of the groups) → (loss, info), with an update of weights.

    The numbers change from step to step and come from outside: a compiler would raise β to the power t for each weight.
    """

    step: Callable[[Batch, Tensor, Tensor], Any]
    groups: Sequence[Group]

    def compiled(self) -> Fused:
        return replace(self, step=torch.compile(self.step))

    def of_rates(self, batch: Batch, step: Tensor, rates: Tensor) -> Any:
        """The step by the α of each group, (G,), float64: its numbers are computed on the device."""
        numbers = torch.stack(self.numbers(rates, (step + 1).double()))  # type: ignore[arg-type]
        return self.step(batch, step, numbers.to(self.dtype))

    @property
    def counts(self) -> list[Tensor]:
        """PyTorch's own counts of steps, which rise by one."""
        return [count for group in self.groups for count in group.counts]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(p.dtype for group in self.groups for p in group.parameters.values())

    def numbers(self, rates: Iterable[Number], t: Number) -> list[Number]:
        """Those of all groups at their α, for step t = 1, 2, ..."""
        return [n for group, rate in zip(self.groups, rates, strict=True) for n in group.numbers(rate, t)]


def begin(optimizer: torch.optim.Optimizer, rule: Any, p: Tensor) -> Memory:
    """Give the optimizer its memory of p before the first step, as PyTorch would at that step."""
    state: Memory = optimizer.state[p]
    state["step"] = state.get("step", torch.zeros(())).to(p.device)  # Adagrad's is made on the CPU
    return {name: state.setdefault(name, torch.zeros_like(p)) for name in rule.memory}


def compiled_update(
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    clip: float | None,
    wrap: Callable[[Fused], Callable[..., Any]] | None = None,
    traced: bool = True,
) -> Update | None:
    """(batch, number) → (loss, info) of `module(batch, number)`, with step `number` of all `optimizers`, from zero on.

    `wrap` is what becomes of the step, a function of tensors. By default it is compiled. `traced`: whether a compiler
    reads it, which knows gradients of functions; else autograd takes them.

    None where this is not supported: another optimizer, clipping, or buffers, such as those of batch normalisation.
    """
    if not fusible(module, optimizers, clip):
        return None
    names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
    groups = [Group(optimizer, settings, names) for optimizer in optimizers for settings in optimizer.param_groups]
    fused = fuse(module, groups, traced=traced)
    taken = wrap(fused) if wrap else Called(fused.compiled())

    def update(batch: Batch, number: int) -> Any:
        return taken(batch, number, [group.rate for group in groups])

    return update


class Called:
    """A step as a function of a minibatch and Python's numbers: the number of the step, and α of each group."""

    def __init__(self, fused: Fused) -> None:
        self.fused, self.counts, self.dtype = fused, fused.counts, fused.dtype

    def __call__(self, batch: Batch, number: int, rates: list[float]) -> Any:
        device = batch.x.device
        numbers = numbers_on(self.fused.numbers(rates, number + 1), self.dtype, device)
        found = self.fused.step(batch, step_on(number, device), numbers)
        torch._foreach_add_(self.counts, 1)
        return found


def step_on(number: int, device: torch.device) -> Tensor:
    """The number of a step on a device, which is filled in there: a copy of it would wait for a GPU."""
    return torch.full((), number, dtype=torch.int64, device=device)


def numbers_on(numbers: Sequence[Number], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Python's numbers as a tensor on a device; a GPU copies them while Python goes on."""
    on_gpu = device.type == "cuda"
    return torch.tensor(numbers, dtype=dtype, pin_memory=on_gpu).to(device, non_blocking=on_gpu)


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
    lengths = [len(group.numbers(1.0, 1.0)) for group in groups]

    def step_and_update(batch: Batch, step: Tensor, numbers: Tensor) -> Any:
        gradients, (value, info) = gradient(batch, step)
        with torch.no_grad():
            for own, group in zip(numbers.split(lengths), groups, strict=True):
                group.update(gradients, own.unbind())
        return value.detach(), info

    return Fused(step_and_update, groups)
