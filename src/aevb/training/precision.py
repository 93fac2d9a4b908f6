"""The precision of a training's products: float32, or bfloat16 with weights in float32."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from aevb.errors import RecipeError

Precision = Literal["float32", "bf16"]
FULL, BRAIN = "float32", "bf16"


def products(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Inside of the block, products of matrices and convolutions are of this precision.

    In bfloat16 that is `torch.autocast`: factors and products are rounded, the sums in between are in float32. oneDNN's
    own rounding (`torch.set_float32_matmul_precision`) needs AMX, and converts the weights at each product anew.
    """
    return nullcontext() if precision == FULL else torch.autocast(device.type, torch.bfloat16)


def check_precision(precision: str, model: nn.Module) -> None:
    """Refuse a precision that a model, or the processor that it is on, has no use for.

    Raises:
        RecipeError: the weights are no float32, or the processor has no products of bfloat16.
    """
    if precision == FULL:
        return
    weights = next(model.parameters())
    if weights.dtype != torch.float32:
        kind = str(weights.dtype).removeprefix("torch.")
        raise RecipeError(
            f"training.precision = 'bf16' is for weights in float32; these are {kind}. "
            "Leave the precision out, or convert the model: model.float()."
        )
    if not has_brain(weights.device):
        raise RecipeError(
            "training.precision = 'bf16': this processor has no products of bfloat16, so it would be no faster. "
            "Leave the precision out, or set it to float32."
        )


def has_brain(device: torch.device) -> bool:
    """Whether a device multiplies numbers in bfloat16."""
    if device.type == "cpu":
        cpu: Any = torch.cpu
        emulated = platform.machine() in ("x86_64", "AMD64") and not (
            cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
        )
        there = torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        return there and not emulated  # oneDNN emulates it with AVX-512
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
