"""Checks of data against a model, over all rows: what one block of rows shows is not said of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from aevb.data.batch import Batch, Indexable, Read, batches, looked_at, name_rows
from aevb.data.dataset import Split, Streamed
from aevb.data.labels import Pairs
from aevb.data.randomness import seeded
from aevb.errors import DataError
from aevb.models.compat import check_model, check_support, likelihood_name
from aevb.models.inference import Model, inference, with_holes
from aevb.models.trace import LatentModel
from aevb.parts import CONTEXT, Member, Offers

BLOCK = 2**19  # numbers looked at in one go: few enough for the processor's cache


def check_data(model: nn.Module, data: Indexable, others: Sequence[Member] | None = None) -> None:
    """Check all data against the model: type, NaN and infinity, the likelihood's support; and the parts of the model.

    It draws nothing that the caller sees, and the model learns nothing. One pass over the data, in blocks.

    Args:
        others: parts beside those of the model, such as the objective, of a training: one of them must learn without
            labels where y is a one-hot label in some rows and zeros, an unknown one, in others. None: there is no
            training.

    Raises:
        DataError: a row does not fit, which the message names, or there are no rows.
        ShapeError: the likelihood is over another shape than the data.
        RecipeError: KL(q(z|x) ‖ p(z)) is infinite, or the supports of q and p differ.
    """
    labels = HiddenLabels()
    with inference(cast(Model, model), 0) as device:
        dtype = next(model.parameters()).dtype
        read, item = looked_at(data, device, dtype)
        walk = batches(with_holes(model, read), max(1, BLOCK // max(1, item.x[0].numel())), device, dtype)
        if isinstance(model, LatentModel):
            walk = within_support(model, walk, others or (), split_of(data), others is not None)
        for batch in walk:
            labels.add(batch)
    if others is not None and not any(member.offers.unlabelled for member in others):
        labels.refuse()


def likelihood_batches(model: Model, data: Indexable, size: int | None = None) -> Iterator[Batch]:
    """The data in order, on the model's device, each batch checked against the likelihood's support; in `inference`."""
    weights = next(model.parameters())
    walk = batches(with_holes(model, data), size, weights.device, weights.dtype)
    return within_support(model, walk, source=split_of(data))


def split_of(data: Any) -> Split | None:
    """The split that data read their rows from, in its order; None if there is none."""
    while data is not None and not isinstance(data, Split):
        parts = (getattr(data, name, None) for name in ("split", "x", "rows"))
        data = next((part for part in parts if isinstance(part, Split | Streamed | Pairs | Read)), None)
    return data


def within_support(
    model: LatentModel,
    walk: Iterator[Batch],
    others: Sequence[Member] | None = None,
    source: Split | None = None,
    training: bool = False,
) -> Iterator[Batch]:
    """The same batches, each checked against the support of p(x|z) at the first one's z; with `others` the parts
    too. `source` and `training` are of `check_support`."""
    px: Distribution | None = None
    start, refuse = 0, partial(check_support, source=source, training=training)
    for batch in walk:
        if px is None:
            px = _likelihood(model, batch, others, refuse)
        refuse(px, batch.x, start, likelihood_name(model, px))
        start += len(batch)
        yield batch


def _likelihood(
    model: LatentModel, batch: Batch, others: Sequence[Member] | None, refuse: Callable[..., None]
) -> Distribution:
    """p(x|z) at the code of the first row; with `others`, the parts of the model are checked by what they do there."""
    one = Batch(batch.x[:1], None if batch.y is None else batch.y[:1])
    with seeded(0, batch.x.device):  # whatever this look draws
        px = model.decode(model.encode(one), one.y)
        if others is not None:
            refuse(px, one.x, name=likelihood_name(model, px))  # the shape first: a trace of another one says less
            labels = Member(CONTEXT, "", Offers(labels=one.y is not None))
            check_model(cast(nn.Module, model), labels, *others, seen=model.trace(one))
    return px


class HiddenLabels:
    """Whether conditions y are one-hot labels of which some are hidden, all zeros, as `hide_labels` leaves them."""

    def __init__(self) -> None:
        self.one_hot, self.some = True, False
        self.zero: list[Tensor] = []

    def add(self, batch: Batch) -> None:
        if batch.y is None or not self.one_hot:
            return
        y = batch.y.flatten(1)
        ones = y.sum(1)
        self.one_hot = y.shape[1] > 1 and bool((((y == 0) | (y == 1)).all(1) & (ones <= 1)).all())
        self.some = self.some or bool((ones == 1).any())
        rows = cast(Tensor, batch.rows)
        self.zero.append(rows[ones == 0])

    def refuse(self) -> None:
        """Raise a `DataError` where some labels are hidden."""
        hidden = torch.cat(self.zero) if self.zero else torch.zeros(0)
        if self.one_hot and self.some and len(hidden):
            raise DataError(
                f"The label of {name_rows(hidden)} is hidden: y is one-hot elsewhere and all "
                f"zeros there. Only M2 learns "
                "from rows without a label. Train on the labelled rows; or, if the zeros mean "
                "'none of these', give that a "
                "column of its own."
            )
