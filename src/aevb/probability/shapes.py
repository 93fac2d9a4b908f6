"""Shapes of tensors that are read side by side, and whether their numbers may be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def readable(x: Tensor) -> bool:
    """Whether what is computed next may depend on the numbers of x.

    Not in a program that is traced, not for several models at once (`torch.vmap`), and not on a GPU, which would be
    waited for.
    """
    return not (x.is_cuda or torch.compiler.is_compiling() or torch._C._functorch.is_batchedtensor(x))


def side_by_side(*shapes: Sequence[int]) -> torch.Size:
    """The shape that tensors of these shapes broadcast to.

    As `torch.broadcast_shapes`, which imports SymPy at its first call: half a second. Where a program is traced, whose
    sizes may be symbols, it is that.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    if torch.compiler.is_compiling():
        found: torch.Size = torch.broadcast_shapes(*shapes)
        return found
    try:
        return torch.Size(np.broadcast_shapes(*map(tuple, shapes)))
    except ValueError as error:
        raise RuntimeError(f"Shapes {', '.join(map(str, map(tuple, shapes)))} do not broadcast.") from error
