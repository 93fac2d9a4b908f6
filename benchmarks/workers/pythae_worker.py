"""pythae's own trainer and its own ``get_nll`` on the paper's network."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn

from benchmarks.workers.data import BATCH, CONV_BATCH, PIXELS, load_images
from benchmarks.workers.networks import LATENT, LEARNING_RATE, seeded_convolutions, seeded_layers
from benchmarks.workers.protocol import Job

PACKAGES = ("pythae", "torch")
ENDLESS = 10_000  # epochs: the trainer runs until the last request
NLL_BATCH = 1000  # samples per pass of get_nll; its default, 100, is slower


class Encoder(BaseEncoder):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_variance = self.layers(x).chunk(2, -1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """Probabilities rather than logits: pythae's "bce" takes nothing else."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=torch.sigmoid(self.layers(z)))


def build(layers: tuple[nn.Module, nn.Module] | None = None) -> VAE:
    encoder, decoder = layers or seeded_layers()
    config = VAEConfig(input_dim=(PIXELS,), latent_dim=LATENT, reconstruction_loss="bce")
    return VAE(config, Encoder(encoder), Decoder(decoder))


class Stopwatch(TrainingCallback):
    """Hold the trainer before each epoch until it is asked for, and time it from there.

    A single call of ``train`` spans all rounds, so that Adam keeps its state. Inside the clock: the loader, the
    steps, the progress bar, and the copy that the trainer keeps of the best model. Outside: its sanity check, its
    log line and the model saved at the end.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.start = 0.0

    def on_epoch_begin(self, training_config: BaseTrainerConfig, **_: Any) -> None:
        if not self.job.wait():
            raise SystemExit
        self.start = time.perf_counter()

    def on_epoch_end(self, training_config: BaseTrainerConfig, **_: Any) -> None:
        self.seconds = time.perf_counter() - self.start

    def on_log(self, training_config: BaseTrainerConfig, logs: dict[str, float], **_: Any) -> None:
        self.job.reply(self.seconds, float(logs["train_epoch_loss"]))


def train(job: Job) -> None:
    _train(job, build(), BATCH)


def convolutions(job: Job) -> None:
    _train(job, build(seeded_convolutions()), CONV_BATCH)


def _train(job: Job, model: VAE, size: int) -> None:
    images = torch.from_numpy(load_images(job, "train"))
    dataset = BaseDataset(images, torch.zeros(len(images)))
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=ENDLESS,
            per_device_train_batch_size=size,
            learning_rate=LEARNING_RATE,
            optimizer_params={"fused": True} if job.variant == "tuned" else None,
            no_cuda=True,
        )
        trainer = BaseTrainer(model, dataset, training_config=config, callbacks=[Stopwatch(job)])
        job.ready(PACKAGES)
        trainer.train()


def importance(job: Job) -> None:
    images = torch.from_numpy(load_images(job, "test"))
    model = build().eval()

    def estimate() -> float:
        """``get_nll`` as it is; the name promises the negative, but it returns the mean of log p(x) itself."""
        return -float(model.get_nll(images, n_samples=job.samples))

    @torch.no_grad()
    def tuned() -> float:
        """Without the gradients that it builds, and with larger batches than its default."""
        return -float(model.get_nll(images, n_samples=job.samples, batch_size=NLL_BATCH))

    if job.variant == "tuned":
        estimate = tuned

    job.serve(estimate, PACKAGES)
