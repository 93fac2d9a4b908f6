"""Lightning's ``Trainer`` with a ``DataLoader``, its progress bar, log and checkpoints turned off."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.workers.data import BATCH, CONV_BATCH, load_images
from benchmarks.workers.networks import LEARNING_RATE, NegativeElbo, seeded_convolutions
from benchmarks.workers.protocol import Job

PACKAGES = ("lightning", "torch")


class Module(LightningModule):
    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective
        self.total = torch.zeros(())

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        loss: Tensor = self.objective(batch[0])
        self.total += loss.detach()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE, fused=True)


class Stopwatch(Callback):
    """Hold the trainer before each epoch until it is asked for, and time it from there."""

    def __init__(self, job: Job, batches: int) -> None:
        self.job, self.batches, self.start = job, batches, 0.0

    def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
        if not self.job.wait():
            raise SystemExit
        module.total.zero_()
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        self.job.reply(time.perf_counter() - self.start, module.total.item() / self.batches)


def train(job: Job) -> None:
    _train(job, NegativeElbo(), BATCH)


def convolutions(job: Job) -> None:
    _train(job, NegativeElbo(seeded_convolutions()), CONV_BATCH)


def _train(job: Job, objective: nn.Module, size: int) -> None:
    images = torch.from_numpy(load_images(job, "train"))
    loader = DataLoader(TensorDataset(images), batch_size=size, shuffle=True)
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=-1, callbacks=[Stopwatch(job, len(loader))], **off)
    job.ready(PACKAGES)
    trainer.fit(Module(torch.compile(objective) if job.variant == "compiled" else objective), loader)
