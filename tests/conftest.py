"""Tests run in one process per processor core, each with one thread: their tensors are small."""

import os
import signal

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# A background job of a shell ignores Ctrl-C, and one of `nohup` a hang-up; the tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
