"""Numbers in a page: base64 of float16, of int8 with a scale for each row, or of float32 where there are few."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FEW = 1024  # numbers up to which a tensor stays in float32: biases, norms, scales
LARGEST = 60_000.0  # that float16 is trusted with


def packed(tensors: Mapping[int, Tensor], small: bool = False) -> list[dict[str, Any]]:
    """Tensors for JSON: number, shape, type and base64.

    Args:
        small: int8 in the place of float16.
    """
    return [{"v": number, **_one(x, small)} for number, x in tensors.items()]


def rounded(x: Tensor, small: bool = False) -> Tensor:
    """A tensor as a page sees it, float32."""
    x = x.detach().cpu().float()
    if _kept(x):
        return x
    if not small:
        return x.half().float()
    scale = _scale(x)
    return (x.reshape(len(scale), -1) / scale).round().mul(scale).reshape(x.shape)


def _kept(x: Tensor) -> bool:
    return x.numel() <= FEW or not bool((x.abs() < LARGEST).all())


def _one(x: Tensor, small: bool) -> dict[str, Any]:
    x = x.detach().cpu().float().contiguous()
    shape = list(x.shape)
    if _kept(x):
        return {"shape": shape, "type": "f32", "data": _base64(x)}
    if not small:
        return {"shape": shape, "type": "f16", "data": _base64(x.half())}
    scale = _scale(x)
    levels = (x.reshape(len(scale), -1) / scale).round().to(torch.int8)
    return {"shape": shape, "type": "i8", "data": _base64(levels), "scale": _base64(scale.flatten())}


def _scale(x: Tensor) -> Tensor:
    """What one step of int8 is, for each row (R, 1) along the first axis."""
    largest = x.reshape(len(x), -1).abs().amax(1, keepdim=True)
    return torch.where(largest > 0, largest / 127, 1.0)


def _base64(x: Tensor) -> str:
    return b64encode(x.contiguous().numpy().tobytes()).decode("ascii")
