"""Tests run in one process per processor core, each with one thread: their tensors are small."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
