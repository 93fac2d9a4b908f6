"""The state of a `Learner` as named tensors: what a file must hold for training to resume bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aevb.models.inputs import unset
from aevb.training.learner import Learner
from aevb.training.optimizers import remember


def state_tensors(learner: Learner) -> dict[str, Tensor]:
    """Copies of everything that moves: parameters and buffers, the optimizers' memory, the moving average.

    The optimizer's memory of a parameter is named after it: optimizer.model.encoder.net.1.weight.exp_avg.
    """
    return {k: v.detach().clone().contiguous() for k, v in moving_tensors(learner).items()}


def moving_tensors(learner: Learner) -> dict[str, Tensor]:
    """The tensors themselves."""
    tensors = {f"{part}.{k}": v for part, module in _modules(learner).items() for k, v in module.state_dict().items()}
    for part, optimizer in _optimizers(learner).items():
        for name, p in _names(learner, optimizer).items():
            memory = optimizer.state.get(p, {})
            tensors |= {f"{part}.{name}.{k}": v for k, v in memory.items() if isinstance(v, Tensor)}
    return tensors


def restore(learner: Learner, tensors: dict[str, Tensor], number: int) -> None:
    """Put a learner back to where `state_tensors` found it, `number` steps into its training."""
    for part, module in _modules(learner).items():
        module.load_state_dict({**unset(module), **_part(tensors, part)})
    for part, optimizer in _optimizers(learner).items():
        memory = _by_name(_part(tensors, part), _names_of_0_1(learner, optimizer, part))
        index = {name: i for i, name in enumerate(_names(learner, optimizer))}
        state = {index[name]: entries for name, entries in memory.items()}
        remember(optimizer, {"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    learner.number, learner.step = number, None  # a compiled step holds the memory that was replaced


def _modules(learner: Learner) -> dict[str, nn.Module]:
    parts = {"model": learner.model, "objective": learner.objective, "average": learner.average}
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def _optimizers(learner: Learner) -> dict[str, torch.optim.Optimizer]:
    """The model's optimizer, then those of adversaries."""
    return {f"adversary{i}" if i else "optimizer": optimizer for i, optimizer in enumerate(learner.optimizers)}


def _names(learner: Learner, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """The parameters of an optimizer by name, in its own order."""
    names = {p: name for name, p in learner.named_parameters()}
    return {names[p]: p for group in optimizer.param_groups for p in group["params"]}


def _names_of_0_1(learner: Learner, optimizer: torch.optim.Optimizer, part: str) -> list[str]:
    """The names in the order of version 0.1, which numbered them: of the model's optimizer weights came before
    vectors."""
    own = _names(learner, optimizer)
    listed = [name for name, _ in learner.named_parameters() if name in own]
    return sorted(listed, key=lambda name: own[name].ndim < 2) if part == "optimizer" else listed


def _by_name(entries: dict[str, Tensor], numbered: list[str]) -> dict[str, dict[str, Tensor]]:
    """«NAME.ENTRY» → {name: {entry: tensor}}; a name may be a number of version 0.1."""
    memory: dict[str, dict[str, Tensor]] = {}
    for key, value in entries.items():
        name, _, entry = key.rpartition(".")
        memory.setdefault(numbered[int(name)] if name.isdigit() else name, {})[entry] = value
    return memory


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
