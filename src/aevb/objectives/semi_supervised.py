"""Learning with few labels: the bound where the label is known, and the exact sum over it where it is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from aevb.data.batch import Batch, Data, as_batch
from aevb.errors import DataError
from aevb.models.conditional import Conditional
from aevb.models.networks import MLP
from aevb.models.trace import LatentModel
from aevb.models.vae import VAE
from aevb.notation import Shown, bound_to, count, plain
from aevb.objectives.bounds import Info
from aevb.objectives.schedules import Step
from aevb.parts import OBJECTIVE, Needs, Offers, Part, Values


class Labelled(NamedTuple):
    """The labels of training rows: C, how many classes there are, and the share of the rows whose label is known."""

    classes: int
    share: float


class M2(Shown, nn.Module):
    """Semi-supervised learning with p(x, y, z) = p(y) p(z) p(x|z, y) (Kingma et al. 2014, arXiv 1406.5298, model M2).

        L(x, y) = E_q(z|x,y)[log p(x|z, y)] - KL(q(z|x, y) ‖ p(z)) + log p(y)  ≤ log p(x, y)       (eq. 6)
        U(x) = Σ_y q(y|x) (L(x, y) - log q(y|x))                               ≤ log p(x)          (eq. 7)
        loss = -mean_B [L(x, y) where y is known, else U(x)] - α mean_labelled log q(y|x)          (eq. 9)

    per data point, in nats, with p(y) = 1/C. The sum over y is exact. Both bounds are one, Σ_y w(y) (L(x, y) - log
    w(y)), with w the classifier's q(y|x), or a delta at the known label; L is estimator B (eq. 7 of arXiv 1312.6114),
    and each data point is encoded and decoded under every label, C times the cost of an ELBO. The last term is
    estimated without bias even where a minibatch holds no label, by the sum over its labelled points over B ·
    labeled_fraction.

    It trains on pairs whose y is one-hot, or zeros where the label is unknown, as `Pairs(x, one_hot(labels, C))` are
    with labels of `hide_labels`. Logged are `elbo`, the mean of L and U, and `cross_entropy`, the estimated mean of
    -log q(y|x) over labelled points.

    Args:
        classifier: x (B, *X) → logits (B, C) of q(y|x); trained with the model, and what predicts labels afterwards.
        labeled_fraction: N_labelled / N of the training set.
        alpha: α; the paper's 0.1 N, over N.
        samples: K per data point and label.
    """

    word, offers = "m2", Offers(unlabelled=True)
    needs = Needs(
        reparameterized=True,
        kl=True,
        separate=True,
        labels=True,
        conditions=True,
        otherwise={"labels": "context.classes, and context.labels of each class"},
    )

    @staticmethod
    def equation(v: Values) -> str:
        classifier, draws = plain(v["hidden"]), count(v["samples"], "draw")
        return (
            "ℒ(x, y) = E_q[log p(x|z, y)] - KL(q(z|x, y) ‖ p(z)) + log p(y) where the label y is known, p(y) = 1/C\n"
            f"ℒ(x) = Σ_y q(y|x) (ℒ(x, y) - log q(y|x)) where it is not,  q(y|x) an mlp, {classifier} wide\n"
            f"+ α log q(y|x), on average over the labelled x,  {bound_to('α', v['alpha'])}; E_q by "
            f"{draws} z ~ q(z|x, y)"
        )

    def __init__(self, classifier: nn.Module, labeled_fraction: float, alpha: float = 0.1, samples: int = 1) -> None:
        super().__init__()
        if not 0 < labeled_fraction <= 1 or not alpha >= 0 or samples < 1:
            raise ValueError(
                "M2: 0 < labeled_fraction ≤ 1, alpha ≥ 0 and samples ≥ 1; "
                f"got {labeled_fraction}, {alpha} and {samples}."
            )
        self.classifier, self.labeled_fraction, self.alpha, self.samples = classifier, labeled_fraction, alpha, samples

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks that a prior on weights covers, as of a model."""
        return (self.classifier,)

    @classmethod
    def of(
        cls,
        model: VAE,
        labelled: Labelled,
        alpha: float = 0.1,
        samples: int = 1,
        hidden: Sequence[int] = (500,),
        activation: type[nn.Module] = nn.Softplus,
    ) -> M2:
        """With an `MLP` as classifier of the data of a model whose decoder is a `Conditional`."""
        family = cast(Conditional, model.decoder).family
        return cls(MLP(family.shape, labelled.classes, hidden, activation), labelled.share, alpha, samples)

    def forward(self, model: LatentModel, data: Data, step: Step) -> tuple[Tensor, Info]:
        batch = as_batch(data)
        if batch.y is None:
            raise DataError("M2 trains on pairs of data and one-hot labels, zeros where unknown: see aevb.Pairs.")
        log_q = self.classifier(batch.x).log_softmax(-1)
        bound = self.bound(model, batch.x, batch.y, log_q).mean()
        cross_entropy = -(batch.y * log_q).sum(-1).mean() / self.labeled_fraction
        info = {"elbo": bound.detach(), "cross_entropy": cross_entropy.detach()}
        return self.alpha * cross_entropy - bound, info

    def bound(self, model: LatentModel, x: Tensor, y: Tensor, log_q: Tensor | None = None) -> Tensor:
        """L(x, y), or U(x) where y (B, C) is all zeros, (B,), in nats; log q(y|x) (B, C), if it is known already."""
        log_q = self.classifier(x).log_softmax(-1) if log_q is None else log_q
        q = (1 - y.sum(-1, keepdim=True)) * log_q.exp()  # zeros where the label is known
        weighted: Tensor = (y + q) * self.labelled(model, x, y.shape[1]) - q * log_q
        return weighted.sum(-1)

    def labelled(self, model: LatentModel, x: Tensor, classes: int) -> Tensor:
        """L(x, y) of every label y, (B, C)."""
        repeated = x.repeat_interleave(classes, 0)  # each x under all labels in a row
        y = torch.eye(classes, dtype=x.dtype, device=x.device).repeat(len(x), 1)
        t = model.trace(Batch(repeated, y), self.samples)
        bound: Tensor = t.log_px.mean(0) - t.kl.sum(-1) - math.log(classes)
        return bound.view(len(x), classes)


PARTS = (Part("m2", (OBJECTIVE,), M2.of, M2.equation, M2.offers, M2.needs),)
