"""A run's model as programs: ONNX files, or those of torch.export; and what their inputs and outputs are."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aevb.apps.export.functions import Function, Unfit, functions
from aevb.errors import RunError
from aevb.models.inference import evaluation_mode
from aevb.runs.files import write_json, write_whole
from aevb.runs.store import Run

ABOUT = "about.json"
NEEDS_ONNX = "ONNX files need onnx and onnxscript: pip install 'aevb[export]'"
Write = Callable[[Function, Path], None]


def write_onnx(run: Run, folder: Path) -> dict[str, Any]:
    """encoder.onnx, decoder.onnx and sampler.onnx in a folder, each with a batch of any size, and about.json.

    Returns:
        What is in about.json: inputs and outputs of each file, why a part is left out, what the numbers mean.

    Raises:
        RunError: onnx is not installed, or the run has no weights.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RunError(f"{NEEDS_ONNX} ({error})") from error
    return _write(run, folder, ".onnx", _onnx)


def write_torch(run: Run, folder: Path) -> dict[str, Any]:
    """encoder.pt2, decoder.pt2 and sampler.pt2 in a folder: `torch.export.load(FILE).module()` runs without aevb.

    Returns:
        As `write_onnx`.
    """
    return _write(run, folder, ".pt2", _torch)


def _write(run: Run, folder: Path, suffix: str, write: Write) -> dict[str, Any]:
    model = run.model()
    found, left = functions(model, run.meta["shape"], run.recipe.context().classes)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for function in found:
        path = folder / f"{function.name}{suffix}"
        try:
            with evaluation_mode(model), quiet():
                write_whole(path, lambda beside, f=function: write(f, beside))  # type: ignore[misc]
            files[path.name] = function.about()
        except Unfit as error:
            left[function.name] = str(error)
    about = {"run": run.path.name, "files": files, "left_out": left, **meaning(run)}
    write_json(folder / ABOUT, about)
    return about


def meaning(run: Run) -> dict[str, Any]:
    """What the numbers of the data mean, for JSON: how they become x, and what the classes are called."""
    classes = run.classes()
    return {"values": run.values().to_dict(), **({"classes": classes} if classes else {})}


def _torch(function: Function, path: Path) -> None:
    import torch

    with path.open("wb") as file:
        torch.export.save(function.exported(), file)


def _onnx(function: Function, path: Path) -> None:
    import torch

    program = function.exported()
    try:
        made = torch.onnx.export(
            program, input_names=list(function.inputs), output_names=list(function.outputs), verbose=False
        )
    except Exception as error:  # of many kinds: an operation that ONNX has no word for
        raise Unfit(f"ONNX does not support it: {str(error).strip().partition(chr(10))[0]}") from error
    assert made is not None
    made.save(str(path), external_data=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what PyTorch says of packages that are not needed here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
