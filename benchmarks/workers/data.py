"""MNIST as arrays, or noise of the same size where the files are absent."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from benchmarks.workers.protocol import Job

PIXELS = 784
BATCH = 100
CONV_BATCH = 128
FILES = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}
HEADER = 16  # bytes before the first pixel of an idx3 file


def read_idx(path: Path) -> np.ndarray:
    """The images of an idx3 file, uint8 of shape (N, 784)."""
    with gzip.open(path) as file:
        content = file.read()
    return np.frombuffer(content, np.uint8, offset=HEADER).reshape(-1, PIXELS)


def load_bytes(job: Job, split: str) -> np.ndarray:
    """The first ``job.images`` images of a split, uint8 of shape (N, 784)."""
    path = job.data_dir / "mnist" / FILES[split] if job.data_dir else None
    if path is not None and path.is_file():
        return read_idx(path)[: job.images]
    job.notes.append(f"NOT MNIST: {FILES[split]} was not found, so the images are uniform noise of the same size")
    return np.random.default_rng(0).integers(0, 256, (job.images, PIXELS), dtype=np.uint8)


def load_images(job: Job, split: str) -> np.ndarray:
    """The same images as grey levels in [0, 1], float32."""
    return load_bytes(job, split).astype(np.float32) / 255
