"""The state of a `Learner` as named tensors: what a file must hold for training to go on bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.training.train import Learner


def state_tensors(learner: Learner) -> dict[str, Tensor]:
    """Everything that moves: parameters and buffers, the optimiser's memory, the moving average."""
    tensors = {f"model.{k}": v for k, v in learner.model.state_dict().items()}
    if isinstance(learner.objective, torch.nn.Module):
        tensors |= {f"objective.{k}": v for k, v in learner.objective.state_dict().items()}
    if learner.average is not None:
        tensors |= {f"average.{k}": v for k, v in learner.average.state_dict().items()}
    for name, optimizer in _named(learner):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
    return {k: v.detach().clone().contiguous() for k, v in tensors.items()}


def restore(learner: Learner, tensors: dict[str, Tensor], number: int) -> None:
    """Put a learner back to where `state_tensors` found it, `number` steps into its training."""
    learner.model.load_state_dict(_part(tensors, "model"))
    if isinstance(learner.objective, torch.nn.Module):
        learner.objective.load_state_dict(_part(tensors, "objective"))
    if learner.average is not None:
        learner.average.load_state_dict(_part(tensors, "average"))
    for name, optimizer in _named(learner):
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in _part(tensors, name).items():
            index, entry = key.split(".", 1)
            states.setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    learner.number = number


def _named(learner: Learner) -> list[tuple[str, torch.optim.Optimizer]]:
    """The model's optimiser, then those of adversaries."""
    return [("optimizer" if i == 0 else f"adversary{i}", optimizer) for i, optimizer in enumerate(learner.optimizers)]


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
